//! The connections that the agent carries itself, for those who ask, and for the accounts.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use sni_common::contract::{Account, AccountKey};

use super::relay::Activity;
use crate::{config::Name, control::CarriedConnection, datapath::Additions, edges::Edge};

/// What a connection has carried so far, and when it last did.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes from the client to the Edge.
    pub(crate) to_edge: AtomicU64,
    /// Bytes from the Edge to the client.
    pub(crate) to_client: AtomicU64,
    pub(crate) activity: Activity,
}

/// A connection of the agent.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) client: SocketAddr,
    pub(super) address: SocketAddr,
    pub(super) server_name: Option<String>,
    pub(super) route: u64,
    pub(super) ip_set: Option<String>,
    pub(super) edge: Arc<Edge>,
    pub(super) way: &'static str,
    pub(super) began: Instant,
    pub(super) progress: Arc<Progress>,
    /// Where it is accounted.
    pub(super) accounts: Accounts,
}

/// The accounts of a connection, and what they have of it so far.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// None where the datapath does not know its IP set or its Edge.
    keys: Option<[AccountKey; 2]>,
    /// The Edge's slot.
    slot: u16,
    accounted: Account,
}

impl Accounts {
    /// Those of a connection to the Edge in this slot, by this route or IP set.
    pub(super) fn new(slot: u16, route: AccountKey) -> Self {
        Self {
            keys: Some([AccountKey::edge(slot), route]),
            slot,
            accounted: Account::default(),
        }
    }

    /// Has them say so much of the connection.
    fn settle(&mut self, whole: Account, additions: &mut Additions) {
        let added = whole.since(&self.accounted);
        if let Some(keys) = self.keys
            && added != Account::default()
        {
            additions.add(keys, &added);
        }
        self.accounted = whole;
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Registry {
    next: AtomicU64,
    entries: Mutex<HashMap<u64, Entry>>,
    /// What is to be accounted of those that are gone, and what could not be.
    unsettled: Mutex<Additions>,
}

impl Registry {
    /// Lists a connection for as long as the guard lives.
    pub(super) fn enter(&self, entry: Entry) -> Listed<'_> {
        let number = self.next.fetch_add(1, Relaxed);
        self.lock().insert(number, entry);
        Listed {
            registry: self,
            number,
        }
    }

    /// As they are now, all or those of one client, in the order of their clients.
    pub(super) fn of(&self, client: Option<IpAddr>) -> Vec<CarriedConnection> {
        let entries = self.lock();
        let wanted = entries
            .values()
            .filter(|entry| client.is_none_or(|client| entry.client.ip() == client));
        let mut all: Vec<_> = wanted.map(Entry::shown).collect();
        drop(entries);
        all.sort_unstable_by_key(|connection| (connection.client, connection.vip));
        all
    }

    /// How many there are, by Edge and way.
    pub(super) fn by_edge(&self) -> HashMap<(Name, &'static str), u64> {
        let mut counts = HashMap::new();
        for entry in self.lock().values() {
            let key = (entry.edge.config.name.clone(), entry.way);
            *counts.entry(key).or_default() += 1;
        }
        counts
    }

    /// Has `write` add to the accounts what connections have carried since the last time; what it leaves is tried again. `is_in_slot` says whether an
    /// Edge still is where it was: the accounts of a slot are its present Edge's.
    pub(super) fn settle<E>(
        &self,
        is_in_slot: impl Fn(u16, SocketAddr) -> bool,
        write: impl FnOnce(&mut Additions) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut unsettled = self.unsettled();
        for entry in self.lock().values_mut() {
            let whole = entry.progress.account();
            if whole == entry.accounts.accounted {
                continue;
            }
            if !is_in_slot(entry.accounts.slot, entry.edge.config.address) {
                entry.accounts.keys = None;
            }
            entry.accounts.settle(whole, &mut unsettled);
        }
        write(&mut unsettled)
    }

    fn unsettled(&self) -> MutexGuard<'_, Additions> {
        self.unsettled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// So much has been carried, by whoever.
    pub(super) fn reached(&self, to_edge: u64, to_client: u64) {
        self.to_edge.fetch_max(to_edge, Relaxed);
        self.to_client.fetch_max(to_client, Relaxed);
    }

    /// What it comes to in an account.
    fn account(&self) -> Account {
        Account {
            connections: 1,
            to_edge: self.to_edge.load(Relaxed),
            to_client: self.to_client.load(Relaxed),
        }
    }
}

impl Entry {
    fn shown(&self) -> CarriedConnection {
        CarriedConnection {
            client: self.client,
            vip: self.address,
            server_name: self.server_name.clone(),
            route: self.route,
            ip_set: self.ip_set.clone(),
            edge: self.edge.config.name.to_string(),
            edge_address: self.edge.config.address,
            way: self.way.to_owned(),
            age_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            idle_ms: self.progress.activity.silent_ms(),
            to_edge: self.progress.to_edge.load(Relaxed),
            to_client: self.progress.to_client.load(Relaxed),
        }
    }
}

/// A listed connection.
#[derive(Debug)]
pub(super) struct Listed<'a> {
    registry: &'a Registry,
    number: u64,
}

impl Listed<'_> {
    /// From here on the connection is a flow of the datapath, which knows all that has come, but for so many bytes that only a socket has seen. What is
    /// accounted already is taken back.
    pub(super) fn hand_off(self, unseen: (u64, u64)) {
        self.remove(|_| Account {
            connections: 0,
            to_edge: unseen.0,
            to_client: unseen.1,
        });
    }

    fn remove(&self, whole: impl FnOnce(&Progress) -> Account) {
        // In the order in which `settle` takes them.
        let mut unsettled = self.registry.unsettled();
        let entry = self.registry.lock().remove(&self.number);
        if let Some(mut entry) = entry {
            let whole = whole(&entry.progress);
            entry.accounts.settle(whole, &mut unsettled);
        }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.remove(Progress::account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn account(connections: u64, to_edge: u64, to_client: u64) -> Account {
        Account {
            connections,
            to_edge,
            to_client,
        }
    }

    #[test]
    fn accounts_follow_a_connection_until_the_datapath_has_it() {
        let keys = [AccountKey::edge(3), AccountKey::route(77, 1)];
        let mut accounts = Accounts::new(3, keys[1]);
        let mut sums = Additions::default();
        accounts.settle(account(1, 10, 20), &mut sums);
        accounts.settle(account(1, 10, 20), &mut sums);
        accounts.settle(account(1, 15, 20), &mut sums);
        assert_eq!(keys.map(|key| sums.to(&key)), [account(1, 15, 20); 2]);
        // Its flow counts for itself; five bytes have passed the datapath before that.
        accounts.settle(account(0, 0, 5), &mut sums);
        assert_eq!(keys.map(|key| sums.to(&key)), [account(0, 0, 5); 2]);
    }

    #[test]
    fn what_has_no_account_is_in_none() {
        let mut sums = Additions::default();
        Accounts::default().settle(account(1, 10, 20), &mut sums);
        assert_eq!(sums.to(&AccountKey::edge(0)), Account::default());
    }
}
