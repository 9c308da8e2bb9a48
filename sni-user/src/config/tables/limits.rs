//! `[limits]`

use ipnet::IpNet;

use crate::config::{
    decode::{List, Section},
    location::Location,
    model::Limits,
    values::Rate,
};

pub(in crate::config) struct LimitsDraft {
    pub(in crate::config) at: Location,
    pub(in crate::config) deny: Option<List<IpNet>>,
    pub(in crate::config) allow: Option<List<IpNet>>,
    syn_per_source: Rate,
    syn_per_prefix: Option<Rate>,
    hello_per_source: Rate,
    hello_per_prefix: Option<Rate>,
}

impl LimitsDraft {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Limits::default();
        let draft = Self {
            at: section.at().clone(),
            syn_per_source: section
                .value("syn_per_source")
                .unwrap_or(defaults.syn_per_source),
            syn_per_prefix: section.value("syn_per_prefix"),
            hello_per_source: section
                .value("hello_per_source")
                .unwrap_or(defaults.hello_per_source),
            hello_per_prefix: section.value("hello_per_prefix"),
            deny: section.list("deny"),
            allow: section.list("allow"),
        };
        section.finish();
        draft
    }

    pub(super) fn build(self) -> Limits {
        let per_prefix = |own: Option<Rate>, per_source: Rate| {
            own.unwrap_or_else(|| per_source.times(Limits::SOURCES_OF_A_PREFIX))
        };
        Limits {
            syn_per_prefix: per_prefix(self.syn_per_prefix, self.syn_per_source),
            hello_per_prefix: per_prefix(self.hello_per_prefix, self.hello_per_source),
            syn_per_source: self.syn_per_source,
            hello_per_source: self.hello_per_source,
            deny: self.deny.map(List::values).unwrap_or_default(),
            allow: self.allow.map(List::values).unwrap_or_default(),
        }
    }
}
