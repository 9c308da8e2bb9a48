//! The way of an Edge's packets to the agent's transparent sockets.
//!
//! Such a socket has the client's address, which is no address of this host: without help, the Edge's packets to it would be forwarded to
//! the client. The datapath's classifier marks them; a rule sends marked packets to a routing table in which every address is the host's
//! own (Documentation/networking/tproxy.rst). Packets without the mark go where they always went.

use std::fmt;

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::host::{self, Family};
use super::{LOOPBACK, NetError, Network, PROTOCOL, error::is};

/// A rule and a routing table, for either address family, that lead marked packets to the host's own sockets.
///
/// What the agent has added it knows again by its mark, also after a kill; there may be one agent to a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnRoute {
    /// The bit of the packet mark that the classifier sets; the other bits are left to others.
    pub mark: u32,
    /// Number of a routing table of the agent's own.
    pub table: u32,
    /// The rule's place: smaller numbers are asked first, and the table `main` by 32766. A host's own rule that takes the Edges' packets
    /// (`from 203.0.113.0/24 lookup 7`) must have a greater one.
    pub priority: u32,
}

/// What [`ReturnRoute::install`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// What was missing and has been added.
    pub added: Vec<Piece>,
    /// Whether IPv6 is served too: not where it is switched off on `lo`, since the host then has no IPv6 addresses of use.
    pub ipv6: bool,
}

/// One of the entries that it takes; as text, the command of ip(8) that adds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its address family.
    pub family: Family,
    /// What it is.
    pub kind: PieceKind,
    /// What it is a piece of.
    pub route: ReturnRoute,
}

/// What a [`Piece`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// Everything in the table is the host's own.
    Route,
    /// Marked packets go by the table.
    Rule,
}

impl ReturnRoute {
    /// Adds what is missing, and removes what an agent with another mark, table or priority has left. The rules and routes of others are
    /// not touched. Call it again on [`super::Change::routes`]: network managers like to remove what they do not know.
    ///
    /// # Errors
    /// Somebody else uses the mark or the table ([`NetError::MarkTaken`], [`NetError::TableTaken`]), and nothing has been
    /// changed; or the kernel's.
    pub async fn install(self, network: &Network) -> Result<Installed, NetError> {
        let families = families()?;
        let mut found = Vec::new();
        for family in &families {
            found.push(self.look(network, *family).await?);
        }
        let mut added = Vec::new();
        for own in &found {
            let pieces = self.pieces(own.family);
            own.remove(network, &pieces).await?;
            for piece in pieces.into_iter().filter(|piece| !own.contains(*piece)) {
                network.add(piece).await?;
                added.push(piece);
            }
        }
        Ok(Installed {
            added,
            ipv6: families.contains(&Family::V6),
        })
    }

    /// What [`ReturnRoute::install`] would add now.
    ///
    /// # Errors
    /// Those of [`ReturnRoute::install`].
    pub async fn missing(self, network: &Network) -> Result<Vec<Piece>, NetError> {
        let mut missing = Vec::new();
        for family in families()? {
            let own = self.look(network, family).await?;
            let pieces = self.pieces(family).into_iter();
            missing.extend(pieces.filter(|piece| !own.contains(*piece)));
        }
        Ok(missing)
    }

