//! The server name of a ClientHello, read where there is no agent: the datapath binds connections to names that it knows.
//!
//! The agent has a reader of its own, which knows TLS in full (`sni_user::proxy::hello`). This one knows the usual hello alone: one TLS record,
//! not longer than [`HELLO_ROOM`], one handshake message in it, one name. It answers [`Answer::Found`] only where the agent would find that same
//! name; all that it is in doubt about is [`Answer::Left`] to the agent, whose answer and whose reasons then count. So every rule by which the
//! agent refuses a hello is here as well, and stricter at times, never looser. `sni-user/tests/hello/` and a fuzz target hold one to the other.
//!
//! The datapath must not loop without a bound that the verifier sees, and has the kernel call [`Walk::step`] ([`STEPS`] times at most): one small
//! item each. Whatever has been to memory is unknown to the verifier, so every index is masked where it is used.

mod name;
#[cfg(test)]
mod tests;

use crate::contract::{HELLO_ROOM, LearnedKey};

/// Length of the buffer that the bytes stand in: a power of two, so that an index masked with one less is always within.
pub const ROOM: usize = 4096;
const ROOM_MASK: usize = ROOM - 1;
const _: () = assert!(ROOM.is_power_of_two() && HELLO_ROOM <= ROOM);

/// Steps that a walk may take. The longest name is 32 of them, the most extensions are 32, and what comes before them is four: 60 are left for
/// protocols of ALPN and key shares, of which browsers have five. A hello that needs more is left to the agent.
pub const STEPS: u32 = 128;

/// Bytes before a ClientHello's body: of a record's header (RFC 8446, 5.1) and of a handshake message's (4).
const RECORD_HEADER: u32 = 5;
const MESSAGE_HEADER: u32 = 4;
/// Where the session id's length stands: behind the headers, the version and the random bytes (RFC 8446, 4.1.2).
const SESSION_ID: u32 = RECORD_HEADER + MESSAGE_HEADER + 2 + 32;
/// The longest session id.
const MAX_SESSION_ID: u32 = 32;
/// What an extension begins with: its type and its content's length.
const EXTENSION_HEADER: u32 = 4;

/// Types of a record and of a message.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// The extensions that the agent reads, and so may refuse.
const SERVER_NAME: u32 = 0;
const SIGNATURE_ALGORITHMS: u32 = 13;
const ALPN: u32 = 16;
const SUPPORTED_VERSIONS: u32 = 43;
const KEY_SHARE: u32 = 51;

/// What comes next in the walk, or how it ended.
mod stage {
    pub(super) const HEADERS: u32 = 0;
    pub(super) const CIPHERS: u32 = 1;
    pub(super) const COMPRESSION: u32 = 2;
    pub(super) const EXTENSIONS: u32 = 3;
    pub(super) const EXTENSION: u32 = 4;
    pub(super) const NAME: u32 = 5;
    pub(super) const PROTOCOL: u32 = 6;
    pub(super) const SHARE: u32 = 7;
    pub(super) const FOUND: u32 = 8;
    pub(super) const INCOMPLETE: u32 = 9;
    pub(super) const LEFT: u32 = 10;
}

/// What the first bytes of a client's stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A whole ClientHello that the agent would accept; [`Walk::key`] has the name in it.
    ///
    /// There may be bytes behind it, early data say, which neither reader looks at: the hello ends at [`Walk::hello_length`].
    Found,
    /// All is right so far, but this is not the whole hello.
    Incomplete {
        /// Bytes of the stream that hold the hello, from the first one on; more than there were, and at most [`HELLO_ROOM`].
        needed: u32,
        /// Whether [`Walk::key`] has the name already. The rest of the hello may yet be one that the agent refuses.
        named: bool,
    },
    /// Something for the agent: no TLS, no name, a hello in several records or longer than [`HELLO_ROOM`], less of it than its headers, or
    /// anything that is wrong, odd, or more than [`STEPS`] are enough for.
    Left,
}

