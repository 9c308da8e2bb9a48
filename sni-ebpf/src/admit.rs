//! Who may open a flow: denied prefixes, and the SYN budget of a source.

use aya_ebpf::{helpers::generated::bpf_ktime_get_coarse_ns, maps::lpm_trie::Key};
use sni_common::{
    Address,
    contract::{AclAction, AclKey, BudgetKey, BudgetKind, DropReason, Settings},
    token_bucket::TokenBucket,
};

use crate::maps::{ACL, BUDGET};

/// Admits a segment that would open or recover a flow. A function of its own, for the sake of the stack.
#[inline(never)]
pub fn admit(source: &Address, generation: u32, settings: &Settings) -> Result<(), DropReason> {
    if settings.acl_prefixes != 0 {
        let key = Key::new(
            AclKey::BITS,
            AclKey {
                generation,
                address: *source,
            },
        );
        match ACL.get(&key).copied() {
            Some(action) if action == AclAction::Deny as u32 => return Err(DropReason::Denied),
            Some(_) => return Ok(()),
            None => {}
        }
    }
    if take_both(BudgetKind::Syn, BudgetKind::SynPrefix, source, settings) {
        Ok(())
    } else {
        Err(DropReason::SynBudget)
    }
}

/// Takes from the budget of a source and from that of its prefix, or from neither; `false` when one of them is used up.
#[inline(always)]
pub fn take_both(
    own: BudgetKind,
    prefix: BudgetKind,
    source: &Address,
    settings: &Settings,
) -> bool {
    // The source's own first: one that has used its budget up takes nothing from its neighbours'.
    if !take(own, source, settings) {
        return false;
    }
    let admitted = take(prefix, source, settings);
    if !admitted {
        give_back(own, source, settings);
    }
    admitted
}

/// Takes from the budget of a source, or of the prefix that it is in; `false` when that is used up.
#[inline(always)]
fn take(kind: BudgetKind, source: &Address, settings: &Settings) -> bool {
    let (millirate, burst) = rate(kind, settings);
    if millirate == 0 {
        return true;
    }
    // SAFETY: a helper without conditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    let key = key(kind, source);
    match BUDGET.get_ptr_mut(&key) {
        // SAFETY: a live map value; the race with other CPUs is bounded (see TokenBucket::take).
        Some(bucket) => unsafe { (*bucket).take(now, millirate, burst) },
        None => {
            // A map that can't take the entry must not lock a new source out: the budget is a courtesy, the LRU map its bound.
            let _ = BUDGET.insert(&key, TokenBucket::first_taken(now, burst), 0);
            true
        }
    }
}

/// Gives back what was taken.
#[inline(always)]
pub fn give_back(kind: BudgetKind, source: &Address, settings: &Settings) {
    let (_, burst) = rate(kind, settings);
    if let Some(bucket) = BUDGET.get_ptr_mut(key(kind, source)) {
        // SAFETY: a live map value; as above.
        unsafe { (*bucket).give_back(burst) };
    }
}

#[inline(always)]
fn rate(kind: BudgetKind, settings: &Settings) -> (u32, u32) {
    match kind {
        BudgetKind::Syn => (settings.syn_millirate, settings.syn_burst),
        BudgetKind::SynPrefix => (settings.syn_prefix_millirate, settings.syn_prefix_burst),
        BudgetKind::Hello => (settings.hello_millirate, settings.hello_burst),
        BudgetKind::HelloPrefix => (settings.hello_prefix_millirate, settings.hello_prefix_burst),
    }
}

#[inline(always)]
fn key(kind: BudgetKind, source: &Address) -> BudgetKey {
    BudgetKey {
        source: match kind {
            BudgetKind::Syn | BudgetKind::Hello => source.source_group(),
            BudgetKind::SynPrefix | BudgetKind::HelloPrefix => source.source_prefix(),
        },
        kind: kind as u32,
    }
}
