//! What the verifier's walk through each program may take on each kernel.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Where the budgets are, in the workspace.
pub(super) const FILE: &str = "xtask/src/kernels/budget.txt";

/// Instructions by program and line of kernels.
pub(super) struct Budget(BTreeMap<(String, String), u32>);

impl Budget {
    pub(super) fn load() -> Result<Self> {
        let text = fs::read_to_string(process::workspace().join(FILE)).context(FILE)?;
        Self::parse(&text).context(FILE)
    }

    /// A table: the first row that is no comment names the lines of kernels, each further one a program and its budgets.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut rows = text
            .lines()
            .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
            .map(str::split_whitespace);
        let lines: Vec<_> = rows.next().context("has no table")?.skip(1).collect();
        let mut budgets = BTreeMap::new();
        for mut row in rows {
            let program = row.next().unwrap_or_default();
            let cells: Vec<_> = row.collect();
            if cells.len() != lines.len() {
                bail!(
                    "{program} has {} budgets for {} kernels",
                    cells.len(),
                    lines.len()
                );
            }
            for (line, cell) in lines.iter().zip(cells) {
                let budget = cell
                    .parse()
                    .with_context(|| format!("the budget {cell} of {program}"))?;
                budgets.insert((program.to_owned(), (*line).to_owned()), budget);
            }
        }
        Ok(Self(budgets))
    }

    pub(super) fn of(&self, program: &str, line: &str) -> Option<u32> {
        self.0.get(&(program.to_owned(), line.to_owned())).copied()
    }

    /// The programs that have one on a line of kernels.
    pub(super) fn programs<'a>(&'a self, line: &'a str) -> impl Iterator<Item = &'a str> {
        let of_line = self.0.keys().filter(move |(_, of)| of == line);
        of_line.map(|(program, _)| program.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::release::LINES;

    #[test]
    fn a_table_by_program_and_line() {
        let budget = Budget::parse("# why\nprogram 6.1 newest\n\na 1 2\nb 3 4\n").unwrap();
        assert_eq!(budget.of("a", "newest"), Some(2));
        assert_eq!(budget.of("b", "6.1"), Some(3));
        assert_eq!(budget.of("b", "6.12"), None);
        for wrong in [
            "",
            "program 6.1\na\n",
            "program 6.1\na x\n",
            "program 6.1\na 1 2\n",
        ] {
            assert!(Budget::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_repositorys_table_has_every_line() {
        let budget = Budget::load().unwrap();
        for line in &LINES {
            assert!(
                budget.of("snigate_xdp", line.name).is_some(),
                "{}",
                line.name
            );
        }
    }
}
