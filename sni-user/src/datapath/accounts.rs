//! ACCOUNTS, as this side of the kernel writes it: for flows that the sweep or a command ends, and connections that the agent has carried.
//!
//! A flow is accounted by whoever removes the entry of its client's packets, so once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use sni_common::contract::{Account, AccountKey, Direction, Flow, FlowKey};

use super::{DatapathError, Maps, names::found};

/// Held from reading an account to writing it: the sweep and the connections of one agent lose nothing of each other's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What is to be added to accounts. A sweep may end a hundred thousand flows of a few routes.
#[derive(Debug, Default)]
pub struct Additions(HashMap<AccountKey, Account>);

impl Additions {
    /// Adds a connection to both of its accounts.
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
}

impl Maps {
    /// Adds to accounts. Each is read, then written: what the datapath or another process adds between the two is lost. All are tried.
    ///
    /// # Errors
    /// The first one, when the map can't be read or written; or when it is full, and an account is new.
    pub fn account(&mut self, additions: &Additions) -> Result<(), DatapathError> {
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = Ok(());
        for (key, added) in &additions.0 {
            outcome = outcome.and(self.add_to_account(key, added));
        }
        outcome
    }

    fn add_to_account(&mut self, key: &AccountKey, added: &Account) -> Result<(), DatapathError> {
        let mut sum = found("ACCOUNTS", self.accounts.get(key, 0))?.unwrap_or_default();
        sum.add(added);
        let written = self.accounts.insert(key, sum, 0);
        written.map_err(|error| DatapathError::map("ACCOUNTS", error))
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
        let account = |connections, to_edge, to_client| Account {
            connections,
            to_edge,
            to_client,
        };
        let expected = [
            (AccountKey::edge(3), account(3, 30, 400)),
            (AccountKey::route(0, 1), account(1, 10, 200)),
            (AccountKey::route(77, 1), account(2, 20, 200)),
        ];
        assert_eq!(additions.0, HashMap::from(expected));
    }
}
