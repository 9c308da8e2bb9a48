//! Tables in Markdown.

use super::super::results::{Metric, Role, Row, Spread, Table};
use crate::plot::figure;

/// A median, and the lowest and highest of the rounds where there were several.
pub(super) fn told(spread: &Spread) -> String {
    let middle = figure(spread.median);
    if spread.rounds < 2 {
        return middle;
    }
    format!(
        "{middle} ({} to {})",
        figure(spread.low),
        figure(spread.high)
    )
}

pub(super) fn heading(metric: &Metric) -> String {
    if metric.unit.is_empty() {
        metric.name.clone()
    } else {
        format!("{}, {}", metric.name, metric.unit)
    }
}

pub(super) fn line(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<_> = cells.into_iter().collect();
    format!("| {} |\n", cells.join(" | "))
}

pub(super) fn rule(columns: usize) -> String {
    format!("|{}\n", " --- |".repeat(columns))
}

/// Rows as rows.
pub(super) fn natural(table: &Table) -> String {
    let headings = table.metrics.iter().map(heading);
    let mut text = line(std::iter::once(String::new()).chain(headings));
    text += &rule(table.metrics.len() + 1);
    for row in &table.rows {
        let cells = (0..table.metrics.len()).map(|column| cell(table, row, column));
        text += &line(std::iter::once(row.name.clone()).chain(cells));
    }
    text
}

/// Systems as columns, and each table's metrics as rows below its title.
pub(super) fn compared(tables: &[&Table]) -> Option<String> {
    let mut systems: Vec<&str> = Vec::new();
    for row in tables.iter().flat_map(|table| &table.rows) {
        if !systems.contains(&row.name.as_str()) {
            systems.push(&row.name);
        }
    }
    if systems.is_empty() {
        return None;
    }
    let names = systems.iter().map(|name| (*name).to_owned());
    let mut text = line(std::iter::once(String::new()).chain(names));
    text += &rule(systems.len() + 1);
    for table in tables {
        let title = format!("**{}**", table.title);
        let nothing = systems.iter().map(|_| String::new());
        text += &line(std::iter::once(title).chain(nothing));
        for (column, metric) in table.metrics.iter().enumerate() {
            let of = |name: &&str| table.rows.iter().find(|row| row.name == *name);
            let cells: Vec<_> = systems
                .iter()
                .map(|name| of(name).map_or_else(String::new, |row| cell(table, row, column)))
                .collect();
            if cells.iter().any(|cell| !cell.is_empty()) {
                text += &line(std::iter::once(heading(metric)).chain(cells));
            }
        }
    }
    Some(text)
}

/// In bold where it is clearly the best of those that compete.
fn cell(table: &Table, row: &Row, column: usize) -> String {
    let Some(spread) = row.spread(column) else {
        return String::new();
    };
    let better = table.metrics[column].better;
    let others = table
        .rows
        .iter()
        .filter(|other| other.role != Role::Baseline && other.name != row.name)
        .filter_map(|other| other.spread(column));
    let others: Vec<_> = others.collect();
    let wins = row.role != Role::Baseline
        && !others.is_empty()
        && others
            .iter()
            .all(|other| spread.clearly_beats(other, better));
    let told = told(&spread);
    if wins { format!("**{told}**") } else { told }
}
