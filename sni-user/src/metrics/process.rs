//! The agent's process, by the names that all of Prometheus' client libraries use. The collector of the crate `prometheus` would bring a second rustix.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use rustix::{
    param::page_size,
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::{Exposition, ExpositionError, Family};

pub(super) const FAMILIES: &[&Family] = &[&CPU, &OPEN_FILES, &MAX_FILES, &MEMORY, &START];

const CPU: Family = Family::counter(
    "process_cpu_seconds_total",
    &[],
    "CPU time of the agent; the datapath is not part of it.",
);
const OPEN_FILES: Family =
    Family::gauge("process_open_fds", &[], "File descriptors that are open.");
const MAX_FILES: Family = Family::gauge(
    "process_max_fds",
    &[],
    "File descriptors that may be open (LimitNOFILE).",
);
const MEMORY: Family = Family::gauge(
    "process_resident_memory_bytes",
    &[],
    "Memory of the agent that is in RAM.",
);
const START: Family = Family::gauge(
    "process_start_time_seconds",
    &[],
    "When the agent was started, in seconds since 1970.",
);

const FILES: &str = "/proc/self/fd";
const SIZES: &str = "/proc/self/statm";

/// Adds what the process takes, which was started then.
pub(crate) fn expose(to: &Exposition, started: SystemTime) -> Result<(), ExpositionError> {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu = Duration::new(
        u64::try_from(cpu.tv_sec).unwrap_or_default(),
        u32::try_from(cpu.tv_nsec).unwrap_or_default(),
    );
    to.single(&CPU, cpu.as_secs_f64())?;
    let reading = |path| move |source| ExpositionError::Process { path, source };
    // The one that this reading opens is among them.
    let open = fs::read_dir(FILES).map_err(reading(FILES))?.count();
    to.single(&OPEN_FILES, open.saturating_sub(1) as f64)?;
    // None is "as many as there can be".
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        to.single(&MAX_FILES, limit as f64)?;
    }
    let sizes = fs::read_to_string(SIZES).map_err(reading(SIZES))?;
    // proc(5): the second number, in pages.
    let pages = sizes
        .split(' ')
        .nth(1)
        .and_then(|it| it.parse::<u64>().ok());
    if let Some(pages) = pages {
        to.single(&MEMORY, (pages * page_size() as u64) as f64)?;
    }
    let started = started.duration_since(SystemTime::UNIX_EPOCH);
    // A clock before 1970 has yet to be set.
    to.single(&START, started.unwrap_or_default().as_secs_f64())
}
