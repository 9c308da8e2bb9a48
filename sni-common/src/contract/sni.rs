//! SNI_ROUTES and SNI_LEARNED: what becomes of a server name.
//!
//! SNI_ROUTES is the configuration, one entry per name as it is written there. SNI_LEARNED is what came of names that clients asked for, one
//! entry per IP set and name; an LRU map, so that a flood of names evicts names and nothing else.

use core::fmt;

use super::{wire_enum, wire_struct};

/// The longest server name, in bytes (RFC 1035, 2.3.4, without the final dot).
pub const MAX_SNI_NAME: usize = 253;

/// A server name as the maps are keyed by it: lower-case, padded with zeros; a wildcard begins with `*.`. Empty for a client that sends none.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SniName([u8; 256]);
wire_struct!(SniName, 256);

impl SniName {
    /// No server name.
    pub const EMPTY: Self = Self([0; 256]);

    /// A name as it is written, in any case; `*.` may stand before it.
    ///
    /// # Errors
    /// What could be in no DNS name of a host: too many bytes, an empty label, a byte that is no letter, digit, hyphen or underscore.
    pub fn new(name: &str) -> Result<Self, InvalidSniName> {
        if name.is_empty() {
            return Ok(Self::EMPTY);
        }
        if name.len() > MAX_SNI_NAME {
            return Err(InvalidSniName::TooLong(name.len()));
        }
        let host = name.strip_prefix(Self::WILDCARD).unwrap_or(name);
        if host.split('.').any(str::is_empty) {
            return Err(InvalidSniName::EmptyLabel);
        }
        let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        if let Some(byte) = host.bytes().find(|byte| !is_host(byte)) {
            return Err(InvalidSniName::Byte(byte));
        }
        let mut bytes = [0; 256];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from.to_ascii_lowercase();
        }
        Ok(Self(bytes))
    }

    const WILDCARD: &'static str = "*.";

    /// The name; what is no UTF-8 ends it.
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|b| *b == 0).unwrap_or(self.0.len());
        match core::str::from_utf8(&self.0[..end]) {
            Ok(name) => name,
            Err(error) => core::str::from_utf8(&self.0[..error.valid_up_to()]).unwrap_or(""),
        }
    }

    /// The number by which flows and accounts refer to it as a route: a 64-bit FNV-1a hash, so that it is the same in every generation, on every
    /// gateway. Never 0.
    pub fn number(&self) -> u64 {
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let hash = self.as_str().bytes().fold(BASIS, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(PRIME)
        });
        hash.max(1)
    }

    /// Whether it stands for names that end like it.
    pub fn is_wildcard(&self) -> bool {
        self.as_str().starts_with(Self::WILDCARD)
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0[0] == 0
    }

    /// For who writes a name byte by byte.
    #[inline(always)]
    pub(crate) const fn bytes_mut(&mut self) -> &mut [u8; 256] {
        &mut self.0
    }

    /// The wildcard for everything that ends with `.parent`, which must be part of a valid name and shorter than that by a label.
    fn wildcard(parent: &[u8]) -> Self {
        let mut bytes = [0; 256];
        for (to, from) in bytes
            .iter_mut()
            .zip(Self::WILDCARD.bytes().chain(parent.iter().copied()))
        {
            *to = from;
        }
        Self(bytes)
    }
}

impl Default for SniName {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Display for SniName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for SniName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Why a text is no server name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidSniName {
    /// It has this many bytes.
    TooLong(usize),
    /// A dot at an end, or two in a row.
    EmptyLabel,
    /// A byte that no host's name has; also `*` in another place than the leftmost label, alone there.
    Byte(u8),
}

impl fmt::Display for InvalidSniName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(length) => write!(
                f,
                "a server name of {length} bytes; {MAX_SNI_NAME} are the most"
            ),
            Self::EmptyLabel => f.write_str("a server name with an empty label"),
            Self::Byte(byte) => write!(f, "a server name with the byte {byte:#04x}"),
        }
    }
}

impl core::error::Error for InvalidSniName {}

/// The entries of a table of names that apply to the name that a client asks for, in the order in which the first one that exists wins: the name
/// itself, then its wildcards from the longest to the shortest. `*.example` stands for one or more labels before `.example`.
///
/// One entry per label of the name, so 127 at most. None for what is no name of a host, and none for a client that asks for a wildcard: it must
/// not match what is written in a table.
pub fn candidates(name: &str) -> impl Iterator<Item = (Matched, SniName)> {
    let exact = SniName::new(name)
        .ok()
        .filter(|name| !name.is_empty() && !name.is_wildcard());
    let mut from = 0;
    let wildcards = core::iter::from_fn(move || {
        let rest = exact.as_ref()?.as_str().as_bytes().get(from..)?;
        let dot = rest.iter().position(|byte| *byte == b'.')?;
        from += dot + 1;
        Some((Matched::Wildcard, SniName::wildcard(&rest[dot + 1..])))
    });
    exact
        .map(|name| (Matched::Exact, name))
        .into_iter()
        .chain(wildcards)
}

/// Key of SNI_ROUTES.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SniRouteKey {
    /// Configuration that the entry belongs to.
    pub generation: u32,
    /// The name as it is written, a wildcard included.
    pub name: SniName,
}
wire_struct!(SniRouteKey, 260);

/// Stands for a pool where there is none.
pub const NO_POOL: u32 = u32::MAX;

/// Value of SNI_ROUTES.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SniRoute {
    /// Pool number within the generation for connections over IPv4, or [`NO_POOL`].
    pub pool_v4: u32,
    /// Likewise over IPv6.
    pub pool_v6: u32,
    /// A [`RouteAction`].
    pub action: u8,
    /// Bits: [`ROUTE_CONDITIONAL`], [`ROUTE_AGENT`].
    pub flags: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// Zero.
    pub padding2: u32,
    /// [`SniName::number`] of the name.
    pub route: u64,
}
wire_struct!(SniRoute, 24);

