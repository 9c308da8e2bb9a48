//! Bytes that are easy to make and hard to forge: a seed stands for a whole stream.

use aws_lc_rs::digest::{Context, SHA256};

/// The SHA-256 of a stream.
pub type Hash = [u8; 32];

/// The first `length` bytes of the pseudo-random stream of a seed.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    state: u64,
    remaining: u64,
}

impl Pattern {
    pub(crate) fn new(seed: u64, length: u64) -> Self {
        Self {
            state: seed,
            remaining: length,
        }
    }

    /// Writes the next bytes to the front of `buffer`, whose length is a multiple of 8, and returns how many.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> usize {
        debug_assert_eq!(buffer.len() % 8, 0);
        for word in buffer.chunks_exact_mut(8) {
            word.copy_from_slice(&self.next_word().to_le_bytes());
        }
        let length = usize::try_from(self.remaining).map_or(buffer.len(), |n| n.min(buffer.len()));
        self.remaining -= length as u64;
        length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.remaining == 0
    }

    pub(crate) fn hash(mut self) -> Hash {
        let mut hasher = Hasher::new();
        let mut buffer = [0; 8192];
        while !self.is_empty() {
            let length = self.fill(&mut buffer);
            hasher.update(&buffer[..length]);
        }
        hasher.finish()
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    fn next_word(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// A running SHA-256.
pub(crate) struct Hasher(Context);

impl Hasher {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Hash {
        self.0
            .finish()
            .as_ref()
            .try_into()
            .expect("SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_does_not_depend_on_the_pieces_it_is_made_in() {
        let mut whole = [0; 64];
        assert_eq!(Pattern::new(7, 61).fill(&mut whole), 61);
        let mut pattern = Pattern::new(7, 61);
        let mut pieces = Vec::new();
        while !pattern.is_empty() {
            let mut piece = [0; 16];
            let length = pattern.fill(&mut piece);
            pieces.extend_from_slice(&piece[..length]);
        }
        assert_eq!(pieces, whole[..61]);

        let mut hasher = Hasher::new();
        hasher.update(&whole[..61]);
        assert_eq!(hasher.finish(), Pattern::new(7, 61).hash());
        assert_ne!(Pattern::new(7, 61).hash(), Pattern::new(8, 61).hash());
    }
}
