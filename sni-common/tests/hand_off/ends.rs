//! TCP: that of the ends, and that of the agent's sockets.

/// Bytes of a stream at most, its FIN included.
const ROOM: usize = 3;

/// Whose byte it is, and its place in the stream: a FIN is the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Byte {
    pub(crate) of: u8,
    pub(crate) at: u8,
}

/// What a segment is besides an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Load {
    Nothing,
    Byte(Byte),
    Rst,
}

/// A segment, by offsets in the stream that it belongs to: at most one byte, or a FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Segment {
    pub(crate) seq: u8,
    /// How much of the other stream its sender has.
    pub(crate) ack: u8,
    pub(crate) load: Load,
}

impl Segment {
    /// Sequence numbers that it takes.
    pub(crate) fn len(&self) -> u8 {
        u8::from(matches!(self.load, Load::Byte(_)))
    }

    pub(crate) fn is_rst(&self) -> bool {
        self.load == Load::Rst
    }
}

/// One side of a TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tcp {
    pub(crate) sent: u8,
    pub(crate) acknowledged: u8,
    pub(crate) received: u8,
    /// It has reset the connection, or was reset.
    pub(crate) reset: bool,
    /// It has taken a byte of another stream, or of another place.
    pub(crate) has_foreign: bool,
    /// What it has sent.
    queue: [Byte; ROOM],
    repetitions: u8,
}

impl Tcp {
    /// The next byte.
    pub(crate) fn send(&mut self, byte: Byte) -> Segment {
        let segment = Segment {
            seq: self.sent,
            ack: self.received,
            load: Load::Byte(byte),
        };
        self.queue[usize::from(self.sent)] = byte;
        self.sent += 1;
        segment
    }

    /// How often it has repeated something, where it may do so again.
    pub(crate) fn may_repeat(&self, tries: u8) -> Option<u8> {
        let may = !self.reset && self.acknowledged < self.sent && self.repetitions < tries;
        may.then_some(self.repetitions)
    }

    /// The first byte that is not acknowledged.
    pub(crate) fn repeat(&mut self) -> Segment {
        self.repetitions += 1;
        Segment {
            seq: self.acknowledged,
            ack: self.received,
            load: Load::Byte(self.queue[usize::from(self.acknowledged)]),
        }
    }

    /// Resets the connection.
    pub(crate) fn abort(&mut self) -> Segment {
        self.reset = true;
        Segment {
            seq: self.sent,
            ack: self.received,
            load: Load::Rst,
        }
    }

    /// Takes a segment of the stream of `of`; what comes too early is dropped. A byte is acknowledged, again if need be.
    pub(crate) fn receive(&mut self, segment: Segment, of: usize) -> Option<Segment> {
        if segment.is_rst() {
            // RFC 5961, 3.2.
            self.reset |= segment.seq == self.received;
            return None;
        }
        if self.reset {
            // There is no socket any more.
            return Some(answer_of_nobody(segment));
        }
        if segment.ack > self.sent {
            // RFC 9293, 3.10.7.4: nothing of it counts.
            return None;
        }
        self.acknowledged = self.acknowledged.max(segment.ack);
        let Load::Byte(byte) = segment.load else {
            return None;
        };
        if segment.seq == self.received {
            let expected = Byte {
                of: of as u8,
                at: self.received,
            };
            self.has_foreign |= byte != expected;
            self.received += 1;
        }
        Some(Segment {
            seq: self.sent,
            ack: self.received,
            load: Load::Nothing,
        })
    }
}

/// What a host answers that has no socket for a segment (RFC 9293, 3.5.2).
pub(crate) fn answer_of_nobody(segment: Segment) -> Segment {
    Segment {
        seq: segment.ack,
        ack: 0,
        load: Load::Rst,
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
