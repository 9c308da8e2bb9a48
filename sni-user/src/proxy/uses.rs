//! What open connections need of the host, so that a new configuration does not take it away from them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// What open connections need of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Local addresses.
    pub addresses: Vec<IpAddr>,
    /// The way of Edges' answers to transparent sockets.
    pub transparent: bool,
}

/// The same, counted.
#[derive(Debug, Default)]
pub(super) struct InUse {
    addresses: Mutex<HashMap<IpAddr, usize>>,
    way_back: AtomicUsize,
}

/// A connection's local address, in use until this is dropped.
#[derive(Debug)]
pub(super) struct UsedAddress(Arc<InUse>, IpAddr);

/// The way back, in use until this is dropped.
#[derive(Debug)]
pub(super) struct UsedWayBack(Arc<InUse>);

impl InUse {
    pub(super) fn address(self: &Arc<Self>, address: IpAddr) -> UsedAddress {
        *self.lock().entry(address).or_default() += 1;
        UsedAddress(Arc::clone(self), address)
    }

    pub(super) fn way_back(self: &Arc<Self>) -> UsedWayBack {
        self.way_back.fetch_add(1, Relaxed);
        UsedWayBack(Arc::clone(self))
    }

    pub(super) fn now(&self) -> Uses {
        Uses {
            addresses: self.lock().keys().copied().collect(),
            transparent: self.way_back.load(Relaxed) > 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UsedAddress {
    fn drop(&mut self) {
        let mut addresses = self.0.lock();
        if let Some(count) = addresses.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.1);
            }
        }
    }
}

impl Drop for UsedWayBack {
    fn drop(&mut self) {
        self.0.way_back.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_use_until_its_last_connection_has_ended() {
        let uses = Arc::new(InUse::default());
        let address = IpAddr::from([198, 51, 100, 10]);
        let first = uses.address(address);
        let second = uses.address(address);
        let back = uses.way_back();
        drop(first);
        let now = uses.now();
        assert_eq!((now.addresses, now.transparent), (vec![address], true));
        drop((second, back));
        assert_eq!(uses.now(), Uses::default());
    }
}
