//! The tables of the configuration, decoded but not yet compared with each other.
//!
//! A draft keeps what could be read of a table, with places, even when parts of it are wrong: so that an Edge with a wrong
//! address still exists for the pools that name it, and one mistake is reported once.

mod acme;
mod domain;
mod edge;
mod gateway;
mod identity;
mod ip_set;
mod limits;
mod pool;

use std::{collections::HashMap, sync::Arc};

use toml::de::{DeTable, DeValue};

pub(super) use self::{
    acme::{AcmeDraft, DomainAcmeDraft},
    domain::DomainDraft,
    edge::EdgeDraft,
    gateway::GatewayDraft,
    identity::IdentityDraft,
    ip_set::{IpSetDraft, ModeDraft},
    limits::LimitsDraft,
    pool::{MemberDraft, PoolDraft},
};
use super::{
    decode::{Directory, Input, List, Located, Section},
    diagnostics::{Diagnostic, Report},
    location::{Location, Source},
    model::{Config, EdgeRef, PoolRef},
    wording::{list_of, nearest, shown},
};

/// All tables of all files.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) gateway: Option<GatewayDraft>,
    /// What the main file includes, as it was written.
    pub(super) include: Option<List<String>>,
    pub(super) edges: Vec<EdgeDraft>,
    pub(super) pools: Vec<PoolDraft>,
    pub(super) ip_sets: Vec<IpSetDraft>,
    pub(super) domains: Vec<DomainDraft>,
    pub(super) identity: Option<IdentityDraft>,
    pub(super) acme: Option<AcmeDraft>,
    pub(super) limits: Option<LimitsDraft>,
    /// A file could not be read or parsed: what seems to be missing may be in there.
    pub(super) incomplete: bool,
}

/// What a file is to the configuration.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Main,
    Included,
}

const TABLES: [&str; 8] = [
    "gateway", "edge", "pool", "ip_set", "domain", "identity", "acme", "limits",
];

impl Draft {
    /// Adds the tables of a file. `directory` is what its relative paths are relative to.
    pub(super) fn read(
        &mut self,
        source: &Arc<Source>,
        role: Role,
        directory: &Directory,
        report: &Report,
    ) {
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        let root = Section::new(
            "the file",
            document.get_ref(),
            Location::new(source, 0..0),
            report,
        );
        if !errors.is_empty() {
            self.incomplete = true;
            report_syntax(source, &errors, report);
            // What can be recovered of a broken file is not trusted, but the files it includes are checked all the same.
            if role == Role::Main {
                self.include = gateway::includes_only(document.get_ref(), root);
            }
            return;
        }
        for (key, value) in document.get_ref() {
            let at = root.at().at(key.span());
            let input = Input {
                key: key.get_ref(),
                value: value.get_ref(),
                at: root.at().at(value.span()),
                report,
            };
            match key.get_ref().as_ref() {
                "gateway" if role == Role::Included => report.push(
                    Diagnostic::error(input.at, "an included file has a [gateway] table")
                        .help("write [gateway] only into the main file"),
                ),
                "gateway" => {
                    if let Some(mut section) = Section::of("[gateway]", &input) {
                        self.include = section.list("include");
                        self.gateway = Some(GatewayDraft::read(section, directory));
                    }
                }
                "edge" => self.edges.extend(each("[[edge]]", &input, |section| {
                    EdgeDraft::read(section, directory)
                })),
                "pool" => self.pools.extend(each("[[pool]]", &input, PoolDraft::read)),
                "ip_set" => self
                    .ip_sets
                    .extend(each("[[ip_set]]", &input, IpSetDraft::read)),
                "domain" => self.domains.extend(each("[[domain]]", &input, |section| {
                    DomainDraft::read(section, directory)
                })),
                "identity" => {
                    let section = Section::of("[identity]", &input);
                    once(
                        &mut self.identity,
                        section.map(|section| IdentityDraft::read(section, directory)),
                        |it| &it.at,
                        report,
                    );
                }
                "acme" => {
                    let section = Section::of("[acme]", &input);
                    once(
                        &mut self.acme,
                        section.map(|section| AcmeDraft::read(section, directory)),
                        |it| &it.at,
                        report,
                    );
                }
                "limits" => {
                    let section = Section::of("[limits]", &input);
                    once(
                        &mut self.limits,
                        section.map(LimitsDraft::read),
                        |it| &it.at,
                        report,
                    );
                }
                unknown => unknown_table(unknown, at, report),
            }
        }
    }

