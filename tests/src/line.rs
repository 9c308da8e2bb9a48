//! Packet sockets: what stands on a link without a network stack of its own.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};

const BUFFER: usize = 4 << 20;

/// Opens a non-blocking packet socket on `device` of the caller's namespace that gets every frame that `filter` accepts.
///
/// # Errors
/// There is no such device, or the kernel refuses.
pub(crate) fn open(device: &str, filter: &[SockFilter]) -> Result<Socket> {
    let index = if_nametoindex(device).with_context(|| format!("looking for {device}"))?;
    // Protocol 0: nothing arrives before the filter is in place.
    let line = Socket::new(Domain::PACKET, Type::RAW, None)?;
    if !filter.is_empty() {
        line.attach_filter(filter)?;
    }
    line.set_nonblocking(true)?;
    // Beyond what `net.core` allows others: a sender's whole window may wait for the thread behind a line.
    setsockopt(&line, sockopt::RcvBufForce, &BUFFER)?;
    setsockopt(&line, sockopt::SndBufForce, &BUFFER)?;
    let everything = u16::try_from(libc::ETH_P_ALL)?.to_be();
    // SAFETY: sockaddr_storage is larger than sockaddr_ll and aligned for it, and zero is a value of all its fields.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = everything;
            (*address).sll_ifindex = index.cast_signed();
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    line.bind(&address)?;
    Ok(line)
}

/// Opens one that gets what arrives, and not what leaves; it is bound, so this holds from the first frame that matters.
///
/// # Errors
/// As for [`open`], or the kernel is older than 4.20.
pub(crate) fn open_incoming(device: &str) -> Result<Socket> {
    // include/uapi/linux/if_packet.h
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    let line = open(device, &[])?;
    set_packet_option(&line, PACKET_IGNORE_OUTGOING).context("ignoring what leaves")?;
    Ok(line)
}

/// Puts a `virtio_net_hdr` before every frame, in both directions: what the kernel has left to an offload, a checksum or
/// the cutting into segments, is then said there and not lost.
///
/// # Errors
/// The kernel's.
pub(crate) fn with_offload_headers(line: &Socket) -> Result<()> {
    const PACKET_VNET_HDR: libc::c_int = 15;
    set_packet_option(line, PACKET_VNET_HDR).context("asking for offload headers")
}

/// One frame, or `None` when none waits.
pub(crate) fn receive(
    largest: usize,
    read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
) -> io::Result<Option<Vec<u8>>> {
    let mut frame = vec![0; largest];
    match read(&mut frame) {
        Ok(length) => {
            frame.truncate(length);
            Ok(Some(frame))
        }
        // ENETDOWN: said once when the interface goes, which is how a lab ends.
        Err(error)
            if error.kind() == ErrorKind::WouldBlock
                || error.raw_os_error() == Some(libc::ENETDOWN) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A frame for which there is no room is lost, as on any line.
pub(crate) fn deliver(sent: io::Result<usize>) -> io::Result<()> {
    match sent {
        Err(error)
            // EIO: a TAP interface is not up yet; a VLAN interface would drop the frame, too.
            if error.kind() != ErrorKind::WouldBlock
                && !matches!(
                    error.raw_os_error(),
                    Some(libc::ENOBUFS | libc::EIO | libc::ENETDOWN | libc::ENXIO)
                ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn set_packet_option(line: &Socket, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option is an int, which `on` is, and it outlives the call.
    let result = unsafe {
        libc::setsockopt(
            line.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
