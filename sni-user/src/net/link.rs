//! Interfaces, and the VLANs on top of them.

use std::fmt;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Prop, VlanProtocol,
};
use sni_common::contract::{Link, VlanTag};

use super::{NetError, Network};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index, by which packets and routes name it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Further names that it answers to (`ip link property`).
    pub alternative_names: Vec<String>,
    /// Largest packet, in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Whether it has been switched on; a cable is another matter.
    pub up: bool,
    /// Its Ethernet address; tunnels have none.
    pub mac: Option<Mac>,
    /// What it is a VLAN of.
    pub vlan: Option<Vlan>,
    /// Index of the interface of this namespace that it is linked to: of a veth its peer.
    pub linked: Option<u32>,
}

/// The place of a VLAN interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Index of the interface below it.
    pub parent: u32,
    /// The tag's EtherType: 0x8100 (802.1Q) or 0x88a8 (802.1ad).
    pub protocol: u16,
    /// The VLAN's number.
    pub id: u16,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl Network {
    /// Every interface, loopback among them, by index.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, NetError> {
        let mut found = Vec::new();
        self.list(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            || "listing the interfaces".to_owned(),
            |answer| {
                if let RouteNetlinkMessage::NewLink(link) = answer {
                    found.push(Interface::from(&link));
                }
            },
        )
        .await?;
        found.sort_by_key(|interface| interface.index);
        Ok(found)
    }

    /// The interface with this name, or with this alternative name.
    ///
    /// # Errors
    /// There is none: the sentence lists those there are. Or the kernel's.
    pub async fn interface(&self, name: &str) -> Result<Interface, NetError> {
        find(self.interfaces().await?, name)
    }
}

/// For every VLAN interface on top of one of the `attached` interfaces: its index, and what LINKS is to hold for it.
///
/// The tags are those that its frames carry on the attached interface, the outer (nearest the wire) first. An interface that is
/// attached itself needs no entry. More than two tags are beyond what the datapath writes, and left out.
#[must_use]
pub fn vlan_links(interfaces: &[Interface], attached: &[u32]) -> Vec<(u32, Link)> {
    interfaces
        .iter()
        .filter(|interface| !attached.contains(&interface.index))
        .filter_map(|interface| {
            let link = below(interfaces, attached, interface)?;
            Some((interface.index, link))
        })
        .collect()
}

/// Walks from a VLAN interface down to an attached one.
fn below(interfaces: &[Interface], attached: &[u32], top: &Interface) -> Option<Link> {
    let mut link = Link::default();
    let mut at = top;
    while link.tags[1] == VlanTag::default() {
        let vlan = at.vlan?;
        // The walk meets the inner tag first.
        link.tags = [tag(vlan), link.tags[0]];
        if attached.contains(&vlan.parent) {
            link.ifindex = vlan.parent;
            return Some(link);
        }
        at = interfaces
            .iter()
            .find(|interface| interface.index == vlan.parent)?;
    }
    None
}

fn tag(vlan: Vlan) -> VlanTag {
    VlanTag {
        protocol_be: vlan.protocol.to_be(),
        control_be: vlan.id.to_be(),
    }
}

fn find(interfaces: Vec<Interface>, name: &str) -> Result<Interface, NetError> {
    let known: Vec<String> = interfaces
        .iter()
        .map(|interface| interface.name.clone())
        .collect();
    let named = |interface: &Interface| {
        interface.name == name
            || interface
                .alternative_names
                .iter()
                .any(|other| other == name)
    };
    interfaces
        .into_iter()
        .find(named)
        .ok_or_else(|| NetError::UnknownInterface {
            name: name.to_owned(),
            nearest: nearest(name, &known),
            known,
        })
}

/// The existing name that a wrong one was probably meant to be; names of interfaces are short, so half of it may be wrong.
fn nearest(name: &str, known: &[String]) -> Option<String> {
    // The kernel's limit is 15 bytes (IFNAMSIZ), 127 for an alternative name: anything longer is no slip.
    if name.len() > 127 {
        return None;
    }
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= (name.chars().count() / 2).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.clone())
}

