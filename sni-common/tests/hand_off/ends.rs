//! TCP: that of the ends, and that of the agent's sockets.

/// A segment, by offsets in the stream that it belongs to: at most one byte, or a FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Segment {
    pub(crate) seq: u8,
    pub(crate) len: u8,
    /// How much of the other stream its sender has.
    pub(crate) ack: u8,
}

/// One side of a TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tcp {
    pub(crate) sent: u8,
    pub(crate) acknowledged: u8,
    pub(crate) received: u8,
    repetitions: u8,
}

impl Tcp {
    /// The next byte.
    pub(crate) fn send(&mut self) -> Segment {
        let segment = Segment {
            seq: self.sent,
            len: 1,
            ack: self.received,
        };
        self.sent += 1;
        segment
    }

    pub(crate) fn may_repeat(&self, tries: u8) -> bool {
        self.acknowledged < self.sent && self.repetitions < tries
    }

    /// The first byte that is not acknowledged.
    pub(crate) fn repeat(&mut self) -> Segment {
        self.repetitions += 1;
        Segment {
            seq: self.acknowledged,
            len: 1,
            ack: self.received,
        }
    }

    /// Takes a segment; what comes too early is dropped. A byte is acknowledged, again if need be.
    pub(crate) fn receive(&mut self, segment: Segment) -> Option<Segment> {
        if segment.ack > self.sent {
            // RFC 9293, 3.10.7.4: nothing of it counts.
            return None;
        }
        self.acknowledged = self.acknowledged.max(segment.ack);
        if segment.len == 0 {
            return None;
        }
        if segment.seq == self.received {
            self.received += 1;
        }
        Some(Segment {
            seq: self.sent,
            len: 0,
            ack: self.received,
        })
    }
}

/// A socket of the agent's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Socket {
    pub(crate) tcp: Tcp,
    /// How much of what was received the agent has read.
    pub(crate) read: u8,
    /// In TCP_REPAIR: it would be gone without a word.
    pub(crate) silent: bool,
    /// A filter drops whatever comes.
    pub(crate) deaf: bool,
}

impl Socket {
    pub(crate) fn has_news(&self) -> bool {
        self.tcp.received > self.read
    }
}
