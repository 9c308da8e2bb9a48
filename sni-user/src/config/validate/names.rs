//! Names: well-formed, not given twice, not too many.

use super::{Once, twice};
use crate::config::{
    decode::Located,
    diagnostics::{Diagnostic, Report},
    location::Location,
    model::Config,
    tables::Draft,
    values::{InvalidValue, Name},
    wording::quoted,
};

pub(super) fn check(draft: &Draft, report: &Report) {
    unique(
        "[[edge]]",
        draft.edges.iter().map(|edge| &edge.name),
        report,
    );
    unique(
        "[[pool]]",
        draft.pools.iter().map(|pool| &pool.name),
        report,
    );
    unique(
        "[[ip_set]]",
        draft.ip_sets.iter().map(|ip_set| &ip_set.name),
        report,
    );
    bounded(
        "[[edge]]",
        draft.edges.iter().map(|edge| &edge.at),
        Config::MAX_EDGES,
        report,
    );
    bounded(
        "[[pool]]",
        draft.pools.iter().map(|pool| &pool.at),
        Config::MAX_POOLS,
        report,
    );
}

fn unique<'a>(
    title: &str,
    names: impl Iterator<Item = &'a Option<Located<String>>>,
    report: &Report,
) {
    let mut once = Once::new();
    for Located { value, at } in names.flatten() {
        if let Err(InvalidValue { message, help }) = value.parse::<Name>() {
            report.push(Diagnostic::error(at.clone(), message).help(help));
        }
        if let Some(first) = once.again(value.as_str(), at) {
            let message = format!("two {title} tables have the name {}", quoted(value));
            report.push(twice(at, first, message, "give one of them another name"));
        }
    }
}

/// Reports the first table that is too many.
fn bounded<'a>(
    title: &str,
    mut tables: impl Iterator<Item = &'a Location>,
    most: usize,
    report: &Report,
) {
    if let Some(at) = tables.nth(most) {
        report.push(
            Diagnostic::error(
                at.clone(),
                format!("there are more than {most} {title} tables"),
            )
            .help(format!(
                "keep to {most}, and give the others to another gateway"
            )),
        );
    }
}
