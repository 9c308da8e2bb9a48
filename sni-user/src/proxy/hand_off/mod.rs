//! Hand-off: an open connection leaves the agent and lives on in the datapath.
//!
//! The streams of the two legs differ by constants from the handshakes on (see [`sni_common::translate`]), so nothing has to stand still: the datapath
//! takes over the packets of both directions, and what the sockets have received until then is read and written to the other one as ever. From then
//! on a socket only waits until its peer has acknowledged what it has sent: acknowledgements before that are the socket's own (HANDING_OFF), all
//! other packets are translated already. When neither has anything left to do, they are closed without a word: no FIN, no RST, no TIME_WAIT.

mod socket;
mod terms;

use std::{io, time::Duration};

use sni_common::{
    contract::{Direction, Flow, FlowKey, Way},
    tcp::{after, state},
    translate,
};
use tokio::{io::Interest, net::TcpStream, select, time::sleep};

use self::{socket::Facts, terms::Peers};
pub(super) use self::{
    socket::{peer_scale, segment_size, tell_write_seq, unread},
    terms::{NotHandedOff, Terms},
};
use super::{Proxy, shared::Woken, socket as sockets};
use crate::{
    clock::monotonic_ns,
    datapath::{DatapathError, HandOffs},
    kill_point::KillPoint,
};

/// How long to wait before looking again whether a socket has been acknowledged; the datapath tells it as well, when it sees it.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// What is read from a socket at once.
const PIECE: usize = 16 * 1024;

/// What a client may send before it has heard anything: more than that it sends only because the agent's socket has acknowledged it (RFC 6928).
const FIRST_FLIGHT: u32 = 10 * 1460;

/// An acknowledgement that does not come: before it, all are the socket's.
const NEVER: u32 = 1 << 30;

/// How long a given-up socket takes what is still on its way to it: the host would answer with a reset.
const LINGER: Duration = Duration::from_millis(250);

/// What became of a connection that was to be handed off.
pub(super) enum Outcome {
    /// It is the datapath's, and its sockets will go without a word. Bytes that they still had went to either side before.
    HandedOff {
        to_edge: u64,
        to_client: u64,
        /// How many of them the flow's entries do not count, likewise: what was past the datapath when it took over.
        unseen: (u64, u64),
    },
    /// It stays here, as it was.
    Kept(NotHandedOff),
    /// It ended meanwhile: one side is gone, and the other will be reset when its socket is closed. So much has come, as the datapath counts it.
    Reset { to_edge: u64, to_client: u64 },
}

/// When a connection may be handed off. Segments that come past a socket overtake what it still has to send, and their sender may take for lost what
/// is only late; so the best moment is one at which both sides are silent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    /// Before the Edge has said anything: the client waits for that, when no more has come than was there when its ClientHello was complete.
    First {
        /// Bytes that were there.
        waiting: u32,
    },
    /// When nothing is on its way.
    Quiet,
    /// When no more is on its way than the other side takes at once. Its sender may send some of it again.
    Any,
}

impl Moment {
    fn is_met(self, client: &Facts, edge: &Facts) -> bool {
        let unread = (client.position.unread(), edge.position.unread());
        match self {
            Self::First { waiting } => unread.0 <= waiting.min(FIRST_FLIGHT) && unread.1 == 0,
            Self::Quiet => {
                unread == (0, 0)
                    && [client, edge]
                        .iter()
                        .all(|it| it.position.is_acknowledged())
            }
            Self::Any => unread.0 <= edge.window && unread.1 <= client.window,
        }
    }
}

/// Why a hand-off was broken off.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    #[error("a peer has reset the connection or does not answer any longer")]
    Gone,
}

