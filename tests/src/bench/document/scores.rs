//! Who wins: told by the figures.

use super::super::results::{Better, Results, Role, Row, Spread, Table};
use super::tables::{heading, line, rule, told};
use crate::plot::figure;

/// snigate's best beside the best peer, in one column of one table.
struct Score<'a> {
    table: &'a Table,
    column: usize,
    ours: (&'a Row, Spread),
    theirs: (&'a Row, Spread),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Winner {
    Ours,
    Theirs,
    /// The ranges overlap, or there were too few rounds.
    Nobody,
}

impl<'a> Score<'a> {
    fn of(table: &'a Table, column: usize) -> Option<Self> {
        if table.metrics.get(column)?.better == Better::Neither {
            return None;
        }
        Some(Self {
            table,
            column,
            ours: table.best(column, Role::Ours)?,
            theirs: table.best(column, Role::Peer)?,
        })
    }

    fn better(&self) -> Better {
        self.table.metrics[self.column].better
    }

    fn winner(&self) -> Winner {
        let (ours, theirs) = (&self.ours.1, &self.theirs.1);
        if ours.clearly_beats(theirs, self.better()) {
            Winner::Ours
        } else if theirs.clearly_beats(ours, self.better()) {
            Winner::Theirs
        } else {
            Winner::Nobody
        }
    }

    /// How many times better snigate is; nothing where noise has left something at or below zero.
    fn times(&self) -> Option<f64> {
        let (ours, theirs) = (self.ours.1.median, self.theirs.1.median);
        let (more, less) = match self.better() {
            Better::Higher => (ours, theirs),
            Better::Lower => (theirs, ours),
            Better::Neither => return None,
        };
        (more > 0.0 && less > 0.0).then_some(more / less)
    }

    fn who(&self) -> String {
        match self.winner() {
            Winner::Ours => "**snigate**".to_owned(),
            Winner::Theirs => format!("**{}**", self.theirs.0.name),
            Winner::Nobody => "can't be told".to_owned(),
        }
    }
}

fn scores<'a>(tables: &'a [&'a Table]) -> impl Iterator<Item = Score<'a>> {
    tables.iter().flat_map(|table| {
        let columns = 0..table.metrics.len();
        columns.filter_map(move |column| Score::of(table, column))
    })
}

/// A line for each figure that both have; `None` where there is none.
pub(super) fn table(tables: &[&Table]) -> Option<String> {
    let mut lines = scores(tables).map(|score| {
        line([
            score.table.title.clone(),
            heading(&score.table.metrics[score.column]),
            format!("{}: {}", score.ours.0.name, told(&score.ours.1)),
            format!("{}: {}", score.theirs.0.name, told(&score.theirs.1)),
            score.times().map_or_else(String::new, figure),
            score.who(),
        ])
    });
    let first = lines.next()?;
    let headings = [
        "",
        "",
        "snigate's best",
        "the best peer",
        "times better",
        "wins",
    ];
    let headings = line(headings.map(str::to_owned)) + &rule(headings.len());
    Some(headings + &first + &lines.collect::<String>())
}

/// Everything in which the best peer is better than the best of snigate's ways.
pub(super) fn losses(results: &Results) -> String {
    let tables: Vec<_> = results.tables.iter().collect();
    let lost: Vec<_> = scores(&tables)
        .filter(|score| score.winner() == Winner::Theirs)
        .map(|score| {
            format!(
                "- {}: {} is better at {}: {}, and snigate ({}) {}\n",
                score.table.title,
                score.theirs.0.name,
                heading(&score.table.metrics[score.column]),
                told(&score.theirs.1),
                score.ours.0.name,
                told(&score.ours.1),
            )
        })
        .collect();
    let (mut wins, mut open) = (0, 0);
    for score in scores(&tables) {
        match score.winner() {
            Winner::Ours => wins += 1,
            Winner::Nobody => open += 1,
            Winner::Theirs => {}
        }
    }
    let count = format!(
        "Of {} figures that snigate and a peer both have, snigate's best is clearly better in {wins} and the best peer in {}; \
         in {open} the rounds' ranges overlap or there were too few rounds, and nobody wins.\n",
        wins + open + lost.len(),
        lost.len(),
    );
    if lost.is_empty() {
        return count;
    }
    format!("{count}\nA peer wins:\n\n{}", lost.concat())
}

/// Each of snigate's ways by itself, and at what a peer is clearly better than it.
pub(super) fn ways(tables: &[&Table]) -> Option<String> {
    if tables.is_empty() {
        return None;
    }
    let mut text = String::new();
    for table in tables {
        for row in table.rows.iter().filter(|row| row.role == Role::Ours) {
            let lost: Vec<_> = (0..table.metrics.len())
                .filter_map(|column| loss(table, row, column))
                .collect();
            if !lost.is_empty() {
                text += &format!("- {}, {}: {}\n", row.name, table.title, lost.join("; "));
            }
        }
    }
    if text.is_empty() {
        text = "No peer is clearly better than any of snigate's ways here.\n".to_owned();
    }
    Some(text)
}

fn loss(table: &Table, row: &Row, column: usize) -> Option<String> {
    let metric = &table.metrics[column];
    let own = row.spread(column)?;
    let (peer, theirs) = table.best(column, Role::Peer)?;
    theirs.clearly_beats(&own, metric.better).then(|| {
        format!(
            "{} {}, {} {}",
            heading(metric),
            figure(own.median),
            peer.name,
            figure(theirs.median)
        )
    })
}
