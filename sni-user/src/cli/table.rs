//! Tables for people, and the same rows as JSON for programs.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Width, presets};
use serde::{Serialize, Serializer as _};

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

impl<R: Row> Row for &R {
    const COLUMNS: &'static [Column] = R::COLUMNS;

    fn cells(&self) -> Vec<String> {
        R::cells(self)
    }
}

/// Rows that are laid out together: a million flows are written as they are read, and their columns line up in pieces of this length.
const CHUNK: usize = 1000;

/// Writes rows as a table or as JSON.
pub(super) fn show<R: Row>(
    environment: &mut Environment<'_>,
    json: bool,
    rows: impl IntoIterator<Item = R>,
) -> Result<(), CliError> {
    if json {
        serde_json::Serializer::pretty(&mut *environment.out)
            .collect_seq(rows)
            .map_err(io::Error::from)?;
        writeln!(environment.out)?;
        return Ok(());
    }
    let cells = rows.into_iter().map(|row| row.cells());
    write_table(environment.out, R::COLUMNS, cells, environment.width)?;
    Ok(())
}

/// Rows as a table of at most so many columns.
pub(super) fn text<R: Row>(rows: &[R], width: u16) -> String {
    let cells: Vec<_> = rows.iter().map(Row::cells).collect();
    let mut layout = Layout::new(R::COLUMNS, &cells, Some(width));
    layout.header() + &layout.body(&cells)
}

fn write_table(
    out: &mut dyn Write,
    columns: &'static [Column],
    mut rows: impl Iterator<Item = Vec<String>>,
    width: Option<u16>,
) -> io::Result<()> {
    let mut chunk: Vec<_> = rows.by_ref().take(CHUNK).collect();
    let mut layout = Layout::new(columns, &chunk, width);
    write!(out, "{}", layout.header())?;
    while !chunk.is_empty() {
        write!(out, "{}", layout.body(&chunk))?;
        chunk = rows.by_ref().take(CHUNK).collect();
    }
    match layout.left_out() {
        Some(note) => writeln!(out, "{note}"),
        None => Ok(()),
    }
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

/// Between columns.
const GAP: u16 = 2;
/// The least that a column of names is squeezed to.
const NARROWEST: u16 = 12;

/// Which columns a table shows, and how wide.
struct Layout {
    columns: &'static [Column],
    /// Indices of the columns that are shown.
    kept: Vec<usize>,
    /// Their widths.
    widths: Vec<u16>,
    squeezed: bool,
}

impl Layout {
    /// Fits a table that begins with these rows into `limit` columns of a terminal.
    fn new(columns: &'static [Column], rows: &[Vec<String>], limit: Option<u16>) -> Self {
        let mut this = Self {
            columns,
            kept: (0..columns.len()).collect(),
            widths: columns
                .iter()
                .map(|column| column.header.len() as u16)
                .collect(),
            squeezed: false,
        };
        this.widen(rows);
        if let Some(limit) = limit {
            this.leave_out(limit);
            this.squeeze(limit);
        }
        this
    }

    /// Makes room for rows.
    fn widen(&mut self, rows: &[Vec<String>]) {
        let natural = self.draw(rows).column_max_content_widths();
        for ((place, width), natural) in self.kept.iter().zip(&mut self.widths).zip(natural) {
            if !(self.squeezed && self.columns[*place].wraps) {
                *width = natural.max(*width);
            }
        }
    }

    /// Leaves spare columns out until the others fit with their names squeezed.
    fn leave_out(&mut self, limit: u16) {
        loop {
            let squeezed = self.kept.iter().zip(&self.widths).map(|(place, width)| {
                if self.columns[*place].wraps {
                    NARROWEST.min(*width)
                } else {
                    *width
                }
            });
            if total(squeezed) <= limit {
                return;
            }
            let spare = (0..self.kept.len())
                .filter(|nth| self.columns[self.kept[*nth]].spare > 0)
                .max_by_key(|nth| self.columns[self.kept[*nth]].spare);
            let Some(spare) = spare else { return };
            self.kept.remove(spare);
            self.widths.remove(spare);
        }
    }

    /// Takes from the widest columns of names. Broken addresses and numbers would be worse than a line too long.
    fn squeeze(&mut self, limit: u16) {
        while total(self.widths.iter().copied()) > limit {
            let widest = (0..self.kept.len())
                .filter(|nth| self.columns[self.kept[*nth]].wraps && self.widths[*nth] > NARROWEST)
                .max_by_key(|nth| self.widths[*nth]);
            let Some(widest) = widest else { return };
            self.widths[widest] -= 1;
            self.squeezed = true;
        }
    }

    fn header(&self) -> String {
        let headers = self
            .columns
            .iter()
            .map(|column| column.header.to_owned())
            .collect();
        self.text(&[headers])
    }

    fn body(&mut self, rows: &[Vec<String>]) -> String {
        self.widen(rows);
        self.text(rows)
    }

    /// What is not shown.
    fn left_out(&self) -> Option<String> {
        let headers: Vec<_> = (0..self.columns.len())
            .filter(|place| !self.kept.contains(place))
            .map(|place| self.columns[place].header.to_lowercase())
            .collect();
        (!headers.is_empty()).then(|| {
            format!(
                "({} left out: widen the terminal, or use --json)",
                headers.join(", ")
            )
        })
    }

    fn text(&self, rows: &[Vec<String>]) -> String {
        let mut table = self.draw(rows);
        for ((place, width), column) in self
            .kept
            .iter()
            .zip(&self.widths)
            .zip(table.column_iter_mut())
        {
            column
                .set_padding((0, GAP))
                .set_constraint(ColumnConstraint::Absolute(Width::Fixed(width + GAP)))
                .set_cell_alignment(self.columns[*place].alignment);
        }
        table.trim_fmt() + "\n"
    }

    fn draw(&self, rows: &[Vec<String>]) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .add_rows(
                rows.iter()
                    .map(|row| self.kept.iter().map(|place| &row[*place])),
            );
        table
    }
}

fn total(widths: impl Iterator<Item = u16>) -> u16 {
    widths
        .map(|width| width + GAP)
        .sum::<u16>()
        .saturating_sub(GAP)
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

    fn render(columns: &'static [Column], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
        let mut out = Vec::new();
        write_table(&mut out, columns, rows.into_iter(), width).unwrap();
        String::from_utf8(out).unwrap()
    }

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
             198.51.100.2:4711  an edge with a long name  steered   1000\n"
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
            text.ends_with("(way left out: widen the terminal, or use --json)\n"),
            "{text}"
        );
        let text = render(COLUMNS, rows(), Some(33));
        assert!(
            text.ends_with("(way, bytes left out: widen the terminal, or use --json)\n"),
            "{text}"
        );
        let text = render(COLUMNS, rows(), Some(10));
        assert!(
            text.contains("198.51.100.2:4711"),
            "addresses are never broken: {text}"
        );
    }

    #[test]
    fn long_tables_are_written_in_pieces() {
        let row = |n: usize| {
            vec![
                format!("client {n}"),
                "edge".into(),
                "-".into(),
                n.to_string(),
            ]
        };
        let text = render(COLUMNS, (0..2 * CHUNK + 1).map(row).collect(), None);
        assert_eq!(text.lines().count(), 2 * CHUNK + 2);
        assert!(text.ends_with("client 2000  edge  -     2000\n"), "{text}");
    }

    #[test]
    fn an_empty_table_is_its_header() {
        assert_eq!(
            render(COLUMNS, Vec::new(), None),
            "CLIENT  EDGE  WAY  BYTES\n"
        );
    }
}
