//! Windows: their scales, and when there is none.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use snigate_tests::{
    Namespace, Topology,
    addresses::{GATEWAY_LAN_A, GATEWAY_WAN, Host, SIP_TLS, VIP_1, vips},
    counters::TcpCounters,
};

use crate::{MEGABYTE, TIMEOUT, in_scenes};

const BYTES: u64 = 4 * MEGABYTE;
/// More than the buffers of both ends and the gateway hold.
const MUCH: u64 = 24 * MEGABYTE;

/// A probe of a zero window is out of window by design, and only one in half a second is answered (`tcp_oow_rate_limited`);
/// the first come sooner.
const PROBED: &[&str] = &["TcpExtTCPACKSkippedSeq"];

/// How an end comes to a window scale: the kernel takes the least with which its largest buffer can be announced
/// (`tcp_select_initial_window`), or what the route allows.
struct Scale {
    scale: u8,
    largest_buffer: &'static str,
    route: &'static str,
}

const SCALES: [Scale; 3] = [
    Scale {
        scale: 0,
        largest_buffer: "6291456",
        route: "window 60000",
    },
    Scale {
        scale: 7,
        largest_buffer: "6291456",
        route: "",
    },
    Scale {
        scale: 14,
        largest_buffer: "1073741823",
        route: "",
    },
];

#[test]
fn window_scales_of_all_kinds() {
    in_scenes("scales", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        let [partner_end, edge_end] = scene.ends();
        for of_partner in &SCALES {
            of_partner.set(partner_end, VIP_1, GATEWAY_WAN)?;
            for of_edge in &SCALES {
                of_edge.set(edge_end, GATEWAY_LAN_A, GATEWAY_LAN_A)?;
                for address in vips() {
                    let scales = (of_partner.scale, of_edge.scale);
                    let what = format!("{address}, scales {scales:?}");
                    scene.cleanly(&what, || scene.exchange(&edge, address, BYTES))?;
                    let mut connection = scene.partner().echo(address)?;
                    // What each end has announced itself is its own affair.
                    ensure!(own_scale(partner_end, connection.local())? == of_partner.scale);
                    ensure!(own_scale_at(edge_end, SIP_TLS)? == of_edge.scale);
                    connection.ping()?;
                    connection.close()?;
                    edge.report(TIMEOUT)?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn a_receiver_that_does_not_read_for_seconds() {
    in_scenes("zero-window", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        // The buffers do not grow with the traffic, so that they are full soon.
        for end in scene.ends() {
            end.sysctl("net/ipv4/tcp_rmem", "4096 65536 262144")?;
        }
        for address in vips() {
            let what = format!("{address}, the partner is late");
            let (_, counted) = scene.cleanly_but(&what, PROBED, || {
                let done = scene.partner().exchange_late(address, 1, MUCH)?;
                scene.went_well(&edge, done.local, 1)
            })?;
            ensure!(zero_windows(&counted.partner) > 0, "{counted:?}");
            let what = format!("{address}, the Edge is late");
            let (_, counted) = scene.cleanly_but(&what, PROBED, || {
                let done = scene.partner().exchange_with_late_edge(address, MUCH, 1)?;
                scene.went_well(&edge, done.local, MUCH)
            })?;
            ensure!(zero_windows(&counted.edge) > 0, "{counted:?}");
        }
        Ok(())
    });
}

fn zero_windows(counters: &TcpCounters) -> u64 {
    // The first is not counted where the window closes because the buffer is full before the window is used up.
    [
        "TcpExtTCPToZeroWindowAdv",
        "TcpExtTCPFromZeroWindowAdv",
        "TcpExtTCPWantZeroWindowAdv",
    ]
    .map(|name| counters.value(name))
    .iter()
    .sum()
}

impl Scale {
    /// Sets it for what the end talks to: on its link, and beyond.
    fn set(&self, end: &Namespace, on_link: Host, router: Host) -> Result<()> {
        let buffers = format!("4096 1048576 {}", self.largest_buffer);
        end.sysctl("net/ipv4/tcp_rmem", &buffers)?;
        end.ip(&format!(
            "route replace {}/32 dev eth0 {route}
             -6 route replace {}/128 dev eth0 {route}
             route replace default via {} {route}
             -6 route replace default via {} {route}",
            on_link.v4,
            on_link.v6,
            router.v4,
            router.v6,
            route = self.route
        ))
    }
}

/// The scale that the socket with this address announced.
fn own_scale(end: &Namespace, local: SocketAddr) -> Result<u8> {
    let address = match local.ip() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    scale_of(end, &format!("{address}:{}", local.port()))
}

/// The scale that the only connection with this port announced.
fn own_scale_at(end: &Namespace, port: u16) -> Result<u8> {
    scale_of(end, &format!(":{port}"))
}

fn scale_of(end: &Namespace, source: &str) -> Result<u8> {
    let sockets = end.output("ss", &["-Htin", "state", "established", "src", source])?;
    let scales: Vec<_> = sockets
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("wscale:")?.split_once(','))
        .collect();
    let [(_, own)] = scales[..] else {
        bail!("not one connection with {source}: {sockets}");
    };
    own.parse().with_context(|| sockets.clone())
}
