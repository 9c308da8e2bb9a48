//! What the agent's sockets have in common.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use super::hand_off::tell_write_seq;
use crate::net::host::namespace_of;

/// Connections that wait for the agent, at most; the kernel takes the smaller of this and `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A peer that has vanished is noticed within three minutes: probes from two minutes of silence on, four of them lost.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How long sent data may stay unacknowledged. With keepalive it replaces the count of lost probes (tcp(7)), so it is the sum of the above.
const USER_TIMEOUT: Duration = Duration::from_secs(180);

/// The one listener of all inspected addresses and ports, which connections reach by the datapath's sk_lookup program. It is bound to every
/// address, because an IPv6 socket that is bound to one of them takes no IPv4 (inet6_bind of net/ipv6/af_inet6.c), and to a port of the kernel's
/// choice.
///
/// # Errors
/// The kernel's.
pub(super) fn listener() -> io::Result<TcpListener> {
    listening(bound()?)
}

/// The listener that an earlier agent has left, with the connections that wait in its queue.
///
/// # Errors
/// When it would not do: what [`listener`] would make is the measure.
pub(super) fn adopt(left: OwnedFd) -> Result<TcpListener, NotAdopted> {
    let (left, ours) = (Socket::from(left), bound()?);
    if left.r#type()? != Type::STREAM
        || left.protocol()? != Some(Protocol::TCP)
        || !left.is_listener()?
    {
        return Err(NotAdopted::NoListener);
    }
    if namespace_of(&left)? != namespace_of(&ours)? {
        return Err(NotAdopted::Elsewhere);
    }
    let everywhere = left
        .local_addr()?
        .as_socket()
        .is_some_and(|address| address.ip().is_unspecified());
    let both = |socket: &Socket| -> io::Result<_> {
        let domain = socket.domain()?;
        Ok((domain, domain == Domain::IPV6 && socket.only_v6()?))
    };
    if !everywhere || both(&left)? != both(&ours)? {
        return Err(NotAdopted::Narrow);
    }
    Ok(listening(left)?)
}

/// Why a listener is not taken over.
#[derive(Debug, thiserror::Error)]
pub enum NotAdopted {
    /// It is something else.
    #[error("it is no listening TCP socket")]
    NoListener,
    /// Connections here would not reach it.
    #[error("it belongs to another network namespace")]
    Elsewhere,
    /// It does not get all connections.
    #[error("it does not take both address families at every address")]
    Narrow,
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] io::Error),
}

/// A TCP socket that does not block, and that can be given up when it is connected; so can those that it accepts.
fn tcp(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // Without CAP_NET_ADMIN nothing is handed off, and each connection says so (`kept-failed`).
    let _ = tell_write_seq(&socket);
    Ok(socket)
}

fn bound() -> io::Result<Socket> {
    // A socket for both families, where the host has IPv6.
    match tcp(Domain::IPV6) {
        Ok(socket) => {
            socket.set_only_v6(false)?;
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
            Ok(socket)
        }
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            let socket = tcp(Domain::IPV4)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
            Ok(socket)
        }
        Err(error) => Err(error),
    }
}

/// One that listens already gets this version's options and backlog.
fn listening(socket: Socket) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    // Linux has accepted sockets inherit it: five system calls less for each connection.
    for_federation(&socket)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Small messages leave at once, and a peer that is gone is noticed: federation connections are silent for hours.
pub(super) fn for_federation(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL),
    )?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// A socket towards an Edge that shows it `own`, with that very port, unless another connection to the same Edge has them. One client may have
/// connections of the same port to several of our addresses, and the gateway to several Edges.
///
/// # Errors
/// The kernel's: without CAP_NET_ADMIN or CAP_NET_RAW there is no address of others (`transparent`).
pub(super) fn toward_edge(own: SocketAddr, transparent: bool) -> io::Result<Socket> {
    let socket = tcp(Domain::for_address(own))?;
    if transparent && own.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else if transparent {
        socket.set_ip_transparent_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&own.into())?;
    Ok(socket)
}

/// The host's own address toward an Edge, as its routes choose it. Sends nothing.
///
/// # Errors
/// The kernel's: there is no route.
pub(super) fn own_address(edge: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if edge.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(edge)?;
    Ok(socket.local_addr()?.ip())
}

/// The socket is readable from so many received bytes on (SO_RCVLOWAT of socket(7)), or at the end of the stream.
pub(super) fn set_receive_low_water(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    set(stream, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes)
}

/// The connection ends with a RST when it is closed.
pub(super) fn reset_on_close(stream: &TcpStream) {
    // It fails only for what is no socket.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

pub(super) fn set(socket: &impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option's value is an int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::canonical::canonical;

    #[tokio::test]
    async fn a_listener_is_taken_over_with_its_queue() {
        let first = listener().expect("a listener");
        let port = first.local_addr().expect("its address").port();
        let left = first.as_fd().try_clone_to_owned().expect("another handle");
        drop(first);
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
        let client = client.expect("a connection to nobody's listener");
        let next = adopt(left).expect("the same listener");
        let (_stream, source) = next.accept().await.expect("the one that waited");
        assert_eq!(canonical(source), client.local_addr().expect("its own end"));
    }

    #[tokio::test]
    async fn other_sockets_are_not_taken_over() {
        let tcp =
            |domain| Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        let deaf = tcp(Domain::IPV6);
        let datagrams = Socket::new(Domain::IPV6, Type::DGRAM, None).expect("a socket");
        let one_family = tcp(Domain::IPV6);
        one_family.set_only_v6(true).expect("IPv6 alone");
        one_family.listen(1).expect("listening");
        let one_address = tcp(Domain::IPV4);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        one_address.bind(&address.into()).expect("an address");
        one_address.listen(1).expect("listening");
        for (socket, sentence) in [
            (deaf, "no listening TCP socket"),
            (datagrams, "no listening TCP socket"),
            (one_family, "both address families"),
            (one_address, "both address families"),
        ] {
            let refused = adopt(socket.into()).expect_err("a refusal").to_string();
            assert!(refused.contains(sentence), "{refused}");
        }
        let (file, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(adopt(OwnedFd::from(file)).is_err());
    }
}
