//! What makes connections to addresses that are not the host's its own: addresses that the agent adds, and the way back to its
//! transparent sockets.

mod addresses;
mod return_route;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use sni_user::net::Network;
use snigate_tests::{Lab, Namespace, Topology, lab_test};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// For what is not to happen.
pub(crate) const LONG_ENOUGH: Duration = Duration::from_millis(500);

/// Runs `body` inside the gateway's namespace, with a connection to it.
pub(crate) fn net_test(name: &str, body: impl AsyncFnOnce(&Lab, Network) -> Result<()> + Send) {
    let topology = Topology {
        capture: false,
        ..Topology::default()
    };
    lab_test(name, &topology, |lab| {
        lab.gateway.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async { body(lab, Network::new()?).await })
        })
    });
}

/// Everything that may be changed here, as `ip` shows it.
pub(crate) fn configuration(namespace: &Namespace) -> Result<String> {
    let commands: [&[&str]; 5] = [
        &["addr"],
        &["-4", "rule"],
        &["-6", "rule"],
        &["-4", "route", "show", "table", "all"],
        &["-6", "route", "show", "table", "all"],
    ];
    let shown: Result<Vec<_>> = commands
        .iter()
        .map(|arguments| namespace.output("ip", &[&["-details"], *arguments].concat()))
        .collect();
    Ok(shown?.concat())
}

pub(crate) fn ensure_same(now: &str, before: &str) -> Result<()> {
    ensure!(now == before, "there is now\n{now}\ninstead of\n{before}");
    Ok(())
}

pub(crate) fn listen(namespace: &Namespace, address: SocketAddr) -> Result<TcpListener> {
    namespace.run(|| Ok(TcpListener::bind(address)?))
}

/// Carries a line in either direction between the client's end and the one that `listener` has; returns the client's address as
/// the server sees it.
pub(crate) fn talk(mut client: TcpStream, listener: &TcpListener) -> Result<IpAddr> {
    // The handshake is complete, so it is there to be accepted.
    let (mut server, peer) = listener.accept()?;
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(TIMEOUT))?;
    }
    let mut line = [0; 5];
    client.write_all(b"there")?;
    server.read_exact(&mut line)?;
    ensure!(&line == b"there", "{line:?}");
    server.write_all(b"again")?;
    client.read_exact(&mut line)?;
    ensure!(&line == b"again", "{line:?}");
    Ok(peer.ip())
}
