//! What the agent knows of an Edge beyond its configuration, and every connection may look at.

use std::{
    io,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering::Relaxed},
    },
};

use sni_common::contract::EdgeState;
use tokio::sync::Notify;

/// Its state, and how the agent's own connects to it fare.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// An [`EdgeState`].
    state: AtomicU8,
    /// Whether there are any failures: it spares every connection that succeeds the lock.
    has_failed: AtomicBool,
    failures: Mutex<Failures>,
    ended: Notify,
}

/// Connects that have failed since the last one that succeeded.
#[derive(Debug, Default)]
struct Failures {
    count: u8,
    /// On whose behalf the last one was.
    client: Option<IpAddr>,
    reason: String,
}

impl Standing {
    pub(super) fn state(&self) -> EdgeState {
        EdgeState::try_from(self.state.load(Relaxed)).unwrap_or(EdgeState::Down)
    }

    pub(super) fn is_up(&self) -> bool {
        self.state() == EdgeState::Up
    }

    pub(super) fn set_state(&self, state: EdgeState) {
        self.state.store(state as u8, Relaxed);
        // What has led to it is done with.
        self.connected();
    }

    pub(super) fn connected(&self) {
        if self.has_failed.swap(false, Relaxed) {
            *self.failures() = Failures::default();
        }
    }

    /// How many clients in a row it has failed now.
    pub(super) fn failed(&self, client: IpAddr, reason: &io::Error) -> u8 {
        let mut failures = self.failures();
        self.has_failed.store(true, Relaxed);
        failures.reason = reason.to_string();
        if failures.client.replace(client) != Some(client) {
            failures.count = failures.count.saturating_add(1);
        }
        failures.count
    }

    pub(super) fn failing(&self, fall: u8) -> Option<String> {
        let failures = self.failures();
        (failures.count >= fall).then(|| {
            let Failures { count, reason, .. } = &*failures;
            format!(
                "the agent could not connect to it for {count} clients in a row, at last: {reason}"
            )
        })
    }

    pub(super) fn end_connections(&self) {
        self.ended.notify_waiters();
    }

    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the Edge, or the way to it, is to blame; not the gateway for its want of ports or privileges.
pub(super) fn is_the_edges(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_alone_does_not_make_an_edge_fail() {
        let standing = Standing::default();
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let client = |n: u8| IpAddr::from([198, 51, 100, n]);
        for _ in 0..5 {
            assert_eq!(standing.failed(client(1), &refused), 1);
        }
        assert_eq!(standing.failed(client(2), &refused), 2);
        assert_eq!(standing.failing(3), None);
        assert_eq!(standing.failed(client(1), &refused), 3);
        let why = standing.failing(3).expect("a reason");
        assert!(why.contains("3 clients in a row"), "{why}");
        standing.connected();
        assert_eq!(standing.failing(3), None);
        assert_eq!(standing.failed(client(1), &refused), 1);
    }

    #[test]
    fn what_the_gateway_lacks_is_nothing_of_the_edges() {
        assert!(is_the_edges(&io::ErrorKind::ConnectionRefused.into()));
        assert!(!is_the_edges(&io::ErrorKind::AddrInUse.into()));
        assert!(!is_the_edges(&io::ErrorKind::PermissionDenied.into()));
    }
}
