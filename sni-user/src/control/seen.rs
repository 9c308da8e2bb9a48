//! ClientHellos as the agent has seen them.

use std::{net::SocketAddr, time::SystemTime};

use serde::{Deserialize, Serialize};
use sni_common::contract::Matched;

use crate::config::IpNet;

/// A ClientHello, or what came in its place, and what became of the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloSeen {
    /// When it was complete, or when the wait for it ended. RFC 3339, UTC, milliseconds.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// The client.
    pub source: SocketAddr,
    /// The public address that it connected to.
    pub address: SocketAddr,
    /// The server name: lower case, no trailing dot.
    pub server_name: Option<String>,
    /// The newest TLS version offered, such as `1.3`.
    pub version: Option<String>,
    /// Application protocols offered, in the client's order; bytes that are no text are replaced.
    pub alpn: Vec<String>,
    /// JA4 fingerprint.
    pub ja4: Option<String>,
    /// Whether a post-quantum key share is offered.
    pub post_quantum: bool,
    /// Whether Encrypted ClientHello is offered (or greased; the two can't be told apart).
    pub ech: bool,
    /// Where the routes send it: a pool, or `terminate` and the pool behind.
    pub route: Option<String>,
    /// What it was found by; nothing for what is no ClientHello.
    #[serde(with = "matched")]
    pub matched: Option<Matched>,
    /// What became of it, such as `passed to edge-a`, `refused: unrecognized-name` or `refused: hello-timeout`.
    pub result: String,
}

/// Which ClientHellos a watcher wants; all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchFilter {
    /// Server names that fit a pattern with `*` and `?`, such as `*.fabrikam.example`; a hello without a server name fits none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Clients of this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpNet>,
}

/// A filter that is ready to be used.
pub(super) struct Wanted {
    name: Option<glob::Pattern>,
    source: Option<IpNet>,
}

impl WatchFilter {
    /// Prepares it.
    ///
    /// # Errors
    /// When the pattern of names is none.
    pub(super) fn compile(&self) -> Result<Wanted, glob::PatternError> {
        let pattern = |text: &String| glob::Pattern::new(&text.to_lowercase());
        Ok(Wanted {
            name: self.name.as_ref().map(pattern).transpose()?,
            source: self.source,
        })
    }
}

impl Wanted {
    /// Whether a watcher wants to see it.
    pub(super) fn matches(&self, seen: &HelloSeen) -> bool {
        let name = self.name.as_ref().is_none_or(|pattern| {
            let name = seen.server_name.as_deref();
            name.is_some_and(|name| pattern.matches(name))
        });
        // A dual-stack socket has clients of IPv4 as mapped addresses.
        let client = seen.source.ip().to_canonical();
        name && self.source.is_none_or(|prefix| prefix.contains(&client))
    }
}

/// Times as RFC 3339 texts, in UTC, with milliseconds. What is finer than that is cut off, also when it is read: a time is the same on either side.
pub(super) mod rfc3339 {
    use std::time::{Duration, SystemTime};

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(in crate::control) fn serialize<S: Serializer>(
        at: &SystemTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(*at))
    }

    pub(in crate::control) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SystemTime, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let at = humantime::parse_rfc3339(&text).map_err(D::Error::custom)?;
        let finer = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos() % 1_000_000);
        Ok(at - Duration::from_nanos(finer.into()))
    }
}

/// How a route was found, by its name in the contract.
mod matched {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};
    use sni_common::contract::Matched;

    pub(super) fn serialize<S: Serializer>(
        matched: &Option<Matched>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        matched.map(Matched::name).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Matched>, D::Error> {
        let named = |name: &String| {
            let found = Matched::ALL.iter().find(|matched| matched.name() == name);
            found.copied().ok_or_else(|| {
                D::Error::custom(format!("{name} says nothing of how a route was found"))
            })
        };
        let name = Option::<String>::deserialize(deserializer)?;
        name.as_ref().map(named).transpose()
    }
}
