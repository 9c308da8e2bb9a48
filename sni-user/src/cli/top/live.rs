//! The terminal: frames as they come, and keys.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};

use super::{
    Arguments, Sample, due,
    rates::Rates,
    screen::{Screen, View},
};
use crate::{
    cli::{CliError, environment::monotonic_ns},
    datapath::Maps,
};

const KEYS: &str = "Tab or 1-5 list   arrows, PgUp, PgDn scroll   p pause   q quit";
const PAUSED: &str = "PAUSED: p goes on   Tab or 1-5 list   arrows, PgUp, PgDn scroll   q quit";

/// How long a key may wait.
const KEY: Duration = Duration::from_millis(100);
/// Lines of PgUp and PgDn.
const PAGE: usize = 15;

/// Until somebody quits. The terminal is as it was afterwards, also after a panic.
pub(super) fn run(arguments: &Arguments, maps: Maps) -> Result<(), CliError> {
    let frames = frames(maps, arguments.interval);
    let mut terminal = ratatui::try_init()?;
    let outcome = show(&mut terminal, arguments.view, &frames);
    ratatui::try_restore()?;
    outcome
}

/// Frames of a thread of their own: reading a million flows takes a while, and keys must not wait for it. The thread ends when nobody wants
/// another one.
fn frames(maps: Maps, interval: Duration) -> Receiver<Result<Rates, CliError>> {
    let (send, frames) = sync_channel(1);
    thread::spawn(move || {
        if let Err(error) = sample(&maps, interval, &send) {
            let _ = send.send(Err(error));
        }
    });
    frames
}

fn sample(
    maps: &Maps,
    interval: Duration,
    send: &SyncSender<Result<Rates, CliError>>,
) -> Result<(), CliError> {
    let mut before = Sample::take(maps, monotonic_ns)?;
    loop {
        let began = Instant::now();
        thread::sleep(due(began, interval));
        let now = Sample::take(maps, monotonic_ns)?;
        if send.send(Ok(Rates::between(&before, &now))).is_err() {
            return Ok(());
        }
        before = now;
    }
}

/// What keys have made of it.
struct State {
    view: View,
    first_line: usize,
    paused: bool,
}

fn show(
    terminal: &mut DefaultTerminal,
    view: View,
    frames: &Receiver<Result<Rates, CliError>>,
) -> Result<(), CliError> {
    let mut state = State {
        view,
        first_line: 0,
        paused: false,
    };
    let mut rates = match frames.recv() {
        Ok(first) => first?,
        Err(_) => return Ok(()),
    };
    loop {
        let screen = Screen {
            rates: &rates,
            view: state.view,
            first_line: state.first_line,
            keys: if state.paused { PAUSED } else { KEYS },
        };
        terminal.draw(|frame| frame.render_widget(&screen, frame.area()))?;
        if event::poll(KEY)?
            && let Event::Key(key) = event::read()?
            && state.has_quit(key)
        {
            return Ok(());
        }
        let lines = Screen {
            view: state.view,
            ..screen
        }
        .list(u16::MAX)
        .lines()
        .count();
        // The header does not scroll, and the last line stays.
        state.first_line = state.first_line.min(lines.saturating_sub(2));
        match frames.try_recv() {
            Ok(next) => {
                let next = next?;
                if !state.paused {
                    rates = next;
                }
            }
            Err(_nothing_new) => {}
        }
    }
}

impl State {
    /// Does what a key says; whether that is to end.
    fn has_quit(&mut self, key: KeyEvent) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Tab | KeyCode::Right => self.look_at(self.view.next()),
            KeyCode::BackTab | KeyCode::Left => self.look_at(self.view.previous()),
            KeyCode::Char(digit @ '1'..='5') => {
                self.look_at(View::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Down => self.first_line += 1,
            KeyCode::Up => self.first_line = self.first_line.saturating_sub(1),
            KeyCode::PageDown => self.first_line += PAGE,
            KeyCode::PageUp => self.first_line = self.first_line.saturating_sub(PAGE),
            KeyCode::Home => self.first_line = 0,
            _ => {}
        }
        false
    }

    fn look_at(&mut self, view: View) {
        self.view = view;
        self.first_line = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(state: &mut State, code: KeyCode) -> bool {
        state.has_quit(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn keys_do_what_the_last_line_says() {
        let mut state = State {
            view: View::Edges,
            first_line: 0,
            paused: false,
        };
        press(&mut state, KeyCode::PageDown);
        assert_eq!(state.first_line, PAGE);
        press(&mut state, KeyCode::Up);
        assert_eq!(state.first_line, PAGE - 1);
        press(&mut state, KeyCode::Tab);
        assert_eq!((state.view, state.first_line), (View::Pools, 0));
        press(&mut state, KeyCode::Char('5'));
        assert_eq!(state.view, View::Drops);
        press(&mut state, KeyCode::Right);
        assert_eq!(state.view, View::Edges);
        press(&mut state, KeyCode::BackTab);
        assert_eq!(state.view, View::Drops);
        press(&mut state, KeyCode::Char('p'));
        assert!(state.paused);
        assert!(!press(&mut state, KeyCode::Char('z')));
        assert!(press(&mut state, KeyCode::Char('q')));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(state.has_quit(interrupt));
    }
}
