//! What a socket tells of its connection, and how it is given up without a word: by the options that checkpoint/restore uses (TCP_REPAIR of
//! include/uapi/linux/tcp.h, do_tcp_setsockopt of net/ipv4/tcp.c). They need CAP_NET_ADMIN.

use std::{
    io,
    mem::{MaybeUninit, offset_of},
    os::fd::{AsFd, AsRawFd as _},
};

use libc::c_int;
use sni_common::{
    contract::SynSeen,
    translate::{Leg, Timestamps},
};
use socket2::{SockFilter, SockRef};
use tokio::net::TcpStream;

/// Without the window probe that switching it off would otherwise send.
const REPAIR_OFF: c_int = -1;
const REPAIR_ON: c_int = 1;
const SEND_QUEUE: c_int = 2;

/// State of a connection that is open in both directions (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
/// What the handshake has settled (`tcpi_options`).
const TIMESTAMPS: u8 = 1;
const SACK: u8 = 2;

/// Where a socket stands in its two streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    /// The next sequence number that it would use.
    pub(super) write_seq: u32,
    /// The first one that its peer has not acknowledged.
    pub(super) acknowledged: u32,
    /// The peer's next one to be read.
    pub(super) read_seq: u32,
    /// The peer's next one to be received.
    pub(super) receive_seq: u32,
}

impl Position {
    /// Bytes that wait to be read.
    pub(super) fn unread(&self) -> u32 {
        self.receive_seq.wrapping_sub(self.read_seq)
    }

    /// Whether the peer has acknowledged all.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.acknowledged == self.write_seq
    }
}

/// What a socket knows of its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) position: Position,
    pub(super) leg: Leg,
    /// Bytes that the peer takes at the moment, sent ones that it has not acknowledged among them.
    pub(super) window: u32,
    /// What it has received.
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// The facts of an open connection; `None` where either side has closed its direction. `seen` is how the peer began.
pub(super) fn facts(stream: &TcpStream, seen: &SynSeen) -> io::Result<Option<Facts>> {
    let (position, info) = position(stream, seen)?;
    if info.state != ESTABLISHED {
        return Ok(None);
    }
    let timestamps = if info.options & TIMESTAMPS != 0 {
        Some(Timestamps {
            own: get(stream, libc::TCP_TIMESTAMP)?,
            peer: seen.ts_value,
        })
    } else {
        None
    };
    Ok(Some(Facts {
        position,
        leg: Leg {
            write_seq: position.write_seq,
            read_seq: position.read_seq,
            timestamps,
            sack: info.options & SACK != 0,
            peer_scale: info.scales & 0x0f,
            own_scale: info.scales >> 4,
        },
        window: info.send_window,
        packets: info.segments_in.into(),
        bytes: info.bytes_received,
    }))
}

/// The largest segment that the peer takes, without options, as far as is known: what it has announced, or what its path is known to carry. An Edge
/// that is told the same will not send what does not get there.
pub(in crate::proxy) fn segment_size(stream: &TcpStream) -> io::Result<u32> {
    /// Two NOPs and the option, in every segment (RFC 7323, appendix A).
    const TIMESTAMPS_SIZE: u32 = 12;
    let info = info(stream)?;
    let options = if info.options & TIMESTAMPS != 0 {
        TIMESTAMPS_SIZE
    } else {
        0
    };
    Ok(SockRef::from(stream).tcp_mss()? + options)
}

/// The window scale that the peer has announced; 0 for none.
pub(in crate::proxy) fn peer_scale(stream: &TcpStream) -> io::Result<u8> {
    Ok(info(stream)?.scales & 0x0f)
}

/// Whether the connection is gone: reset, or given up by the kernel.
pub(super) fn is_gone(stream: &TcpStream) -> io::Result<bool> {
    const CLOSED: u8 = 7;
    Ok(info(stream)?.state == CLOSED)
}

/// Whether the peer has closed its direction, or the connection is gone.
pub(super) fn peer_has_ended(stream: &TcpStream) -> io::Result<bool> {
    // ESTABLISHED, FIN_WAIT1 and FIN_WAIT2 are the states in which more may come (RFC 9293, 3.3.2).
    Ok(!matches!(info(stream)?.state, ESTABLISHED | 4 | 5))
}

/// The part of `struct tcp_info` that is asked for (include/uapi/linux/tcp.h); libc's has no more of it than Linux 2.6 had.
#[repr(C)]
struct Info {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    /// Two bitfields of four bits, the lower one first: the peer's window scale, and ours. Both 0 where there is no scaling.
    scales: u8,
    rate: u8,
    /// From `tcpi_rto` to `tcpi_total_retrans`.
    words: [u32; 24],
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segments_out: u32,
    segments_in: u32,
    /// From `tcpi_notsent_bytes` to `tcpi_rcv_ooopack`.
    more_words: [u32; 21],
    /// What the peer takes at the moment, in bytes.
    send_window: u32,
}

fn info(stream: &TcpStream) -> io::Result<Info> {
    const _: () =
        assert!(offset_of!(Info, bytes_received) == 128 && offset_of!(Info, send_window) == 228);
    let mut info = MaybeUninit::<Info>::zeroed();
    let mut length = size_of::<Info>() as libc::socklen_t;
    // SAFETY: the structure outlives the call and is as long as said.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers only; all zeros are valid.
    Ok(unsafe { info.assume_init() })
}

