//! A handed-off flow, written straight into the tables, and its segments as each of the four ends counts.

use anyhow::Result;
use sni_common::checksum;
use sni_common::contract::{Counter, Direction, Flow, FlowKey, HandingOff, Way};
use sni_common::tcp::state;
use sni_common::translate::{Translation, options};
use snigate_tests::packets::frame::Tcp;
use snigate_tests::packets::plan::{Family, Path};
use snigate_tests::packets::{Port, Row, Scene, Step, key};

use crate::inspect::inspected;

/// The server name that decided, as accounts count it.
pub(crate) const ROUTE: u64 = 77;
/// Bytes that were relayed before the hand-off, from the client and from the Edge.
pub(crate) const RELAYED: (u32, u32) = (500, 900);

/// Sequence numbers of the first byte of each stream: sent by the client and got by the Edge, sent by the Edge and got by the client. All that a row
/// sends after [`RELAYED`] is near a wrap in one of them.
const UP_SENT: u32 = u32::MAX - 505;
const UP_GOT: u32 = 0x1234_5678;
const DOWN_SENT: u32 = 0x7fff_ff00;
const DOWN_GOT: u32 = u32::MAX - 910;

/// What is added to timestamps.
const LATER_AT_EDGE: u32 = 0x9000_0000;
const LATER_AT_CLIENT: u32 = 0x0fff_fff0;

/// A handed-off flow.
#[derive(Clone, Copy)]
pub(crate) struct Spliced {
    pub(crate) path: Path,
    pub(crate) family: Family,
    pub(crate) up: Translation,
    pub(crate) down: Translation,
    /// Bits of [`state`] of both directions.
    pub(crate) states: (u8, u8),
}

impl Spliced {
    pub(crate) fn new(family: Family) -> Self {
        let translation = |seq, ack: u32, ts_value, ts_echo: u32| Translation {
            seq,
            ack: ack.wrapping_neg(),
            ts_value,
            ts_echo: ts_echo.wrapping_neg(),
            options: options::TIMESTAMPS,
            ..Translation::default()
        };
        let up = UP_GOT.wrapping_sub(UP_SENT);
        let down = DOWN_GOT.wrapping_sub(DOWN_SENT);
        Self {
            path: Path::usual(family),
            family,
            up: translation(up, down, LATER_AT_EDGE, LATER_AT_CLIENT),
            down: translation(down, up, LATER_AT_CLIENT, LATER_AT_EDGE),
            states: (0, 0),
        }
    }

    /// With these bits of [`options`] in both directions.
    pub(crate) fn options(mut self, options: u8) -> Self {
        (self.up.options, self.down.options) = (options, options);
        self
    }

    /// With window scales: the client's and the one that was announced to it, the Edge's and the one that was announced to it.
    pub(crate) fn scales(mut self, client: (u8, u8), edge: (u8, u8)) -> Self {
        (self.up.sender_scale, self.down.receiver_scale) = client;
        (self.down.sender_scale, self.up.receiver_scale) = edge;
        self
    }

    /// While the agent may still have both sockets.
    pub(crate) fn handing_off(mut self) -> Self {
        self.states = (state::HANDING_OFF, state::HANDING_OFF);
        self
    }

    /// A row that begins with it.
    pub(crate) fn row(self, name: &str) -> Row {
        Row::new(name, inspected(""))
            .named_for(self.family)
            .setup(move |scene| self.install(scene))
    }

    /// Key of the client's packets, and of the Edge's.
    pub(crate) fn keys(&self) -> (FlowKey, FlowKey) {
        let Path {
            client,
            service,
            source,
            edge,
            ..
        } = self.path;
        (key(client, service), key(edge, source))
    }

    /// Writes both entries.
    pub(crate) fn install(&self, scene: &mut Scene<'_>) -> Result<()> {
        let edge = scene.edge_slot(match self.family {
            Family::V4 => "edge-a",
            Family::V6 => "edge-a6",
        })?;
        let (up, down) = self.keys();
        let entry = |from: FlowKey, to: FlowKey| Flow {
            rewrite: to,
            edge: edge as u16,
            port_delta: checksum::fold(checksum::change(from.ports_word(), to.ports_word())),
            ip_delta: checksum::fold(
                checksum::change_address(&from.source, &to.source)
                    + checksum::change_address(&from.destination, &to.destination),
            ),
            way: Way::HandedOff as u8,
            route: ROUTE,
            ..Flow::default()
        };
        let to_edge = Flow {
            direction: Direction::ToEdge as u8,
            state: self.states.0,
            next_seq: UP_SENT.wrapping_add(RELAYED.0),
            last_ack: DOWN_GOT.wrapping_add(RELAYED.1),
            translation: self.up,
            bytes: 1000,
            ..entry(up, down.reversed())
        };
        let to_client = Flow {
            direction: Direction::ToClient as u8,
            state: self.states.1,
            next_seq: DOWN_SENT.wrapping_add(RELAYED.1),
            last_ack: UP_GOT.wrapping_add(RELAYED.0),
            translation: self.down,
            bytes: 2000,
            ..entry(down, up.reversed())
        };
        let flows = &mut scene.datapath().maps.flows;
        flows.insert(up, to_edge, 0)?;
        Ok(flows.insert(down, to_client, 0)?)
    }

