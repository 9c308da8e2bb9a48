//! Segments from scratch, as one side of a connection writes them, and what the datapath does to a whole header.

use sni_common::checksum;
use sni_common::tcp::{ACK, SYN};
use sni_common::translate::{MAX_OPTIONS, Translation, translate_options};

use crate::reference;

/// Something in the option area; numbers are offsets in the stream.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Nops(usize),
    Timestamps,
    Sack(Vec<(u32, u32)>),
    Unknown(u8, Vec<u8>),
}

/// What fills the area up to a whole word.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fill {
    Nops,
    /// The end of the list, and something that nobody reads.
    End(u8),
    /// An option without a length.
    Broken,
}

/// A segment in the terms of its stream.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) flags: u8,
    /// Offset of the first byte.
    pub(crate) at: u32,
    /// Offset up to which the other direction is acknowledged.
    pub(crate) acked: u32,
    pub(crate) urgent: u16,
    pub(crate) items: Vec<Item>,
    pub(crate) fill: Fill,
    pub(crate) payload: Vec<u8>,
}

/// How a connection counts what a segment says.
pub(crate) struct Counting {
    /// Sequence number of the stream's first byte.
    pub(crate) seq: u32,
    /// Likewise of the other direction's.
    pub(crate) ack: u32,
    pub(crate) window: u16,
    pub(crate) timestamps: Option<(u32, u32)>,
    pub(crate) sack: bool,
    pub(crate) ports: [u8; 4],
    /// Sum of the pseudo header.
    pub(crate) pseudo: u16,
}

impl Segment {
    /// Header and data. An option that the connection does not have is as many NOPs.
    pub(crate) fn encode(&self, by: &Counting) -> Vec<u8> {
        let options = self.options(by);
        let ack = if self.flags & ACK != 0 {
            by.ack.wrapping_add(self.acked)
        } else {
            // Not zero: nobody reads it, and nobody may change it.
            0x0abc_def0
        };
        let mut bytes = by.ports.to_vec();
        bytes.extend(by.seq.wrapping_add(self.at).to_be_bytes());
        bytes.extend(ack.to_be_bytes());
        bytes.extend([(20 + options.len() as u8) << 2, self.flags]);
        bytes.extend(by.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(options);
        bytes.extend(&self.payload);
        let checksum = reference::checksum(by.pseudo, &bytes);
        bytes[16..18].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    fn options(&self, by: &Counting) -> Vec<u8> {
        let mut area = Vec::new();
        for item in &self.items {
            let option = match item {
                Item::Nops(count) => vec![1; *count],
                Item::Timestamps => match by.timestamps {
                    Some((value, echo)) => {
                        [&[8, 10], &value.to_be_bytes()[..], &echo.to_be_bytes()].concat()
                    }
                    None => vec![1; 10],
                },
                Item::Sack(blocks) if !by.sack => vec![1; 2 + 8 * blocks.len()],
                Item::Sack(blocks) => {
                    let edges = blocks.iter().flat_map(|(left, right)| [left, right]);
                    let edges = edges.flat_map(|at| by.ack.wrapping_add(*at).to_be_bytes());
                    [5, 2 + 8 * blocks.len() as u8]
                        .into_iter()
                        .chain(edges)
                        .collect()
                }
                Item::Unknown(kind, data) => [&[*kind, 2 + data.len() as u8], &data[..]].concat(),
            };
            if area.len() + option.len() <= MAX_OPTIONS {
                area.extend(option);
            }
        }
        let missing = area.len().next_multiple_of(4) - area.len();
        for i in 0..missing {
            area.push(match self.fill {
                Fill::Nops => 1,
                Fill::End(_) if i == 0 => 0,
                Fill::End(garbage) => garbage,
                // Kind 8, length 8 or none: too long for what is left, or cut off.
                Fill::Broken => 8,
            });
        }
        area
    }
}

/// What the datapath does to a segment (`splice` of sni-ebpf): every field, and the checksum by the differences.
pub(crate) fn forward(
    translation: &Translation,
    segment: &[u8],
    ports: [u8; 4],
    pseudo: (u16, u16),
) -> Vec<u8> {
    let mut out = segment.to_vec();
    let flags = segment[13];
    let mut change = checksum::change(pseudo.0.to_be().into(), pseudo.1.to_be().into());
    let mut set = |at: usize, new: [u8; 4]| {
        let old = segment[at..at + 4].try_into().expect("four bytes");
        out[at..at + 4].copy_from_slice(&new);
        change += checksum::change(u32::from_ne_bytes(old), u32::from_ne_bytes(new));
    };
    let word = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().expect("four bytes"));
    set(0, ports);
    set(4, word(4).wrapping_add(translation.seq).to_be_bytes());
    if flags & ACK != 0 {
        set(8, word(8).wrapping_add(translation.ack).to_be_bytes());
    }
    if flags & SYN == 0 {
        let [a, b] = translation.window(word(12) as u16).to_be_bytes();
        set(12, [segment[12], flags, a, b]);
    }
    let end = usize::from(segment[12] >> 4) * 4;
    change += translate_options(translation, &mut out[20..end], flags & ACK != 0);
    let field = u16::from_ne_bytes([segment[16], segment[17]]);
    out[16..18].copy_from_slice(&checksum::update(field, change).to_ne_bytes());
    out
}
