//! Who may open a flow: denied prefixes, and the SYN budget of a source.

use aya_ebpf::{helpers::generated::bpf_ktime_get_coarse_ns, maps::lpm_trie::Key};
use sni_common::{
    Address,
    contract::{AclAction, AclKey, DropReason, Settings},
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
    if settings.syn_millirate == 0 || within_budget(&source.source_group(), settings) {
        Ok(())
    } else {
        Err(DropReason::SynBudget)
    }
}

#[inline(always)]
fn within_budget(source: &Address, settings: &Settings) -> bool {
    // SAFETY: a helper without conditions.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    match BUDGET.get_ptr_mut(source) {
        // SAFETY: a live map value; the race with other CPUs is bounded (see TokenBucket::take).
        Some(bucket) => unsafe { (*bucket).take(now, settings.syn_millirate, settings.syn_burst) },
        None => {
            // A map that can't take the entry must not lock a new source out: the budget is a courtesy, the LRU map its bound.
            let _ = BUDGET.insert(source, TokenBucket::first_taken(now, settings.syn_burst), 0);
            true
        }
    }
}