    /// Removes everything that the agent, or an earlier one, has added, whatever its mark, table and priority.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn remove(network: &Network) -> Result<(), NetError> {
        // IPv6 may have been switched off since.
        for family in [Family::V4, Family::V6] {
            let rules = match network.rules(family).await {
                Err(NetError::Refused { reason, .. }) if is(&reason, Errno::AFNOSUPPORT) => {
                    continue;
                }
                other => other?,
            };
            let own = network.own(family, rules).await?;
            own.remove(network, &[]).await?;
        }
        Ok(())
    }

    /// What there is of the agent's own, once it is sure that nobody else is in the way.
    async fn look(self, network: &Network, family: Family) -> Result<Own, NetError> {
        let rules = network.rules(family).await?;
        if let Some(error) = rules.iter().find_map(|rule| self.refusal(rule, family)) {
            return Err(error);
        }
        let table = self.table;
        let inside = network.routes(family, Wanted::Table(table)).await?;
        if inside.iter().any(|route| route.header.protocol != OWN) {
            let by = format!(
                "it has {family} routes (`ip {} route show table {table}` lists them)",
                option(family)
            );
            return Err(NetError::TableTaken { table, by });
        }
        network.own(family, rules).await
    }

    /// Why a rule of somebody else's is in the way, if it is.
    fn refusal(self, rule: &RuleMessage, family: Family) -> Option<NetError> {
        let Self { mark, table, .. } = self;
        if is_own(rule) {
            return None;
        }
        let (mut priority, mut leads_to) = (0, u32::from(rule.header.table));
        let (mut wanted, mut mask) = (0, 0);
        for attribute in &rule.attributes {
            match attribute {
                RuleAttribute::Priority(number) => priority = *number,
                RuleAttribute::Table(number) => leads_to = *number,
                RuleAttribute::FwMark(bits) => wanted = *bits,
                RuleAttribute::FwMask(bits) => mask = *bits,
                _ => {}
            }
        }
        let by = format!(
            "the {family} rule with priority {priority} (`ip {} rule show priority {priority}` shows it)",
            option(family)
        );
        // One for packets without the bit is not in the way, nor one for a whole mark that does not contain it.
        if wanted & mask & mark != 0 {
            return Some(NetError::MarkTaken { mark, by });
        }
        if rule.header.action == RuleAction::ToTable && leads_to == table {
            return Some(NetError::TableTaken { table, by });
        }
        None
    }

    /// What it takes, in the order in which it is added: no marked packet may find the table empty and go on to the next rule.
    fn pieces(self, family: Family) -> [Piece; 2] {
        [PieceKind::Route, PieceKind::Rule].map(|kind| Piece {
            family,
            kind,
            route: self,
        })
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReturnRoute {
            mark,
            table,
            priority,
        } = self.route;
        let ip = format!("ip {}", option(self.family));
        match self.kind {
            PieceKind::Route => write!(
                f,
                "{ip} route add local default dev lo table {table} protocol {PROTOCOL}"
            ),
            PieceKind::Rule => write!(
                f,
                "{ip} rule add fwmark {mark:#x}/{mark:#x} lookup {table} priority {priority} protocol {PROTOCOL}"
            ),
        }
    }
}

impl Piece {
    fn rule(self) -> RuleMessage {
        let mut rule = RuleMessage::default();
        rule.header.family = family(self.family);
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::FwMark(self.route.mark),
            RuleAttribute::FwMask(self.route.mark),
            RuleAttribute::Table(self.route.table),
            RuleAttribute::Priority(self.route.priority),
            RuleAttribute::Protocol(OWN),
        ];
        rule
    }

    fn route(self) -> RouteMessage {
        let mut route = RouteMessage::default();
        route.header.address_family = family(self.family);
        route.header.protocol = OWN;
        // Of a local route the kernel wants to hear this, at least for IPv4.
        route.header.scope = RouteScope::Host;
        route.header.kind = RouteType::Local;
        route.attributes = vec![
            RouteAttribute::Table(self.route.table),
            RouteAttribute::Oif(LOOPBACK),
        ];
        route
    }

    /// Attributes that the kernel adds to what was asked for are no difference.
    fn is_rule(self, rule: &RuleMessage) -> bool {
        let wanted = self.rule();
        let selectors = |rule: &RuleMessage| {
            let header = &rule.header;
            let inverted = header.flags.contains(RuleFlags::Invert);
            (
                header.src_len,
                header.dst_len,
                header.tos,
                inverted,
                header.action,
            )
        };
        self.kind == PieceKind::Rule
            && selectors(rule) == selectors(&wanted)
            && wanted
                .attributes
                .iter()
                .all(|one| rule.attributes.contains(one))
    }

    fn is_route(self, route: &RouteMessage) -> bool {
        let wanted = self.route();
        self.kind == PieceKind::Route
            && route.header.destination_prefix_length == 0
            && route.header.kind == RouteType::Local
            && wanted
                .attributes
                .iter()
                .all(|one| route.attributes.contains(one))
    }
}

/// Rules and routes of one family that agents have added.
struct Own {
    family: Family,
    rules: Vec<RuleMessage>,
    routes: Vec<RouteMessage>,
}

impl Own {
    fn contains(&self, piece: Piece) -> bool {
        self.rules.iter().any(|rule| piece.is_rule(rule))
            || self.routes.iter().any(|route| piece.is_route(route))
    }