/// Hands a connection off, if that can be.
pub(super) async fn hand_off(
    proxy: &Proxy,
    client: &TcpStream,
    edge: &TcpStream,
    terms: &Terms,
    when: Moment,
) -> Outcome {
    let mut handing = match HandingOff::begin(proxy, client, edge, terms, when) {
        Ok(handing) => handing,
        Err(why) => return Outcome::Kept(why),
    };
    let finished = handing.finish().await;
    let (to_edge, to_client) = (handing.client.carried, handing.edge.carried);
    let unseen = (handing.client.unseen(), handing.edge.unseen());
    let keys = [handing.client.key, handing.edge.key];
    drop(handing);
    let Err(error) = finished else {
        return Outcome::HandedOff {
            to_edge,
            to_client,
            unseen,
        };
    };
    tracing::debug!(%error, "a hand-off was broken off");
    let seen = keys.map(|key| proxy.hand_offs().flow(&key).ok().flatten());
    let [to_edge, to_client] = seen.map(|flow| flow.map_or(0, |flow| flow.bytes));
    if let Err(error) = proxy.hand_offs().abandon([&keys[0], &keys[1]]) {
        tracing::warn!(%error, "the flow of a broken hand-off stays until the sweep finds it idle");
    }
    for stream in [client, edge] {
        // What is silent can't be reset; it fails only for what is no socket.
        let _ = socket::speak_again(stream);
        sockets::reset_on_close(stream);
    }
    Outcome::Reset { to_edge, to_client }
}

/// Closes the sockets of a connection that was handed off, both of them silent and deaf.
pub(super) async fn close(client: TcpStream, edge: TcpStream) {
    // One that has not seen itself that its peer has acknowledged all would send it again.
    let is_done = |stream: &TcpStream| socket::unacknowledged(stream).is_ok_and(|left| left == 0);
    let _lingering = [client, edge].map(|stream| is_done(&stream).then_some(stream));
    KillPoint::HandOffLingering.pass();
    sleep(LINGER).await;
}

/// A connection that is being handed off.
struct HandingOff<'a> {
    hand_offs: &'a HandOffs,
    woken: Woken<'a>,
    client: Side<'a>,
    edge: Side<'a>,
}

/// One of the two sockets, and its peer.
struct Side<'a> {
    /// What the peer's packets come with.
    key: FlowKey,
    stream: &'a TcpStream,
    /// The sequence number after all that the socket has sent, or will have with its outbox.
    end: u32,
    /// The same, as the datapath knows it.
    announced: u32,
    /// What the socket is still to be given.
    outbox: Vec<u8>,
    /// Whether the peer has closed its direction, and whether the socket is still to be told that the other one has.
    ended: bool,
    to_end: bool,
    /// Bytes that were read from it, and those of them that had come before the datapath took over.
    carried: u64,
    waiting: u64,
}

impl<'a> HandingOff<'a> {
    /// Gives the datapath both directions. Where it does not take them, the connection is as it was.
    fn begin(
        proxy: &'a Proxy,
        client: &'a TcpStream,
        edge: &'a TcpStream,
        terms: &Terms,
        when: Moment,
    ) -> Result<Self, NotHandedOff> {
        let hand_offs = proxy.hand_offs();
        let peers = Peers::of(hand_offs, client, edge)?;
        let client_facts = socket::facts(client, &peers.client_seen)?;
        let edge_facts = socket::facts(edge, &peers.edge_seen)?;
        let (Some(client_facts), Some(edge_facts)) = (client_facts, edge_facts) else {
            return Err(NotHandedOff::Closing);
        };
        terms::timestamps(&peers, &client_facts.leg, &edge_facts.leg)?;
        if !when.is_met(&client_facts, &edge_facts) {
            return Err(NotHandedOff::Busy);
        }
        KillPoint::HandOffAsked.pass();
        let (to_edge, to_client) = flows(&peers, terms, &client_facts, &edge_facts);
        let woken = proxy.woken_by([peers.client, peers.edge]);
        let client = Side::new(peers.client, client, &client_facts);
        let edge = Side::new(peers.edge, edge, &edge_facts);
        // The Edge's packets first: what the client sends from the second one on may be answered at once.
        hand_offs.begin(&edge.key, &to_client, edge.announced)?;
        KillPoint::HandOffGaveOne.pass();
        if let Err(refused) = hand_offs.begin(&client.key, &to_edge, client.announced) {
            // What has passed by in between is sent again: nobody has acknowledged it to its sender.
            hand_offs.abandon([&client.key, &edge.key])?;
            return Err(refused.into());
        }
        KillPoint::HandOffGaveBoth.pass();
        Ok(Self {
            hand_offs,
            woken,
            client,
            edge,
        })
    }

