//! What a lab looks like, and the commands that make it so.

use anyhow::{Context as _, Result};

use crate::addresses::{
    EDGE_A, EDGE_B, GATEWAY_LAN_A, GATEWAY_LAN_B, GATEWAY_TRANSIT, GATEWAY_WAN, Host, ROUTER,
    VIP_1, VIP_2, partner,
};
use crate::netns::Namespace;

const WAN_PREFIXES: (u8, u8) = (24, 64);
const LAN_PREFIXES: (u8, u8) = (25, 64);

/// The variants of the lab. The default is the plain one.
#[derive(Clone, Debug)]
pub struct Topology {
    /// VLAN tags between the partner and the gateway.
    pub wan_tags: Tags,
    /// VLAN tags between the gateway and edge-a.
    pub lan_a_tags: Tags,
    /// MTU of the partner's link.
    pub wan_mtu: u32,
    /// MTU of edge-a's link.
    pub lan_a_mtu: u32,
    /// MTU of edge-b's link.
    pub lan_b_mtu: u32,
    /// Puts a router between the gateway and edge-a whose route to the Edge has this MTU: what only path MTU
    /// discovery through the gateway can find out.
    pub router_mtu: Option<u32>,
    /// How many addresses the partner has in each family; see [`crate::addresses::partner`].
    pub partner_addresses: u8,
    /// Records every link with tcpdump. Costs much of a small machine in bulk tests.
    pub capture: bool,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            wan_tags: Tags::None,
            lan_a_tags: Tags::None,
            wan_mtu: 1500,
            lan_a_mtu: 1500,
            lan_b_mtu: 1500,
            router_mtu: None,
            partner_addresses: 1,
            capture: true,
        }
    }
}

/// VLAN tags on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tags {
    /// Untagged.
    #[default]
    None,
    /// One IEEE 802.1Q tag.
    Vlan(u16),
    /// An IEEE 802.1ad service tag around an 802.1Q tag.
    QinQ {
        /// The service VLAN.
        outer: u16,
        /// The customer VLAN.
        inner: u16,
    },
}

impl Tags {
    /// The interface that carries the addresses when `device` carries these tags.
    #[must_use]
    pub fn device(self, device: &str) -> String {
        match self {
            Self::None => device.to_owned(),
            Self::Vlan(id) => format!("{device}.{id}"),
            Self::QinQ { outer, inner } => format!("{device}.{outer}.{inner}"),
        }
    }

    fn count(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Vlan(_) => 1,
            Self::QinQ { .. } => 2,
        }
    }
}

/// The namespaces of a lab.
#[derive(Debug)]
pub(crate) struct Machines {
    pub(crate) partner: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) edge_a: Namespace,
    pub(crate) edge_b: Namespace,
    pub(crate) router: Option<Namespace>,
}

/// One end of a link: the machine and the name of its interface.
type End<'a> = (&'a Namespace, &'a str);

impl Topology {
    /// Makes the namespaces, links, addresses and routes of the lab `lab`.
    pub(crate) fn build(&self, lab: &str) -> Result<Machines> {
        let create = |role: &str| Namespace::create(&format!("{lab}-{role}"));
        let machines = Machines {
            partner: create("partner")?,
            gateway: create("gateway")?,
            edge_a: create("edge-a")?,
            edge_b: create("edge-b")?,
            router: self.router_mtu.map(|_| create("router")).transpose()?,
        };
        make_router(&machines.gateway)?;
        self.wire_partner(&machines).context("the partner's link")?;
        match &machines.router {
            None => self.wire_edge_a(&machines, &machines.gateway, "lan0"),
            Some(router) => self.wire_router(&machines, router),
        }
        .context("the link of edge-a")?;
        self.wire_edge_b(&machines).context("the link of edge-b")?;
        Ok(machines)
    }

    fn wire_partner(&self, machines: &Machines) -> Result<()> {
        let gateway = (&machines.gateway, "wan0");
        let (wan, eth) = link(
            gateway,
            (&machines.partner, "eth0"),
            self.wan_mtu,
            self.wan_tags,
        )?;
        add_address(&machines.gateway, &wan, GATEWAY_WAN, WAN_PREFIXES)?;
        for vip in [VIP_1, VIP_2] {
            add_address(&machines.gateway, &wan, vip, (32, 128))?;
        }
        for n in 0..self.partner_addresses {
            add_address(&machines.partner, &eth, partner(n), WAN_PREFIXES)?;
        }
        default_route(&machines.partner, GATEWAY_WAN)
    }

