//! What agent and holder say to each other: short messages, with descriptors where it says so.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
    process::geteuid,
};

/// On the line, agent to holder, with two descriptors: the listener and the door. The rest of the message is the door's path.
pub(super) const HOLD: &[u8] = b"hold ";
/// The answer: from now on the listener outlives the agent.
pub(super) const HOLDING: &[u8] = b"holding";
/// Through the door: the listener, please. It is handed out as soon as the line is gone, and so the agent before.
pub(super) const TAKE: &[u8] = b"take";
/// The answer, with the listener.
pub(super) const LISTENER: &[u8] = b"listener";
/// Through the door or on the line: close the listener and end. Whoever has taken it says so when somebody else keeps it.
pub(super) const END: &[u8] = b"end";

/// Longer than any path of a Unix socket.
const LONGEST: usize = 256;
const DESCRIPTORS: usize = 2;

pub(super) struct Message {
    pub(super) text: Vec<u8>,
    pub(super) descriptors: Vec<OwnedFd>,
}

pub(super) fn send(
    socket: impl AsFd,
    text: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        debug_assert!(fits, "{} descriptors", descriptors.len());
    }
    let text = [IoSlice::new(text)];
    sendmsg(socket, &text, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next message; `None` when the other side has gone. Waits as the socket does.
pub(super) fn receive(socket: impl AsFd) -> io::Result<Option<Message>> {
    let mut text = [0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut text)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    );
    let length = match received {
        Ok(received) => received.bytes,
        // Whoever was killed before it had read everything.
        Err(Errno::CONNRESET) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    // Nobody here sends an empty message.
    Ok((length > 0).then(|| Message {
        text: text[..length].to_vec(),
        descriptors,
    }))
}

/// Waits until one of the sockets has a message or has lost its other side, or the time is over; which of them.
pub(super) fn wait<const N: usize>(
    sockets: [Option<BorrowedFd<'_>>; N],
    time: Option<Duration>,
) -> io::Result<[bool; N]> {
    let there: Vec<usize> = (0..N).filter(|index| sockets[*index].is_some()).collect();
    let mut polled: Vec<_> = sockets
        .into_iter()
        .flatten()
        .map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN))
        .collect();
    let time = time
        .map(Timespec::try_from)
        .transpose()
        .map_err(io::Error::other)?;
    match poll(&mut polled, time.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut ready = [false; N];
    for (index, polled) in there.into_iter().zip(polled) {
        ready[index] = !polled.revents().is_empty();
    }
    Ok(ready)
}

/// The next message, if it comes in time.
pub(super) fn receive_within(socket: impl AsFd, time: Duration) -> io::Result<Option<Message>> {
    let [ready] = wait([Some(socket.as_fd())], Some(time))?;
    if !ready {
        return Err(io::ErrorKind::TimedOut.into());
    }
    receive(socket)
}

/// Whether the process at the other end may have the listener, or may be believed to: root's, or this user's own.
pub(super) fn is_trusted(socket: impl AsFd) -> io::Result<bool> {
    let uid = rustix::net::sockopt::socket_peercred(socket)?.uid;
    Ok(uid.is_root() || uid == geteuid())
}
