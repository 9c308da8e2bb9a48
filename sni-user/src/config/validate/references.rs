//! References: what is named exists, and what exists is named.

use std::collections::HashSet;

use super::{Once, twice};
use crate::config::{
    decode::{List, Located},
    diagnostics::{Diagnostic, Report},
    model::Config,
    tables::{Draft, MemberDraft},
    wording::{list_of, nearest, quoted},
};

pub(super) fn check(draft: &Draft, report: &Report) {
    let edges = Declared::new(
        "[[edge]]",
        draft.edges.iter().map(|edge| &edge.name),
        draft,
        report,
    );
    let pools = Declared::new(
        "[[pool]]",
        draft.pools.iter().map(|pool| &pool.name),
        draft,
        report,
    );
    let steered = draft.ip_sets.iter().filter_map(|ip_set| ip_set.pool());
    let routed = draft
        .domains
        .iter()
        .filter_map(|domain| domain.pool.as_ref());
    let member_lists = || draft.pools.iter().filter_map(|pool| pool.members.as_ref());
    member_lists().for_each(|list| members(list, report));
    edges.check(
        member_lists()
            .flat_map(|list| &list.items)
            .map(|member| &member.value.edge),
        "in no [[pool]]",
    );
    pools.check(
        steered.chain(routed),
        "used by no [[ip_set]] and no [[domain]]",
    );
}

/// The names that one kind of table declares.
struct Declared<'a> {
    title: &'static str,
    names: Vec<&'a Located<String>>,
    /// Some names could not be read: what is not found may be one of them.
    incomplete: bool,
    report: &'a Report,
}

impl<'a> Declared<'a> {
    fn new(
        title: &'static str,
        names: impl Iterator<Item = &'a Option<Located<String>>>,
        draft: &Draft,
        report: &'a Report,
    ) -> Self {
        let mut incomplete = draft.incomplete;
        let names = names
            .inspect(|name| incomplete |= name.is_none())
            .flatten()
            .collect();
        Self {
            title,
            names,
            incomplete,
            report,
        }
    }

    /// Reports references to what is not declared, and declarations that nothing refers to.
    fn check(&self, references: impl Iterator<Item = &'a Located<String>>, unused: &str) {
        let known: HashSet<_> = self.names.iter().map(|name| name.value.as_str()).collect();
        let mut used = HashSet::new();
        for reference in references {
            used.insert(reference.value.as_str());
            if !known.contains(reference.value.as_str()) && !self.incomplete {
                let message = format!(
                    "there is no {} with the name {}",
                    self.title,
                    quoted(&reference.value)
                );
                self.report.push(
                    Diagnostic::error(reference.at.clone(), message)
                        .help(self.instead_of(&reference.value)),
                );
            }
        }
        for name in &self.names {
            if !used.contains(name.value.as_str()) && !self.incomplete {
                let message = format!("the {} {} is {unused}", self.title, quoted(&name.value));
                self.report.push(
                    Diagnostic::warning(name.at.clone(), message).help("use it, or leave it out"),
                );
            }
        }
    }

    fn instead_of(&self, wrong: &str) -> String {
        const FEW: usize = 8;
        let names = || self.names.iter().map(|name| name.value.as_str());
        match nearest(wrong, names()) {
            Some(name) => format!("write {}", quoted(name)),
            None if (1..=FEW).contains(&self.names.len()) => {
                format!("write one of {}", list_of(names()))
            }
            None => format!(
                "define it with `{}` and `name = {}`",
                self.title,
                quoted(wrong)
            ),
        }
    }
}

/// The Edges of one pool: none twice, not too many.
fn members(list: &List<MemberDraft>, report: &Report) {
    let mut once = Once::new();
    for member in &list.items {
        let Located { value: name, at } = &member.value.edge;
        if let Some(first) = once.again(name.as_str(), at) {
            let message = format!("the Edge {} is in this [[pool]] twice", quoted(name));
            report.push(twice(
                at,
                first,
                message,
                "name it once; for a larger share write { name = \"…\", weight = 2 }",
            ));
        }
    }
    if let Some(member) = list.items.get(Config::MAX_MEMBERS) {
        report.push(
            Diagnostic::error(
                member.at.clone(),
                format!("a [[pool]] has more than {} Edges", Config::MAX_MEMBERS),
            )
            .help("divide them among several pools"),
        );
    }
}