    /// The configuration, once nothing wrong has been found; nothing if something was.
    pub(super) fn build(self) -> Option<Config> {
        let edges = positions(self.edges.iter().map(|edge| &edge.name));
        let pools = positions(self.pools.iter().map(|pool| &pool.name));
        let edge = |name: &str| {
            let index = *edges.get(name)?;
            let name = name.parse().ok()?;
            Some(EdgeRef { name, index })
        };
        let pool = |name: &str| {
            let index = *pools.get(name)?;
            let name = name.parse().ok()?;
            Some(PoolRef { name, index })
        };
        let acme = match self.acme {
            Some(draft) => Some(draft.build()?),
            None => None,
        };
        Some(Config {
            gateway: self.gateway?.build(),
            edges: self
                .edges
                .into_iter()
                .map(EdgeDraft::build)
                .collect::<Option<_>>()?,
            pools: self
                .pools
                .into_iter()
                .map(|draft| draft.build(edge))
                .collect::<Option<_>>()?,
            ip_sets: self
                .ip_sets
                .into_iter()
                .map(|draft| draft.build(pool))
                .collect::<Option<_>>()?,
            domains: self
                .domains
                .into_iter()
                .map(|draft| draft.build(pool, acme.as_ref()))
                .collect::<Option<_>>()?,
            acme,
            identity: self.identity.map(IdentityDraft::build).unwrap_or_default(),
            limits: self.limits.map(LimitsDraft::build).unwrap_or_default(),
        })
    }
}

/// Where each name is in its list.
fn positions<'a>(
    names: impl Iterator<Item = &'a Option<Located<String>>>,
) -> HashMap<String, usize> {
    let names = names.enumerate();
    names
        .filter_map(|(index, name)| Some((name.as_ref()?.value.clone(), index)))
        .collect()
}

/// Reads each table of an array of tables.
fn each<T>(title: &'static str, input: &Input<'_>, read: impl Fn(Section<'_>) -> T) -> Vec<T> {
    match input.value {
        DeValue::Array(array) => array
            .iter()
            .filter_map(|element| {
                let at = input.at.at(element.span());
                Section::of(
                    title,
                    &Input {
                        key: input.key,
                        value: element.get_ref(),
                        at,
                        report: input.report,
                    },
                )
            })
            .map(read)
            .collect(),
        // Written with single brackets. Read all the same, so that its name is known to the tables that refer to it.
        DeValue::Table(table) => {
            let message =
                format!("there may be several {title} tables, and this is written as the only one");
            input.report.push(
                Diagnostic::error(input.at.clone(), message).help(format!("write `{title}`")),
            );
            vec![read(Section::new(
                title,
                table,
                input.at.clone(),
                input.report,
            ))]
        }
        _ => {
            input.mismatch(
                "tables",
                &format!("write `{title}` and its keys on the lines below it"),
            );
            Vec::new()
        }
    }
}

/// Keeps the first of a table that may be in any file, but only once.
fn once<T>(slot: &mut Option<T>, new: Option<T>, at: impl Fn(&T) -> &Location, report: &Report) {
    match (slot.as_ref(), new) {
        (Some(first), Some(second)) => report.push(
            Diagnostic::error(at(&second).clone(), "this table is in two files")
                .related(at(first), "the first is here")
                .help("write everything into one of them"),
        ),
        (None, new) => *slot = new,
        (Some(_), None) => {}
    }
}

fn unknown_table(name: &str, at: Location, report: &Report) {
    let help = match nearest(name, TABLES) {
        _ if gateway::KEYS.contains(&name) => {
            format!("`{name}` is a key of [gateway]: write it below that line")
        }
        Some(known @ ("gateway" | "identity" | "acme" | "limits")) => format!("write `[{known}]`"),
        Some(known) => format!("write `[[{known}]]`"),
        None => format!("the tables are {}", list_of(TABLES)),
    };
    report.push(
        Diagnostic::error(
            at,
            format!("the configuration has no table `{}`", shown(name)),
        )
        .help(help),
    );
}

/// One mistake often makes the parser complain several times about the same line: the first says most.
fn report_syntax(source: &Arc<Source>, errors: &[toml::de::Error], report: &Report) {
    let mut last_line = None;
    for error in errors {
        let at = Location::new(source, error.span().unwrap_or(0..0));
        if at.line() != last_line {
            last_line = at.line();
            report.push(
                Diagnostic::error(at, format!("this is not TOML: {}", error.message()))
                    .help("lines are `key = value`, `[table]` or `[[table]]`; texts are in double quotes, lists in [ ]"),
            );
        }
    }
}
