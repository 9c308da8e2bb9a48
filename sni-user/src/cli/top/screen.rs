//! A frame on the terminal, 80 by 24 or larger.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
    text::Line,
    widgets::{Paragraph, Tabs, Widget},
};

use super::rates::{Rates, bytes, per_second, too_many};
use crate::cli::{table, units};

/// What is listed.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Edges, by rate
    Edges,
    /// Pools, by rate
    Pools,
    /// Server names of the configuration, by rate
    Routes,
    /// Flows, by rate
    Flows,
    /// Drop reasons, by rate
    Drops,
}

impl View {
    pub(super) const ALL: [Self; 5] = [
        Self::Edges,
        Self::Pools,
        Self::Routes,
        Self::Flows,
        Self::Drops,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Edges => "1 Edges",
            Self::Pools => "2 Pools",
            Self::Routes => "3 Routes",
            Self::Flows => "4 Flows",
            Self::Drops => "5 Drops",
        }
    }

    /// The one after it, and after the last the first.
    pub(super) fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// The one before it.
    pub(super) fn previous(self) -> Self {
        Self::ALL[(self as usize + Self::ALL.len() - 1) % Self::ALL.len()]
    }
}

/// What is drawn.
pub(super) struct Screen<'a> {
    pub(super) rates: &'a Rates,
    pub(super) view: View,
    /// Lines of the list that are scrolled past.
    pub(super) first_line: usize,
    /// The last line.
    pub(super) keys: &'a str,
}

impl Screen<'_> {
    /// Lines of the list, its header first.
    pub(super) fn list(&self, width: u16) -> String {
        let rates = self.rates;
        match self.view {
            View::Edges => table::text(&rates.edges, width),
            View::Pools => table::text(&rates.pools, width),
            View::Routes if rates.routes.is_empty() => {
                "no configured name has been asked for".into()
            }
            View::Routes => table::text(&rates.routes, width),
            View::Flows => match &rates.single {
                Some(flows) => table::text(flows, width),
                None => too_many(),
            },
            View::Drops if rates.drops.is_empty() => "nothing has been dropped".into(),
            View::Drops => table::text(&rates.drops, width),
        }
    }

    fn summary(&self) -> [Line<'static>; 2] {
        let rates = self.rates;
        let flows = format!(
            "flows {} of {} ({}), half-open {}; new {}/s",
            units::count(rates.flows as u64),
            units::count(rates.max_flows.into()),
            units::share(rates.flows as u64, rates.max_flows.into()),
            units::count(rates.half_open as u64),
            per_second(rates.connections),
        );
        let packets = format!(
            "forwarded {} packets/s, {}/s; dropped {}/s; generation {}",
            per_second(rates.forwarded_packets),
            bytes(rates.forwarded_bytes),
            per_second(rates.dropped),
            rates.generation,
        );
        [Line::raw(flows), Line::raw(packets)]
    }
}

impl Widget for &Screen<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let [summary, tabs, header, list, keys] = Layout::vertical([
            Constraint::Length(2),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(1),
            Constraint::Length(u16::from(!self.keys.is_empty())),
        ])
        .areas(area);
        Paragraph::new(self.summary().to_vec()).render(summary, buffer);
        Tabs::new(View::ALL.map(View::title))
            .select(self.view as usize)
            .highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .render(tabs, buffer);
        let lines = self.list(area.width);
        let mut lines = lines.lines();
        if let Some(first) = lines.next() {
            let bold = Style::new().add_modifier(Modifier::BOLD);
            Line::styled(first.to_owned(), bold).render(header, buffer);
        }
        let rest: Vec<_> = lines.skip(self.first_line).map(Line::raw).collect();
        Paragraph::new(rest).render(list, buffer);
        Line::raw(self.keys).render(keys, buffer);
    }
}
