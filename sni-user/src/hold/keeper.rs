//! The agent's side: where the listener comes from, and who keeps it when the agent is gone.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{self, ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixStream},
    time::{Instant, sleep_until},
};

use super::{
    door,
    messages::{self, END, HOLD, HOLDING, LISTENER, TAKE},
};
use crate::service_manager;

/// How long a holder may take to answer.
const PROMPT: Duration = Duration::from_secs(5);

/// A holder that was lost is followed by another one, this often at most.
const AGAIN: Duration = Duration::from_secs(30);

/// Sees to it that the listener is kept.
pub(crate) struct Keeper {
    place: PathBuf,
    /// The holder's arguments.
    arguments: Vec<OsString>,
    /// The earlier agent's holder, until somebody of this agent's has the listener.
    earlier: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    kept: Kept,
}

enum Kept {
    Nowhere,
    /// Nobody could be found; when to try again.
    NotNow(Instant),
    ByServiceManager,
    ByHolder(Holder),
}

struct Holder {
    /// A stream, which tokio waits for: both sides speak in turns, so that nothing runs together.
    line: UnixStream,
    process: Child,
    since: Instant,
}

impl Keeper {
    /// For the agent with this control socket; `arguments` have this program be a holder.
    pub(crate) fn new(control: &Path, arguments: Vec<OsString>) -> Self {
        Self {
            place: door::place(control),
            arguments,
            earlier: None,
            listener: None,
            kept: Kept::Nowhere,
        }
    }

    /// The listener of the agent before, if somebody has kept it: who, and it.
    pub(crate) fn inherited(&mut self) -> Option<(&'static str, OwnedFd)> {
        if let Some(listener) = service_manager::stored_listener() {
            return Some(("the service manager", listener));
        }
        match take(&self.place) {
            Ok(taken) => taken.map(|(holder, listener)| {
                self.earlier = Some(holder);
                ("the holder", listener)
            }),
            Err(error) => {
                tracing::warn!(%error, place = %self.place.display(), "the holder of an earlier agent does not give its listening socket");
                None
            }
        }
    }

    /// From here on `listener` outlives the agent, if that can be. If not, that is said, and tried again.
    pub(crate) fn keep(&mut self, listener: &TcpListener) {
        match listener.as_fd().try_clone_to_owned() {
            Ok(listener) => self.listener = Some(listener),
            Err(error) => return self.failed(&error),
        }
        self.try_keep();
    }

    fn try_keep(&mut self) {
        let Some(listener) = &self.listener else {
            return;
        };
        let kept = if service_manager::is_there() {
            service_manager::store_listener(listener).map(|()| Kept::ByServiceManager)
        } else {
            start(&self.place, &self.arguments, listener).map(Kept::ByHolder)
        };
        match kept {
            Ok(kept) => self.kept = kept,
            Err(error) => return self.failed(&error),
        }
        if let Some(earlier) = self.earlier.take()
            && let Err(error) = messages::send(&earlier, END, &[])
        {
            tracing::debug!(%error, "the holder of the earlier agent has ended before");
        }
    }

    fn failed(&mut self, error: &io::Error) {
        tracing::warn!(%error, "nobody keeps the listening socket: if the agent dies, inspected connections are refused until the next one runs");
        self.kept = Kept::NotNow(Instant::now() + AGAIN);
    }

    /// Until [`Keeper::mend`] is due.
    pub(crate) async fn is_lost(&self) {
        match &self.kept {
            Kept::ByHolder(holder) => {
                // It says nothing: what can be read is its end. An error is one of the runtime's own end.
                let _ = holder.line.readable().await;
            }
            Kept::NotNow(again) => sleep_until(*again).await,
            Kept::Nowhere | Kept::ByServiceManager => std::future::pending().await,
        }
    }

    /// Has the listener kept again.
    pub(crate) fn mend(&mut self) {
        match std::mem::replace(&mut self.kept, Kept::Nowhere) {
            Kept::ByHolder(holder) => {
                tracing::warn!("the holder of the listening socket has ended: another one follows");
                let again = holder.since + AGAIN;
                holder.bury();
                self.kept = Kept::NotNow(again.max(Instant::now()));
            }
            Kept::NotNow(_) => tokio::task::block_in_place(|| self.try_keep()),
            kept => self.kept = kept,
        }
    }