    fn wire_edge_a(&self, machines: &Machines, uplink: &Namespace, device: &str) -> Result<()> {
        let edge = (&machines.edge_a, "eth0");
        let (lan, eth) = link((uplink, device), edge, self.lan_a_mtu, self.lan_a_tags)?;
        add_address(uplink, &lan, GATEWAY_LAN_A, LAN_PREFIXES)?;
        add_address(&machines.edge_a, &eth, EDGE_A, LAN_PREFIXES)?;
        default_route(&machines.edge_a, GATEWAY_LAN_A)
    }

    fn wire_router(&self, machines: &Machines, router: &Namespace) -> Result<()> {
        make_router(router)?;
        let (lan, up) = link(
            (&machines.gateway, "lan0"),
            (router, "up0"),
            1500,
            Tags::None,
        )?;
        add_address(&machines.gateway, &lan, GATEWAY_TRANSIT, (24, 64))?;
        add_address(router, &up, ROUTER, (24, 64))?;
        default_route(router, GATEWAY_TRANSIT)?;
        self.wire_edge_a(machines, router, "down0")?;

        let down = self.lan_a_tags.device("down0");
        let mtu = self.router_mtu.unwrap_or(self.lan_a_mtu);
        let Host { v4, v6 } = EDGE_A;
        router.ip(&format!(
            "route add {v4}/32 dev {down} mtu {mtu}
             -6 route add {v6}/128 dev {down} mtu {mtu}"
        ))?;
        machines.gateway.ip(&format!(
            "route add 203.0.113.0/25 via {}
             -6 route add 2001:db8:a::/64 via {}",
            ROUTER.v4, ROUTER.v6
        ))
    }

    fn wire_edge_b(&self, machines: &Machines) -> Result<()> {
        let gateway = (&machines.gateway, "lan1");
        let edge = (&machines.edge_b, "eth0");
        let (lan, eth) = link(gateway, edge, self.lan_b_mtu, Tags::None)?;
        add_address(&machines.gateway, &lan, GATEWAY_LAN_B, LAN_PREFIXES)?;
        add_address(&machines.edge_b, &eth, EDGE_B, LAN_PREFIXES)?;
        default_route(&machines.edge_b, GATEWAY_LAN_B)
    }
}

fn make_router(machine: &Namespace) -> Result<()> {
    machine.sysctl("net/ipv4/ip_forward", "1")?;
    machine.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    machine.sysctl("net/ipv6/conf/default/forwarding", "1")
}

/// Connects two machines and returns the interfaces that take the addresses.
fn link(left: End, right: End, mtu: u32, tags: Tags) -> Result<(String, String)> {
    // Room for the tags beside a full packet; one is within what every driver allows, two are not.
    let outer_mtu = mtu + 4 * tags.count();
    left.0.ip(&format!(
        "link add {} mtu {outer_mtu} type veth peer name {} mtu {outer_mtu} netns {}",
        left.1,
        right.1,
        right.0.name()
    ))?;
    Ok((bring_up(left, mtu, tags)?, bring_up(right, mtu, tags)?))
}

fn bring_up((machine, device): End, mtu: u32, tags: Tags) -> Result<String> {
    // Native XDP on veth sees no partial checksums and sends none: without this, packets that the datapath forwards
    // arrive with a checksum that nobody completed. And a redirect to a veth whose peer has neither GRO nor a
    // program of its own is dropped without a trace.
    machine.output(
        "ethtool",
        &["-K", device, "tx", "off", "txvlan", "off", "gro", "on"],
    )?;
    machine.ip(&format!("link set {device} up"))?;
    let inner = tags.device(device);
    match tags {
        Tags::None => {}
        Tags::Vlan(id) => machine.ip(&format!(
            "link add link {device} name {inner} mtu {mtu} type vlan id {id}"
        ))?,
        Tags::QinQ { outer, inner: id } => machine.ip(&format!(
            "link add link {device} name {device}.{outer} type vlan proto 802.1ad id {outer}
             link set {device}.{outer} up
             link add link {device}.{outer} name {inner} mtu {mtu} type vlan id {id}"
        ))?,
    }
    if tags != Tags::None {
        machine.ip(&format!("link set {inner} up"))?;
    }
    Ok(inner)
}

fn add_address(machine: &Namespace, device: &str, host: Host, prefixes: (u8, u8)) -> Result<()> {
    machine.ip(&format!(
        "addr add {}/{} dev {device}
         addr add {}/{} dev {device} nodad",
        host.v4, prefixes.0, host.v6, prefixes.1
    ))
}

fn default_route(machine: &Namespace, via: Host) -> Result<()> {
    machine.ip(&format!(
        "route add default via {}
         -6 route add default via {}",
        via.v4, via.v6
    ))
}
