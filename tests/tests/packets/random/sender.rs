//! Packets that make sense: of clients and Edges, of flows that exist or of none, of every way. Some then go wrong.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use anyhow::Result;
use etherparse::{SlicedPacket, TcpOptionElement, TransportSlice};
use fastrand::Rng;
use sni_common::contract::{Counter, EdgeState};
use snigate_tests::addresses::{EDGE_A, GATEWAY_LAN_A, partner};
use snigate_tests::packets::frame::{PSH, SYN, Tcp, extension};
use snigate_tests::packets::plan::{CLIENT_ISN, EDGE_ISN, Family, Path};
use snigate_tests::packets::{FlowState, Icmp, OWNED_PORTS, Outcome, Port, Scene};

use super::damage::{gone_wrong, mend};
use super::frames::{addresses, network};
use super::history::Event;
use super::{By, Table};
use crate::bind::hello;
use crate::bind::talk::{ANNOUNCED, FIRST, Offers, stamps};
use crate::spliced::Spliced;

/// The partner that asks for the second customer's name; those before it ask for the first one's.
pub(super) const CONTOSO: u8 = 2;
/// And the names.
pub(super) const FABRIKAM_NAME: &[u8] = b"sip.fabrikam.example";
pub(super) const CONTOSO_NAME: &[u8] = b"sip.contoso.example";
/// Lengths of the hellos of each partner's ports, 0 for the shortest: of one segment to three, and sent on in up to six.
const HELLOS: [usize; 8] = [0, 0, 0, 700, 1300, 1800, 2500, 3000];
/// Bytes that timestamps take in a header.
const TIMESTAMPS: u16 = 12;
/// The tables are read as often as this, in packets.
const LOOK_EVERY: u32 = 16;
/// An Edge's state changes as often as this.
const EDGE_CHANGES_EVERY: u32 = 200;
/// And all flows are forgotten as often as this: nobody sweeps those that have ended.
const FORGET_EVERY: u32 = 1_000;
/// Flows that are handed off then.
const HANDED_OFF: u8 = 4;

/// A client, and the service that it has a SYN-ACK from.
type Greeted = (SocketAddr, SocketAddr);
/// The sequence number of a SYN-ACK, which is a cookie, and its timestamp.
type Cookie = (u32, Option<u32>);

/// Who sends.
pub(super) struct Sender {
    table: Table,
    random: Rng,
    /// Flows that there were when the tables were last read.
    paths: Vec<Path>,
    /// Of those, the ones whose handshake was not complete.
    half_open: Vec<Path>,
    /// What SYNs were last answered with.
    greeted: HashMap<Greeted, Cookie>,
    handed_off: Vec<Spliced>,
    /// What a client says next.
    following: VecDeque<Tcp>,
    /// What has been let pass to the program behind.
    behind: Option<Event>,
}

impl Sender {
    pub(super) fn new(table: Table, seed: u64) -> Self {
        Self {
            table,
            random: Rng::with_seed(seed),
            paths: Vec::new(),
            half_open: Vec::new(),
            following: VecDeque::new(),
            greeted: HashMap::new(),
            handed_off: Vec::new(),
            behind: None,
        }
    }

