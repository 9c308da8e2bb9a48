//! Who may begin a connection.

use std::net::SocketAddr;

use sni_common::{
    Address,
    contract::{AclAction, BudgetKey, BudgetKind, DropReason},
    token_bucket::TokenBucket,
};

use super::{steps::Steps, tables::Tables};
use crate::{cli::units, datapath::DatapathError};

/// Asks ACL and BUDGET as the datapath does for a SYN. The reason where they refuse it.
pub(super) fn admit(
    from: SocketAddr,
    tables: &impl Tables,
    steps: &mut Steps,
) -> Result<Option<DropReason>, DatapathError> {
    let source = Address::from(from.ip());
    let settings = tables.settings()?;
    if settings.acl_prefixes == 0 {
        steps.add("ACL", "no prefix is denied or allowed");
    } else {
        match tables.acl(source)? {
            Some(action) if action == AclAction::Deny as u32 => {
                steps.add("ACL", format!("a prefix of {} is denied", from.ip()));
                return Ok(Some(DropReason::Denied));
            }
            Some(_) => {
                let says = format!("a prefix of {} is allowed, and has no budget", from.ip());
                steps.add("ACL", says);
                return Ok(None);
            }
            None => steps.add("ACL", format!("no prefix of {} is listed", from.ip())),
        }
    }
    if settings.syn_millirate == 0 && settings.syn_prefix_millirate == 0 {
        steps.add("SETTINGS", "SYNs have no budget");
        return Ok(None);
    }
    let budgets = [
        (
            BudgetKind::SynPrefix,
            source.source_prefix(),
            settings.syn_prefix_millirate,
            settings.syn_prefix_burst,
        ),
        (
            BudgetKind::Syn,
            source.source_group(),
            settings.syn_millirate,
            settings.syn_burst,
        ),
    ];
    let mut left = u64::MAX;
    for (kind, source, millirate, burst) in budgets {
        if millirate == 0 {
            continue;
        }
        let key = BudgetKey {
            source,
            kind: kind as u32,
        };
        let (enough, bucket) = match tables.budget(&key)? {
            None => (true, TokenBucket::first_taken(0, burst)),
            Some(mut bucket) => (bucket.take(tables.now_ns(), millirate, burst), bucket),
        };
        if !enough {
            let whose = match kind {
                BudgetKind::SynPrefix => "the prefix of ",
                _ => "",
            };
            let says = format!(
                "{whose}{} has used up its budget of SYNs for now",
                from.ip()
            );
            steps.add("BUDGET", says);
            return Ok(Some(DropReason::SynBudget));
        }
        left = left.min(bucket.millitokens);
    }
    let says = format!(
        "{} may send a SYN, and {} more at once",
        from.ip(),
        units::count(left / 1000)
    );
    steps.add("BUDGET", says);
    Ok(None)
}
