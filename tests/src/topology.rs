//! What a lab looks like, and the commands that make it so.

use anyhow::{Context as _, Result, ensure};

use crate::addresses::{
    self, EDGE_A, EDGE_B, GATEWAY_LAN_A, GATEWAY_LAN_B, GATEWAY_TRANSIT, GATEWAY_WAN, Host, ROUTER,
    VIP_1, VIP_2, WAN_ROUTER, WAN_ROUTER_DOWN,
};
use crate::netns::Namespace;
use crate::vlan::{self, StandIn};
use crate::wire::Wire;

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
    /// Likewise between the gateway and the partner, who has its first addresses alone then. Not together with tags.
    pub wan_router_mtu: Option<u32>,
    /// Puts a [`Wire`] between the gateway and the partner: a line that can delay, reorder and double. Not together with
    /// tags or a router.
    pub wan_wire: bool,
    /// Likewise between the gateway and edge-a.
    pub lan_a_wire: bool,
    /// Leaves the links' offloads as the kernel has them: large segments and checksums that nobody has computed yet.
    /// Native XDP on veth cannot forward such packets; TCX can.
    pub offloads: bool,
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
            wan_router_mtu: None,
            wan_wire: false,
            lan_a_wire: false,
            offloads: false,
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

    /// The tags in a frame, the outer first.
    pub(crate) fn on_the_wire(self) -> Vec<Tag> {
        const C_TAG: u16 = 0x8100;
        const S_TAG: u16 = 0x88a8;
        match self {
            Self::None => Vec::new(),
            Self::Vlan(id) => vec![Tag {
                protocol: C_TAG,
                id,
            }],
            Self::QinQ { outer, inner } => vec![
                Tag {
                    protocol: S_TAG,
                    id: outer,
                },
                Tag {
                    protocol: C_TAG,
                    id: inner,
                },
            ],
        }
    }
}

/// One VLAN tag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    /// Its EtherType.
    pub(crate) protocol: u16,
    /// The VLAN.
    pub(crate) id: u16,
}

impl Tag {
    /// As it stands in a frame, with priority 0.
    pub(crate) fn bytes(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.protocol.to_be_bytes(), self.id.to_be_bytes());
        [a, b, c, d]
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
    pub(crate) wan_router: Option<Namespace>,
    pub(crate) wan_wire: Option<Wire>,
    pub(crate) lan_a_wire: Option<Wire>,
    /// What carries VLANs where the kernel does not.
    pub(crate) stand_ins: Vec<StandIn>,
}

/// A machine and the name of one of its interfaces.
type End<'a> = (&'a Namespace, &'a str);

impl Topology {
    /// Makes the namespaces, links, addresses and routes of the lab `lab`.
    pub(crate) fn build(&self, lab: &str) -> Result<Machines> {
        let create = |role: &str| Namespace::create(&format!("{lab}-{role}"));
        let mut machines = Machines {
            partner: create("partner")?,
            gateway: create("gateway")?,
            edge_a: create("edge-a")?,
            edge_b: create("edge-b")?,
            router: self.router_mtu.map(|_| create("router")).transpose()?,
            wan_router: (self.wan_router_mtu)
                .map(|_| create("wan-router"))
                .transpose()?,
            wan_wire: None,
            lan_a_wire: None,
            stand_ins: Vec::new(),
        };
        make_router(&machines.gateway)?;
        let mut stand_ins = Vec::new();
        if self.wan_wire {
            ensure!(
                self.wan_tags == Tags::None && self.wan_router_mtu.is_none(),
                "a wire carries neither tags nor a router"
            );
            let (gateway, partner) = (&machines.gateway, &machines.partner);
            let wire = self.wire(
                create("wan-wire")?,
                (gateway, "wan0"),
                (partner, "eth0"),
                self.wan_mtu,
            );
            machines.wan_wire = Some(wire.context("the wire before the partner")?);
        }
        if self.lan_a_wire {
            ensure!(
                self.lan_a_tags == Tags::None && self.router_mtu.is_none(),
                "a wire carries neither tags nor a router"
            );
            let (gateway, edge) = (&machines.gateway, &machines.edge_a);
            let wire = self.wire(
                create("lan-a-wire")?,
                (gateway, "lan0"),
                (edge, "eth0"),
                self.lan_a_mtu,
            );
            machines.lan_a_wire = Some(wire.context("the wire before edge-a")?);
        }
        let partner = match &machines.wan_router {
            None => self.wire_partner(&machines.gateway, &machines.partner),
            Some(router) => self.wire_wan_router(&machines, router),
        };
        stand_ins.extend(partner.context("the partner's link")?);
        let edge_a = match &machines.router {
            None => self.wire_edge_a(&machines, &machines.gateway, "lan0"),
            Some(router) => self.wire_router(&machines, router),
        };
        stand_ins.extend(edge_a.context("the link of edge-a")?);
        self.wire_edge_b(&machines.gateway, &machines.edge_b)
            .context("the link of edge-b")?;
        machines.stand_ins = stand_ins;
        Ok(machines)
    }

