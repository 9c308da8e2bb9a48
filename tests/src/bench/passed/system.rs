//! What is measured, as data.

use crate::bench::results::Role;
use crate::peers::Make;

/// What stands between partner and Edge, and on which links.
#[derive(Clone, Copy, Debug)]
pub struct System {
    /// Its name.
    pub name: &'static str,
    /// Whether the lab's links have their offloads.
    pub offloads: bool,
    pub(super) through: Through,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Through {
    /// The kernel's routing: what the network, the partner and the Edge take by themselves.
    Routing,
    /// snigate.
    Snigate {
        /// `hook` of `[gateway]`.
        hook: &'static str,
        /// Who connects to the Edge, and who carries the bytes.
        by: By,
        /// Whether it is the other build of snigate, to be compared with this one.
        other: bool,
    },
    Proxy(Make),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The datapath does both, and the agent knows nothing of it.
    Binding,
    /// The agent connects, then the datapath carries, and the agent has no socket any more.
    HandOff,
    /// The agent does both.
    Agent,
}

impl By {
    /// What the IP set says for it.
    pub(super) fn keys(self) -> &'static str {
        match self {
            Self::Binding => "bind = true",
            Self::HandOff => "bind = false\nhand_off = true",
            Self::Agent => "hand_off = false",
        }
    }

    /// The way of such a connection in `snigate flow ls`.
    pub(super) fn way(self) -> &'static str {
        match self {
            Self::Binding => "bound",
            Self::HandOff => "handed-off",
            Self::Agent => "relayed",
        }
    }
}

const fn system(name: &'static str, offloads: bool, through: Through) -> System {
    System {
        name,
        offloads,
        through,
    }
}

const fn snigate(hook: &'static str, by: By) -> Through {
    Through::Snigate {
        hook,
        by,
        other: false,
    }
}

const fn other(hook: &'static str, by: By) -> Through {
    Through::Snigate {
        hook,
        by,
        other: true,
    }
}

/// Native XDP on veth needs the links without offloads, and TCX is for links that have them; so each is compared with what the others do on the
/// same links.
pub(super) const SYSTEMS: [System; 18] = [
    system("routing", true, Through::Routing),
    system("binding, TCX", true, snigate("tcx", By::Binding)),
    system("hand-off, TCX", true, snigate("tcx", By::HandOff)),
    system("relay", true, snigate("tcx", By::Agent)),
    system("other binding", true, other("tcx", By::Binding)),
    system("other hand-off", true, other("tcx", By::HandOff)),
    system("other relay", true, other("tcx", By::Agent)),
    system("haproxy", true, Through::Proxy(Make::Haproxy)),
    system("nginx", true, Through::Proxy(Make::Nginx)),
    system("routing", false, Through::Routing),
    system("binding, XDP", false, snigate("xdp", By::Binding)),
    system("hand-off, XDP", false, snigate("xdp", By::HandOff)),
    system("relay", false, snigate("xdp", By::Agent)),
    system("other binding", false, other("xdp", By::Binding)),
    system("other hand-off", false, other("xdp", By::HandOff)),
    system("other relay", false, other("xdp", By::Agent)),
    system("haproxy", false, Through::Proxy(Make::Haproxy)),
    system("nginx", false, Through::Proxy(Make::Nginx)),
];

impl System {
    /// The kind of links in JSON.
    pub(super) fn links(&self) -> &'static str {
        if self.offloads {
            "offloads-on"
        } else {
            "offloads-off"
        }
    }

    pub(super) fn role(&self) -> Role {
        match self.through {
            Through::Routing => Role::Baseline,
            Through::Snigate { .. } => Role::Ours,
            Through::Proxy(_) => Role::Peer,
        }
    }

    pub(super) fn is_routing(&self) -> bool {
        matches!(self.through, Through::Routing)
    }

    pub(super) fn is_haproxy(&self) -> bool {
        matches!(self.through, Through::Proxy(Make::Haproxy))
    }

    /// Whether it is the other build of snigate.
    pub(super) fn is_other(&self) -> bool {
        matches!(self.through, Through::Snigate { other: true, .. })
    }

    pub(super) fn binds(&self) -> bool {
        self.by() == Some(By::Binding)
    }

    pub(super) fn hands_off(&self) -> bool {
        self.by() == Some(By::HandOff)
    }

    pub(super) fn by(&self) -> Option<By> {
        match self.through {
            Through::Snigate { by, .. } => Some(by),
            Through::Routing | Through::Proxy(_) => None,
        }
    }

    /// The sockets that the gateway has for each connection.
    pub(super) fn sockets(&self) -> u64 {
        match self.through {
            Through::Routing
            | Through::Snigate {
                by: By::Binding | By::HandOff,
                ..
            } => 0,
            Through::Snigate { by: By::Agent, .. } | Through::Proxy(_) => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_on_the_same_links_and_each_kind_has_routing_and_haproxy() {
        for offloads in [true, false] {
            let group = SYSTEMS.iter().filter(|it| it.offloads == offloads);
            let mut names: Vec<_> = group.clone().map(|it| it.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), group.clone().count());
            assert!(group.clone().any(System::is_routing) && group.clone().any(System::is_haproxy));
        }
    }
}
