//! The small values of a configuration: names, host names, rates and the words that some keys take.

use std::{borrow::Borrow, fmt, num::NonZeroU32, str::FromStr, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

use super::wording::{nearest, quoted};

/// Why a text is not the value it should be, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct InvalidValue {
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl InvalidValue {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }
}

/// The name of an Edge, a pool or an IP set: at most 63 letters, digits, dots, dashes and underscores.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let help =
            "write up to 63 letters, digits, `.`, `_` and `-`, the first of them a letter or digit";
        let what = if text.is_empty() {
            "is empty"
        } else if text.len() > Self::MAX_LEN {
            "is too long"
        } else if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            // A leading dash would be taken for an option on the command line.
            "does not start with a letter or digit"
        } else if !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        {
            "has a character that names may not have"
        } else {
            return Ok(Self(text.into()));
        };
        Err(InvalidValue::new(
            format!("the name {} {what}", quoted(text)),
            help,
        ))
    }
}

/// A DNS name: lower case, ASCII (an internationalised name in its A-label form), no trailing dot, at most 253 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

impl HostName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the host in this domain, such as `sip`.
    pub(crate) fn child(&self, label: &str) -> Result<Self, InvalidValue> {
        let name = format!("{label}.{self}");
        let is_plain = label.bytes().all(|byte| byte.is_ascii_lowercase());
        // The rest has been through IDNA already.
        if is_plain && (1..=63).contains(&label.len()) && name.len() <= 253 {
            return Ok(Self(name.into()));
        }
        name.parse()
    }
}

impl FromStr for HostName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

        let wrong = |why: &str, help: String| {
            Err(InvalidValue::new(
                format!("{} is not a host name: {why}", quoted(text)),
                help,
            ))
        };
        if let Some(stem) = text.strip_suffix('.') {
            return wrong("it ends with a dot", format!("write {}", quoted(stem)));
        }
        if text.contains('*') {
            return wrong(
                "it has a wildcard",
                "write the name itself; wildcards belong into `names` of a [[domain]]".into(),
            );
        }
        // UTF-8 has at most four bytes for each one of the A-label form. The bound keeps whole files out of IDNA processing.
        if text.len() > 4 * 253 {
            return wrong("it is too long", "write a name of at most 253 bytes".into());
        }
        let Ok(ascii) = Uts46::new().to_ascii(
            text.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::Verify,
        ) else {
            return wrong(
                "labels are 1 to 63 letters, digits and dashes, 253 bytes in all",
                "write a name such as \"sip.fabrikam.example\"".into(),
            );
        };
        // RFC 1123 section 2.1: an all-numeric top label is an address; and RFC 6066 section 3 forbids addresses in SNI.
        if ascii
            .rsplit('.')
            .next()
            .is_some_and(|top| top.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return wrong(
                "it looks like an address",
                "write a DNS name such as \"sip.fabrikam.example\"".into(),
            );
        }
        Ok(Self(ascii.as_ref().into()))
    }
}

/// A server name of a domain, as it is compared with the ClientHello's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerName {
    /// Exactly this name.
    Exact(HostName),
    /// One or more labels followed by this name. Of several that match, the longest counts.
    ///
    /// Routing goes further than certificates, whose wildcard is one label (RFC 9525 section 6.3): whoever owns a name owns all below it.
    Wildcard(HostName),
}

impl ServerName {
    /// The name without its `*.`.
    pub fn host(&self) -> &HostName {
        match self {
            Self::Exact(host) | Self::Wildcard(host) => host,
        }
    }

    /// Whether the name starts with `*.`.
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::Wildcard(_))
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => write!(formatter, "{host}"),
            Self::Wildcard(host) => write!(formatter, "*.{host}"),
        }
    }
}

impl FromStr for ServerName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let Some(rest) = text.strip_prefix("*.") else {
            if text.contains('*') {
                return Err(InvalidValue::new(
                    format!("{} has its wildcard in the wrong place", quoted(text)),
                    "write the wildcard as the whole leftmost label, such as \"*.voip.contoso.example\"",
                ));
            }
            return text.parse().map(Self::Exact);
        };
        let host: HostName = rest.parse()?;
        if host.as_str().len() > 251 {
            return Err(InvalidValue::new(
                format!("{} is too long", quoted(text)),
                "write a name of at most 253 bytes",
            ));
        }
        Ok(Self::Wildcard(host))
    }
}

impl Serialize for ServerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

macro_rules! text_like {
    ($($type:ty),+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )+};
}
text_like!(Name, HostName, AlpnProtocol);

/// How much of something in how much time, such as `200/s` or `50/m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    unit: RateUnit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RateUnit {
    Second,
    Minute,
    Hour,
}

impl Rate {
    pub(super) const fn per_second_of(count: NonZeroU32) -> Self {
        Self {
            count,
            unit: RateUnit::Second,
        }
    }

    /// So many times as much.
    pub(super) const fn times(self, factor: NonZeroU32) -> Self {
        Self {
            count: self.count.saturating_mul(factor),
            unit: self.unit,
        }
    }

    /// How many in one [`period`](Self::period); also what a full token bucket holds.
    pub fn count(self) -> NonZeroU32 {
        self.count
    }

