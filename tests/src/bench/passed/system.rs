//! What is measured, as data.

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
    /// snigate, with its own address toward the Edge, as the other proxies have.
    Snigate {
        /// `hook` of `[gateway]`.
        hook: &'static str,
        /// Who carries the bytes.
        by: By,
    },
    Proxy(Make),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The datapath, and the agent has no socket any more.
    Datapath,
    /// The agent.
    Agent,
}

impl By {
    /// What the IP set says for it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Datapath => "hand_off = true",
            Self::Agent => "hand_off = false",
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
    Through::Snigate { hook, by }
}

/// Native XDP on veth needs the links without offloads, and TCX is for links that have them; so each is compared with what the others do on the
/// same links.
pub(super) const SYSTEMS: [System; 10] = [
    system("routing", true, Through::Routing),
    system("hand-off, TCX", true, snigate("tcx", By::Datapath)),
    system("relay", true, snigate("tcx", By::Agent)),
    system("haproxy", true, Through::Proxy(Make::Haproxy)),
    system("nginx", true, Through::Proxy(Make::Nginx)),
    system("routing", false, Through::Routing),
    system("hand-off, XDP", false, snigate("xdp", By::Datapath)),
    system("relay", false, snigate("xdp", By::Agent)),
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

    pub(super) fn is_routing(&self) -> bool {
        matches!(self.through, Through::Routing)
    }

    pub(super) fn is_haproxy(&self) -> bool {
        matches!(self.through, Through::Proxy(Make::Haproxy))
    }

    /// Whether it is what the aims are set for.
    pub(super) fn hands_off(&self) -> bool {
        matches!(
            self.through,
            Through::Snigate {
                by: By::Datapath,
                ..
            }
        )
    }

    /// The sockets that the gateway has for each connection.
    pub(super) fn sockets(&self) -> u64 {
        match self.through {
            Through::Routing => 0,
            Through::Snigate {
                by: By::Datapath, ..
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
