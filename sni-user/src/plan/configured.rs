//! The records that the domains of a configuration need.

use std::{collections::BTreeSet, net::IpAddr};

use super::{FEDERATION_PORT, Record, SipDomain, records};
use crate::config::{Config, Domain, HostName, InvalidValue, Mode, PoolRef, ServerName};

/// A domain of a configuration, as partners have to find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findable {
    /// The domain.
    pub domain: SipDomain,
    /// The host that its SRV record names.
    pub target: HostName,
    /// Where that is: public addresses at which partners get to the domain's Edges. Empty where nothing leads there.
    pub addresses: Vec<IpAddr>,
}

impl Findable {
    /// All domains of a configuration, each once, in its order; for those that can't be found by the DNS, why.
    pub fn of_config(config: &Config) -> impl Iterator<Item = Result<Self, InvalidValue>> {
        // `alpn` may have several tables for one domain.
        let mut seen = BTreeSet::new();
        let domains = config.domains.iter();
        domains
            .filter(move |domain| seen.insert(domain.sip_domain.clone()))
            .map(|domain| Self::of_domain(domain, config))
    }

    fn of_domain(domain: &Domain, config: &Config) -> Result<Self, InvalidValue> {
        let sip_domain = SipDomain::try_from(domain.sip_domain.clone())?;
        Ok(Self {
            target: target(&sip_domain, &domain.names)?,
            addresses: addresses(domain, config),
            domain: sip_domain,
        })
    }

    /// Its records.
    pub fn records(&self) -> Vec<Record> {
        records(&self.domain, &self.target, &self.addresses)
    }
}

/// What partners expect, where it is one of the names; else the first name that lies exactly in the domain, as they insist on.
fn target(domain: &SipDomain, names: &[ServerName]) -> Result<HostName, InvalidValue> {
    let expected = domain.federation_name();
    let matches = |name: &ServerName| match name {
        ServerName::Exact(host) => *host == expected,
        ServerName::Wildcard(above) => {
            let below = expected.as_str().strip_suffix(above.as_str());
            below.is_some_and(|below| below.ends_with('.'))
        }
    };
    if names.iter().any(matches) {
        return Ok(expected);
    }
    let exactly_in = |name: &&HostName| {
        let (_, parent) = name.as_str().split_once('.').unwrap_or_default();
        parent == domain.as_str()
    };
    let mut exact = names.iter().filter_map(|name| match name {
        ServerName::Exact(host) => Some(host),
        ServerName::Wildcard(_) => None,
    });
    exact.find(exactly_in).cloned().ok_or_else(|| {
        InvalidValue::new(
            format!("no name of {domain} lies exactly in it, and partners refuse any other"),
            format!("write \"{expected}\" into `names` of its [[domain]]"),
        )
    })
}

/// Those that are steered to the domain's pool, where there are any; else all at which the server name decides.
fn addresses(domain: &Domain, config: &Config) -> Vec<IpAddr> {
    let federating = || {
        let sets = config.ip_sets.iter();
        sets.filter(|set| set.ports.contains(&FEDERATION_PORT))
    };
    let steers_to =
        |mode: &Mode, wanted: &PoolRef| matches!(mode, Mode::Steer { pool } if pool == wanted);
    let steered: Vec<_> = federating()
        .filter(|set| domain.terminate.is_none() && steers_to(&set.mode, &domain.pool))
        .flat_map(|set| set.addresses.iter().copied())
        .collect();
    if !steered.is_empty() {
        return steered;
    }
    federating()
        .filter(|set| matches!(set.mode, Mode::Inspect { .. }))
        .flat_map(|set| set.addresses.iter().copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn found(tables: &str) -> Vec<String> {
        let text = format!(
            "[gateway]\ninterfaces = [\"wan0\"]\n\
             [[edge]]\nname = \"a\"\naddress = \"203.0.113.10:5061\"\n\
             [[edge]]\nname = \"b\"\naddress = \"203.0.113.11:5061\"\n\
             [[pool]]\nname = \"a\"\nedges = [\"a\"]\n[[pool]]\nname = \"b\"\nedges = [\"b\"]\n\
             [[ip_set]]\nname = \"steered\"\naddresses = [\"198.51.100.10\", \"198.51.100.11\"]\nsteer = \"a\"\n\
             [[ip_set]]\nname = \"other\"\naddresses = [\"198.51.100.12\"]\nports = [5070]\nsteer = \"a\"\n\
             [[ip_set]]\nname = \"named\"\naddresses = [\"198.51.100.20\"]\ninspect = true\n{tables}"
        );
        let loaded = Config::parse(Path::new("test.toml"), &text).expect("a configuration");
        Findable::of_config(&loaded.config)
            .map(|found| match found {
                Ok(Findable {
                    domain,
                    target,
                    addresses,
                }) => {
                    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                    format!("{domain} {target} {}", addresses.join(" "))
                }
                Err(invalid) => invalid.to_string(),
            })
            .collect()
    }

    #[test]
    fn steered_domains_are_where_their_edges_are() {
        assert_eq!(
            found(
                "[[domain]]\nsip_domain = \"fabrikam.example\"\npool = \"a\"\n\
                 [[domain]]\nsip_domain = \"contoso.example\"\npool = \"b\"\n\
                 [[domain]]\nsip_domain = \"own.example\"\npool = \"a\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n"
            ),
            [
                "fabrikam.example sip.fabrikam.example 198.51.100.10 198.51.100.11",
                "contoso.example sip.contoso.example 198.51.100.20",
                "own.example sip.own.example 198.51.100.20",
            ]
        );
    }

    #[test]
    fn the_target_lies_exactly_in_the_domain() {
        assert_eq!(
            found(
                "[[domain]]\nsip_domain = \"a.example\"\nnames = [\"x.y.a.example\", \"edge.a.example\"]\npool = \"b\"\n\
                 [[domain]]\nsip_domain = \"b.example\"\nnames = [\"*.b.example\"]\npool = \"b\"\n\
                 [[domain]]\nsip_domain = \"c.example\"\nnames = [\"x.y.c.example\"]\npool = \"b\"\n"
            ),
            [
                "a.example edge.a.example 198.51.100.20",
                "b.example sip.b.example 198.51.100.20",
                "no name of c.example lies exactly in it, and partners refuse any other; write \"sip.c.example\" into `names` of its [[domain]]",
            ]
        );
    }
}
