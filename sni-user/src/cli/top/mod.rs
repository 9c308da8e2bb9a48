//! `snigate top`: what the datapath carries right now, live.
//!
//! `sample` reads the maps, `rates` makes of two samples what happened between them, `screen` draws it, `live` is the terminal.

mod live;
mod rates;
mod sample;
mod screen;

use std::{
    io::IsTerminal as _,
    thread,
    time::{Duration, Instant},
};

use ratatui::{buffer::Buffer, layout::Rect, widgets::Widget as _};

use self::{
    rates::Rates,
    sample::Sample,
    screen::{Screen, View},
};
use super::{CliError, Environment, table::write_json};
use crate::datapath::Maps;

/// What fits every terminal, also over ssh.
const WIDTH: u16 = 80;
const HEIGHT: u16 = 24;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Print one frame and end
    #[arg(long)]
    once: bool,
    /// How long each frame looks at
    #[arg(long, value_name = "TIME", value_parser = interval, default_value = "1s")]
    interval: Duration,
    /// What is listed first
    #[arg(long, value_enum, default_value_t = View::Edges)]
    view: View,
    /// Write one frame as JSON instead of text, with all that there is to list
    #[arg(long)]
    json: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_millis(100) {
        return Err("a tenth of a second is the least".into());
    }
    Ok(interval)
}

pub(super) fn run(
    arguments: &Arguments,
    maps: Maps,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    if !(arguments.once || arguments.json) {
        if !std::io::stdout().is_terminal() {
            return Err(CliError::Usage(
                "`snigate top` draws on a terminal, and this is none: `snigate top --once` prints one frame, `--json` one for programs"
                    .into(),
            ));
        }
        return live::run(arguments, maps);
    }
    let before = Sample::take(&maps, environment.now_ns)?;
    thread::sleep(arguments.interval);
    let rates = Rates::between(&before, &Sample::take(&maps, environment.now_ns)?);
    if arguments.json {
        return write_json(environment, &rates);
    }
    let screen = Screen {
        rates: &rates,
        view: arguments.view,
        first_line: 0,
        keys: "",
    };
    let area = Rect::new(0, 0, environment.width.unwrap_or(WIDTH), HEIGHT);
    write!(environment.out, "{}", text(&screen, area))?;
    Ok(())
}

/// A screen as lines without colours and without blanks at their ends.
fn text(screen: &Screen<'_>, area: Rect) -> String {
    let mut buffer = Buffer::empty(area);
    screen.render(area, &mut buffer);
    let line = |y| -> String {
        let cells: String = (0..area.width)
            .filter_map(|x| buffer.cell((x, y)))
            .map(ratatui::buffer::Cell::symbol)
            .collect();
        cells.trim_end().to_owned() + "\n"
    };
    (0..area.height).map(line).collect()
}

/// When the next frame is due.
fn due(since: Instant, interval: Duration) -> Duration {
    interval.saturating_sub(since.elapsed())
}

#[cfg(test)]
mod tests;
