//! The `server_name` extension (RFC 6066, 3).

use super::{Next, ROOM, Walk, byte, number, stage};
use crate::contract::MAX_SNI_NAME;

/// What a list with one server name begins with: its length, the name's type, and the name's length (RFC 6066, 3).
const NAME_HEADER: u32 = 5;
/// The longest label of a name (RFC 1035, 2.3.4).
const MAX_LABEL: u32 = 63;
/// Bytes of a name per step.
const NAME_STEP: u32 = 8;

impl Walk {
    /// What comes before the name's bytes: a list of exactly one, which is a host's (RFC 6066, 3).
    #[inline(always)]
    pub(super) fn server_name(&mut self, bytes: &[u8; ROOM], length: u32) -> Next {
        self.there(NAME_HEADER, self.inner_end)?;
        let list = number(bytes, self.at);
        let kind = byte(bytes, self.at + 2);
        let mut name = number(bytes, self.at + 3);
        // A trailing dot counts, as it does for the agent.
        if list + 2 != length
            || kind != 0
            || name + NAME_HEADER != length
            || name == 0
            || name > MAX_SNI_NAME as u32
        {
            return Err(stage::LEFT);
        }
        self.at += NAME_HEADER;
        self.there(name, self.inner_end)?;
        // A dot alone, or a second one, fails as an empty label.
        if byte(bytes, self.at + name - 1) == b'.' {
            name -= 1;
        }
        self.name_length = name;
        self.name_done = 0;
        self.label = 0;
        self.previous = DOT as u32;
        Ok(stage::NAME)
    }

    /// The next bytes of the name, by the rules of the agent's `server_name.rs`; but its last label begins with a letter, so that nobody takes the
    /// name for an address, and no top-level domain is lost by that (RFC 3696, 2).
    ///
    /// Without branches on the bytes, of which the verifier would follow each.
    #[inline(always)]
    pub(super) fn name(&mut self, bytes: &[u8; ROOM]) -> Next {
        let mut done = self.name_done;
        let mut label = self.label;
        let mut previous = self.previous;
        let mut wrong = 0;
        let mut step = 0;
        while step < NAME_STEP && done < self.name_length {
            let byte = byte(bytes, self.at + done);
            let class = CLASSES[byte as usize] as u32;
            let dot = class & DOT as u32;
            // None of these is in a name; a dot or a dash begins no label, and a dash ends none.
            wrong |= class & OTHER as u32;
            wrong |= previous & DOT as u32 & (class | class >> DASH_SHIFT);
            wrong |= previous >> DASH_SHIFT & dot;
            // A label's bytes; a dot is none of them.
            wrong |= (MAX_LABEL + label + dot).wrapping_sub(done + 1) >> 31;
            self.key.name.bytes_mut()[done as usize & NAME_MASK] = byte | class as u8 & LETTER;
            done += 1;
            label += (done - label) * dot;
            previous = class;
            step += 1;
        }
        if wrong != 0 {
            return Err(stage::LEFT);
        }
        self.name_done = done;
        self.label = label;
        self.previous = previous;
        if done < self.name_length {
            return Ok(stage::NAME);
        }
        let first = CLASSES[byte(bytes, self.at + label) as usize];
        if previous & (DOT | DASH) as u32 != 0 || first != LETTER {
            return Err(stage::LEFT);
        }
        self.named = 1;
        self.at = self.inner_end;
        Ok(stage::EXTENSION)
    }
}

const NAME_MASK: usize = 255;

/// Classes of a name's bytes. A letter's is the bit that makes it a lower-case one.
const DOT: u8 = 1;
const DASH: u8 = 1 << DASH_SHIFT;
const DASH_SHIFT: u32 = 1;
/// Digits; and underscores, which the agent lets pass.
const DIGIT: u8 = 4;
const LETTER: u8 = b'a' - b'A';
/// What is in no host's name.
const OTHER: u8 = 0x80;

/// The class of each byte.
static CLASSES: [u8; 256] = {
    let mut classes = [OTHER; 256];
    let mut byte = 0;
    while byte < classes.len() {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            b'0'..=b'9' | b'_' => DIGIT,
            b'-' => DASH,
            b'.' => DOT,
            _ => OTHER,
        };
        byte += 1;
    }
    classes
};