    pub(crate) fn wire_partner(
        &self,
        gateway: &Namespace,
        partner: &Namespace,
    ) -> Result<Vec<StandIn>> {
        let (wan, eth) = (self.wan_tags.device("wan0"), self.wan_tags.device("eth0"));
        let stand_ins = if self.wan_wire {
            Vec::new()
        } else {
            self.link(
                (gateway, "wan0"),
                (partner, "eth0"),
                self.wan_mtu,
                self.wan_tags,
            )?
        };
        add_public_addresses(gateway, &wan)?;
        for n in 0..self.partner_addresses {
            add_address(partner, &eth, addresses::partner(n), WAN_PREFIXES)?;
        }
        default_route(partner, GATEWAY_WAN)?;
        Ok(stand_ins)
    }

    /// The partner behind a router that the gateway knows by a route alone.
    fn wire_wan_router(&self, machines: &Machines, router: &Namespace) -> Result<Vec<StandIn>> {
        ensure!(
            self.wan_tags == Tags::None && self.partner_addresses == 1,
            "a router before the partner knows neither tags nor further addresses"
        );
        make_router(router)?;
        let (gateway, partner) = (&machines.gateway, &machines.partner);
        self.link((gateway, "wan0"), (router, "up0"), 1500, Tags::None)?;
        add_public_addresses(gateway, "wan0")?;
        add_address(router, "up0", WAN_ROUTER, WAN_PREFIXES)?;
        let Host { v4, v6 } = addresses::PARTNER;
        gateway.ip(&format!(
            "route add {v4}/32 via {}
             -6 route add {v6}/128 via {}",
            WAN_ROUTER.v4, WAN_ROUTER.v6
        ))?;

        let stand_ins = self.link(
            (router, "down0"),
            (partner, "eth0"),
            self.wan_mtu,
            Tags::None,
        )?;
        add_address(router, "down0", WAN_ROUTER_DOWN, (32, 128))?;
        add_address(partner, "eth0", addresses::PARTNER, (32, 128))?;
        let mtu = self.wan_router_mtu.unwrap_or(self.wan_mtu);
        router.ip(&format!(
            "route add {v4}/32 dev down0 mtu {mtu}
             -6 route add {v6}/128 dev down0 mtu {mtu}"
        ))?;
        default_route(router, GATEWAY_WAN)?;
        let Host { v4, v6 } = WAN_ROUTER_DOWN;
        partner.ip(&format!(
            "route add {v4}/32 dev eth0
             -6 route add {v6}/128 dev eth0"
        ))?;
        default_route(partner, WAN_ROUTER_DOWN)?;
        Ok(stand_ins)
    }

    fn wire_edge_a(
        &self,
        machines: &Machines,
        uplink: &Namespace,
        device: &str,
    ) -> Result<Vec<StandIn>> {
        let (edge, tags) = (&machines.edge_a, self.lan_a_tags);
        let stand_ins = if self.lan_a_wire {
            Vec::new()
        } else {
            self.link((uplink, device), (edge, "eth0"), self.lan_a_mtu, tags)?
        };
        add_address(uplink, &tags.device(device), GATEWAY_LAN_A, LAN_PREFIXES)?;
        add_address(edge, &tags.device("eth0"), EDGE_A, LAN_PREFIXES)?;
        default_route(edge, GATEWAY_LAN_A)?;
        Ok(stand_ins)
    }