    /// Removes all but these pieces.
    async fn remove(&self, network: &Network, but: &[Piece]) -> Result<(), NetError> {
        // The rules first, again so that no marked packet finds an empty table.
        for rule in &self.rules {
            if !but.iter().any(|piece| piece.is_rule(rule)) {
                network
                    .remove(RouteNetlinkMessage::DelRule(rule.clone()))
                    .await?;
            }
        }
        for route in &self.routes {
            if !but.iter().any(|piece| piece.is_route(route)) {
                let route = identity(route);
                network.remove(RouteNetlinkMessage::DelRoute(route)).await?;
            }
        }
        Ok(())
    }
}

/// Which routes are to be listed.
#[derive(Clone, Copy)]
enum Wanted {
    /// Those of one table.
    Table(u32),
    /// Those that agents have added, of every table.
    Own,
}

impl Network {
    async fn rules(&self, wanted: Family) -> Result<Vec<RuleMessage>, NetError> {
        let mut request = RuleMessage::default();
        request.header.family = family(wanted);
        let mut found = Vec::new();
        self.list(
            RouteNetlinkMessage::GetRule(request),
            || format!("listing the routing rules ({wanted})"),
            |answer| {
                if let RouteNetlinkMessage::NewRule(rule) = answer {
                    found.push(rule);
                }
            },
        )
        .await?;
        Ok(found)
    }

    /// The kernel does the picking: a router may have a million routes.
    async fn routes(&self, of: Family, wanted: Wanted) -> Result<Vec<RouteMessage>, NetError> {
        let mut request = RouteMessage::default();
        request.header.address_family = family(of);
        match wanted {
            Wanted::Table(table) => request.attributes.push(RouteAttribute::Table(table)),
            Wanted::Own => request.header.protocol = OWN,
        }
        let mut found = Vec::new();
        let listed = self
            .list(
                RouteNetlinkMessage::GetRoute(request),
                || format!("listing the routes ({of})"),
                |answer| {
                    if let RouteNetlinkMessage::NewRoute(route) = answer {
                        found.push(route);
                    }
                },
            )
            .await;
        match listed {
            // No route has ever been in this table.
            Err(NetError::Refused { reason, .. }) if is(&reason, Errno::NOENT) => Ok(Vec::new()),
            other => other.map(|()| found),
        }
    }

    async fn own(&self, family: Family, mut rules: Vec<RuleMessage>) -> Result<Own, NetError> {
        rules.retain(is_own);
        Ok(Own {
            family,
            rules,
            routes: self.routes(family, Wanted::Own).await?,
        })
    }

    async fn add(&self, piece: Piece) -> Result<(), NetError> {
        let request = match piece.kind {
            PieceKind::Route => RouteNetlinkMessage::NewRoute(piece.route()),
            PieceKind::Rule => RouteNetlinkMessage::NewRule(piece.rule()),
        };
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let doing = || format!("adding the way to transparent sockets (`{piece}`)");
        self.exchange(request, flags, doing, drop).await
    }

    async fn remove(&self, request: RouteNetlinkMessage) -> Result<(), NetError> {
        let doing = || "removing the way to transparent sockets".to_owned();
        match self.exchange(request, NLM_F_ACK, doing, drop).await {
            // Somebody was faster: what the kernel says of a rule, and of a route.
            Err(NetError::Refused { reason, .. })
                if is(&reason, Errno::NOENT) || is(&reason, Errno::SRCH) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

/// [`PROTOCOL`] as routes and rules have it.
const OWN: RouteProtocol = RouteProtocol::Other(PROTOCOL);

fn is_own(rule: &RuleMessage) -> bool {
    rule.attributes.contains(&RuleAttribute::Protocol(OWN))
}

/// What a route is told from others by; with the rest of what the kernel says of it, a removal is refused.
fn identity(route: &RouteMessage) -> RouteMessage {
    let mut identity = RouteMessage::default();
    identity.header = RouteHeader {
        flags: Default::default(),
        ..route.header.clone()
    };
    identity.attributes = route
        .attributes
        .iter()
        .filter(|attribute| {
            matches!(
                attribute,
                RouteAttribute::Table(_)
                    | RouteAttribute::Destination(_)
                    | RouteAttribute::Oif(_)
                    | RouteAttribute::Priority(_)
            )
        })
        .cloned()
        .collect();
    identity
}

/// Those that the host speaks.
fn families() -> Result<Vec<Family>, NetError> {
    let mut families = vec![Family::V4];
    if host::has_ipv6("lo")? {
        families.push(Family::V6);
    }
    Ok(families)
}

fn family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// The option of ip(8) for a family.
fn option(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}
