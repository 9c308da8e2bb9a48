//! The service manager that has started this process, if one did: systemd, or what speaks its protocol (sd_notify(3)).
//!
//! Nothing here fails the agent: a gateway whose manager can't be told is still a gateway.

use std::{
    env, io,
    os::fd::{AsFd, FromRawFd as _, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use sd_notify::NotifyState;

/// The listener's name in the manager's store of file descriptors.
const LISTENER: &str = "snigate-listener";

/// Whether a manager wants to be told. It then also keeps descriptors; whether it does (`FileDescriptorStoreMax=`), it tells from version 254 on only.
pub(crate) fn is_there() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// Variables by which a child would take itself for the service.
pub(crate) const VARIABLES: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

/// Everything of the configuration is in force.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being loaded anew; [`ready`] follows, whatever comes of it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the service manager is not told of the reload"),
    }
}

/// How often the manager wants to hear [`alive`], or it takes the agent for stuck: half of its patience (`WatchdogSec=`), if it has any.
pub(crate) fn watchdog() -> Option<Duration> {
    let patience = sd_notify::watchdog_enabled()?;
    Some(patience / 2).filter(|interval| !interval.is_zero())
}

/// The agent's loop turns.
pub(crate) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The agent is ending.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The listener that an earlier agent has stored, the first time that it is asked for. Other descriptors are closed: nobody here would use them.
pub(crate) fn stored_listener() -> Option<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return None;
    }
    let passed = match sd_notify::listen_fds_with_names() {
        Ok(passed) => passed,
        Err(error) => {
            tracing::warn!(%error, "what the service manager has passed can't be used");
            return None;
        }
    };
    let mut listener = None;
    for (descriptor, name) in passed {
        // SAFETY: LISTEN_PID says that it was passed to this very process, and TAKEN that nobody has taken it yet.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        if name == LISTENER && listener.is_none() {
            listener = Some(descriptor);
        } else {
            tracing::warn!(%name, "the service manager passed a descriptor that nobody here knows: it is closed");
        }
    }
    listener
}

/// Has the manager keep the listener for the next agent. It knows one that it has already.
///
/// # Errors
/// When the manager can't be reached. Whether it has taken the descriptor, it does not say.
pub(crate) fn store_listener(listener: impl AsFd) -> io::Result<()> {
    sd_notify::notify_with_fds(
        &[
            NotifyState::FdStore,
            NotifyState::FdName(LISTENER),
            // A listening socket is not looked at for being broken, which it can't be.
            NotifyState::Custom("FDPOLL=0"),
        ],
        &[listener.as_fd()],
    )
}

/// The manager forgets the listener.
pub(crate) fn forget_listener() {
    tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(LISTENER)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, ?state, "the service manager can't be told");
    }
}