impl From<&LinkMessage> for Interface {
    fn from(message: &LinkMessage) -> Self {
        let mut interface = Self {
            index: message.header.index,
            name: String::new(),
            alternative_names: Vec::new(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
            mac: None,
            vlan: None,
            linked: None,
        };
        let (mut parent, mut parent_is_elsewhere, mut id) = (None, false, None);
        let mut protocol = VlanProtocol::default();
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name.clone_from(name),
                LinkAttribute::PropList(properties) => {
                    for property in properties {
                        if let Prop::AltIfName(name) = property {
                            interface.alternative_names.push(name.clone());
                        }
                    }
                }
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::Address(bytes) => {
                    interface.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac);
                }
                LinkAttribute::Link(index) => parent = Some(*index),
                // The index is one of another namespace, and may be anything's here.
                LinkAttribute::LinkNetNsId(_) => parent_is_elsewhere = true,
                LinkAttribute::LinkInfo(details) => {
                    for detail in vlan_details(details) {
                        match detail {
                            InfoVlan::Id(number) => id = Some(*number),
                            InfoVlan::Protocol(ethertype) => protocol = *ethertype,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        interface.linked = parent.filter(|_| !parent_is_elsewhere);
        if let (Some(parent), Some(id)) = (interface.linked, id) {
            interface.vlan = Some(Vlan {
                parent,
                protocol: protocol.into(),
                id,
            });
        }
        interface
    }
}

fn vlan_details(details: &[LinkInfo]) -> impl Iterator<Item = &InfoVlan> {
    details
        .iter()
        .filter_map(|detail| match detail {
            LinkInfo::Data(InfoData::Vlan(vlan)) => Some(vlan),
            _ => None,
        })
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: u32 = 2;

    fn interface(index: u32, vlan: Option<Vlan>) -> Interface {
        Interface {
            index,
            name: format!("if{index}"),
            alternative_names: Vec::new(),
            mtu: 1500,
            up: true,
            mac: None,
            vlan,
            linked: None,
        }
    }

    fn vlan(index: u32, parent: u32, protocol: u16, id: u16) -> Interface {
        interface(
            index,
            Some(Vlan {
                parent,
                protocol,
                id,
            }),
        )
    }

    fn link(tags: &[(u16, u16)]) -> Link {
        let mut link = Link {
            ifindex: WIRE,
            ..Link::default()
        };
        for (slot, (protocol, id)) in link.tags.iter_mut().zip(tags) {
            slot.protocol_be = protocol.to_be();
            slot.control_be = id.to_be();
        }
        link
    }

    #[test]
    fn a_single_tag_is_the_outer() {
        let all = [interface(WIRE, None), vlan(3, WIRE, 0x8100, 100)];
        assert_eq!(vlan_links(&all, &[WIRE]), [(3, link(&[(0x8100, 100)]))]);
    }

    #[test]
    fn the_tag_nearest_the_wire_comes_first() {
        // The upper interface has the lower index: indices say nothing about the order.
        let all = [
            vlan(1, 3, 0x8100, 100),
            interface(WIRE, None),
            vlan(3, WIRE, 0x88a8, 200),
        ];
        assert_eq!(
            vlan_links(&all, &[WIRE]),
            [
                (1, link(&[(0x88a8, 200), (0x8100, 100)])),
                (3, link(&[(0x88a8, 200)])),
            ]
        );
    }

    #[test]
    fn an_attached_vlan_carries_only_what_is_above_it() {
        let all = [
            interface(1, None),
            vlan(WIRE, 1, 0x88a8, 200),
            vlan(3, WIRE, 0x8100, 100),
        ];
        let expected = [(3, link(&[(0x8100, 100)]))];
        assert_eq!(vlan_links(&all, &[WIRE]), expected);
        assert_eq!(vlan_links(&all, &[1, WIRE]), expected);
    }

    #[test]
    fn three_tags_and_other_interfaces_are_left_out() {
        let all = [
            interface(WIRE, None),
            vlan(3, WIRE, 0x88a8, 300),
            vlan(4, 3, 0x88a8, 200),
            vlan(5, 4, 0x8100, 100),
            interface(6, None),
            vlan(7, 6, 0x8100, 700),
            vlan(8, 99, 0x8100, 800),
        ];
        let found: Vec<u32> = vlan_links(&all, &[WIRE]).iter().map(|(i, _)| *i).collect();
        assert_eq!(found, [3, 4]);
        assert_eq!(vlan_links(&all, &[]), []);
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_one() {
        let named = |index, name: &str| Interface {
            name: name.to_owned(),
            ..interface(index, None)
        };
        let all = vec![named(1, "lo"), named(2, "wan0"), named(3, "lan0")];
        let error = find(all.clone(), "wna0").expect_err("no such name");
        assert_eq!(
            error.to_string(),
            "there is no interface `wna0`: did you mean `wan0`? the interfaces here are `lo`, `wan0`, `lan0`"
        );
        let error = find(all.clone(), "enp3s0f1").expect_err("no such name");
        assert_eq!(
            error.to_string(),
            "there is no interface `enp3s0f1`: the interfaces here are `lo`, `wan0`, `lan0`"
        );
        assert_eq!(find(all, "lan0").expect("an interface").index, 3);
    }

    #[test]
    fn a_vlan_whose_parent_is_in_another_namespace_is_none_here() {
        let mut message = LinkMessage::default();
        message.header.index = 9;
        message.attributes = vec![
            LinkAttribute::IfName("wan0.100".to_owned()),
            LinkAttribute::Link(WIRE),
            LinkAttribute::LinkInfo(vec![LinkInfo::Data(InfoData::Vlan(vec![
                InfoVlan::Id(100),
                InfoVlan::Protocol(VlanProtocol::Ieee8021Ad),
            ]))]),
        ];
        let expected = Vlan {
            parent: WIRE,
            protocol: 0x88a8,
            id: 100,
        };
        assert_eq!(Interface::from(&message).vlan, Some(expected));
        message.attributes.push(LinkAttribute::LinkNetNsId(1));
        assert_eq!(Interface::from(&message).vlan, None);
    }
}
