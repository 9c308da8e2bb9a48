//! ACCOUNTS, as this side of the kernel writes it: for flows that the sweep or a command ends, and connections that the agent carries.
//!
//! A flow is accounted by whoever removes the entry of its client's packets, so once.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, PoisonError},
};

use aya::maps::MapError;
use sni_common::contract::{Account, AccountKey, AccountWriter, Direction, Flow, FlowKey};

use super::{
    DatapathError, Maps,
    error::errno,
    maps::open,
    names::found,
    sys::{Command, ElementAttributes, bpf, descriptor},
};

const ACCOUNTS: &str = "ACCOUNTS";
/// BPF_NOEXIST: an entry that is there already is left alone.
const NOT_THERE_YET: u64 = 1;

/// Held from reading an account to writing it: the sweep and the connections of one agent, of which there is one, lose nothing of each other's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What is to be added to accounts. A sweep may end a hundred thousand flows of a few routes.
#[derive(Debug, Default)]
pub struct Additions(HashMap<AccountKey, Account>);

impl Additions {
    /// Adds to both accounts of a connection.
    pub fn add(&mut self, keys: [AccountKey; 2], account: &Account) {
        for key in keys {
            self.0.entry(key).or_default().add(account);
        }
    }

    /// Adds a flow, by what is there of its two entries, in any order.
    fn add_flow(&mut self, flow: &Flow, other: Option<&Flow>) {
        let other = other.copied().unwrap_or_default();
        let (to_edge, to_client) = if flow.direction == Direction::ToEdge as u8 {
            (flow, &other)
        } else {
            (&other, flow)
        };
        let keys = [
            AccountKey::edge(flow.edge),
            AccountKey::route(flow.route, flow.ip_set),
        ];
        self.add(keys, &Account::of_flow(to_edge, to_client));
    }

    /// What there is to add to an account.
    #[cfg(test)]
    pub(crate) fn to(&self, key: &AccountKey) -> Account {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// Has each written, and forgets those that are. The first error, after all were tried.
    fn write(
        &mut self,
        mut write: impl FnMut(&AccountKey, &Account) -> Result<(), DatapathError>,
    ) -> Result<(), DatapathError> {
        let mut outcome = Ok(());
        self.0.retain(|key, added| match write(key, added) {
            Ok(()) => false,
            Err(error) => {
                if outcome.is_ok() {
                    outcome = Err(error);
                }
                true
            }
        });
        outcome
    }
}

impl Maps {
    /// Adds to the agent's accounts. What could not be written stays in `additions`.
    ///
    /// # Errors
    /// The first one, when the map can't be read or written; or when it is full, and an account is new.
    pub fn account(&mut self, additions: &mut Additions) -> Result<(), DatapathError> {
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        additions.write(|key, added| {
            let key = key.by(AccountWriter::Agent);
            let mut sum = found(ACCOUNTS, self.accounts.get(&key, 0))?.unwrap_or_default();
            sum.add(added);
            let written = self.accounts.insert(key, sum, 0);
            written.map_err(|error| DatapathError::map(ACCOUNTS, error))
        })
    }

    /// Likewise to the accounts of commands, of which several may run: each takes the account out to add to it. Who reads it meanwhile does not see it.
    ///
    /// # Errors
    /// As for [`Maps::account`].
    pub fn account_for_command(&mut self, additions: &mut Additions) -> Result<(), DatapathError> {
        additions.write(|key, added| {
            let key = key.by(AccountWriter::Command);
            let mut sum = *added;
            loop {
                match self.accounts.insert(key, sum, NOT_THERE_YET) {
                    Ok(()) => return Ok(()),
                    Err(error) if errno(&error) == Some(libc::EEXIST) => {}
                    Err(error) => return Err(DatapathError::map(ACCOUNTS, error)),
                }
                if let Some(others) = self.take_account(&key)? {
                    sum.add(&others);
                }
            }
        })
    }

    /// Removes the accounts of an Edge's slot, so that another Edge begins with none. What ends in this very moment may be left of the Edge before.
    ///
    /// # Errors
    /// When the map can't be written.
    pub(super) fn close_edge_accounts(&mut self, slot: u16) -> Result<(), DatapathError> {
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        for writer in AccountWriter::ALL {
            match self.accounts.remove(&AccountKey::edge(slot).by(*writer)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(error) if errno(&error) == Some(libc::ENOENT) => {}
                Err(error) => return Err(DatapathError::map(ACCOUNTS, error)),
            }
        }
        Ok(())
    }

    /// Takes an account out, in one step (Linux 5.14).
    fn take_account(&self, key: &AccountKey) -> Result<Option<Account>, DatapathError> {
        let map = open(self.pin_path(), ACCOUNTS)?;
        let mut account = Account::default();
        let mut attributes = ElementAttributes {
            map_fd: descriptor(&map),
            padding: 0,
            key: std::ptr::from_ref(key) as u64,
            value: &raw mut account as u64,
            flags: 0,
        };
        // SAFETY: a key and a value of the map's own types; both outlive the call.
        let taken = unsafe { bpf(Command::LookupAndDeleteElement, &mut attributes) };
        match taken {
            Ok(()) => Ok(Some(account)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DatapathError::kernel(
                "taking an account out of ACCOUNTS",
                error,
            )),
        }
    }

    /// Removes an established flow, by the key of either entry, and notes what it has carried; how many of its two entries were there.
    pub fn remove_flow(&mut self, key: &FlowKey, additions: &mut Additions) -> usize {
        let Ok(flow) = self.flows.get(key, 0) else {
            return 0;
        };
        let other_key = flow.rewrite.reversed();
        let other = self.flows.get(&other_key, 0).ok();
        let removed = self.flows.remove(key).is_ok();
        let other_removed = self.flows.remove(&other_key).is_ok();
        let is_mine = if flow.direction == Direction::ToEdge as u8 {
            removed
        } else {
            other_removed
        };
        if is_mine {
            additions.add_flow(&flow, other.as_ref());
        }
        usize::from(removed) + usize::from(other_removed)
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
    fn flows_are_summed_by_edge_and_by_route_or_ip_set() {
        let to_edge = Flow {
            edge: 3,
            ip_set: 1,
            bytes: 10,
            ..Flow::default()
        };
        let to_client = Flow {
            direction: Direction::ToClient as u8,
            bytes: 200,
            ..to_edge
        };
        let named = |flow| Flow { route: 77, ..flow };
        let mut additions = Additions::default();
        additions.add_flow(&to_edge, Some(&to_client));
        // By the Edge's entry first; and half a flow.
        additions.add_flow(&named(to_client), Some(&named(to_edge)));
        additions.add_flow(&named(to_edge), None);
        let expected = [
            (AccountKey::edge(3), account(3, 30, 400)),
            (AccountKey::route(0, 1), account(1, 10, 200)),
            (AccountKey::route(77, 1), account(2, 20, 200)),
        ];
        assert_eq!(additions.0, HashMap::from(expected));
    }

    #[test]
    fn what_can_not_be_written_stays() {
        let keys = [AccountKey::edge(3), AccountKey::route(77, 1)];
        let mut additions = Additions::default();
        additions.add(keys, &account(1, 2, 3));
        let full = || DatapathError::kernel("writing", io::Error::from_raw_os_error(libc::E2BIG));
        let refused = additions.write(|key, _| if *key == keys[0] { Ok(()) } else { Err(full()) });
        assert!(refused.is_err());
        additions.add(keys, &account(0, 10, 0));
        let expected = [(keys[0], account(0, 10, 0)), (keys[1], account(1, 12, 3))];
        assert_eq!(additions.0, HashMap::from(expected));
    }
}