/// Has a socket tell its next sequence number to whoever asks ([`write_seq`]), and those that it accepts as well, which inherit it. The kernel lets the
/// question be chosen in repair mode only, and forgets neither it nor the mode's end; but a process that is killed in that mode takes its open
/// connections with it without a word. So it is chosen while the socket is none. SO_REUSEADDR is off afterwards.
pub(in crate::proxy) fn tell_write_seq(socket: &impl AsFd) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR, REPAIR_ON)?;
    let chosen = set(socket, libc::TCP_REPAIR_QUEUE, SEND_QUEUE);
    set(socket, libc::TCP_REPAIR, REPAIR_OFF)?;
    chosen
}

fn write_seq(stream: &TcpStream) -> io::Result<u32> {
    match get(stream, libc::TCP_QUEUE_SEQ) {
        // Accepted by a listener of an agent that did not ask for it.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            tell_write_seq(stream)?;
            get(stream, libc::TCP_QUEUE_SEQ)
        }
        other => other,
    }
}

/// The peer's numbers are counted from its first one: its socket tells them in repair mode only.
fn position(stream: &TcpStream, seen: &SynSeen) -> io::Result<(Position, Info)> {
    let write_seq = write_seq(stream)?;
    let acknowledged = write_seq.wrapping_sub(unacknowledged(stream)?);
    let mut before = info(stream)?;
    // Bytes may arrive between the two questions.
    loop {
        let unread = unread(stream)?;
        let info = info(stream)?;
        if info.bytes_received == before.bytes_received {
            let first = seen.seq.wrapping_add(1);
            let receive_seq = first.wrapping_add(info.bytes_received as u32);
            let position = Position {
                write_seq,
                acknowledged,
                read_seq: receive_seq.wrapping_sub(unread),
                receive_seq,
            };
            return Ok((position, info));
        }
        before = info;
    }
}

/// Bytes that wait to be read.
pub(in crate::proxy) fn unread(stream: &TcpStream) -> io::Result<u32> {
    ask(stream, libc::FIONREAD)
}

/// Sequence numbers that were sent, or will be, and are not acknowledged.
pub(super) fn unacknowledged(stream: &TcpStream) -> io::Result<u32> {
    ask(stream, libc::TIOCOUTQ)
}

fn ask(stream: &TcpStream, what: libc::c_ulong) -> io::Result<u32> {
    let mut bytes: c_int = 0;
    // SAFETY: both requests write an int, which outlives the call.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), what, &raw mut bytes) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(bytes.cast_unsigned())
}

/// From now on the socket goes without a word when it is closed, and be it because this process is killed. What is in its send queue it still sends
/// (the queue is none that repair holds back, tcp_write_xmit of net/ipv4/tcp_output.c); it can't be read from or written to.
pub(super) fn be_silent(stream: &TcpStream) -> io::Result<()> {
    set(stream, libc::TCP_REPAIR, REPAIR_ON)
}

/// An ordinary socket again.
pub(super) fn speak_again(stream: &TcpStream) -> io::Result<()> {
    set(stream, libc::TCP_REPAIR, REPAIR_OFF)
}

/// The socket receives nothing from now on: the kernel drops its segments before it looks at them, and who has sent them sends them again.
pub(super) fn receive_nothing(stream: &TcpStream) -> io::Result<()> {
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    SockRef::from(stream).attach_filter(&[SockFilter::new(RETURN, 0, 0, 0)])
}

/// Takes [`receive_nothing`] back.
pub(super) fn receive_again(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).detach_filter()
}

fn get(stream: &TcpStream, option: c_int) -> io::Result<u32> {
    let mut value = 0u32;
    let mut length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the option's value is a 32-bit integer, which outlives the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}

fn set(stream: &impl AsFd, option: c_int, value: c_int) -> io::Result<()> {
    crate::proxy::socket::set(stream, libc::IPPROTO_TCP, option, value)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::proxy::socket::{listener, toward_edge};

    /// Neither a listener's connection nor one's own needs repair mode: in it, a kill would be the end of it without a word.
    #[tokio::test]
    async fn sockets_tell_what_they_would_send_next() {
        let listener = listener().expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let own = toward_edge(any, false).expect("a socket");
        if let Err(error) = tell_write_seq(&own) {
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            eprintln!("skipped: TCP_REPAIR needs CAP_NET_ADMIN");
            return;
        }
        own.set_nonblocking(false).expect("a socket");
        own.connect(&address.into()).expect("a connection");
        let (accepted, _) = listener.accept().await.expect("the same");
        own.set_nonblocking(true).expect("a socket");
        let own = TcpStream::from_std(own.into()).expect("a runtime");
        for stream in [own, accepted] {
            let ask = || get(&stream, libc::TCP_QUEUE_SEQ).expect("chosen before");
            stream.writable().await.expect("an open connection");
            let before = ask();
            assert_eq!(stream.try_write(b"five!").expect("room"), 5);
            assert_eq!(ask().wrapping_sub(before), 5);
        }
    }
}