    fn wire_router(&self, machines: &Machines, router: &Namespace) -> Result<Vec<StandIn>> {
        make_router(router)?;
        let gateway = &machines.gateway;
        self.link((gateway, "lan0"), (router, "up0"), 1500, Tags::None)?;
        add_address(gateway, "lan0", GATEWAY_TRANSIT, (24, 64))?;
        add_address(router, "up0", ROUTER, (24, 64))?;
        default_route(router, GATEWAY_TRANSIT)?;
        let stand_ins = self.wire_edge_a(machines, router, "down0")?;

        let down = self.lan_a_tags.device("down0");
        let mtu = self.router_mtu.unwrap_or(self.lan_a_mtu);
        let Host { v4, v6 } = EDGE_A;
        router.ip(&format!(
            "route add {v4}/32 dev {down} mtu {mtu}
             -6 route add {v6}/128 dev {down} mtu {mtu}"
        ))?;
        gateway.ip(&format!(
            "route add 203.0.113.0/25 via {}
             -6 route add 2001:db8:a::/64 via {}",
            ROUTER.v4, ROUTER.v6
        ))?;
        Ok(stand_ins)
    }

    pub(crate) fn wire_edge_b(&self, gateway: &Namespace, edge: &Namespace) -> Result<()> {
        self.link(
            (gateway, "lan1"),
            (edge, "eth0"),
            self.lan_b_mtu,
            Tags::None,
        )?;
        add_address(gateway, "lan1", GATEWAY_LAN_B, LAN_PREFIXES)?;
        add_address(edge, "eth0", EDGE_B, LAN_PREFIXES)?;
        default_route(edge, GATEWAY_LAN_B)
    }

    /// Connects two machines, with the interfaces that carry `tags` on top at both ends.
    pub(crate) fn link(&self, left: End, right: End, mtu: u32, tags: Tags) -> Result<Vec<StandIn>> {
        // Room for the tags beside a full packet; one is within what every driver allows, two are not.
        let line_mtu = mtu as usize + 4 * tags.on_the_wire().len();
        left.0.ip(&format!(
            "link add {} mtu {line_mtu} type veth peer name {} mtu {line_mtu} netns {}",
            left.1,
            right.1,
            right.0.name()
        ))?;
        let mut stand_ins = Vec::new();
        for (machine, device) in [left, right] {
            if self.offloads {
                machine.ip(&format!("link set {device} up"))?;
                stand_ins.extend(vlan::add(machine, device, tags, mtu)?);
                continue;
            }
            // Native XDP on veth sees no partial checksums and sends none: without this, packets that the datapath forwards
            // arrive with a checksum that nobody completed.
            let offloads = ["-K", device, "tx", "off", "txvlan", "off", "gro", "off"];
            machine.output("ethtool", &offloads)?;
            machine.ip(&format!("link set {device} up"))?;
            stand_ins.extend(vlan::add(machine, device, tags, mtu)?);
        }
        for (machine, device) in [left, right] {
            // With it a veth has a queue, as a NIC has: without, segments of one connection overtake each other when their sender moves from one
            // processor to another.
            // A redirect to a veth is refused (EOPNOTSUPP, seen in the tracepoint xdp_redirect_err alone) unless the peer has
            // GRO or a program of its own; and veth tells its peer of GRO only when it is switched on while both ends are up
            // (veth_set_features in drivers/net/veth.c).
            machine.output("ethtool", &["-K", device, "gro", "on"])?;
        }
        Ok(stand_ins)
    }

    /// Connects two machines by way of a third that carries frames.
    fn wire(&self, line: Namespace, left: End, right: End, mtu: u32) -> Result<Wire> {
        // Nobody lives there: no address of its own, and nothing said of itself.
        line.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        self.link(left, (&line, "near"), mtu, Tags::None)?;
        self.link((&line, "far"), right, mtu, Tags::None)?;
        Wire::start(line, ["near", "far"])
    }
}

fn make_router(machine: &Namespace) -> Result<()> {
    machine.sysctl("net/ipv4/ip_forward", "1")?;
    machine.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    machine.sysctl("net/ipv6/conf/default/forwarding", "1")
}

fn add_public_addresses(gateway: &Namespace, device: &str) -> Result<()> {
    add_address(gateway, device, GATEWAY_WAN, WAN_PREFIXES)?;
    [VIP_1, VIP_2]
        .into_iter()
        .try_for_each(|vip| add_address(gateway, device, vip, (32, 128)))
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
