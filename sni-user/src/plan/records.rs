//! The DNS records by which partners find a domain.

use std::{fmt, net::IpAddr};

use serde::Serialize;

use super::SipDomain;
use crate::config::HostName;

/// What partners look up in a SIP domain.
pub const SERVICE: &str = "_sipfederationtls._tcp";
/// Where Edges listen for partners.
pub const FEDERATION_PORT: u16 = 5061;

/// One record. Names are absolute, without the trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Record {
    /// The name that has it.
    pub owner: String,
    /// What it says.
    #[serde(flatten)]
    pub data: Data,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "type")]
pub enum Data {
    /// Where a service is (RFC 2782).
    #[serde(rename = "SRV")]
    Srv {
        /// Lower ones are tried first; Edges don't, so that there is only one.
        priority: u16,
        /// The share among those of one priority.
        weight: u16,
        /// TCP.
        port: u16,
        /// The host.
        target: HostName,
    },
    /// An IPv4 address.
    #[serde(rename = "A")]
    A {
        /// It.
        address: std::net::Ipv4Addr,
    },
    /// An IPv6 address.
    #[serde(rename = "AAAA")]
    Aaaa {
        /// It.
        address: std::net::Ipv6Addr,
    },
}

/// What a domain needs so that partners discover it, and connect to one of the addresses by the name `target`: the SRV record first.
///
/// The target has to lie exactly in the SIP domain, or partners refuse it; [`SipDomain::federation_name`] is what they expect. It has
/// an address record for each gateway, and is never a CNAME.
pub fn records(domain: &SipDomain, target: &HostName, addresses: &[IpAddr]) -> Vec<Record> {
    let service = Record {
        owner: format!("{SERVICE}.{domain}"),
        data: Data::Srv {
            priority: 0,
            weight: 0,
            port: FEDERATION_PORT,
            target: target.clone(),
        },
    };
    std::iter::once(service)
        .chain(address_records(target, addresses))
        .collect()
}

/// Where a host is.
pub fn address_records(host: &HostName, addresses: &[IpAddr]) -> impl Iterator<Item = Record> {
    addresses.iter().map(|address| Record {
        owner: host.to_string(),
        data: match *address {
            IpAddr::V4(address) => Data::A { address },
            IpAddr::V6(address) => Data::Aaaa { address },
        },
    })
}

impl Data {
    /// Such as `SRV`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Srv { .. } => "SRV",
            Self::A { .. } => "A",
            Self::Aaaa { .. } => "AAAA",
        }
    }
}

impl fmt::Display for Data {
    /// As a zone file has it (RFC 1035 section 5.1), without the type.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Srv {
                priority,
                weight,
                port,
                target,
            } => write!(formatter, "{priority} {weight} {port} {target}."),
            Self::A { address } => address.fmt(formatter),
            Self::Aaaa { address } => address.fmt(formatter),
        }
    }
}

impl Record {
    /// A line of a zone file. With its absolute name it means the same in every zone and after every `$ORIGIN`.
    pub fn zone_line(&self, ttl: u32) -> String {
        let Self { owner, data } = self;
        format!("{owner}. {ttl} IN {} {data}\n", data.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_has_a_service_and_the_addresses_of_its_target() {
        let domain: SipDomain = "fabrikam.example".parse().unwrap();
        let addresses = ["198.51.100.10", "2001:db8:1::10"].map(|text| text.parse().unwrap());
        let lines: String = records(&domain, &domain.federation_name(), &addresses)
            .iter()
            .map(|record| record.zone_line(3600))
            .collect();
        assert_eq!(
            lines,
            "_sipfederationtls._tcp.fabrikam.example. 3600 IN SRV 0 0 5061 sip.fabrikam.example.\n\
             sip.fabrikam.example. 3600 IN A 198.51.100.10\n\
             sip.fabrikam.example. 3600 IN AAAA 2001:db8:1::10\n"
        );
    }
}
