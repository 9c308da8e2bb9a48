//! The processor time of the whole machine.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Where more of the CPUs' time than this is used while nothing is measured, others' work is in the figures.
pub(super) const QUIET: f64 = 0.05;

/// What all CPUs together have worked so far: user and system, hard and soft interrupts of /proc/stat (proc_stat(5), in ticks of 10 ms). What
/// runs as nice is left out: a build in the background, say.
///
/// # Errors
/// The kernel's.
pub(super) fn busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let ticks = parse(&text).context("/proc/stat without the CPUs' times")?;
    // SAFETY: a call without pointers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u32::try_from(per_second).context("the kernel's clock ticks")?;
    Ok(Duration::from_secs(ticks) / per_second)
}

fn parse(text: &str) -> Option<u64> {
    const USER: usize = 0;
    const SYSTEM: usize = 2;
    const HARD: usize = 5;
    const SOFT: usize = 6;
    let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = all
        .split_whitespace()
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    [USER, SYSTEM, HARD, SOFT]
        .into_iter()
        .map(|field| fields.get(field).copied())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nice_and_idle_time_are_not_work() {
        let text =
            "cpu  1 20 300 4000 50000 600000 7000000 80000000 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse(text), Some(7_600_301));
        assert_eq!(parse("cpu0 1 1 1 1 1 1 1 1 0 0\n"), None);
    }

    #[test]
    fn this_machine_works() -> Result<()> {
        assert!(busy()? > Duration::ZERO);
        Ok(())
    }
}