/// A walk over the first bytes of a client's stream, step by step.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    /// How many bytes there are.
    length: u32,
    /// The name in lower case and without a trailing dot, where [`Walk::answer`] says that there is one. The IP set is the caller's.
    pub key: LearnedKey,
    /// The types of the extensions so far, four to a word.
    types: [u64; TYPE_WORDS],
    /// How many they are.
    type_count: u32,
    /// A [`stage`].
    stage: u32,
    /// Where the next item starts.
    at: u32,
    /// Where the hello ends.
    end: u32,
    /// Where the extension ends that the next item is in.
    inner_end: u32,
    /// Whether the name has been found; else 0.
    named: u32,
    /// Length of the name.
    name_length: u32,
    /// How much of it has been read.
    name_done: u32,
    /// Where in it the current label starts.
    label: u32,
    /// The class of its last byte that has been read.
    previous: u32,
}

const _: () = assert!(size_of::<Walk>() == 4 + 260 + 8 * TYPE_WORDS + 10 * 4);

impl Walk {
    /// Begins with a stream of which there are `length` bytes. Bytes beyond [`HELLO_ROOM`] are not looked at.
    #[inline(always)]
    pub fn begin(&mut self, length: u32) {
        let most = HELLO_ROOM as u32;
        self.length = if length > most { most } else { length };
        *self.key.name.bytes_mut() = [0; 256];
        self.type_count = 0;
        self.stage = stage::HEADERS;
        self.end = 0;
        self.named = 0;
    }

    /// Takes the next item; `false` at the end.
    #[inline(always)]
    pub fn step(&mut self, bytes: &[u8; ROOM]) -> bool {
        let next = match self.stage {
            stage::HEADERS => self.headers(bytes),
            stage::CIPHERS => self.ciphers(bytes),
            stage::COMPRESSION => self.compression(bytes),
            stage::EXTENSIONS => self.extensions(bytes),
            stage::EXTENSION => self.extension(bytes),
            stage::NAME => self.name(bytes),
            stage::PROTOCOL => self.protocol(bytes),
            stage::SHARE => self.share(bytes),
            _ => return false,
        };
        let (Ok(stage) | Err(stage)) = next;
        self.stage = stage;
        next.is_ok()
    }

    /// What has come of it. A walk that has not ended is left to the agent.
    #[inline(always)]
    pub const fn answer(&self) -> Answer {
        match self.stage {
            stage::FOUND => Answer::Found,
            stage::INCOMPLETE => Answer::Incomplete {
                needed: self.end,
                named: self.named != 0,
            },
            _ => Answer::Left,
        }
    }

    /// Bytes of the stream that hold the hello, from the first one on, where it is one that has not been left to the agent.
    #[inline(always)]
    pub const fn hello_length(&self) -> u32 {
        self.end
    }

    /// Up to the session id. Less than the headers is left to the agent: no client in earnest sends it, and so what is needed is always known.
    ///
    /// The record's version is to be ignored (RFC 8446, 5.1), but for its first byte.
    #[inline(always)]
    fn headers(&mut self, bytes: &[u8; ROOM]) -> Next {
        if self.length < RECORD_HEADER + MESSAGE_HEADER
            || bytes[0] != HANDSHAKE
            || bytes[1] != 3
            || bytes[5] != CLIENT_HELLO
        {
            return Err(stage::LEFT);
        }
        let record = number(bytes, 3);
        let message = (bytes[6] as u32) << 16 | number(bytes, 7);
        // One record and one message in it. Where there is less in the record, the rest comes in others; where there is more, another message.
        if record != message + MESSAGE_HEADER || RECORD_HEADER + record > HELLO_ROOM as u32 {
            return Err(stage::LEFT);
        }
        self.end = RECORD_HEADER + record;
        self.at = SESSION_ID;
        self.there(1, self.end)?;
        let length = bytes[SESSION_ID as usize] as u32;
        if length > MAX_SESSION_ID {
            return Err(stage::LEFT);
        }
        self.skip(1 + length, self.end)?;
        Ok(stage::CIPHERS)
    }

