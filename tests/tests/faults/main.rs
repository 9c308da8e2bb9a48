//! What the host runs out of, or gets wrong, under a gateway that carries connections of every way: they go on, what can't be done is said and counted, and
//! all is well again as soon as the host is.

mod audit;
mod clock;
mod descriptors;
mod disk;
mod full;
mod privileges;
mod scene;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{Namespace, Topology, deadline::Deadline, gateway::Gateway};

/// The longest that anything may take that is to happen.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Nothing is captured: these tests are not about packets.
pub(crate) fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

/// What the agent has counted under a name.
pub(crate) fn counted(gateway: &Gateway<'_>, name: &str) -> Result<u64> {
    let status = gateway.agent()?;
    // Nothing is listed before it has happened.
    Ok(status["counters"][name].as_u64().unwrap_or(0))
}

/// How many lines of the agent's log have this text.
pub(crate) fn lines(gateway: &Gateway<'_>, text: &str) -> Result<usize> {
    let log = gateway.log()?;
    Ok(log.lines().filter(|line| line.contains(text)).count())
}

/// Waits until the agent's log has a line with this text.
pub(crate) fn said(gateway: &Gateway<'_>, text: &str) -> Result<()> {
    let what = format!("{text:?} in the agent's log");
    Deadline::after(TIMEOUT)
        .poll(&what, || Ok((lines(gateway, text)? > 0).then_some(())))
        .with_context(|| gateway.log().unwrap_or_default())
}

/// What the agent tells Prometheus.
pub(crate) fn metrics(gateway: &Namespace) -> Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9461));
    page(gateway, address, "/metrics").and_then(|page| Ok(String::from_utf8(page)?))
}

/// A page that the agent serves.
pub(crate) fn page(from: &Namespace, address: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let answer = from.run(|| {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    })?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
    Ok(answer[head.context("a head")? + 4..].to_vec())
}

/// The value of a sample of the metrics, by its name and labels as they are written; 0 where it is not there.
pub(crate) fn sample(metrics: &str, name: &str) -> f64 {
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_default()
}
