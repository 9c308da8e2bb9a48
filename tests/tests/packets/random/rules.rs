//! What holds for whatever becomes of a packet.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::{Counter, DropReason, EdgeState};
use snigate_tests::addresses::{
    EDGE_A, EDGE_B, GATEWAY_LAN_A, GATEWAY_LAN_B, Host, VIP_1, VIP_2, partner,
};
use snigate_tests::packets::plan::Path;
use snigate_tests::packets::{Action, OWNED_PORTS, Outcome, Port};

use super::frames::{addresses, ends, joined, length, macs, quoted, segment, sums};
use super::sender::{CONTOSO, CONTOSO_NAME, FABRIKAM_NAME};
use super::{By, Table};

/// The rules, and what they have to know.
pub(super) struct Rules {
    table: Table,
    /// Whose flow it is that an Edge sees: what is sent to an Edge tells.
    flows: HashMap<Leg, Conversation>,
    /// The sequence number of the first byte of a client that is bound.
    firsts: HashMap<Leg, u32>,
    /// Clients whose packets may have made a flow without being sent.
    unsure: HashSet<SocketAddr>,
    /// Those that are not up.
    edges: HashMap<&'static str, EdgeState>,
}

/// As whom an Edge sees a client, and the Edge.
type Leg = (SocketAddr, SocketAddr);
/// The client, and the service that it talks to.
type Conversation = (SocketAddr, SocketAddr);

/// What a datapath has sent.
pub(super) struct Sent<'a> {
    /// What it was given, at the first program or at the one behind.
    pub(super) frame: &'a [u8],
    pub(super) behind: bool,
    pub(super) outcome: &'a Outcome,
    /// What it has sent before, and by which interface.
    pub(super) besides: &'a [(Port, Vec<u8>)],
}

/// An Edge's place.
struct Place {
    host: Host,
    /// The interface that leads to it.
    port: Port,
    /// The gateway's address there.
    gateway: Host,
    /// Its names, for IPv4 and IPv6.
    names: [&'static str; 2],
}

const PLACES: [Place; 2] = [
    Place {
        host: EDGE_A,
        port: Port::Lan0,
        gateway: GATEWAY_LAN_A,
        names: ["edge-a", "edge-a6"],
    },
    Place {
        host: EDGE_B,
        port: Port::Lan1,
        gateway: GATEWAY_LAN_B,
        names: ["edge-b", "edge-b6"],
    },
];

/// Fates that count as one of these and nothing else; those that are forwarded, answered or dropped have counters that stand for all of them.
const PASSED: [Counter; 10] = [
    Counter::Passed,
    Counter::Fragments,
    Counter::Unparsed,
    Counter::Inspected,
    Counter::SocketAcks,
    Counter::BadCookies,
    Counter::LeftName,
    Counter::LeftHello,
    Counter::LeftWay,
    Counter::EdgeAnswers,
];
/// Those of a hello that is left to the agent.
const LEFT: [Counter; 3] = [Counter::LeftName, Counter::LeftHello, Counter::LeftWay];
/// What was written anew from what a client has said.
const BELIEVED: [Counter; 3] = [Counter::Cookies, Counter::Bound, Counter::BindRetries];
const KEPT: [Counter; 2] = [Counter::CookieAcks, Counter::HelloParts];
const SENT: [Counter; 3] = [Counter::Forwarded, Counter::Answered, Counter::Cookies];

/// Sent back to where the packet came from.
const ANSWERS: [Counter; 2] = [Counter::Answered, Counter::Cookies];
/// A packet of its own, and not the one that came in, translated.
const WRITTEN: [Counter; 5] = [
    Counter::Answered,
    Counter::Cookies,
    Counter::Bound,
    Counter::BindRetries,
    Counter::HellosDelivered,
];
/// A new flow, of which the Edge gets the first packet.
const BEGUN: [Counter; 2] = [Counter::Steered, Counter::Bound];
/// For what becomes of a packet that has made a flow, and can't be sent.
const UNSENT: [DropReason; 8] = [
    DropReason::Truncated,
    DropReason::BadDataOffset,
    DropReason::TtlExpired,
    DropReason::TooBig,
    DropReason::NoRoute,
    DropReason::NoNeighbour,
    DropReason::ForwardingOff,
    DropReason::NoRoom,
];

impl Rules {
    pub(super) fn new(table: Table) -> Self {
        Self {
            table,
            flows: HashMap::new(),
            firsts: HashMap::new(),
            unsure: HashSet::new(),
            edges: HashMap::new(),
        }
    }

    /// All flows are gone, and every Edge is up.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.table);
    }

    /// Learns of a flow that no packet has made.
    pub(super) fn meet(&mut self, path: &Path) {
        let flow = (path.client, path.service);
        self.flows.insert((path.source, path.edge), flow);
    }

