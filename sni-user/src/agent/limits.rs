//! Room for open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside connections: maps, links, logs, pipes on their way.
const OTHERS: u64 = 1000;

/// Raises the limit of open files to what so many connections need, two sockets each; says so where it can't be had.
pub(super) fn raise_open_files(connections: u32) {
    let wanted = 2 * u64::from(connections) + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raise = |to: u64, maximum: Option<u64>| {
        let limits = Rlimit {
            current: Some(to),
            maximum,
        };
        setrlimit(Resource::Nofile, limits).is_ok()
    };
    // Beyond the hard limit with CAP_SYS_RESOURCE only, and never beyond `fs.nr_open`.
    let within = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let enough = raise(wanted, maximum.map(|maximum| maximum.max(wanted)));
    if !enough && (!raise(within, maximum) || within < wanted) {
        tracing::warn!(
            limit = within,
            wanted,
            "the limit of open files is too low for `max_connections`: raise it (LimitNOFILE= in the unit), or lower `max_connections`"
        );
    }
}
