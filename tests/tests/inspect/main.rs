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

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    panic::resume_unwind,
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};
use snigate_tests::{
    Lab, Topology,
    addresses::{Host, SIP_TLS, VIP_1},
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

pub(crate) fn at(address: IpAddr) -> SocketAddr {
    SocketAddr::new(address, SIP_TLS)
}

/// Both addresses of a host, at the port of SIP over TLS.
pub(crate) fn both(host: Host) -> [SocketAddr; 2] {
    host.both().map(at)
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

/// Whether a connection was reset.
pub(crate) fn is_reset(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref().map(std::io::Error::kind);
    // Whether the RST is met by a read or by the write before it.
    matches!(
        kind,
        Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected)
    )
}

/// A thread for each item, and the first error of any.
pub(crate) fn at_once<T: Sync>(items: &[T], body: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let body = &body;
        let start = |item| scope.spawn(move || body(item));
        let threads: Vec<_> = items.iter().map(start).collect();
        let result = |thread: ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.into_iter().try_for_each(result)
    })
}
