//! Two TCP connections that carry the same two streams, and how each of the four ends counts.

use sni_common::translate::{Leg, Timestamps};

/// A timestamp clock (RFC 7323, 5.4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) start: u32,
    pub(crate) ms_per_tick: u32,
}

impl Clock {
    /// What it shows at a time, in milliseconds.
    pub(crate) fn at(self, ms: u32) -> u32 {
        self.start.wrapping_add(ms / self.ms_per_tick)
    }
}

/// A connection between the gateway's socket and a peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) peer_isn: u32,
    pub(crate) own_isn: u32,
    /// Bytes at the stream's beginning that were read here and not written to the other one: a PROXY header, say.
    pub(crate) read_alone: u32,
    /// Bytes that were written here and read from nobody.
    pub(crate) written_alone: u32,
    pub(crate) timestamps: bool,
    pub(crate) peer_clock: Clock,
    pub(crate) own_clock: Clock,
    /// When the peer sent the timestamp that the agent knows.
    pub(crate) known_ms: u32,
    pub(crate) sack: bool,
    /// Scales that peer and socket have announced, where both have.
    pub(crate) scales: Option<(u8, u8)>,
}

impl Connection {
    /// Sequence number of the first byte of the stream that the peer sends.
    pub(crate) fn first_from_peer(&self) -> u32 {
        self.peer_isn.wrapping_add(1).wrapping_add(self.read_alone)
    }

    /// Likewise of the one that the peer receives.
    pub(crate) fn first_to_peer(&self) -> u32 {
        self.own_isn
            .wrapping_add(1)
            .wrapping_add(self.written_alone)
    }

    pub(crate) fn peer_scale(&self) -> u8 {
        self.scales.map_or(0, |(peer, _)| peer)
    }

    pub(crate) fn own_scale(&self) -> u8 {
        self.scales.map_or(0, |(_, own)| own)
    }

    /// What the agent knows when so much has been relayed from and to the peer, at a time.
    pub(crate) fn leg(&self, from_peer: u32, to_peer: u32, ms: u32) -> Leg {
        Leg {
            write_seq: self.first_to_peer().wrapping_add(to_peer),
            read_seq: self.first_from_peer().wrapping_add(from_peer),
            timestamps: self.timestamps.then(|| Timestamps {
                own: self.own_clock.at(ms),
                peer: self.peer_clock.at(self.known_ms),
            }),
            sack: self.sack,
            peer_scale: self.peer_scale(),
            own_scale: self.own_scale(),
        }
    }
}