    /// What happens next: a packet, and at times something before it.
    pub(super) fn next(&mut self, scene: &Scene<'_>, case: u32) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        if case.is_multiple_of(FORGET_EVERY) {
            events.push(Event::Forget);
            self.hand_off(&mut events);
        }
        if case % EDGE_CHANGES_EVERY == EDGE_CHANGES_EVERY - 1 {
            let state = EdgeState::ALL[self.random.usize(..EdgeState::ALL.len())];
            let edge = ["edge-a", "edge-a6", "edge-b", "edge-b6"][self.random.usize(..4)];
            events.push(Event::Edge(edge, state));
        }
        if case.is_multiple_of(LOOK_EVERY) {
            self.look(scene)?;
        }
        events.push(match self.behind.take() {
            Some(event) => event,
            None => self.packet(),
        });
        Ok(events)
    }

    /// What a client would learn of an answer, and the host of a packet that was let pass.
    pub(super) fn learn(&mut self, became: Option<(Event, Outcome)>) {
        let Some((Event::Frame(port, frame), outcome)) = became else {
            return;
        };
        if outcome.counts.contains_key(Counter::Cookies.name())
            && let Some((key, answer)) = greeting(&outcome.frame)
        {
            self.greeted.insert(key, answer);
        }
        if outcome.counts.contains_key(Counter::EdgeAnswers.name()) {
            self.behind = Some(Event::Behind(port, frame));
        }
    }

    /// What the Edges see is known from the tables only.
    fn look(&mut self, scene: &Scene<'_>) -> Result<()> {
        let flows = scene.flows()?;
        self.half_open = flows.half_open.iter().map(path_of).collect();
        self.paths = flows.established.iter().map(path_of).collect();
        self.paths.extend(&self.half_open);
        Ok(())
    }

    /// Flows that the agent has handed off: of the first customer's partners, as [`Spliced`] has them.
    fn hand_off(&mut self, events: &mut Vec<Event>) {
        self.handed_off.clear();
        if self.table.by == By::Address {
            return;
        }
        for number in 0..HANDED_OFF {
            let family = Family::BOTH[usize::from(number % 2)];
            let client = family.socket(partner(number % CONTOSO), 50_000 + u16::from(number));
            let mut flow = Spliced::new(family)
                .options(self.random.u8(..8))
                .scales((self.random.u8(..15), 9), (self.random.u8(..15), 7));
            flow.path = flow.path.from(client);
            if self.table.source == "gateway" {
                let port = OWNED_PORTS.0 + u16::from(number);
                flow.path = flow.path.seen_as(family.socket(GATEWAY_LAN_A, port));
            }
            if self.random.u8(..4) == 0 {
                flow = flow.handing_off();
            }
            self.handed_off.push(flow);
            events.push(Event::HandOff(Box::new(flow)));
        }
    }

    fn packet(&mut self) -> Event {
        let (port, valid) = match (self.table.by, self.random.u8(..16)) {
            (_, 0..2) => self.error(),
            (By::Name, 2..4) => self.handed_off(),
            _ if !self.following.is_empty() => self.follow(),
            (By::Name, 4..10) => self.opening(),
            (_, 10..12) => self.answering(),
            _ => {
                let path = self.path();
                self.of_flow(&path)
            }
        };
        let frame = if self.random.u8(..) < 96 {
            valid
        } else {
            gone_wrong(valid, &mut self.random)
        };
        if self.random.u8(..32) == 0 {
            Event::Behind(port, frame)
        } else {
            Event::Frame(port, frame)
        }
    }

    /// What goes on.
    fn follow(&mut self) -> (Port, Vec<u8>) {
        let next = self.following.pop_front();
        next.map_or_else(|| self.opening(), |it| (Port::Wan0, it.frame()))
    }

    /// Some flow's, mostly of one that exists.
    fn path(&mut self) -> Path {
        if !self.paths.is_empty() && self.random.bool() {
            return self.paths[self.random.usize(..self.paths.len())];
        }
        let path = self.new_path();
        if path.service.ip() != Path::usual(family_of(&path)).service.ip() {
            return path.to_edge_b();
        }
        path
    }

    /// One that may not exist.
    fn new_path(&mut self) -> Path {
        let family = Family::BOTH[self.random.usize(..2)];
        let number = self.random.u8(..=CONTOSO);
        let client = family.socket(
            partner(number),
            40_000 + self.random.u16(..HELLOS.len() as u16),
        );
        let path = Path::usual(family).from(client);
        if self.random.bool() {
            path.to_second_service()
        } else {
            path
        }
    }

    /// A client's SYN, or what it says when that has been answered.
    fn opening(&mut self) -> (Port, Vec<u8>) {
        let path = self.new_path();
        let answered = self.greeted.get(&(path.client, path.service)).copied();
        let Some(cookie) = answered.filter(|_| self.random.u8(..4) != 0) else {
            let offers = [Offers::CLIENT, Offers::CLIENT, Offers::NOTHING][self.random.usize(..3)];
            let syn = path.client_packet().flags(SYN).seq(CLIENT_ISN);
            return (Port::Wan0, self.frame(syn.options(&offers.linux(0))));
        };
        let hello = hello_of(&path);
        let said = |at: usize, data: &[u8]| said(&path, cookie, at, data);
        let largest = largest(&path, cookie);
        let cut = self.random.usize(..=hello.len().min(largest));
        let segment = match self.random.u8(..8) {
            0 => said(0, b""),
            1 => said(0, &hello[..cut]),
            2 => said(cut, &hello[cut..hello.len().min(cut + largest)]),
            3 => said(hello.len(), b"early"),
            _ => {
                let parts = hello.chunks(largest).enumerate();
                self.following = parts.map(|(n, data)| said(n * largest, data)).collect();
                if self.random.u8(..4) == 0 {
                    self.following.rotate_left(1);
                }
                self.following.pop_front().unwrap_or_else(|| said(0, b""))
            }
        };
        // Not in other clothes: the datapath leaves those to the agent.
        (Port::Wan0, segment.frame())
    }

    /// What an Edge answers to a SYN; and where the address decides, the client to that.
    fn answering(&mut self) -> (Port, Vec<u8>) {
        let path = match self.half_open.len() {
            0 => self.path(),
            count => self.half_open[self.random.usize(..count)],
        };
        if self.table.by == By::Address {
            self.following.push_back(path.handshake_ack());
        }
        let answer = self.syn_ack(&path);
        (path.lan, self.frame(answer))
    }

    /// A segment of a flow, or one that opens or ends it.
    fn of_flow(&mut self, path: &Path) -> (Port, Vec<u8>) {
        let packet = match self.random.u8(..10) {
            0..2 => path.syn(),
            2 => path.handshake_ack(),
            3 => path.client_data(0, &self.payload()),
            4..6 => self.syn_ack(path),
            6 => path.edge_data(0, 0, &self.payload()),
            7 => path.client_fin(0),
            8 => path.edge_fin(0, 0),
            _ => path
                .client_packet()
                .flags(self.random.u8(..0x40))
                .seq(self.random.u32(..)),
        };
        let port = if packet.source == path.edge {
            path.lan
        } else {
            Port::Wan0
        };
        (port, self.frame(packet))
    }

    /// An Edge's answer, with options that fit the usual client's or with none.
    fn syn_ack(&mut self, path: &Path) -> Tcp {
        let answer = path.syn_ack().ack(FIRST).seq(EDGE_ISN);
        let offers = Offers {
            mss: [Some(1460), Some(1460), Some(900), None][self.random.usize(..4)],
            ..Offers::EDGE
        };
        match self.random.u8(..4) {
            0 => answer,
            1 => answer.options(&Offers::NOTHING.linux(0)),
            _ => answer.options(&offers.linux(Offers::CLIENT.timestamps.unwrap_or(0))),
        }
    }

    /// A segment of a handed-off flow.
    fn handed_off(&mut self) -> (Port, Vec<u8>) {
        let flow = self.handed_off[self.random.usize(..self.handed_off.len())];
        let (at, acked) = (
            self.random.i32(-100..100_000),
            self.random.i32(-100..100_000),
        );
        let (port, packet) = if self.random.bool() {
            (Port::Wan0, flow.client(at, acked))
        } else {
            (flow.path.lan, flow.edge(at, acked))
        };
        let mut packet = packet.data(&self.payload()).options(&self.options());
        if self.random.u8(..16) == 0 {
            packet.flags = self.random.u8(..0x40);
        }
        (port, self.frame(packet))
    }

    fn payload(&mut self) -> Vec<u8> {
        let most = if self.random.u8(..16) == 0 { 1400 } else { 64 };
        vec![self.random.u8(..); self.random.usize(..most)]
    }

    /// TCP options, in whole words: usual ones, at any offset, and anything.
    fn options(&mut self) -> Vec<u8> {
        let mut options = vec![1; self.random.usize(..4)];
        for _ in 0..self.random.u8(..4) {
            match self.random.u8(..4) {
                0 => options.extend(stamps(self.random.u32(..), self.random.u32(..))),
                1 => {
                    let blocks = self.random.u8(1..5);
                    options.extend([5, 2 + 8 * blocks]);
                    options.extend((0..8 * blocks).map(|_| self.random.u8(..)));
                }
                2 => options.push(1),
                _ => options.extend((0..self.random.u8(..8)).map(|_| self.random.u8(..))),
            }
        }
        options.truncate(40);
        options.resize(options.len().next_multiple_of(4), 0);
        options
    }

    /// Tags, IP options, extension headers, few hops, fragments; and the frame.
    fn frame(&mut self, mut packet: Tcp) -> Vec<u8> {
        let tags: &[&[(u16, u16)]] = &[&[], &[], &[(0x8100, 7)], &[(0x88a8, 7), (0x8100, 8)]];
        packet.link.tags = tags[self.random.usize(..4)].to_vec();
        let v4 = packet.source.is_ipv4();
        let clothes = self.random.u8(..16);
        let mut frame = match (clothes, v4) {
            (0, true) => packet.ip_options(&[1; 8]),
            (0, false) => packet.extension(extension::DESTINATION, &[0, 1, 4, 0, 0, 0, 0]),
            (1, false) => packet.extension(extension::FRAGMENT, &[0, 0, 1, 0, 0, 0, 9]),
            (2, _) => packet.hops(self.random.u8(..3)),
            (3, _) => packet.checksum_error(self.random.u16(..)),
            _ => packet,
        }
        .frame();
        if clothes == 1 && v4 {
            self.fragment(&mut frame);
        }
        frame
    }

    /// More fragments follow, or it is a later one itself.
    fn fragment(&mut self, frame: &mut [u8]) {
        if let Some((ip, _)) = network(frame) {
            let field = [[0x20, 0], [0, 1], [0x20, 9], [0x1f, 0xff]][self.random.usize(..4)];
            frame[ip + 6..ip + 8].copy_from_slice(&field);
            mend(frame);
        }
    }

    /// An ICMP error about a packet of a flow.
    fn error(&mut self) -> (Port, Vec<u8>) {
        let path = match self.handed_off.first() {
            Some(flow) if self.random.bool() => flow.path,
            _ => self.path(),
        };
        let quoted = [4, 8, 20, 40][self.random.usize(..4)];
        let (port, about, from) = if self.random.bool() {
            let about = path.at_edge(&path.client_data(0, &[7; 40]));
            (path.lan, about, path.edge)
        } else {
            let about = path.at_client(&path.edge_data(0, 0, &[7; 40]));
            (Port::Wan0, about, path.client)
        };
        let kinds: &[(u8, u8)] = if path.client.is_ipv4() {
            &[(3, 1), (3, 4), (11, 0), (12, 0), (0, 0), (5, 1)]
        } else {
            &[(1, 3), (2, 0), (3, 0), (4, 0), (129, 0), (137, 0)]
        };
        let icmp = Icmp {
            link: port.arriving(),
            source: from.ip(),
            destination: about.source.ip(),
            hops: 64,
            kind: kinds[self.random.usize(..kinds.len())],
            rest: [0; 4],
            body: about.quote(quoted),
        };
        (port, icmp.frame())
    }
}