    pub(super) fn edge_is(&mut self, name: &'static str, state: EdgeState) {
        self.edges.insert(name, state);
    }

    /// How many bytes of a hello were sent before its last segment.
    pub(super) fn sent_before(&self, outcome: &Outcome) -> usize {
        let delivered = has_any(outcome, &[Counter::HellosDelivered]);
        let first = ends(&outcome.frame).and_then(|leg| self.firsts.get(&leg));
        match (first, segment(&outcome.frame)) {
            (Some(first), Some(last)) if delivered => {
                last.sequence_number().wrapping_sub(*first) as usize
            }
            _ => 0,
        }
    }

    /// Judges what became of a frame.
    pub(super) fn check(&mut self, sent: &Sent<'_>) -> Result<()> {
        let outcome = sent.outcome;
        check_verdict(outcome, sent.behind)?;
        self.doubt(sent);
        if !has_any(outcome, &[Counter::HellosDelivered]) {
            ensure!(sent.besides.is_empty(), "something was sent besides");
        }
        match outcome.action {
            Action::Drop => Ok(()),
            Action::Pass => {
                ensure!(outcome.frame == sent.frame, "passed, and changed");
                Ok(())
            }
            Action::Redirect => {
                self.check_way(sent)?;
                check_length(sent.frame, outcome)?;
                check_sums(sent)
            }
        }
    }

    /// A packet to a service may make a flow although it is not sent.
    fn doubt(&mut self, sent: &Sent<'_>) {
        let unsent = UNSENT
            .iter()
            .any(|reason| sent.outcome.counts.contains_key(reason.name()));
        if unsent
            && let Some((client, service)) = ends(sent.frame)
            && (is(service.ip(), VIP_1) || is(service.ip(), VIP_2))
        {
            self.unsure.insert(client);
        }
    }

    fn check_way(&mut self, sent: &Sent<'_>) -> Result<()> {
        let (frame, outcome) = (sent.frame, sent.outcome);
        if has_any(outcome, &ANSWERS) {
            return check_answer(frame, outcome);
        }
        if has_any(outcome, &[Counter::IcmpTranslated]) {
            return self.check_error(frame, outcome);
        }
        let (source, destination) = ends(frame).context("sent on, and no TCP segment")?;
        let (out_source, out_destination) =
            ends(&outcome.frame).context("sent as no TCP segment")?;
        if has_any(outcome, &[Counter::HellosDelivered]) {
            ensure!(
                (out_source, out_destination) == (destination, source),
                "a hello to another Edge than the one that has answered, or of another client"
            );
            return self.check_delivered(sent, (out_source, out_destination));
        }
        let Some(place) = place_at(out_destination.ip()) else {
            let flow = (out_destination, out_source);
            return self.check_to_client(outcome, (destination, source), flow);
        };
        let conversation = (source, destination);
        let leg = (out_source, out_destination);
        self.check_to_edge(outcome, place, conversation, leg)?;
        self.flows.insert(leg, conversation);
        if has_any(outcome, &[Counter::Bound, Counter::BindRetries])
            && let Some(syn) = segment(&outcome.frame)
        {
            self.firsts
                .insert(leg, syn.sequence_number().wrapping_add(1));
        }
        Ok(())
    }

    /// What a client has said goes to the Edge of its service or name, by the way to it, and from the client or the gateway.
    fn check_to_edge(
        &self,
        outcome: &Outcome,
        place: &Place,
        (client, service): Conversation,
        (seen, edge): Leg,
    ) -> Result<()> {
        ensure!(
            self.edge_of(client.ip(), service.ip()) == Some(place.host),
            "to another customer's Edge"
        );
        ensure!(place.host.sip().contains(&edge), "to another port: {edge}");
        self.check_seen(place, client, seen)?;
        check_link(&outcome.frame, place.port)?;
        if has_any(outcome, &BEGUN) {
            let name = place.names[usize::from(!edge.is_ipv4())];
            let state = self.edges.get(name).unwrap_or(&EdgeState::Up);
            ensure!(
                *state == EdgeState::Up,
                "a new flow to {name}, which is {state:?}"
            );
        }
        Ok(())
    }

    /// An Edge sees the client, or the gateway's own port.
    fn check_seen(&self, place: &Place, client: SocketAddr, seen: SocketAddr) -> Result<()> {
        let (first, count) = OWNED_PORTS;
        let right = match self.table.source {
            // With another port where two services share an Edge.
            "preserve" => seen.ip() == client.ip(),
            _ => is(seen.ip(), place.gateway) && (first..first + count).contains(&seen.port()),
        };
        ensure!(right, "{client} is seen as {seen}");
        Ok(())
    }