    /// As [`sni_common::token_bucket::TokenBucket`] counts: thousandths per second, at least one.
    pub fn millirate(self) -> u32 {
        let millirate = u64::from(self.count.get()) * 1000 / self.period().as_secs();
        u32::try_from(millirate).unwrap_or(u32::MAX).max(1)
    }

    /// A second, a minute or an hour.
    pub fn period(self) -> Duration {
        Duration::from_secs(match self.unit {
            RateUnit::Second => 1,
            RateUnit::Minute => 60,
            RateUnit::Hour => 3600,
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            RateUnit::Second => "s",
            RateUnit::Minute => "m",
            RateUnit::Hour => "h",
        };
        write!(formatter, "{}/{unit}", self.count)
    }
}

impl FromStr for Rate {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let example = "write a number and `/s`, `/m` or `/h`, such as \"200/s\"";
        let invalid = || InvalidValue::new(format!("{} is not a rate", quoted(text)), example);
        let (count, unit) = text.split_once('/').ok_or_else(invalid)?;
        let unit = match unit.trim() {
            "s" => RateUnit::Second,
            "m" => RateUnit::Minute,
            "h" => RateUnit::Hour,
            _ => return Err(invalid()),
        };
        let count: u32 = count
            .trim()
            .replace('_', "")
            .parse()
            .map_err(|_| invalid())?;
        let count = NonZeroU32::new(count).ok_or_else(|| {
            InvalidValue::new(
                "a rate of zero would refuse everyone",
                "write at least \"1/h\", or list prefixes in `deny` of [limits]",
            )
        })?;
        Ok(Self { count, unit })
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value that is one of a few words.
pub(super) trait Keyword: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(_, value)| *value == self)
            .map_or("", |(word, _)| word)
    }

    fn from_word(text: &str) -> Result<Self, InvalidValue> {
        if let Some((_, value)) = Self::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let words = || Self::WORDS.iter().map(|(word, _)| *word);
        let choices = words()
            .map(|word| format!("\"{word}\""))
            .collect::<Vec<_>>()
            .join(", ");
        let help = match nearest(text, words()) {
            Some(word) => format!("write \"{word}\" (the choices are {choices})"),
            None => format!("write one of {choices}"),
        };
        Err(InvalidValue::new(
            format!("{} is not one of the choices", quoted(text)),
            help,
        ))
    }
}

macro_rules! keywords {
    ($($(#[$about:meta])* $type:ident { $($(#[$doc:meta])* $word:literal => $variant:ident,)+ })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$doc])* $variant,)+ }

        impl Keyword for $type {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(self.word())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.word())
            }
        }
    )+};
}

/// The name of an application protocol (RFC 7301 section 3.1), such as `sip`: 1 to 255 bytes of visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AlpnProtocol(Arc<str>);

impl AlpnProtocol {
    /// The name as it stands in a ClientHello.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl FromStr for AlpnProtocol {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        // The RFC allows any bytes. Those that are not visible would only be a mistake.
        if (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(text.into()));
        }
        Err(InvalidValue::new(
            format!(
                "{} is not the name of an application protocol",
                quoted(text)
            ),
            "write 1 to 255 visible ASCII characters, such as \"sip\" or \"h2\"",
        ))
    }
}

keywords! {
    /// Where the datapath is attached.
    Hook {
        /// XDP in the driver, or TCX where an interface is virtual or its driver has no XDP.
        "auto" => Auto,
        /// XDP in the driver, or nothing.
        "xdp" => Xdp,
        /// XDP after the kernel has made its packet: works on every interface, and costs more.
        "xdp-generic" => XdpGeneric,
        /// Traffic control ingress: for virtual interfaces, where it keeps the offloads.
        "tcx" => Tcx,
    }
    /// Whose address an Edge sees.
    SourceMode {
        /// The client's; the gateway is then the Edge's router.
        "preserve" => Preserve,
        /// The gateway's own address and a port it owns; works in any topology.
        "gateway" => Gateway,
    }
    /// How the agent chooses an Edge of a pool.
    Balance {
        /// By a hash of the client, as the datapath does: gateways agree without talking.
        "maglev" => Maglev,
        /// The Edge with the fewest connections of this agent, in relation to its weight.
        "least-connections" => LeastConnections,
    }
    /// Whether a partner must show a certificate.
    ClientCertificate {
        /// No valid certificate, no connection.
        "required" => Required,
        /// Asked for, and verified if it comes.
        "optional" => Optional,
        /// Not asked for.
        "none" => NotRequested,
    }
    /// How a domain is proven to a certificate authority (RFC 8555 section 8).
    Challenge {
        /// By a file at port 80 of every address of the name (section 8.3).
        "http-01" => Http01,
        /// By a TXT record (section 8.4): also for wildcards, and before the name's address is the gateway's.
        "dns-01" => Dns01,
    }
    /// The key of a certificate that the gateway asks for.
    KeyType {
        /// What every peer accepts.
        "rsa-2048" => Rsa2048,
        /// Smaller and faster, for peers that are not older than it.
        "ecdsa-p256" => EcdsaP256,
    }
    /// What the gateway shows the Edge of a terminated connection.
    IdentityMode {
        /// No client certificate.
        "none" => Anonymous,
        /// The gateway's own client certificate.
        "gateway" => Gateway,
        /// A certificate with the partner's subject and names, signed by the gateway's private CA.
        "mirror" => Mirror,
    }
}
