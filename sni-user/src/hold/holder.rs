//! The holder: a process that has the listener open and does nothing else.
//!
//! The agent starts it and keeps a line to it, a pair of sockets. While the line stands, the holder waits; when it is cut, the agent has ended,
//! however, and the holder gives the listener to the next one that knocks at its door. It never accepts a connection itself.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    net::{SocketFlags, accept_with},
    process::setsid,
    thread::{CapabilitySet, CapabilitySets, set_capabilities, set_name},
};

use super::{
    door,
    messages::{self, END, HOLD, HOLDING, LISTENER, TAKE},
};

/// The whole life of a holder; `line` is its end of the line to the agent that has started it, and `patience` what it has from that agent's end on.
///
/// # Errors
/// When the agent does not say what is to be held, or the kernel refuses. Who holds nothing ends.
pub(crate) fn hold(line: OwnedFd, patience: Duration) -> io::Result<()> {
    // What ends the agent's session or process group does not end the holder's.
    setsid()?;
    // For ps(1) and top(1): it was started by the path /proc/self/exe.
    set_name(c"snigate-holder")?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    // It needs none. Where that can't be, it is still a process that only hands on one socket.
    if let Err(error) = set_capabilities(None, none) {
        tracing::debug!(%error, "the holder keeps its capabilities");
    }
    let mut holder = Holder::begin(line)?;
    holder.serve(patience)?;
    holder.end();
    Ok(())
}

struct Holder {
    /// `None` when the agent has ended.
    line: Option<OwnedFd>,
    door: OwnedFd,
    listener: OwnedFd,
    place: PathBuf,
    /// The door's file.
    identity: Option<(u64, u64)>,
    /// The agent that is taking the listener.
    taker: Option<OwnedFd>,
    /// It has said that it wants it, and does not have it yet.
    asked: bool,
}

impl Holder {
    fn begin(line: OwnedFd) -> io::Result<Self> {
        let message = messages::receive(&line)?;
        let told = message.and_then(|message| {
            let place = Path::new(OsStr::from_bytes(message.text.strip_prefix(HOLD)?)).to_owned();
            let [listener, door]: [_; 2] = message.descriptors.try_into().ok()?;
            Some((place, listener, door))
        });
        let Some((place, listener, door)) = told else {
            return Err(io::Error::other("the agent has not said what to hold"));
        };
        let identity = door::identity(&place);
        messages::send(&line, HOLDING, &[])?;
        Ok(Self {
            line: Some(line),
            door,
            listener,
            place,
            identity,
            taker: None,
            asked: false,
        })
    }

    /// Until it is told to end, or nobody comes.
    fn serve(&mut self, patience: Duration) -> io::Result<()> {
        let mut alone_since = None;
        loop {
            // The time of an agent that is starting does not count.
            let left = match (alone_since, &self.taker) {
                (Some(since), None) => Some(patience.saturating_sub(Instant::elapsed(&since))),
                _ => None,
            };
            let [line, door, taker] = messages::wait(
                [
                    self.line.as_ref().map(|line| line.as_fd()),
                    Some(self.door.as_fd()),
                    self.taker.as_ref().map(|taker| taker.as_fd()),
                ],
                left,
            )?;
            if line && self.hear_line() {
                return Ok(());
            }
            if self.line.is_none() && alone_since.is_none() {
                alone_since = Some(Instant::now());
                tracing::info!(
                    seconds = patience.as_secs(),
                    "the agent has ended: connections to inspected addresses wait for the next one"
                );
            }
            if taker && self.hear_taker() {
                return Ok(());
            }
            if door {
                self.open_door();
            }
            self.hand_over();
            if !(line || door || taker) && left == Some(Duration::ZERO) {
                tracing::warn!(
                    seconds = patience.as_secs(),
                    "no agent has come: connections to inspected addresses are refused from now on, and those that wait are reset"
                );
                return Ok(());
            }
        }
    }

    /// Whether the agent wants the holder to end.
    fn hear_line(&mut self) -> bool {
        let message = self.line.as_ref().map(messages::receive);
        match message {
            Some(Ok(Some(message))) if message.text == END => true,
            Some(Ok(Some(_))) => false,
            _ => {
                self.line = None;
                false
            }
        }
    }

    /// Whether whoever has knocked wants the holder to end.
    fn hear_taker(&mut self) -> bool {
        match self.taker.as_ref().map(messages::receive) {
            Some(Ok(Some(message))) if message.text == TAKE => self.asked = true,
            Some(Ok(Some(message))) if message.text == END && self.line.is_none() => return true,
            // An agent that was refused, or somebody who speaks another language.
            _ => self.taker = None,
        }
        false
    }

    /// The latest one counts: an agent that hangs must not keep the next one out.
    fn open_door(&mut self) {
        match accept_with(&self.door, SocketFlags::CLOEXEC) {
            Ok(taker) if messages::is_trusted(&taker).unwrap_or(false) => {
                self.taker = Some(taker);
                self.asked = false;
            }
            Ok(_) => tracing::warn!(
                "somebody who is neither root nor the agent's user wants the agent's listening socket: refused"
            ),
            Err(error) => tracing::debug!(%error, "an agent was gone before it was let in"),
        }
    }

    /// Gives the listener to an agent that wants it, when the one before has ended. It is held until that one says otherwise.
    fn hand_over(&mut self) {
        if let (None, Some(taker), true) = (&self.line, &self.taker, self.asked) {
            self.asked = false;
            if let Err(error) = messages::send(taker, LISTENER, &[self.listener.as_fd()]) {
                tracing::debug!(%error, "the next agent was gone before it had the listener");
                self.taker = None;
            }
        }
    }

    fn end(self) {
        if door::identity(&self.place) == self.identity
            && let Err(error) = door::remove(&self.place)
        {
            tracing::warn!(%error, place = %self.place.display(), "the holder's socket can't be removed");
        }
    }
}
