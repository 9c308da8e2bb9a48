//! Inspected connections end to end: real peers, the agent, and the Edge or the certificate that the server name asks for.

mod routes;
mod terminate;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use snigate_tests::{
    Lab, Topology,
    addresses::{EDGE_A, EDGE_B, Host, SIP_TLS, VIP_1},
    peers::Partner,
};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

pub(crate) fn tcp(lab: &Lab) -> Partner<'_> {
    Partner {
        namespace: &lab.partner,
        source: None,
        tls: None,
        timeout: TIMEOUT,
    }
}

pub(crate) fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, SIP_TLS)
}

/// Both addresses of a host, at the port of SIP over TLS.
pub(crate) fn both(host: Host) -> [SocketAddr; 2] {
    host.both().map(at)
}

/// An inspected IP set on the first virtual addresses, two pools, each with an Edge of both families, and further tables.
pub(crate) fn shared(source: &str, ip_set: &str, tables: &str) -> String {
    let mut text = String::new();
    for (letter, edge) in [("a", EDGE_A), ("b", EDGE_B)] {
        text += &format!(
            r#"
[[edge]]
name = "edge-{letter}"
address = "{v4}:5061"
source = "{source}"

[[edge]]
name = "edge-{letter}-v6"
address = "[{v6}]:5061"
source = "{source}"

[[pool]]
name = "edges-{letter}"
edges = ["edge-{letter}", "edge-{letter}-v6"]
"#,
            v4 = edge.v4,
            v6 = edge.v6,
        );
    }
    text + &format!(
        r#"
[[ip_set]]
name = "shared"
addresses = ["{}", "{}"]
inspect = true
{ip_set}

{tables}
"#,
        VIP_1.v4, VIP_1.v6
    )
}

/// Three customer domains: two go to Edge a, one to Edge b.
pub(crate) const THREE_DOMAINS: &str = r#"
[[domain]]
sip_domain = "contoso.example"
pool = "edges-a"

[[domain]]
sip_domain = "fabrikam.example"
pool = "edges-a"

[[domain]]
sip_domain = "adatum.example"
names = ["sip.adatum.example", "*.voip.adatum.example"]
pool = "edges-b"
"#;
