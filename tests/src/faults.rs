//! What goes wrong on real networks: loss, and resets that somebody guessed.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use sni_common::checksum;
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Namespace;

const TABLE: &str = "snigate_loss";

/// From now on `percent` of the TCP segments that arrive in the namespace are lost, chosen at random.
///
/// Loss belongs to the ends: what XDP forwards never meets the gateway's own rules.
///
/// # Errors
/// nftables is missing or refuses.
pub fn lose_incoming(namespace: &Namespace, percent: u8) -> Result<()> {
    stop_losing(namespace)?;
    // nftables refuses a comparison that is always true.
    let chance = if percent < 100 {
        format!("numgen random mod 100 < {percent}")
    } else {
        String::new()
    };
    for rule in [
        format!("add table inet {TABLE}"),
        format!("add chain inet {TABLE} in {{ type filter hook input priority raw; }}"),
        format!("add rule inet {TABLE} in meta l4proto tcp {chance} drop"),
    ] {
        namespace.output("nft", &[&rule])?;
    }
    Ok(())
}

/// Ends [`lose_incoming`] and [`take_no_more`].
///
/// # Errors
/// nftables is missing or refuses.
pub fn stop_losing(namespace: &Namespace) -> Result<()> {
    // Adding what exists is no error to nft, deleting what does not is one.
    namespace.output(
        "nft",
        &[&format!(
            "add table inet {TABLE}; delete table inet {TABLE}"
        )],
    )?;
    Ok(())
}

/// What becomes of SYNs that arrive at a server; the connections that it has go on.
#[derive(Clone, Copy, Debug)]
pub enum Syns {
    /// They are lost: the server is silent.
    Lost,
    /// They are answered with a RST: nobody listens.
    Refused,
    /// Every other one is.
    RefusedInTurns,
}

/// From now on the namespace takes no new TCP connections. [`stop_losing`] ends it.
///
/// # Errors
/// nftables is missing or refuses.
pub fn take_no_more(namespace: &Namespace, syns: Syns) -> Result<()> {
    stop_losing(namespace)?;
    let fate = match syns {
        Syns::Lost => "drop",
        Syns::Refused => "reject with tcp reset",
        Syns::RefusedInTurns => "numgen inc mod 2 == 0 reject with tcp reset",
    };
    for rule in [
        format!("add table inet {TABLE}"),
        format!("add chain inet {TABLE} in {{ type filter hook input priority filter; }}"),
        format!("add rule inet {TABLE} in meta l4proto tcp tcp flags & (syn | ack) == syn {fate}"),
    ] {
        namespace.output("nft", &[&rule])?;
    }
    Ok(())
}

/// Sends a RST with the addresses and ports of a connection, as an attacker does who does not know more of it.
///
/// `from` must be an address of the namespace.
///
/// # Errors
/// The addresses are of two families, or the kernel refuses.
pub fn blind_reset(
    namespace: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
) -> Result<()> {
    let segment = reset_segment(from, to, sequence)?;
    namespace
        .run(|| {
            let socket = Socket::new(Domain::for_address(to), Type::RAW, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::new(from.ip(), 0).into())?;
            socket.send_to(&segment, &SocketAddr::new(to.ip(), 0).into())?;
            Ok(())
        })
        .with_context(|| format!("sending a RST from {from} to {to}"))
}

/// A TCP header (RFC 9293 section 3.1) with its checksum.
fn reset_segment(from: SocketAddr, to: SocketAddr, sequence: u32) -> Result<[u8; 20]> {
    const DATA_OFFSET: u8 = 5 << 4;
    const RST: u8 = 0x04;
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&from.port().to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[12] = DATA_OFFSET;
    segment[13] = RST;

    // Both pseudo-headers (RFC 9293 section 3.1, RFC 8200 section 8.1) sum up to the same.
    let pseudo_header = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => [from.octets(), to.octets()].concat(),
        (IpAddr::V6(from), IpAddr::V6(to)) => [from.octets(), to.octets()].concat(),
        _ => bail!("{from} and {to} are of two families"),
    };
    let mut sum = checksum::add_bytes(0, &pseudo_header);
    sum = checksum::add_bytes(sum, &[0, 6, 0, 20]);
    sum = checksum::add_bytes(sum, &segment);
    segment[16..18].copy_from_slice(&checksum::finish(sum).to_ne_bytes());
    Ok(segment)
}