    #[inline(always)]
    fn ciphers(&mut self, bytes: &[u8; ROOM]) -> Next {
        self.there(2, self.end)?;
        let length = number(bytes, self.at);
        if length == 0 || length & 1 != 0 {
            return Err(stage::LEFT);
        }
        self.skip(2 + length, self.end)?;
        Ok(stage::COMPRESSION)
    }

    #[inline(always)]
    fn compression(&mut self, bytes: &[u8; ROOM]) -> Next {
        self.there(1, self.end)?;
        let length = byte(bytes, self.at) as u32;
        if length == 0 {
            return Err(stage::LEFT);
        }
        self.skip(1 + length, self.end)?;
        Ok(stage::EXTENSIONS)
    }

    /// The length of all extensions, which end with the hello. One without them has no name.
    #[inline(always)]
    fn extensions(&mut self, bytes: &[u8; ROOM]) -> Next {
        self.there(2, self.end)?;
        let length = number(bytes, self.at);
        self.skip(2, self.end)?;
        if self.at + length != self.end {
            return Err(stage::LEFT);
        }
        Ok(stage::EXTENSION)
    }

    /// An extension's header and what its content begins with, or the hello's end.
    #[inline(always)]
    fn extension(&mut self, bytes: &[u8; ROOM]) -> Next {
        if self.at == self.end {
            return Err(if self.named == 0 {
                stage::LEFT
            } else if self.length < self.end {
                stage::INCOMPLETE
            } else {
                stage::FOUND
            });
        }
        self.there(EXTENSION_HEADER, self.end)?;
        let kind = number(bytes, self.at);
        let length = number(bytes, self.at + 2);
        self.skip(EXTENSION_HEADER, self.end)?;
        let end = self.at + length;
        if end > self.end || !self.is_new(kind) {
            return Err(stage::LEFT);
        }
        self.inner_end = end;
        match kind {
            SERVER_NAME => self.server_name(bytes, length),
            SIGNATURE_ALGORITHMS => {
                let list = self.list(bytes, length)?;
                if list == 0 || list & 1 != 0 {
                    return Err(stage::LEFT);
                }
                self.at = end;
                Ok(stage::EXTENSION)
            }
            ALPN => match self.list(bytes, length)? {
                0 => Err(stage::LEFT),
                _ => Ok(stage::PROTOCOL),
            },
            SUPPORTED_VERSIONS => {
                self.there(1, end)?;
                let list = byte(bytes, self.at) as u32;
                if list + 1 != length || list == 0 || list & 1 != 0 {
                    return Err(stage::LEFT);
                }
                self.at = end;
                Ok(stage::EXTENSION)
            }
            // Without shares it asks the server to choose a group (RFC 8446, 4.2.8).
            KEY_SHARE => match self.list(bytes, length)? {
                0 => Ok(stage::EXTENSION),
                _ => Ok(stage::SHARE),
            },
            _ => {
                self.at = end;
                Ok(stage::EXTENSION)
            }
        }
    }

    /// The length of the list that an extension's content of `length` bytes must be, with nothing behind it.
    #[inline(always)]
    fn list(&mut self, bytes: &[u8; ROOM], length: u32) -> Next {
        self.there(2, self.inner_end)?;
        let list = number(bytes, self.at);
        if list + 2 != length {
            return Err(stage::LEFT);
        }
        self.at += 2;
        Ok(list)
    }

