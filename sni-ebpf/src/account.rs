//! What a flow has carried goes to the accounts of its route and its Edge when it ends here; the agent's sweep does the same for all others.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use sni_common::contract::{Account, AccountKey, Flow, FlowKey};

use crate::maps::{ACCOUNTS, FLOWS};

/// Ends a flow, by the key and the entry of its client's packets and what is there of the other one: removes both, and adds them to the accounts,
/// unless the sweep has been faster. A function of its own: it is rare.
#[inline(never)]
pub fn end(key: &FlowKey, to_edge: &Flow, to_client: Option<*mut Flow>) -> u32 {
    let reverse = to_edge.rewrite.reversed();
    let account = Account {
        connections: 1,
        to_edge: to_edge.bytes,
        // SAFETY: a live map value.
        to_client: to_client.map_or(0, |other| unsafe { (*other).bytes }),
    };
    let edge = AccountKey::edge(to_edge.edge);
    let route = AccountKey::route(to_edge.route, to_edge.ip_set);
    // From here on the entries may be somebody else's.
    if FLOWS.remove(key).is_ok() {
        add(&edge, &account);
        add(&route, &account);
    }
    let _ = FLOWS.remove(&reverse);
    0
}

#[inline(always)]
fn add(key: &AccountKey, account: &Account) {
    if ACCOUNTS.get_ptr(key).is_none() {
        // Another CPU may be faster; a full map has no accounts for what comes last.
        let _ = ACCOUNTS.insert(key, Account::default(), BPF_NOEXIST.into());
    }
    let Some(sum) = ACCOUNTS.get_ptr_mut(key) else {
        return;
    };
    // SAFETY: a live map value.
    unsafe {
        atomic_add(&raw mut (*sum).connections, account.connections);
        atomic_add(&raw mut (*sum).to_edge, account.to_edge);
        atomic_add(&raw mut (*sum).to_client, account.to_client);
    }
}

/// Adds, whatever other CPUs add meanwhile. In the machine's own words: `core` has no atomics for a target without compare-and-swap.
///
/// # Safety
/// A field of a live map value, aligned to 8.
#[inline(always)]
unsafe fn atomic_add(field: *mut u64, by: u64) {
    // SAFETY: the caller's.
    unsafe { asm!("lock *(u64 *)({field} + 0) += {by}", field = in(reg) field, by = in(reg) by) }
}
