//! The documentation says of every finding what the command says.

use std::fs;

use anyhow::{Result, ensure};
use sni_user::federation::Kind;

use crate::repository;

#[test]
fn the_documentation_has_every_finding_and_no_other() -> Result<()> {
    let text = fs::read_to_string(repository("docs/dns-check.md"))?;
    let rows: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let of = |kind: &Kind| {
        format!(
            "| `{}` | {} | {} | {} |",
            kind.id(),
            kind.severity().name(),
            kind.meaning(),
            kind.mend()
        )
    };
    let expected: Vec<_> = Kind::ALL.iter().map(of).collect();
    ensure!(
        rows == expected,
        "docs/dns-check.md has\n{}\nand not\n{}",
        rows.join("\n"),
        expected.join("\n")
    );
    Ok(())
}