    /// What an Edge has said goes to the client of its flow, from the service that this one talks to.
    fn check_to_client(&self, outcome: &Outcome, leg: Leg, flow: Conversation) -> Result<()> {
        let (client, service) = flow;
        let place = place_at(leg.1.ip()).context("to a client, and not from an Edge")?;
        ensure!(
            is(service.ip(), VIP_1) || is(service.ip(), VIP_2),
            "from {service}, who is no service"
        );
        ensure!(
            self.edge_of(client.ip(), service.ip()) == Some(place.host),
            "from another customer's Edge"
        );
        ensure!(
            self.flows.get(&leg) == Some(&flow) || self.unsure.contains(&client),
            "to {client} from {service}, whose flow it is not"
        );
        check_link_to_client(&outcome.frame, client.ip())
    }

    /// An ICMP error comes from any router, and an Edge may be one; it belongs to the flow whose packet it quotes.
    fn check_error(&self, frame: &[u8], outcome: &Outcome) -> Result<()> {
        let (source, _) = addresses(frame).context("sent on, and no IP packet")?;
        let (out_source, out_destination) =
            addresses(&outcome.frame).context("sent as no IP packet")?;
        let (from, to) = quoted(frame).context("an error about nothing")?;
        if let Some(place) = place_at(out_destination) {
            ensure!(
                self.edge_of(to, from) == Some(place.host),
                "an error to another customer's Edge"
            );
            return check_link(&outcome.frame, place.port);
        }
        let mut flows = self
            .flows
            .iter()
            .filter(|((seen, edge), _)| (seen.ip(), edge.ip()) == (from, to))
            .map(|(_, (client, service))| (client.ip(), service.ip()));
        let fits = flows.any(|(client, service)| {
            client == out_destination
                && (out_source == source || (source == to && out_source == service))
        });
        ensure!(
            fits || self.unsure.iter().any(|it| it.ip() == out_destination),
            "an error about {from} and {to} to {out_destination} from {out_source}"
        );
        check_link_to_client(&outcome.frame, out_destination)
    }

    /// A hello goes to the Edge of the name in it, whole, with nothing else and in its order.
    fn check_delivered(&self, sent: &Sent<'_>, leg: Leg) -> Result<()> {
        let outcome = sent.outcome;
        let (client, service) = *self
            .flows
            .get(&leg)
            .context("a hello of a flow that nobody has begun")?;
        let place = place_at(leg.1.ip()).context("a hello to no Edge")?;
        self.check_to_edge(outcome, place, (client, service), leg)?;
        for (port, frame) in sent.besides {
            check_part(frame, *port, place, leg)?;
        }
        let parts = sent.besides.iter().map(|(_, frame)| &frame[..]);
        let (first, hello) = joined(parts.chain([&outcome.frame[..]]))?;
        ensure!(
            self.firsts.get(&leg) == Some(&first),
            "a hello without its beginning"
        );
        let length = hello
            .get(3..5)
            .map(|bytes| 5 + usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
        ensure!(
            length.is_some_and(|length| length <= hello.len()),
            "a hello without its end"
        );
        let name = name_of(place.host);
        // Names are the same in either case (RFC 6066, 3).
        ensure!(
            hello
                .windows(name.len())
                .any(|bytes| bytes.eq_ignore_ascii_case(name)),
            "a hello with another customer's name, or with none"
        );
        Ok(())
    }

    /// The Edge for what a client sends to a service.
    fn edge_of(&self, client: IpAddr, service: IpAddr) -> Option<Host> {
        match self.table.by {
            By::Address if is(service, VIP_1) => Some(EDGE_A),
            By::Address if is(service, VIP_2) => Some(EDGE_B),
            By::Address => None,
            // Nobody else has ever said a name.
            By::Name if is(client, partner(CONTOSO)) => Some(EDGE_B),
            By::Name => (0..CONTOSO)
                .any(|number| is(client, partner(number)))
                .then_some(EDGE_A),
        }
    }
}

/// What the clients of an Edge ask for.
fn name_of(edge: Host) -> &'static [u8] {
    if edge == EDGE_A {
        FABRIKAM_NAME
    } else {
        CONTOSO_NAME
    }
}

fn is(address: IpAddr, host: Host) -> bool {
    address == host.v4 || address == host.v6
}

fn place_at(address: IpAddr) -> Option<&'static Place> {
    PLACES.iter().find(|place| is(address, place.host))
}

fn count(outcome: &Outcome, counter: Counter) -> u64 {
    outcome.counts.get(counter.name()).copied().unwrap_or(0)
}

fn has_any(outcome: &Outcome, counters: &[Counter]) -> bool {
    counters.iter().any(|counter| count(outcome, *counter) > 0)
}

