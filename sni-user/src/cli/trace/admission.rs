//! Who may begin a connection.

use std::net::SocketAddr;

use sni_common::{
    Address,
    contract::{AclAction, DropReason},
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
    if settings.syn_millirate == 0 {
        steps.add("SETTINGS", "SYNs have no budget");
        return Ok(None);
    }
    let burst = settings.syn_burst;
    let (enough, left) = match tables.budget(&source.source_group())? {
        None => (true, TokenBucket::first_taken(0, burst)),
        Some(mut bucket) => {
            let enough = bucket.take(tables.now_ns(), settings.syn_millirate, burst);
            (enough, bucket)
        }
    };
    if !enough {
        let says = format!("{} has used up its budget of SYNs for now", from.ip());
        steps.add("BUDGET", says);
        return Ok(Some(DropReason::SynBudget));
    }
    let says = format!(
        "{} may send a SYN, and {} more at once",
        from.ip(),
        units::count(left.millitokens / 1000)
    );
    steps.add("BUDGET", says);
    Ok(None)
}