    /// Waits until neither socket has anything left to do. Both are silent then.
    async fn finish(&mut self) -> Result<(), Broken> {
        let mut wait = FIRST_LOOK;
        loop {
            self.carry()?;
            if self.client.is_given_all() && self.edge.is_given_all() {
                KillPoint::HandOffWritten.pass();
                // With both silent, a kill of this process sends nothing to anybody; but what a socket would have had to send again is lost with it, and
                // the connection hangs. Only when both peers have acknowledged all does it surely go on.
                self.client.be_silent()?;
                KillPoint::HandOffSilentOne.pass();
                self.edge.be_silent()?;
                KillPoint::HandOffSilent.pass();
                if self.is_over()? || self.is_quiet()? && self.receives_nothing()? {
                    break;
                }
            }
            select! {
                () = self.woken.wait() => wait = FIRST_LOOK,
                () = sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
                ready = self.client.may_go_on() => ready?,
                ready = self.edge.may_go_on() => ready?,
            }
        }
        self.hand_offs.end([&self.client.key, &self.edge.key])?;
        KillPoint::HandOffEnded.pass();
        Ok(())
    }

    /// Carries what the sockets have received: until the datapath took over, and what was on its way through this host then.
    fn carry(&mut self) -> Result<(), Broken> {
        carry(self.hand_offs, &mut self.client, &mut self.edge)?;
        carry(self.hand_offs, &mut self.edge, &mut self.client)?;
        KillPoint::HandOffRead.pass();
        for side in [&mut self.client, &mut self.edge] {
            // Before the peer can acknowledge it: from there on acknowledgements are for the other peer, too.
            if side.announced != side.end {
                self.hand_offs.need(&side.key, side.end)?;
                side.announced = side.end;
                KillPoint::HandOffNeed.pass();
            }
            side.write()?;
        }
        Ok(())
    }

    /// Whether the peers have acknowledged all that the sockets have sent.
    fn is_quiet(&self) -> Result<bool, Broken> {
        Ok(self.client.is_acknowledged(self.hand_offs)?
            && self.edge.is_acknowledged(self.hand_offs)?)
    }

    /// Whether the flow has ended meanwhile: by a RST, or because somebody has removed it.
    fn is_over(&self) -> Result<bool, Broken> {
        for side in [&self.client, &self.edge] {
            match self.hand_offs.flow(&side.key)? {
                Some(flow) if flow.state & state::RST == 0 => {}
                _ => return Ok(true),
            }
            if socket::is_gone(side.stream)? {
                return Err(Broken::Gone);
            }
        }
        Ok(false)
    }

    /// Has both sockets receive nothing more; whether that came soon enough.
    fn receives_nothing(&self) -> Result<bool, Broken> {
        socket::receive_nothing(self.client.stream)?;
        KillPoint::HandOffDeafOne.pass();
        socket::receive_nothing(self.edge.stream)?;
        if !self.client.has_news()? && !self.edge.has_news()? {
            KillPoint::HandOffDeaf.pass();
            return Ok(true);
        }
        socket::receive_again(self.client.stream)?;
        socket::receive_again(self.edge.stream)?;
        Ok(false)
    }
}

impl<'a> Side<'a> {
    fn new(key: FlowKey, stream: &'a TcpStream, facts: &Facts) -> Self {
        Self {
            key,
            stream,
            end: facts.position.write_seq,
            announced: facts.position.write_seq.wrapping_add(NEVER),
            outbox: Vec::new(),
            ended: false,
            to_end: false,
            carried: 0,
            waiting: facts.position.unread().into(),
        }
    }

    fn unseen(&self) -> u64 {
        self.carried.saturating_sub(self.waiting)
    }

