//! Inspected connections end to end: real peers, the agent, and the Edge or the certificate that the server name asks for.

mod bind;
mod changes;
mod collide;
mod control;
mod echo;
mod federation;
mod hello;
mod hellos;
mod life;
mod limits;
mod load;
mod local;
mod names;
mod pass;
mod permissions;
mod pools;
mod proxy_protocol;
mod reload;
mod restart;
mod routes;
mod sockets;
mod terminate;
mod trace;
mod watch;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use snigate_tests::{
    Lab, Topology,
    addresses::{Host, VIP_1},
    deadline::Deadline,
    gateway::{Gateway, two_pools},
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

/// Both addresses of a host, at the port of SIP over TLS.
pub(crate) fn both(host: Host) -> [SocketAddr; 2] {
    host.sip()
}

/// An inspected IP set on the first virtual addresses, two pools, each with an Edge of both families, and further tables. Its connections are the
/// agent's, unless the IP set says otherwise.
pub(crate) fn shared(source: &str, ip_set: &str, tables: &str) -> String {
    let bind = if ip_set.contains("bind = ") || ip_set.contains("hand_off = false") {
        ""
    } else {
        "bind = false"
    };
    two_pools(source)
        + &format!(
            r#"
[[ip_set]]
name = "shared"
addresses = ["{}", "{}"]
inspect = true
{bind}
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

/// What the agent has counted under a name.
pub(crate) fn counted(gateway: &Gateway<'_>, name: &str) -> Result<u64> {
    let status = gateway.agent()?;
    let counters = &status["counters"];
    let counters = counters.as_object().with_context(|| status.to_string())?;
    // Nothing is listed before it has happened.
    let count = counters.get(name).map_or(Some(0), |count| count.as_u64());
    count.with_context(|| status.to_string())
}

/// Waits until the agent has counted so many, which may be after the client has seen the end.
pub(crate) fn ensure_counted(gateway: &Gateway<'_>, name: &str, expected: u64) -> Result<()> {
    let what = format!("{expected} of {name}");
    let reached = || Ok((counted(gateway, name)? == expected).then_some(()));
    Deadline::after(TIMEOUT)
        .poll(&what, reached)
        .with_context(|| format!("{:?}", gateway.agent()))
}
