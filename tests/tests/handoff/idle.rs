//! Nothing is said for a while, but the ends make sure of each other.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use snigate_tests::{Topology, addresses::vips, peers::Connection};
use socket2::{SockRef, TcpKeepalive};

use crate::{TIMEOUT, in_scenes};

const SECOND: Duration = Duration::from_secs(1);
/// Several probes from either side.
const IDLE: Duration = Duration::from_millis(4500);

#[test]
fn keepalives_keep_alive() {
    in_scenes("keepalive", &Topology::default(), |scene| {
        let [partner_end, edge_end] = scene.ends();
        // The Edge's sockets have keepalive on; these are its times.
        for setting in ["tcp_keepalive_time", "tcp_keepalive_intvl"] {
            edge_end.sysctl(&format!("net/ipv4/{setting}"), "1")?;
        }
        let edge = scene.edge()?;
        // Both families idle at the same time.
        let (connections, counted) = scene.cleanly_but("idle", &[], || {
            let open = |address| -> Result<Connection> {
                let connection = scene.partner().echo(address)?;
                let keepalive = TcpKeepalive::new()
                    .with_time(SECOND)
                    .with_interval(SECOND)
                    .with_retries(3);
                SockRef::from(connection.socket()).set_tcp_keepalive(&keepalive)?;
                Ok(connection)
            };
            let mut connections = vips().map(open).into_iter().collect::<Result<Vec<_>>>()?;
            thread::sleep(IDLE);
            for connection in &mut connections {
                connection.ping()?;
                scene.went(connection.local())?;
            }
            Ok(connections)
        })?;
        for (_, counters) in counted.ends() {
            let probes = counters.value("TcpExtTCPKeepAlive");
            ensure!(probes >= 6, "{probes} probes: {counters:?}");
        }
        scene.cleanly("the end", || {
            for connection in connections {
                connection.close()?;
                edge.report(TIMEOUT)?;
            }
            Ok(())
        })?;
        ensure!(partner_end.tcp_counters()?.value("TcpExtTCPAbortOnTimeout") == 0);
        Ok(())
    });
}