/// Every packet has one verdict, and one that fits what the program returned.
fn check_verdict(outcome: &Outcome, behind: bool) -> Result<()> {
    let sum = |counters: &[Counter]| -> u64 { counters.iter().map(|it| count(outcome, *it)).sum() };
    let reasons: u64 = DropReason::ALL
        .iter()
        .filter_map(|reason| outcome.counts.get(reason.name()))
        .sum();
    let [mut passed, kept, sent] = [sum(&PASSED), sum(&KEPT), sum(&SENT)];
    let dropped = count(outcome, Counter::Dropped);
    // A hello is left to the agent as soon as it is read, but if that is by a later segment than its first, the host would answer this one with a reset.
    // So it is counted as left, and dropped; the first one passes when it comes again.
    let early = outcome.counts.get(DropReason::EarlyData.name()) == Some(&1);
    if outcome.action == Action::Drop && !behind && early && sum(&LEFT) == 1 {
        passed -= 1;
    }
    let expected = match outcome.action {
        // The first one has counted it.
        Action::Pass if behind => (0, 0, 0),
        Action::Pass => (1, 0, 0),
        Action::Redirect => (0, 0, 1),
        Action::Drop => (0, 1, 0),
    };
    ensure!(
        (passed, kept + dropped, sent) == expected,
        "{passed} times passed, {kept} kept, {dropped} dropped, {sent} sent"
    );
    let told = dropped + count(outcome, Counter::Answered);
    ensure!(reasons == told, "{reasons} reasons for {told} refusals");
    Ok(())
}

/// An answer goes to the sender alone, by its own addresses.
fn check_answer(frame: &[u8], outcome: &Outcome) -> Result<()> {
    let (source, destination) = addresses(frame).context("answered, and no IP packet")?;
    ensure!(
        addresses(&outcome.frame) == Some((destination, source)),
        "an answer to somebody else"
    );
    let back = macs(frame).map(|(to, from)| (from, to));
    ensure!(
        macs(&outcome.frame) == back,
        "an answer to somebody else's link"
    );
    Ok(())
}

/// A frame leaves by the interface that leads there, to who is there.
fn check_link(frame: &[u8], port: Port) -> Result<()> {
    ensure!(
        macs(frame) == Some((port.neighbour(), port.mac())),
        "not by {}, or not to who is there",
        port.name()
    );
    Ok(())
}

/// To the clients that there are by their link. The others have only been made up, and are answered by the addresses that their frames came with.
fn check_link_to_client(frame: &[u8], client: IpAddr) -> Result<()> {
    if (0..=CONTOSO).any(|number| is(client, partner(number))) {
        check_link(frame, Port::Wan0)?;
    }
    Ok(())
}

/// A part of a hello, which was sent before the last one.
fn check_part(frame: &[u8], port: Port, place: &Place, leg: Leg) -> Result<()> {
    ensure!(port == place.port, "a part by {}", port.name());
    ensure!(ends(frame) == Some(leg), "a part of another flow");
    check_link(frame, port)?;
    ensure!(
        length(frame) == Some(frame.len()),
        "a part of another length than it says"
    );
    ensure!(
        sums(frame).is_some_and(|sums| sums.ip && sums.transport),
        "a part with a wrong checksum"
    );
    Ok(())
}

/// A frame is as long as its IP header says. What was behind the packet that came in may follow, and nothing else.
fn check_length(frame: &[u8], outcome: &Outcome) -> Result<()> {
    let out = &outcome.frame;
    let length = length(out).context("sent as no IP")?;
    let behind = out
        .get(length..)
        .with_context(|| format!("sent {} bytes of {length}", out.len()))?;
    ensure!(
        behind.is_empty() || frame.ends_with(behind),
        "{} foreign bytes behind the packet",
        behind.len()
    );
    Ok(())
}

/// What is written anew has right checksums, and comes of nothing that was damaged on its way; what is translated keeps those that it has, right or wrong:
/// its receiver is to find the damage.
fn check_sums(sent: &Sent<'_>) -> Result<()> {
    let outcome = sent.outcome;
    let (before, after) = (sums(sent.frame), sums(&outcome.frame));
    // Behind, a client is also told that its Edge does not want it.
    if sent.behind || has_any(outcome, &WRITTEN) {
        ensure!(
            after.is_some_and(|sums| sums.ip && sums.transport),
            "a packet of our own with a wrong checksum"
        );
        let believed = sent.behind || has_any(outcome, &BELIEVED);
        ensure!(
            !believed || before.is_some_and(|sums| sums.transport),
            "damaged, and believed"
        );
        return Ok(());
    }
    let Some(before) = before else { return Ok(()) };
    ensure!(
        after == Some(before),
        "the checksums were {before:?} and are {after:?}"
    );
    Ok(())
}