    /// A protocol of ALPN, which must not be empty (RFC 7301, 3.1).
    #[inline(always)]
    fn protocol(&mut self, bytes: &[u8; ROOM]) -> Next {
        self.there(1, self.inner_end)?;
        let length = byte(bytes, self.at) as u32;
        if length == 0 {
            return Err(stage::LEFT);
        }
        self.skip(1 + length, self.inner_end)?;
        Ok(self.unless_at_end(stage::PROTOCOL))
    }

    /// A key share: its group, its length, and as many bytes (RFC 8446, 4.2.8).
    #[inline(always)]
    fn share(&mut self, bytes: &[u8; ROOM]) -> Next {
        self.there(4, self.inner_end)?;
        let length = number(bytes, self.at + 2);
        self.skip(4 + length, self.inner_end)?;
        Ok(self.unless_at_end(stage::SHARE))
    }

    #[inline(always)]
    fn unless_at_end(&self, stage: u32) -> u32 {
        if self.at == self.inner_end {
            stage::EXTENSION
        } else {
            stage
        }
    }

    /// Notes an extension's type; `false` where it came before (RFC 8446, 4.2), or where there are too many.
    ///
    /// The first one is written into every lane. So there is none that stands for nothing, and a lane that equals a later type always means that it
    /// came before.
    #[inline(always)]
    fn is_new(&mut self, kind: u32) -> bool {
        let kinds = kind as u64 * ONES;
        let count = self.type_count as usize;
        self.type_count += 1;
        if count == 0 {
            self.types = [kinds; TYPE_WORDS];
            return true;
        }
        if count >= TYPE_WORDS * TYPE_LANES {
            return false;
        }
        let mut equal = 0;
        let mut word = 0;
        while word < TYPE_WORDS {
            let difference = self.types[word] ^ kinds;
            // The top bit of a lane that is zero; of no lane where none is.
            equal |= difference.wrapping_sub(ONES) & !difference & TOPS;
            word += 1;
        }
        let lane = 0xffff << (count % TYPE_LANES * 16);
        let word = &mut self.types[(count / TYPE_LANES) & (TYPE_WORDS - 1)];
        *word = *word & !lane | kinds & lane;
        equal == 0
    }

    /// Whether the next `count` bytes are within what ends at `end`, and have come.
    #[inline(always)]
    fn there(&self, count: u32, end: u32) -> Result<(), u32> {
        if self.at + count > end {
            Err(stage::LEFT)
        } else if self.at + count > self.length {
            Err(stage::INCOMPLETE)
        } else {
            Ok(())
        }
    }

    /// Goes on behind the next `count` bytes, which are within what ends at `end`, but need not have come.
    #[inline(always)]
    fn skip(&mut self, count: u32, end: u32) -> Result<(), u32> {
        if self.at + count > end {
            return Err(stage::LEFT);
        }
        self.at += count;
        Ok(())
    }
}

/// The next stage, or the one that the walk ends in.
type Next = Result<u32, u32>;

/// Types of extensions that a walk can tell apart.
const TYPE_WORDS: usize = 8;
const TYPE_LANES: usize = 4;
/// A one in each lane.
const ONES: u64 = 0x0001_0001_0001_0001;
/// The top bit of each.
const TOPS: u64 = ONES << 15;

#[inline(always)]
fn byte(bytes: &[u8; ROOM], at: u32) -> u8 {
    bytes[at as usize & ROOM_MASK]
}

/// A 16-bit number.
#[inline(always)]
fn number(bytes: &[u8; ROOM], at: u32) -> u32 {
    (byte(bytes, at) as u32) << 8 | byte(bytes, at + 1) as u32
}

/// Walks over a stream's first bytes, on the host.
pub fn walk(stream: &[u8]) -> Walk {
    let mut bytes = [0; ROOM];
    let length = stream.len().min(HELLO_ROOM);
    bytes[..length].copy_from_slice(&stream[..length]);
    let mut walk = Walk::default();
    walk.begin(length as u32);
    for _ in 0..STEPS {
        if !walk.step(&bytes) {
            break;
        }
    }
    walk
}