    /// Whether the socket has received something that nobody has read.
    fn has_news(&self) -> io::Result<bool> {
        Ok(socket::unread(self.stream)? > 0 || !self.ended && socket::peer_has_ended(self.stream)?)
    }

    /// Reads all there is, for `to`.
    fn read_into(&mut self, to: &mut Self) -> io::Result<()> {
        while !self.ended {
            let length = to.outbox.len();
            to.outbox.resize(length + PIECE, 0);
            let read = self.stream.try_read(&mut to.outbox[length..]);
            to.outbox
                .truncate(length + read.as_ref().map_or(0, |read| *read));
            match read {
                Ok(0) => {
                    self.ended = true;
                    to.to_end = true;
                    to.end = to.end.wrapping_add(1);
                }
                Ok(read) => {
                    self.carried += read as u64;
                    to.end = to.end.wrapping_add(read as u32);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the socket as much as it takes.
    fn write(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.stream.try_write(&self.outbox) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.outbox = Vec::new();
        if self.to_end {
            rustix::net::shutdown(self.stream, rustix::net::Shutdown::Write)?;
            self.to_end = false;
        }
        Ok(())
    }

    fn is_given_all(&self) -> bool {
        self.outbox.is_empty() && !self.to_end
    }

    /// Waits until there is something to read, or to write where something waits for that.
    async fn may_go_on(&self) -> io::Result<()> {
        if self.is_given_all() {
            // At the end of the stream, and after an error, it is readable for ever.
            self.stream.ready(Interest::READABLE).await?;
        } else {
            self.stream.writable().await?;
        }
        Ok(())
    }

    fn be_silent(&self) -> io::Result<()> {
        socket::be_silent(self.stream)
    }

    fn speak(&self) -> io::Result<()> {
        socket::speak_again(self.stream)
    }

    /// Whether its peer has acknowledged all that the socket has sent: as the socket knows, or, where the acknowledgement came with data, the
    /// datapath.
    fn is_acknowledged(&self, hand_offs: &HandOffs) -> Result<bool, Broken> {
        if socket::unacknowledged(self.stream)? == 0 {
            return Ok(true);
        }
        let flow = hand_offs.flow(&self.key)?;
        Ok(flow.is_some_and(|flow| !after(self.end, flow.last_ack)))
    }
}

/// Reads all that `from` has received, for `to` to send.
fn carry<'a>(hand_offs: &HandOffs, from: &mut Side<'a>, to: &mut Side<'a>) -> Result<(), Broken> {
    if !from.has_news()? {
        return Ok(());
    }
    from.speak()?;
    to.speak()?;
    from.read_into(to)?;
    if to.to_end {
        hand_offs.note_end(&from.key)?;
    }
    Ok(())
}

/// The entries of both directions, to the Edge and to the client.
fn flows(peers: &Peers, terms: &Terms, client: &Facts, edge: &Facts) -> (Flow, Flow) {
    let (to_edge, to_client) = translate::pair(&client.leg, &edge.leg);
    let now_ns = monotonic_ns();
    let age_ns = u64::try_from(terms.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let flow = |key: &FlowKey, rewrite: FlowKey, facts: &Facts, direction, translation| Flow {
        rewrite,
        edge: terms.edge,
        direction: direction as u8,
        state: state::HANDING_OFF,
        port_delta: key.port_change(&rewrite),
        ip_delta: key.address_change(&rewrite),
        next_seq: facts.position.receive_seq,
        last_ack: facts.position.acknowledged,
        ip_set: terms.ip_set,
        way: Way::HandedOff as u8,
        opened_ns: now_ns.saturating_sub(age_ns),
        last_seen_ns: now_ns,
        packets: facts.packets,
        bytes: facts.bytes,
        route: terms.route,
        translation,
        ..Flow::default()
    };
    (
        flow(
            &peers.client,
            peers.edge.reversed(),
            client,
            Direction::ToEdge,
            to_edge,
        ),
        flow(
            &peers.edge,
            peers.client.reversed(),
            edge,
            Direction::ToClient,
            to_client,
        ),
    )
}
