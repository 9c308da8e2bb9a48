//! `[[ip_set]]`

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::{
    decode::{Decode, Input, List, Located, Section, number_in},
    diagnostics::Diagnostic,
    location::Location,
    model::{IpSet, Mode, PoolRef},
};

/// The port of SIP over mutual TLS between Edges.
const FEDERATION_PORT: u16 = 5061;

pub(in crate::config) struct IpSetDraft {
    pub(in crate::config) name: Option<Located<String>>,
    pub(in crate::config) addresses: Option<List<IpAddr>>,
    pub(in crate::config) ports: Option<List<Port>>,
    /// Nothing if the mode is missing or contradictory.
    pub(in crate::config) mode: Option<ModeDraft>,
}

pub(in crate::config) enum ModeDraft {
    Steer {
        pool: Located<String>,
    },
    Inspect {
        default: Option<Located<String>>,
        bind: bool,
        hand_off: bool,
        proxy_protocol_from: Vec<IpNet>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Port(pub(in crate::config) u16);

impl Decode for Port {
    fn decode(input: &Input<'_>) -> Option<Self> {
        number_in(input, 1..=65535)
            .and_then(|port| u16::try_from(port).ok())
            .map(Self)
    }
}

impl IpSetDraft {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let draft = Self {
            name: section.required("name", "\"san-group-1\""),
            addresses: section.filled_list("addresses", "[\"198.51.100.10\"]"),
            ports: section.non_empty_list("ports", "[5061]"),
            mode: mode(&mut section),
        };
        section.finish();
        draft
    }

    /// The ports that are meant, also when none is written.
    pub(in crate::config) fn port_numbers(&self) -> Vec<u16> {
        match &self.ports {
            Some(ports) => ports.items.iter().map(|port| port.value.0).collect(),
            None => vec![FEDERATION_PORT],
        }
    }

    /// The pool that connections go to without a server name, or all of them.
    pub(in crate::config) fn pool(&self) -> Option<&Located<String>> {
        match self.mode.as_ref()? {
            ModeDraft::Steer { pool } => Some(pool),
            ModeDraft::Inspect { default, .. } => default.as_ref(),
        }
    }

    pub(super) fn build(self, pool: impl Fn(&str) -> Option<PoolRef>) -> Option<IpSet> {
        let ports = self.port_numbers();
        Some(IpSet {
            name: self.name?.value.parse().ok()?,
            addresses: self.addresses?.values(),
            ports,
            mode: match self.mode? {
                ModeDraft::Steer { pool: name } => Mode::Steer {
                    pool: pool(&name.value)?,
                },
                ModeDraft::Inspect {
                    default,
                    bind,
                    hand_off,
                    proxy_protocol_from,
                } => Mode::Inspect {
                    default: match default {
                        Some(name) => Some(pool(&name.value)?),
                        None => None,
                    },
                    bind,
                    hand_off,
                    proxy_protocol_from,
                },
            },
        })
    }
}

fn mode(section: &mut Section<'_>) -> Option<ModeDraft> {
    let steer = section.optional::<String>("steer");
    let inspect = section.optional::<bool>("inspect");
    let default = section.optional::<String>("default");
    let bind = section.optional::<bool>("bind");
    let hand_off = section.optional::<bool>("hand_off");
    let trusted = section.list::<IpNet>("proxy_protocol_from");
    let inspects = inspect.as_ref().map(|inspect| inspect.value);
    let problem = |at: Option<Location>, message: &str, help: &str| {
        let at = at.unwrap_or_else(|| section.at().clone());
        section
            .report()
            .push(Diagnostic::error(at, message).help(help));
    };
    let binds = Binding {
        wanted: bind.map(|bind| bind.value),
        hand_off: hand_off.as_ref().is_none_or(|hand_off| hand_off.value),
        trusts: trusted.as_ref().is_some_and(|list| !list.items.is_empty()),
    };
    match (section.has("steer"), inspects) {
        (true, Some(true)) => {
            problem(
                section.key_at("steer"),
                "an [[ip_set]] cannot both `steer` and `inspect`",
                "leave one of the two out",
            );
            return None;
        }
        // A value of the wrong type has been reported; whatever it was meant to be, this is not a missing mode.
        (false, None) if section.has("inspect") => return None,
        (false, None | Some(false)) => {
            problem(
                section.key_at("inspect"),
                "this [[ip_set]] says nothing about what to do with connections",
                "write `steer = \"<pool>\"`, or `inspect = true` to let the server name decide",
            );
            return None;
        }
        (true, None | Some(false)) => {}
        (false, Some(true)) => {
            if let Some((message, help)) = binds.mistake() {
                problem(section.key_at("bind"), message, help);
            }
            return Some(ModeDraft::Inspect {
                default,
                bind: binds.decided(),
                hand_off: hand_off.is_none_or(|hand_off| hand_off.value),
                proxy_protocol_from: trusted.map(List::values).unwrap_or_default(),
            });
        }
    }
    for key in ["default", "bind", "hand_off", "proxy_protocol_from"] {
        if let Some(at) = section.key_at(key) {
            problem(
                Some(at),
                &format!("`{key}` means something only where the [[ip_set]] has `inspect = true`"),
                &format!("leave `{key}` out, or write `inspect = true` instead of `steer`"),
            );
        }
    }
    Some(ModeDraft::Steer { pool: steer? })
}

/// What decides about `bind`.
struct Binding {
    wanted: Option<bool>,
    hand_off: bool,
    /// Connections of load balancers begin with a PROXY protocol header.
    trusts: bool,
}

impl Binding {
    /// A bound connection goes on in the datapath like one that was handed off, so whoever wants that nowhere has said so for both.
    fn decided(&self) -> bool {
        self.wanted.unwrap_or(true) && self.hand_off && !self.trusts
    }

    /// What can't be, and what to write instead.
    fn mistake(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self {
                wanted: Some(true),
                hand_off: false,
                ..
            } => Some((
                "the datapath cannot `bind` connections where `hand_off = false` keeps them out of it",
                "leave `bind` out, or `hand_off`: both are on by themselves",
            )),
            Self {
                wanted: Some(true),
                trusts: true,
                ..
            } => Some((
                "the datapath cannot `bind` where `proxy_protocol_from` has connections begin with a PROXY protocol header",
                "leave `bind` out: the agent reads the header, and hands the connection off afterwards",
            )),
            _ => None,
        }
    }
}