    /// Writes an entry of HANDING_OFF: the acknowledgement of so many bytes after [`RELAYED`] is wanted, of the Edge's packets or the client's.
    pub(crate) fn wait(&self, scene: &mut Scene<'_>, from_edge: bool, bytes: u32) -> Result<()> {
        let (up, down) = self.keys();
        let (key, need_ack) = if from_edge {
            (down, UP_GOT.wrapping_add(RELAYED.0))
        } else {
            (up, DOWN_GOT.wrapping_add(RELAYED.1))
        };
        let value = HandingOff {
            need_ack: need_ack.wrapping_add(bytes),
            padding: 0,
        };
        let map = &mut scene.datapath().maps.handing_off;
        Ok(map.insert(key, value, 0)?)
    }

    /// A segment of the client's: `at` bytes after what was relayed, acknowledging `acked` of the Edge's after what was.
    pub(crate) fn client(&self, at: i32, acked: i32) -> Tcp {
        self.path
            .client_packet()
            .seq(count(UP_SENT, RELAYED.0, at))
            .ack(count(DOWN_GOT, RELAYED.1, acked))
    }

    /// The same one as the Edge must get it.
    pub(crate) fn at_edge(&self, packet: &Tcp, at: i32, acked: i32) -> Tcp {
        self.path
            .at_edge(packet)
            .seq(count(UP_GOT, RELAYED.0, at))
            .ack(count(DOWN_SENT, RELAYED.1, acked))
    }

    /// A segment of the Edge's.
    pub(crate) fn edge(&self, at: i32, acked: i32) -> Tcp {
        self.path
            .edge_packet()
            .seq(count(DOWN_SENT, RELAYED.1, at))
            .ack(count(UP_GOT, RELAYED.0, acked))
    }

    /// The same one as the client must get it.
    pub(crate) fn at_client(&self, packet: &Tcp, at: i32, acked: i32) -> Tcp {
        self.path
            .at_client(packet)
            .seq(count(DOWN_GOT, RELAYED.1, at))
            .ack(count(UP_SENT, RELAYED.0, acked))
    }

    /// From the client to the Edge, both numbers zero: `change` makes the segment of each end what it is.
    pub(crate) fn up(&self, at: i32, acked: i32, change: impl Fn(Tcp, Side) -> Tcp) -> Step {
        let sent = self.client(at, acked);
        let got = self.at_edge(&sent, at, acked);
        up(&change(sent, Side::Sender), &change(got, Side::Receiver))
    }

    /// From the Edge to the client.
    pub(crate) fn down(&self, at: i32, acked: i32, change: impl Fn(Tcp, Side) -> Tcp) -> Step {
        let sent = self.edge(at, acked);
        let got = self.at_client(&sent, at, acked);
        let (sent, got) = (change(sent, Side::Sender), change(got, Side::Receiver));
        down(self.path, &sent, &got)
    }
}

/// Which end's a segment is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Sender,
    Receiver,
}

impl Side {
    /// What this end has.
    pub(crate) fn of<T>(self, sent: T, got: T) -> T {
        match self {
            Self::Sender => sent,
            Self::Receiver => got,
        }
    }
}

pub(crate) fn up(sent: &Tcp, got: &Tcp) -> Step {
    Step::forwarded(Port::Wan0, sent, got).counts(Counter::HandedOff)
}

pub(crate) fn down(path: Path, sent: &Tcp, got: &Tcp) -> Step {
    Step::forwarded(path.lan, sent, got).counts(Counter::HandedOff)
}

fn count(first: u32, relayed: u32, at: i32) -> u32 {
    first.wrapping_add(relayed).wrapping_add_signed(at)
}

/// A timestamps option of the client's: its clock, and an echo of the Edge's clock.
pub(crate) fn client_timestamps(side: Side, value: u32, echo: u32) -> Vec<u8> {
    timestamps(
        side.of(value, value.wrapping_add(LATER_AT_EDGE)),
        side.of(echo.wrapping_add(LATER_AT_CLIENT), echo),
    )
}

/// A timestamps option of the Edge's: its clock, and an echo of the client's.
pub(crate) fn edge_timestamps(side: Side, value: u32, echo: u32) -> Vec<u8> {
    timestamps(
        side.of(value, value.wrapping_add(LATER_AT_CLIENT)),
        side.of(echo.wrapping_add(LATER_AT_EDGE), echo),
    )
}

pub(crate) fn timestamps(value: u32, echo: u32) -> Vec<u8> {
    [&[8, 10], &value.to_be_bytes()[..], &echo.to_be_bytes()].concat()
}

/// A SACK option of the client's: blocks of the Edge's bytes after what was relayed.
pub(crate) fn client_sack(side: Side, blocks: &[(i32, i32)]) -> Vec<u8> {
    sack(side.of(DOWN_GOT, DOWN_SENT), RELAYED.1, blocks)
}

/// A SACK option of the Edge's.
pub(crate) fn edge_sack(side: Side, blocks: &[(i32, i32)]) -> Vec<u8> {
    sack(side.of(UP_GOT, UP_SENT), RELAYED.0, blocks)
}

fn sack(first: u32, relayed: u32, blocks: &[(i32, i32)]) -> Vec<u8> {
    let mut option = vec![5, 2 + 8 * blocks.len() as u8];
    for (left, right) in blocks {
        option.extend(count(first, relayed, *left).to_be_bytes());
        option.extend(count(first, relayed, *right).to_be_bytes());
    }
    option
}
