//! How an interface hands what it receives to the datapath: its offloads, and by how many queues.

use std::thread::available_parallelism;

use super::{Findings, Outcome};
use crate::{
    agent::hooks::Choice,
    net::{
        Interface,
        host::{self, HostError, ReceiveQueues},
    },
};

const VETH: Option<&str> = Some("veth");

impl Findings {
    pub(super) fn receiving(
        &mut self,
        name: &str,
        interface: &Interface,
        all: &[Interface],
        choice: &Choice,
    ) {
        let is_veth = choice.driver(name) == VETH;
        // Traffic control can do with all of it.
        if choice.mode.is_xdp() {
            if is_veth {
                self.peer(name, interface, all, choice);
            }
            self.tags(name, interface, all);
        }
        // Without XDP, the processor that has sent a packet by a veth works on it at the other end.
        if !is_veth || choice.mode.is_xdp() {
            self.warn(name, queues(name));
        }
        self.warn(name, merging(name));
    }

    fn warn(&mut self, name: &str, found: Result<Option<String>, HostError>) {
        match found {
            Ok(None) => {}
            Ok(Some(sentence)) => self.add(name, Outcome::Warning, sentence),
            Err(error) => self.add(name, Outcome::Warning, error),
        }
    }

    /// What XDP asks of the other end of a veth, if that is in sight.
    fn peer(&mut self, name: &str, interface: &Interface, all: &[Interface], choice: &Choice) {
        let linked = |other: &&Interface| Some(other.index) == interface.linked;
        let Some(peer) = all.iter().find(linked).map(|peer| &*peer.name) else {
            return self.add(
                name,
                Outcome::Warning,
                format!(
                    "is a veth: XDP forwards the unfinished checksums of its peer as they are, and reaches a peer with GRO only. On the peer, run \
                     `ethtool -K PEER tx off gro on` while both ends are up; or set `hook = \"tcx\"`, which needs neither (now: {})",
                    choice.mode
                ),
            );
        };
        let unfinished = host::transmit_checksum_offload(peer).map(|on| {
            on.then(|| {
                format!(
                    "is a veth, and XDP would forward the unfinished checksums of its peer as they are: `ethtool -K {peer} tx off`, or set `hook = \"tcx\"`"
                )
            })
        });
        self.warn(name, unfinished);
        let unreachable = host::generic_receive_offload(peer).map(|on| {
            (!on).then(|| {
                format!(
                    "is a veth, and XDP does not reach its peer without GRO: `ethtool -K {peer} gro on` while both ends are up, or set `hook = \"tcx\"`"
                )
            })
        });
        self.warn(name, unreachable);
    }

    fn tags(&mut self, name: &str, interface: &Interface, all: &[Interface]) {
        let is_above =
            |other: &Interface| other.vlan.is_some_and(|it| it.parent == interface.index);
        if !all.iter().any(is_above) {
            return;
        }
        let taken = host::rx_vlan_offload(name).map(|on| {
            on.then(|| {
                format!(
                    "takes VLAN tags out of frames before the datapath sees them: switch that off with `ethtool -K {name} rxvlan off`"
                )
            })
        });
        self.warn(name, taken);
    }
}

fn queues(name: &str) -> Result<Option<String>, HostError> {
    let processors = available_parallelism().map_or(1, |number| number.get());
    let processors = u32::try_from(processors).unwrap_or(u32::MAX);
    let queues = host::receive_queues(name)?;
    Ok(queues.and_then(|queues| too_few(name, queues, processors)))
}

/// A sentence where an interface could keep more processors at work than it does.
fn too_few(name: &str, queues: ReceiveQueues, processors: u32) -> Option<String> {
    let ReceiveQueues {
        used,
        most,
        combined,
    } = queues;
    let wanted = processors.min(most);
    let kind = if combined { "combined" } else { "rx" };
    (used < wanted).then(|| {
        format!(
            "receives by {used} of its {most} queues, so that {used} of {processors} processors work for it: `ethtool -L {name} {kind} {wanted}` has more of them do so"
        )
    })
}

fn merging(name: &str) -> Result<Option<String>, HostError> {
    let on = host::large_receive_offload(name)?;
    Ok(on.then(|| {
        format!(
            "merges received segments for good (LRO), which can't be forwarded and keeps some drivers from running XDP: switch that off with `ethtool -K {name} lro off`"
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(used: u32, most: u32, combined: bool, processors: u32) -> Option<String> {
        let queues = ReceiveQueues {
            used,
            most,
            combined,
        };
        too_few("wan0", queues, processors)
    }

    #[test]
    fn a_queue_for_each_processor_as_far_as_there_are() {
        let sentence = said(1, 16, true, 8).expect("a warning");
        assert!(
            sentence.contains("`ethtool -L wan0 combined 8`"),
            "{sentence}"
        );
        let sentence = said(2, 4, false, 8).expect("a warning");
        assert!(sentence.contains("`ethtool -L wan0 rx 4`"), "{sentence}");
        assert_eq!(said(8, 16, true, 8), None);
        // Nothing can be done about it.
        assert_eq!(said(4, 4, true, 8), None);
        assert_eq!(said(1, 1, false, 8), None);
        // Who wants fewer processors to work for it than queues has a reason.
        assert_eq!(said(16, 16, true, 8), None);
    }
}
