//! What connections have carried in all: those that have ended or are the agent's, and those that the datapath has now.

use std::collections::HashMap;

use serde::Serialize;
use sni_common::contract::{Account, AccountKey, Direction, Flow, FlowKey};

use crate::cli::read::Accounts;

/// Connections since the datapath was loaded, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Total {
    pub(in crate::cli) connections: u64,
    pub(in crate::cli) to_edge: u64,
    pub(in crate::cli) to_client: u64,
}

/// Totals by account.
pub(in crate::cli) struct Totals(HashMap<AccountKey, Account>);

impl Totals {
    /// The accounts together with the entries of established flows.
    pub(in crate::cli) fn new(accounts: &Accounts, established: &[(FlowKey, Flow)]) -> Self {
        let mut sums = accounts.clone();
        for (_, flow) in established {
            // A connection is counted by the entry of its client's packets.
            let live = if flow.direction == Direction::ToEdge as u8 {
                Account::of_flow(flow, &Flow::default())
            } else {
                Account {
                    to_client: flow.bytes,
                    ..Account::default()
                }
            };
            for key in [
                AccountKey::edge(flow.edge),
                AccountKey::route(flow.route, flow.ip_set),
            ] {
                sums.entry(key).or_default().add(&live);
            }
        }
        Self(sums)
    }

    /// Of one account.
    pub(in crate::cli) fn of(&self, key: &AccountKey) -> Total {
        let account = self.0.get(key).copied().unwrap_or_default();
        Total {
            connections: account.connections,
            to_edge: account.to_edge,
            to_client: account.to_client,
        }
    }
}