/// Bit of a route's flags: the name alone does not decide, because ALPN matters or several domains have it. The entry is the first domain's;
/// only the agent, which has read the whole ClientHello, may decide.
pub const ROUTE_CONDITIONAL: u8 = 1;
/// Bit of a route's flags: connections are passed through, but in a way that only the agent has. The pool counts connections, or an Edge of it wants
/// PROXY protocol headers.
pub const ROUTE_AGENT: u8 = 2;

wire_enum! {
    /// What is done with a connection to a name.
    pub enum RouteAction: u8 {
        /// It is passed through to an Edge of the pool, TLS and all.
        Pass = 1, "pass";
        /// TLS ends at the gateway.
        Terminate = 2, "terminate";
    }
}

/// Key of SNI_LEARNED.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LearnedKey {
    /// IP set number; an IP set keeps it for as long as its name.
    pub ip_set: u32,
    /// The name that the client asked for; empty where it sent none.
    pub name: SniName,
}
wire_struct!(LearnedKey, 260);

/// Value of SNI_LEARNED: where the last connection to the name went.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Configuration that decided; pools are numbered in it.
    pub generation: u32,
    /// A [`RouteAction`]; 0 where the connection was refused.
    pub action: u8,
    /// A [`Matched`].
    pub matched: u8,
    /// Bits: [`ROUTE_CONDITIONAL`], [`ROUTE_AGENT`].
    pub flags: u8,
    /// Zero.
    pub padding: u8,
    /// Pool number within the generation for connections over IPv4, or [`NO_POOL`].
    pub pool_v4: u32,
    /// Likewise over IPv6.
    pub pool_v6: u32,
    /// [`SniName::number`] of the configured name that decided; 0 for a default.
    pub route: u64,
    /// Connections to the name since it was first seen; the datapath's own among them.
    pub hits: u64,
    /// Monotonic clock, nanoseconds.
    pub first_seen_ns: u64,
    /// Monotonic clock, nanoseconds.
    pub last_seen_ns: u64,
}
wire_struct!(Learned, 48);

wire_enum! {
    /// What a name was found by.
    pub enum Matched: u8 {
        /// Its own entry.
        Exact = 1, "exact";
        /// A wildcard's entry.
        Wildcard = 2, "wildcard";
        /// No entry: the IP set's default.
        Default = 3, "default";
        /// No entry and no default: refused.
        Nothing = 4, "nothing";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::HashSet, string::String, vec::Vec};

    fn names(name: &str) -> Vec<String> {
        candidates(name)
            .map(|(_, name)| name.as_str().into())
            .collect()
    }

    #[test]
    fn the_name_comes_first_and_the_longest_wildcard_next() {
        assert_eq!(
            names("SIP.Voip.contoso.example"),
            [
                "sip.voip.contoso.example",
                "*.voip.contoso.example",
                "*.contoso.example",
                "*.example"
            ]
        );
        assert_eq!(names("localhost"), ["localhost"]);
        let kinds: Vec<_> = candidates("a.b").map(|(matched, _)| matched).collect();
        assert_eq!(kinds, [Matched::Exact, Matched::Wildcard]);
    }

    #[test]
    fn what_no_host_is_called_has_no_candidates() {
        for name in [
            "",
            "*.contoso.example",
            "*",
            "a.*.example",
            ".example",
            "example.",
            "a..example",
            "a b.example",
            "a\0.example",
            "ä.example",
        ] {
            assert_eq!(names(name), [""; 0], "{name:?}");
        }
    }

    #[test]
    fn names_are_checked_and_kept() {
        let wildcard = SniName::new("*.Contoso.example").unwrap();
        assert_eq!(wildcard.as_str(), "*.contoso.example");
        assert!(wildcard.is_wildcard() && !wildcard.is_empty());
        assert_eq!(SniName::new(""), Ok(SniName::EMPTY));
        assert_eq!(SniName::new("*."), Err(InvalidSniName::EmptyLabel));
        assert_eq!(SniName::new("*a.b"), Err(InvalidSniName::Byte(b'*')));
        assert_eq!(
            SniName::new(&"a".repeat(254)),
            Err(InvalidSniName::TooLong(254))
        );
        assert_eq!(SniName([0xff; 256]).as_str(), "");
        assert_eq!(SniName([b'a'; 256]).as_str().len(), 256);
    }

    #[test]
    fn the_longest_name_has_as_many_candidates_as_labels() {
        let name = "a.".repeat(126) + "b";
        assert_eq!(name.len(), MAX_SNI_NAME);
        assert_eq!(candidates(&name).count(), 127);
    }

    proptest! {
        #[test]
        fn candidates_are_the_suffixes(labels in prop::collection::vec("[a-z0-9_-]{1,20}", 1..12)) {
            let name = labels.join(".");
            let mut expected = std::vec![name.clone()];
            expected.extend((1..labels.len()).map(|from| {
                let parent = labels[from..].join(".");
                std::format!("*.{parent}")
            }));
            prop_assert_eq!(names(&name), expected);
        }

        #[test]
        fn a_name_never_matches_another_tree(text in "\\PC{0,300}") {
            let mut seen = HashSet::new();
            for (matched, candidate) in candidates(&text) {
                let candidate = candidate.as_str();
                let suffix = candidate.strip_prefix('*').unwrap_or(candidate);
                prop_assert!(text.to_ascii_lowercase().ends_with(suffix));
                prop_assert_eq!(matched == Matched::Wildcard, candidate.starts_with("*."));
                prop_assert!(seen.insert(String::from(candidate)));
            }
        }
    }
}
