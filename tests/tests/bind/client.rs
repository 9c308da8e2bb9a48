//! A client that knows what comes back from an [`EchoEdge`](snigate_tests::peers::EchoEdge), and can end in any way.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Namespace,
    addresses::PARTNER,
    deadline::Deadline,
    peers::{Introduction, Segments, open_socket, send_in_segments},
};
use socket2::SockRef;

/// How long a connection may take: where much is lost, retransmission timers become long.
const PATIENCE: Duration = Duration::from_secs(120);

/// An open connection whose hello an Edge has had.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    local: SocketAddr,
    introduction: Introduction,
    setup: Duration,
    pings: u8,
}

/// What a socket knows of the options that its connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) timestamps: bool,
    pub(crate) sack: bool,
    pub(crate) scaling: bool,
    /// The other side's window scale.
    pub(crate) peer_scale: u8,
    /// The largest segment that the other side takes.
    pub(crate) mss: u32,
}

impl Client {
    /// Connects from this end, or one of the kernel's choice, says `hello`, and waits for it to come back.
    pub(crate) fn open(
        namespace: &Namespace,
        from: Option<SocketAddr>,
        address: SocketAddr,
        hello: &[u8],
        segments: Segments,
    ) -> Result<Self> {
        let started = Instant::now();
        let mut stream = connect(namespace, from, address)?;
        send_in_segments(&mut stream, hello, segments, Deadline::after(PATIENCE))?;
        let introduction = Introduction::read(&mut stream)?;
        let setup = started.elapsed();
        let mut echo = vec![0; hello.len()];
        stream.read_exact(&mut echo).context("the hello's echo")?;
        ensure!(echo == hello, "another hello has reached the Edge");
        Ok(Self {
            local: stream.local_addr()?,
            stream,
            introduction,
            setup,
            pings: 0,
        })
    }

    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The Edge's name.
    pub(crate) fn edge(&self) -> &str {
        &self.introduction.edge
    }

    /// Whom the Edge sees.
    pub(crate) fn seen(&self) -> SocketAddr {
        self.introduction.peer
    }

    /// From the SYN to the Edge's name.
    pub(crate) fn setup(&self) -> Duration {
        self.setup
    }

    /// Sends some kilobytes, in several segments, and waits for them to come back.
    pub(crate) fn ping(&mut self) -> Result<()> {
        self.pings = self.pings.wrapping_add(1);
        let sent: Vec<u8> = (0..8000_u32).map(|n| (n / 7) as u8 ^ self.pings).collect();
        self.stream.write_all(&sent)?;
        let mut received = vec![0; sent.len()];
        self.stream.read_exact(&mut received).context("an echo")?;
        ensure!(sent == received, "other bytes came back than were sent");
        Ok(())
    }

    /// Ends in order, this side first, and sees the other side do the same.
    pub(crate) fn close(mut self) -> Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)?;
        self.ended()
    }

    /// Sees the other side end in order.
    pub(crate) fn ended(&mut self) -> Result<()> {
        let length = self.stream.read(&mut [0; 16]).context("the end")?;
        ensure!(length == 0, "{length} bytes instead of the end");
        Ok(())
    }

    /// Ends with a RST.
    pub(crate) fn reset(self) -> Result<()> {
        Ok(SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?)
    }

    /// Is gone without a packet, as with its machine.
    pub(crate) fn crash(self) -> Result<()> {
        let on: libc::c_int = 1;
        // SAFETY: the option is an int, which `on` is, and it outlives the call.
        let result = unsafe {
            libc::setsockopt(
                self.stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_REPAIR,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        ensure!(result == 0, "{}", std::io::Error::last_os_error());
        Ok(())
    }

    /// What was negotiated, by the kernel's account.
    pub(crate) fn options(&self) -> Result<Options> {
        // SAFETY: all of its fields are integers.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        // SAFETY: the kernel writes no more than `length` bytes.
        let result = unsafe {
            libc::getsockopt(
                self.stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        ensure!(result == 0, "{}", std::io::Error::last_os_error());
        // TCPI_OPT_* of include/uapi/linux/tcp.h
        Ok(Options {
            timestamps: info.tcpi_options & 1 != 0,
            sack: info.tcpi_options & 2 != 0,
            scaling: info.tcpi_options & 4 != 0,
            peer_scale: info.tcpi_snd_rcv_wscale & 15,
            mss: info.tcpi_snd_mss,
        })
    }
}

/// A connection that has said nothing yet.
pub(crate) fn connect(
    namespace: &Namespace,
    from: Option<SocketAddr>,
    address: SocketAddr,
) -> Result<TcpStream> {
    connect_within(namespace, from, address, PATIENCE)
}

/// Likewise, in this time.
pub(crate) fn connect_within(
    namespace: &Namespace,
    from: Option<SocketAddr>,
    address: SocketAddr,
    timeout: Duration,
) -> Result<TcpStream> {
    let stream = namespace.run(|| Ok(open_socket(from, address, timeout)?));
    let stream = stream.with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The end of the partner with this port, for a connection to `address`.
pub(crate) fn end(address: SocketAddr, port: u16) -> SocketAddr {
    let [v4, v6] = PARTNER.both();
    SocketAddr::new(if address.is_ipv4() { v4 } else { v6 }, port)
}
