//! A captured packet in the words of people.

use std::borrow::Cow;

use sni_common::contract::{
    Captured, Counter, Direction, DropReason, Edge, Fate, FlowKey, Hook, VlanTag,
};

use super::file::Answer;
use crate::{cli::units, datapath::CapturedPacket};

/// Both Ethernet addresses, behind which a VLAN tag stands.
const ADDRESSES: usize = 12;
const VLAN_TAG: u32 = 4;

/// Which Edge a packet is of, and which way it goes: by its flow, else by its addresses.
pub(super) fn edge(head: &Captured, edges: &[(u16, Edge)]) -> Option<(u16, Direction)> {
    let of_flow = head
        .edge
        .checked_sub(1)
        .and_then(|slot| u16::try_from(slot).ok());
    if let Some(slot) = of_flow {
        let direction = Direction::try_from(head.direction).unwrap_or(Direction::ToEdge);
        return Some((slot, direction));
    }
    let key = &head.key;
    let at = |address, port_be| {
        let is_there = |edge: &Edge| edge.address == address && edge.port_be == port_be;
        edges.iter().find(|(_, edge)| is_there(edge)).map(|it| it.0)
    };
    let from = at(key.source, key.source_port_be).map(|slot| (slot, Direction::ToClient));
    from.or_else(|| {
        at(key.destination, key.destination_port_be).map(|slot| (slot, Direction::ToEdge))
    })
}

/// What became of a packet, such as `dropped: hello-budget; to edge-a; at xdp`.
pub(super) fn comment(
    head: &Captured,
    edge: Option<(&str, Direction)>,
    leaves_by: Option<&str>,
) -> String {
    let mut comment = fate(head);
    if let Some((name, direction)) = edge {
        let way = match direction {
            Direction::ToEdge => "to",
            Direction::ToClient => "from",
        };
        comment.push_str(&format!("; {way} {name}"));
    }
    if let Some(interface) = leaves_by {
        comment.push_str(&format!("; out by {interface}"));
    }
    match Hook::try_from(head.hook) {
        Ok(hook) => comment.push_str(&format!("; at {hook}")),
        Err(unknown) => comment.push_str(&format!("; at a hook of {unknown}")),
    }
    if head.length == 0 {
        let FlowKey {
            source,
            destination,
            source_port_be,
            destination_port_be,
        } = head.key;
        let from = units::endpoint(source, source_port_be);
        let to = units::endpoint(destination, destination_port_be);
        comment.push_str(&format!(", which has no packet: {from} to {to}"));
    }
    comment
}

/// What became of it, and the counter or reason where that says more.
fn fate(head: &Captured) -> String {
    let number = u32::from(head.number);
    let Ok(fate) = Fate::try_from(head.fate) else {
        return format!("fate {}, number {number}", head.fate);
    };
    let name = match fate {
        Fate::Answered | Fate::Dropped => DropReason::try_from(number).map(DropReason::name),
        _ => Counter::try_from(number).map(Counter::name),
    };
    match name {
        Ok(name) if name == fate.name() => name.to_owned(),
        Ok(name) => format!("{fate}: {name}"),
        Err(unknown) => format!("{fate}: {unknown}"),
    }
}

/// The frame as it was on the wire, and its whole length: with the tag that the kernel has taken out.
pub(super) fn on_the_wire(packet: &CapturedPacket) -> (Cow<'_, [u8]>, u32) {
    let VlanTag {
        protocol_be,
        control_be,
    } = packet.head.tag;
    match packet.bytes.split_at_checked(ADDRESSES) {
        Some((addresses, rest)) if protocol_be != 0 => {
            let tag = [protocol_be.to_ne_bytes(), control_be.to_ne_bytes()].concat();
            let bytes = [addresses, &tag, rest].concat();
            (bytes.into(), packet.head.length + VLAN_TAG)
        }
        _ => (packet.bytes.as_slice().into(), packet.head.length),
    }
}

