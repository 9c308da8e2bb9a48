//! A plan in sentences and a table.

use std::io::{self, Write};

use super::{
    super::{CliError, Environment, table::show, units},
    view::{CertificateLine, Report, Statistics},
};
use crate::{config::Name, plan::Issue};

/// More names or files than a terminal has room for.
const SHOWN: usize = 12;
/// With more certificates, those that stay as they are are not listed.
const MANY: usize = 40;

pub(super) fn write(
    report: &Report<'_>,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    numbers(report, environment.out)?;
    if report.stable {
        changes(report, environment.out)?;
    }
    writeln!(environment.out)?;
    show(environment, false, certificates(report))?;
    writeln!(environment.out)?;
    files(report, environment.out)?;
    Ok(statistics(&report.statistics, environment.out)?)
}

fn numbers(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    let domains = units::counted(report.domains, "domain");
    let certificates = units::counted(report.certificates.len(), "certificate");
    write!(out, "{domains} in {certificates}")?;
    for (count, word) in [
        (report.explicit, "explicit"),
        (report.provider, "by the provider"),
    ] {
        if count > 0 {
            write!(out, ", {} {word}", units::count(count as u64))?;
        }
    }
    if report.gap == 0 {
        return writeln!(out, ". Fewer are impossible.");
    }
    let (bound, gap) = (report.lower_bound as u64, report.gap as u64);
    writeln!(
        out,
        ". The lower bound is {}: {} above it ({}).",
        units::count(bound),
        units::count(gap),
        units::share(gap, bound)
    )
}

/// What the CA has to do, and what is no more.
fn changes(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    let of = |wanted: Issue| -> Vec<&Name> {
        let certificates = report.certificates.iter().map(|it| it.certificate);
        let wanted = certificates.filter(|it| it.issue == wanted);
        wanted.map(|it| &it.name).collect()
    };
    let (again, new) = (of(Issue::Again), of(Issue::New));
    if again.is_empty() && new.is_empty() {
        writeln!(out, "No certificate has to be issued.")?;
    } else {
        let have = if again.len() == 1 { "has" } else { "have" };
        writeln!(
            out,
            "{} {have} to be issued again{}; {} new{}.",
            units::counted(again.len(), "certificate"),
            names(&again),
            units::count(new.len() as u64),
            names(&new)
        )?;
    }
    if !report.dropped.is_empty() {
        let dropped: Vec<_> = report.dropped.iter().collect();
        writeln!(
            out,
            "Nothing is left of {}{}.",
            units::counted(dropped.len(), "former certificate"),
            names(&dropped)
        )?;
    }
    Ok(())
}

/// Of many, those that somebody has to do something for.
fn certificates<'r, 'a>(report: &'r Report<'a>) -> Vec<&'r CertificateLine<'a>> {
    let all = !report.stable || report.certificates.len() <= MANY;
    let shown = report.certificates.iter();
    shown
        .filter(|it| all || it.certificate.issue != Issue::No)
        .collect()
}

fn files(report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
    match report.spare_addresses {
        0 => {}
        1 => writeln!(out, "1 --address is not needed.")?,
        some => writeln!(out, "{some} of --address are not needed.")?,
    }
    if let Some(lacks) = report.lacks {
        writeln!(out, "There is no configuration yet: {lacks}.")?;
    }
    for path in report.written.iter().take(SHOWN) {
        writeln!(out, "wrote {}", path.display())?;
    }
    if let Some(more @ 1..) = report.written.len().checked_sub(SHOWN) {
        writeln!(out, "wrote {} more", units::counted(more, "file"))?;
    }
    Ok(())
}

fn statistics(statistics: &Statistics, out: &mut dyn Write) -> io::Result<()> {
    let Statistics {
        seconds,
        peak_memory_bytes,
    } = statistics;
    write!(out, "Planned in {seconds:.2} s")?;
    if let Some(peak) = peak_memory_bytes {
        write!(out, ", with {}", units::bytes(*peak))?;
    }
    writeln!(out, ".")
}

/// Such as ` (san-1, san-2)`.
fn names(names: &[&Name]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let shown: Vec<_> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!(" ({}{more})", shown.join(", "))
}
