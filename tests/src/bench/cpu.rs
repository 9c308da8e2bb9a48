//! The processor time of a program, its children included.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// What the process `pid` and its children have used so far, in user mode and in the kernel (proc_pid_stat(5), in ticks of 10 ms).
///
/// # Errors
/// There is no such process.
pub(super) fn used(pid: u32) -> Result<Duration> {
    let mut ticks = stat(pid)?.ticks;
    for child in children(pid)? {
        // What has ended in the meantime has no time to tell any more.
        ticks += stat(child).map_or(0, |child| child.ticks);
    }
    // SAFETY: a call without pointers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u32::try_from(per_second).context("the kernel's clock ticks")?;
    Ok(Duration::from_secs(ticks) / per_second)
}

/// The processes that `pid` has started and that still run.
///
/// # Errors
/// The kernel's.
pub(super) fn children(pid: u32) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(other) = entry?.file_name().to_str().and_then(|it| it.parse().ok()) else {
            continue;
        };
        // Whatever has ended in the meantime is not one of ours.
        if stat(other).is_ok_and(|other| other.parent == pid) {
            children.push(other);
        }
    }
    Ok(children)
}

struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    parse(&text).with_context(|| format!("{path} reads {text:?}"))
}

fn parse(text: &str) -> Option<Stat> {
    // The name stands in parentheses and may hold any character.
    let (_, after_name) = text.rsplit_once(')')?;
    let fields: Vec<_> = after_name.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        ticks: ticks(11)? + ticks(12)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses() {
        let text = "7 (a) b) S 3 7 7 0 -1 4194560 1 0 0 0 40 2 0 0 20 0 1 0 100";
        let stat = parse(text).expect("a line of /proc");
        assert_eq!((stat.parent, stat.ticks), (3, 42));
    }

    #[test]
    fn this_process_uses_time() {
        assert!(used(std::process::id()).is_ok());
        assert!(used(u32::MAX).is_err());
    }
}