/// What the program has answered; `None` at a hook that the format has no numbers for.
pub(super) fn answer(head: &Captured) -> Option<Answer> {
    let fate = Fate::try_from(head.fate).ok()?;
    // xdp_action and TC_ACT_… of linux/bpf.h and linux/pkt_cls.h.
    let (xdp, traffic_control) = match fate {
        Fate::Passed => (2, -1),
        Fate::Dropped | Fate::Kept => (1, 2),
        Fate::Forwarded | Fate::Answered | Fate::Greeted => (4, 7),
    };
    match Hook::try_from(head.hook).ok()? {
        Hook::Xdp => Some(Answer::Xdp(xdp)),
        Hook::TrafficControl | Hook::Behind => Some(Answer::TrafficControl(traffic_control)),
        Hook::SocketLookup => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn head(fate: Fate, number: u32, hook: Hook) -> Captured {
        let address = |text: &str| text.parse::<IpAddr>().unwrap().into();
        Captured {
            key: FlowKey {
                source: address("198.51.100.1"),
                destination: address("203.0.113.10"),
                source_port_be: 40_000_u16.to_be(),
                destination_port_be: 5061_u16.to_be(),
            },
            length: 60,
            fate: fate as u8,
            number: number as u8,
            hook: hook as u8,
            ..Captured::default()
        }
    }

    #[test]
    fn a_comment_says_what_became_of_a_packet() {
        let dropped = head(Fate::Dropped, DropReason::HelloBudget as u32, Hook::Xdp);
        let to_edge = Some(("edge-a", Direction::ToEdge));
        assert_eq!(
            comment(&dropped, to_edge, None),
            "dropped: hello-budget; to edge-a; at xdp"
        );
        let forwarded = head(
            Fate::Forwarded,
            Counter::HandedOff as u32,
            Hook::TrafficControl,
        );
        let from_edge = Some(("edge-a", Direction::ToClient));
        assert_eq!(
            comment(&forwarded, from_edge, Some("wan0")),
            "forwarded: handed-off; from edge-a; out by wan0; at tc"
        );
        let plain = head(Fate::Forwarded, Counter::Forwarded as u32, Hook::Xdp);
        assert_eq!(comment(&plain, None, None), "forwarded; at xdp");
        let passed = head(Fate::Passed, Counter::Inspected as u32, Hook::Behind);
        assert_eq!(comment(&passed, None, None), "passed: inspected; at return");
        let mut unseen = head(
            Fate::Dropped,
            DropReason::NoListener as u32,
            Hook::SocketLookup,
        );
        unseen.length = 0;
        assert_eq!(
            comment(&unseen, None, None),
            "dropped: no-listener; at socket-lookup, which has no packet: 198.51.100.1:40000 to 203.0.113.10:5061"
        );
        let mut unknown = dropped;
        (unknown.fate, unknown.hook) = (99, 98);
        assert_eq!(
            comment(&unknown, None, None),
            "fate 99, number 24; at a hook of unknown value 98"
        );
    }

    #[test]
    fn an_edge_is_that_of_the_flow_or_of_the_address() {
        let mut captured = head(Fate::Dropped, 1, Hook::Xdp);
        let edges = [(
            3,
            Edge {
                address: captured.key.destination,
                port_be: captured.key.destination_port_be,
                ..Edge::default()
            },
        )];
        assert_eq!(edge(&captured, &edges), Some((3, Direction::ToEdge)));
        captured.key = captured.key.reversed();
        assert_eq!(edge(&captured, &edges), Some((3, Direction::ToClient)));
        captured.key.source_port_be = 1;
        assert_eq!(edge(&captured, &edges), None);
        (captured.edge, captured.direction) = (6, Direction::ToClient as u8);
        assert_eq!(edge(&captured, &edges), Some((5, Direction::ToClient)));
    }

    #[test]
    fn a_tag_that_was_taken_out_is_put_back() {
        let mut packet = CapturedPacket {
            head: head(Fate::Dropped, 1, Hook::TrafficControl),
            bytes: (0..20).collect(),
        };
        assert_eq!(on_the_wire(&packet), (packet.bytes.as_slice().into(), 60));
        packet.head.tag = VlanTag {
            protocol_be: 0x8100_u16.to_be(),
            control_be: 200_u16.to_be(),
        };
        let (bytes, length) = on_the_wire(&packet);
        assert_eq!(length, 64);
        assert_eq!(bytes[..12], packet.bytes[..12]);
        assert_eq!(bytes[12..16], [0x81, 0, 0, 200]);
        assert_eq!(bytes[16..], packet.bytes[12..]);
        packet.bytes.truncate(5);
        assert_eq!(on_the_wire(&packet).0, packet.bytes.as_slice());
    }

    #[test]
    fn a_program_answers_by_its_hook() {
        let answer = |fate, hook| super::answer(&head(fate, 1, hook));
        assert_eq!(answer(Fate::Dropped, Hook::Xdp), Some(Answer::Xdp(1)));
        assert_eq!(
            answer(Fate::Passed, Hook::Behind),
            Some(Answer::TrafficControl(-1))
        );
        assert_eq!(answer(Fate::Dropped, Hook::SocketLookup), None);
    }
}