    /// The agent ends for good: nobody keeps the listener any longer, nor anything else.
    pub(crate) fn release(self) {
        match self.kept {
            Kept::ByServiceManager => service_manager::forget_listener(),
            Kept::ByHolder(holder) => holder.end(),
            Kept::Nowhere | Kept::NotNow(_) => {}
        }
        if let Err(error) = door::remove(&self.place) {
            tracing::warn!(%error, place = %self.place.display(), "the holder's socket can't be removed");
        }
    }
}

impl Holder {
    /// Tells it to end, and waits for that.
    fn end(self) {
        let line = &self.line;
        let told = messages::send(line, END, &[]);
        // Its end of the line is closed when it ends.
        match told.and_then(|()| messages::receive_within(line, PROMPT)) {
            Ok(None) => {}
            Ok(Some(_)) => tracing::debug!("the holder has something to say"),
            Err(error) => tracing::warn!(%error, "the holder does not end by itself"),
        }
        self.bury();
    }

    /// Ends it, if it has not ended yet, and sees that no zombie stays.
    fn bury(mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        if let Err(error) = self.process.wait() {
            tracing::warn!(%error, "the holder can't be waited for");
        }
    }
}

/// Starts a holder that has the listener before this returns.
fn start(place: &Path, arguments: &[OsString], listener: &OwnedFd) -> io::Result<Holder> {
    let door = door::make(place)?;
    let (ours, theirs) = unix::net::UnixStream::pair()?;
    // This very program, whatever has become of its file. Its log is the agent's.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("snigate")
        .args(arguments)
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null());
    for variable in service_manager::VARIABLES {
        command.env_remove(variable);
    }
    let mut process = command.spawn()?;
    // What is still this process's of their end is closed with it.
    drop(command);
    let agreed = agree(&ours, place, listener, &door).and_then(|()| {
        ours.set_nonblocking(true)?;
        UnixStream::from_std(ours)
    });
    match agreed {
        Ok(line) => Ok(Holder {
            line,
            process,
            since: Instant::now(),
        }),
        Err(error) => {
            // The first error counts.
            let _ = process.kill();
            let _ = process.wait();
            Err(error)
        }
    }
}

fn agree(
    line: impl AsFd + Copy,
    place: &Path,
    listener: &OwnedFd,
    door: &OwnedFd,
) -> io::Result<()> {
    let text = [HOLD, place.as_os_str().as_bytes()].concat();
    messages::send(line, &text, &[listener.as_fd(), door.as_fd()])?;
    match messages::receive_within(line, PROMPT)? {
        Some(answer) if answer.text == HOLDING => Ok(()),
        _ => Err(io::Error::other("the holder has ended at once")),
    }
}

/// The listener that a holder has, and the connection on which it waits to hear that it may end.
fn take(place: &Path) -> io::Result<Option<(OwnedFd, OwnedFd)>> {
    let Some(holder) = door::knock(place)? else {
        return Ok(None);
    };
    if !messages::is_trusted(&holder)? {
        return Err(io::Error::other(
            "its holder is neither root's nor this user's",
        ));
    }
    messages::send(&holder, TAKE, &[])?;
    let answer = messages::receive_within(&holder, PROMPT)?;
    let answer = answer.filter(|answer| answer.text == LISTENER);
    match answer.and_then(|mut answer| answer.descriptors.pop()) {
        Some(listener) => Ok(Some((holder, listener))),
        None => Err(io::Error::other("it has nothing to give")),
    }
}

/// Has the holder end that an agent with this control socket has left; whether there was one.
///
/// # Errors
/// When it can't be told.
pub(crate) fn release(control: &Path) -> io::Result<bool> {
    let place = door::place(control);
    let Some(holder) = door::knock(&place)? else {
        door::remove(&place)?;
        return Ok(false);
    };
    // Handed out when the agent that has left it is really gone, and only then it may be told to end.
    messages::send(&holder, TAKE, &[])?;
    drop(messages::receive_within(&holder, PROMPT)?);
    messages::send(&holder, END, &[])?;
    messages::receive_within(&holder, PROMPT)?;
    Ok(true)
}
