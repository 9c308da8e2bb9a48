//! Room for open files.

use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CapabilitySet, capabilities},
};

/// Beside connections: maps, links, logs, pipes on their way.
const OTHERS: u64 = 1000;

/// Two sockets for each connection.
fn wanted(connections: u32) -> u64 {
    2 * u64::from(connections) + OTHERS
}

/// Raises the limit of open files to what so many connections need; says so where it can't be had.
pub(super) fn raise(connections: u32) {
    let wanted = wanted(connections);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    // Beyond the hard limit with CAP_SYS_RESOURCE only, and never beyond `fs.nr_open`.
    if set(wanted, maximum.map(|maximum| maximum.max(wanted))) {
        return;
    }
    set(
        maximum.map_or(wanted, |maximum| maximum.min(wanted)),
        maximum,
    );
    if let Some(sentence) = shortfall(connections) {
        tracing::warn!("{sentence}");
    }
}

fn set(current: u64, maximum: Option<u64>) -> bool {
    let limits = Rlimit {
        current: Some(current),
        maximum,
    };
    setrlimit(Resource::Nofile, limits).is_ok()
}

/// A sentence where this process may not have open what so many connections need. Root may raise its limit.
pub(crate) fn shortfall(connections: u32) -> Option<String> {
    let wanted = wanted(connections);
    let most = getrlimit(Resource::Nofile).maximum?;
    let may_raise =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    (most < wanted && !may_raise).then(|| {
        format!(
            "{most} files may be open, and `max_connections` needs {wanted}: raise the limit (LimitNOFILE= in the unit), or lower `max_connections`"
        )
    })
}
