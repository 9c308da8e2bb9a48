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
    let raised = Rlimit {
        current: Some(maximum.map_or(wanted, |maximum| maximum.min(wanted))),
        maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() || raised.current < Some(wanted) {
        tracing::warn!(
            limit = raised.current,
            wanted,
            "the limit of open files is too low for `max_connections`: raise it (LimitNOFILE= in the unit), or lower `max_connections`"
        );
    }
}
