//! The stamp of the listener.
//!
//! The datapath answers SYNs with cookies of the kernel's own, and whom it does not bind the kernel takes over: it makes a connection of the ACK that
//! brings the cookie back. That it does only for a listener that has itself sent a cookie within the last two minutes (`tcp_synq_no_recent_overflow` of
//! include/net/tcp.h), and the datapath's are not its own. So the agent connects to its listener over loopback: with `net.ipv4.tcp_syncookies` at 2,
//! every SYN that the kernel answers stamps it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use super::{canonical::canonical, hand_off, socket::reset_on_close};

/// How long the connection may take. It needs microseconds; where the queue of the listener is full, the kernel drops the SYN.
const PATIENCE: Duration = Duration::from_secs(2);

/// Stamps the listener of this network namespace that is bound to `port`, and returns the window scale that it announces.
///
/// # Errors
/// When it can't be reached; whether it is stamped all the same is not known then.
pub(crate) async fn stamp(port: u16) -> io::Result<u8> {
    let connect = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let stream = timeout(PATIENCE, connect)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let scale = hand_off::peer_scale(&stream);
    // Nothing of it stays, at either end.
    reset_on_close(&stream);
    scale
}

/// Whether a connection that was accepted is one of these: nobody else gets to the listener's own port.
pub(super) fn is_stamp(source: SocketAddr, address: SocketAddr, port: u16) -> bool {
    let loopback = |address| canonical(address).ip().is_loopback();
    address.port() == port && loopback(source) && loopback(address)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::proxy::socket::listener;

    async fn accepted(listener: &TcpListener) -> (SocketAddr, SocketAddr) {
        let (stream, source) = listener.accept().await.expect("a connection");
        (source, stream.local_addr().expect("its address"))
    }

    #[tokio::test]
    async fn a_stamp_tells_the_listeners_scale_and_is_known_again() {
        let listener = listener().expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let scale = stamp(port).await.expect("a connection");
        assert!(
            (1..=14).contains(&scale),
            "Linux scales by default: {scale}"
        );
        let (source, address) = accepted(&listener).await;
        assert!(is_stamp(source, address, port), "{source} to {address}");
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_takes_no_stamp() {
        let listener = listener().expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        drop(listener);
        let refused = stamp(port).await.expect_err("nobody is there");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn clients_are_no_stamps() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let is = |source, address| is_stamp(at(source), at(address), 40_000);
        assert!(is("127.0.0.1:1234", "127.0.0.1:40000"));
        assert!(is("[::ffff:127.0.0.1]:1234", "[::ffff:127.0.0.1]:40000"));
        assert!(is("[::1]:1234", "[::1]:40000"));
        assert!(!is("127.0.0.1:1234", "198.51.100.20:40000"));
        assert!(!is("127.0.0.1:1234", "127.0.0.1:5061"));
        assert!(!is("192.0.2.1:1234", "198.51.100.20:40000"));
    }
}
