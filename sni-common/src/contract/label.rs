//! LABELS: names for people who read the maps when no agent runs. The datapath never looks at them.

use super::{wire_enum, wire_struct};

/// Key of LABELS.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LabelKey {
    /// A [`LabelKind`].
    pub kind: u32,
    /// Generation for pools; the network namespace for settings; 0 for Edges and IP sets, whose numbers outlive a configuration.
    pub generation: u32,
    /// Number of the thing within its kind.
    pub number: u32,
}
wire_struct!(LabelKey, 12);

wire_enum! {
    /// What a label names.
    pub enum LabelKind: u32 {
        /// An Edge, by slot.
        Edge = 0, "edge";
        /// A pool, by number.
        Pool = 1, "pool";
        /// An IP set, by number.
        IpSet = 2, "ip-set";
        /// No name, but a setting of the host as it was before the agent changed it, such as `net.ipv4.tcp_syncookies=1`: kept here, it outlives an
        /// agent that is killed, and goes with the datapath that it was changed for.
        FormerSetting = 3, "former-setting";
    }
}

/// Value of LABELS: UTF-8, padded with zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(pub [u8; 64]);
wire_struct!(Label, 64);

impl Label {
    /// A label of at most 64 bytes; the rest is cut off at a character's boundary.
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; 64];
        let mut end = name.len().min(bytes.len());
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
        Self(bytes)
    }

    /// The name; what is no UTF-8 ends it.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        match core::str::from_utf8(&self.0[..end]) {
            Ok(name) => name,
            Err(error) => core::str::from_utf8(&self.0[..error.valid_up_to()]).unwrap_or(""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_survive_and_long_ones_are_cut_at_a_character() {
        assert_eq!(Label::new("edge-a").as_str(), "edge-a");
        let long = "ü".repeat(40);
        assert_eq!(Label::new(&long).as_str(), "ü".repeat(32));
        assert_eq!(Label([0xff; 64]).as_str(), "");
    }
}
