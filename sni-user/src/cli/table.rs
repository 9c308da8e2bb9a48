//! Tables for people, and the same rows as JSON for programs.

use std::io;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, presets};
use serde::Serialize;

use super::{CliError, Environment};

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    header: &'static str,
    alignment: CellAlignment,
    wraps: bool,
    /// Columns of higher numbers are left out first where the terminal is narrow; 0 never.
    spare: u8,
}

impl Column {
    /// Text.
    pub(super) const fn left(header: &'static str) -> Self {
        Self {
            header,
            alignment: CellAlignment::Left,
            wraps: false,
            spare: 0,
        }
    }

    /// Numbers.
    pub(super) const fn right(header: &'static str) -> Self {
        Self {
            alignment: CellAlignment::Right,
            ..Self::left(header)
        }
    }

    /// Names and sentences, which may be broken into lines.
    pub(super) const fn wrapping(header: &'static str) -> Self {
        Self {
            wraps: true,
            ..Self::left(header)
        }
    }

    /// May be left out where the terminal is narrow, those of higher rank before others.
    pub(super) const fn spare(self, rank: u8) -> Self {
        Self {
            spare: rank,
            ..self
        }
    }
}

/// What a table has one line of for each of.
pub(super) trait Row: Serialize {
    /// Its columns.
    const COLUMNS: &'static [Column];

    /// Its cells, one a column.
    fn cells(&self) -> Vec<String>;
}

/// Writes rows as a table or as JSON.
pub(super) fn show<R: Row>(
    environment: &mut Environment<'_>,
    json: bool,
    rows: &[R],
) -> Result<(), CliError> {
    if json {
        return write_json(environment, &rows);
    }
    let text = render(
        R::COLUMNS,
        rows.iter().map(Row::cells).collect(),
        environment.width,
    );
    writeln!(environment.out, "{text}")?;
    Ok(())
}

/// Writes a value as indented JSON.
pub(super) fn write_json(
    environment: &mut Environment<'_>,
    value: &impl Serialize,
) -> Result<(), CliError> {
    serde_json::to_writer_pretty(&mut *environment.out, value).map_err(io::Error::from)?;
    writeln!(environment.out)?;
    Ok(())
}

/// Lays a table out in `width` columns.
pub(super) fn render(columns: &[Column], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = lay_out(columns, &rows);
    let Some(width) = width else {
        return table.trim_fmt();
    };
    let mut kept = columns.to_vec();
    let mut rows = rows;
    while least_width(&table, &kept) > width {
        let Some(place) = most_spare(&kept) else {
            break;
        };
        kept.remove(place);
        rows.iter_mut().for_each(|row| drop(row.remove(place)));
        table = lay_out(&kept, &rows);
    }
    for (column, shown) in kept.iter().zip(table.column_iter_mut()) {
        // Broken addresses and numbers are worse than a line too long.
        if !column.wraps {
            shown.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width + GAP);
    let mut text = table.trim_fmt();
    let left_out: Vec<_> = columns
        .iter()
        .filter(|column| kept.iter().all(|kept| kept.header != column.header))
        .map(|column| column.header.to_lowercase())
        .collect();
    if !left_out.is_empty() {
        text += &format!(
            "\n({} left out: widen the terminal, or use --json)",
            left_out.join(", ")
        );
    }
    text
}

const GAP: u16 = 2;
/// The least that a column of names is squeezed to.
const NARROWEST: u16 = 12;

fn lay_out(columns: &[Column], rows: &[Vec<String>]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|column| column.header));
    table.add_rows(rows);
    for (column, shown) in columns.iter().zip(table.column_iter_mut()) {
        shown
            .set_padding((0, GAP))
            .set_cell_alignment(column.alignment);
    }
    table
}

fn least_width(table: &comfy_table::Table, columns: &[Column]) -> u16 {
    let widths = table.column_max_content_widths();
    let total: u16 = columns
        .iter()
        .zip(widths)
        .map(|(column, natural)| {
            GAP + if column.wraps {
                natural.min(NARROWEST)
            } else {
                natural
            }
        })
        .sum();
    total.saturating_sub(GAP)
}

fn most_spare(columns: &[Column]) -> Option<usize> {
    (0..columns.len())
        .filter(|place| columns[*place].spare > 0)
        .max_by_key(|place| columns[*place].spare)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::left("CLIENT"),
        Column::wrapping("EDGE"),
        Column::left("WAY").spare(2),
        Column::right("BYTES").spare(1),
    ];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        vec![
            row(["198.51.100.1:4711", "edge-a", "steered", "1"]),
            row([
                "198.51.100.2:4711",
                "an edge with a long name",
                "steered",
                "1000",
            ]),
        ]
    }

    #[test]
    fn without_a_terminal_nothing_is_broken_or_left_out() {
        assert_eq!(
            render(COLUMNS, rows(), None),
            "CLIENT             EDGE                      WAY      BYTES\n\
             198.51.100.1:4711  edge-a                    steered      1\n\
             198.51.100.2:4711  an edge with a long name  steered   1000"
        );
    }

    #[test]
    fn names_are_broken_before_a_column_is_left_out() {
        let text = render(COLUMNS, rows(), Some(48));
        assert!(text.lines().all(|line| line.len() <= 48), "{text}");
        assert!(
            text.contains("WAY") && text.contains("198.51.100.2:4711"),
            "{text}"
        );
    }

    #[test]
    fn spare_columns_are_left_out_in_their_order() {
        let text = render(COLUMNS, rows(), Some(40));
        assert!(text.contains("BYTES") && !text.contains("WAY"), "{text}");
        assert!(
            text.ends_with("(way left out: widen the terminal, or use --json)"),
            "{text}"
        );
        let text = render(COLUMNS, rows(), Some(33));
        assert!(
            text.ends_with("(way, bytes left out: widen the terminal, or use --json)"),
            "{text}"
        );
        let text = render(COLUMNS, rows(), Some(10));
        assert!(
            text.contains("198.51.100.2:4711"),
            "addresses are never broken: {text}"
        );
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(
            render(COLUMNS, Vec::new(), None),
            "CLIENT  EDGE  WAY  BYTES"
        );
    }
}