/// What a client says: always the same.
fn hello_of(path: &Path) -> Vec<u8> {
    let name = if partner(CONTOSO).both().contains(&path.client.ip()) {
        CONTOSO_NAME
    } else {
        FABRIKAM_NAME
    };
    match HELLOS[usize::from(path.client.port()) % HELLOS.len()] {
        0 => hello::named(name),
        length => hello::long_named(name, length),
    }
}

/// The data of its largest segments.
fn largest(path: &Path, (_, stamp): Cookie) -> usize {
    let mss = if path.client.is_ipv4() {
        ANNOUNCED.mss_v4
    } else {
        ANNOUNCED.mss_v6
    };
    usize::from(mss - if stamp.is_some() { TIMESTAMPS } else { 0 })
}

/// A segment of a client that has been greeted.
fn said(path: &Path, (cookie, stamp): Cookie, at: usize, data: &[u8]) -> Tcp {
    let mut segment = path
        .client_packet()
        .flags(PSH)
        .seq(FIRST.wrapping_add(at as u32))
        .ack(cookie.wrapping_add(1))
        .data(data);
    if let (Some(stamp), Some(value)) = (stamp, Offers::CLIENT.timestamps) {
        segment.options = [vec![1, 1], stamps(value, stamp)].concat();
    }
    segment
}

fn path_of(flow: &FlowState) -> Path {
    Path {
        client: flow.client,
        service: flow.service,
        source: flow.source,
        edge: flow.edge,
        lan: if EDGE_A.both().contains(&flow.edge.ip()) {
            Port::Lan0
        } else {
            Port::Lan1
        },
    }
}

fn family_of(path: &Path) -> Family {
    if path.client.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    }
}

/// Of a SYN-ACK of the datapath's.
fn greeting(frame: &[u8]) -> Option<(Greeted, Cookie)> {
    let (service, client) = addresses(frame)?;
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let TransportSlice::Tcp(tcp) = packet.transport? else {
        return None;
    };
    let stamp = tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::Timestamp(value, _)) => Some(value),
        _ => None,
    });
    let client = SocketAddr::new(client, tcp.destination_port());
    let service = SocketAddr::new(service, tcp.source_port());
    Some(((client, service), (tcp.sequence_number(), stamp)))
}
