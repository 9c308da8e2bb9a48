//! Taking labs away: on drop, on a signal, and after a process that could do neither.
//!
//! Everything a lab owns carries its name, `sng-<pid>-<n>`: namespaces `sng-<pid>-<n>-gateway`, the directory of the
//! same name under `/run` with the BPF filesystem, and one for files under the temporary directory. So the owner of
//! anything found is known from its name, and whether that owner still lives decides.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::bpffs;
use crate::deadline::Deadline;
use crate::service_manager;

const NETNS_DIR: &str = "/run/netns";
const PREFIX: &str = "sng-";
/// A file in a lab's directory under `/run` that says: leave this one, somebody wants to look around.
const KEEP_MARK: &str = "keep";
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A lab's name, free for this process's next lab.
#[must_use]
pub fn next_lab_name() -> String {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{serial}", std::process::id())
}

/// Where the kernel's handle of a named network namespace lies.
#[must_use]
pub fn netns_path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// The directory for what must not be on an ordinary filesystem or survives a reboot: mount points and marks.
#[must_use]
pub fn run_dir(lab: &str) -> PathBuf {
    Path::new("/run").join(lab)
}

/// The directory for logs, captures and certificates.
#[must_use]
pub fn files_dir(lab: &str) -> PathBuf {
    std::env::temp_dir().join(lab)
}

/// Leaves this lab standing after its owner has ended, until [`remove_kept`].
///
/// # Errors
/// The mark could not be written.
pub fn keep(lab: &str) -> Result<()> {
    let mark = run_dir(lab).join(KEEP_MARK);
    fs::create_dir_all(run_dir(lab))?;
    fs::write(&mark, "").with_context(|| format!("writing {}", mark.display()))
}

/// Removes the labs of processes that no longer live, except those marked to be kept; returns their names.
///
/// # Errors
/// Something resists; the rest is removed all the same.
pub fn remove_orphans() -> Result<Vec<String>> {
    remove_where(|lab| !is_kept(lab) && owner(lab).is_some_and(|pid| !is_alive(pid)))
}

/// Removes the labs that were kept after their owner ended; returns their names.
///
/// # Errors
/// Something resists; the rest is removed all the same.
pub fn remove_kept() -> Result<Vec<String>> {
    remove_where(|lab| is_kept(lab) && owner(lab).is_some_and(|pid| !is_alive(pid)))
}

/// From now on Ctrl-C, SIGTERM and a closed terminal remove this process's labs before it ends.
///
/// # Errors
/// The handler could not be installed.
pub fn remove_own_on_signal() -> Result<()> {
    static INSTALLED: Once = Once::new();
    let mut result = Ok(());
    INSTALLED.call_once(|| result = install_signal_thread());
    result
}

/// Removes one lab: its processes, its pinned BPF objects, its namespaces and its directories, in that order.
///
/// # Errors
/// The first thing that resists; the rest is removed all the same.
pub fn remove_lab(lab: &str) -> Result<()> {
    let namespaces = namespaces_of(lab);
    let mut results = Vec::new();
    for namespace in &namespaces {
        results.push(kill_processes_in(namespace));
    }
    results.push(service_manager::remove_control_groups(lab));
    results.push(bpffs::unmount(&bpffs::mount_point(lab)));
    for namespace in &namespaces {
        results.push(remove_namespace(namespace));
    }
    for directory in [run_dir(lab), files_dir(lab)] {
        results.push(
            absent_is_fine(fs::remove_dir_all(&directory))
                .with_context(|| format!("removing {}", directory.display())),
        );
    }
    results.into_iter().collect()
}

/// Ends what runs in the namespace and removes its name; the kernel then takes the interfaces away.
///
/// # Errors
/// A process survives SIGKILL, or the handle is held.
pub fn remove_namespace(name: &str) -> Result<()> {
    let path = netns_path(name);
    if !path.exists() {
        return Ok(());
    }
    let killed = kill_processes_in(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: not mounted, as after an `ip netns add` that was cut short.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => return Err(error).with_context(|| format!("unmounting {}", path.display())),
    }
    absent_is_fine(fs::remove_file(&path))
        .with_context(|| format!("removing {}", path.display()))?;
    killed
}

/// The names of all labs that have left something on this machine, whoever owns them.
#[must_use]
pub fn labs() -> Vec<String> {
    let temporary = std::env::temp_dir();
    let mut labs: Vec<String> = [Path::new(NETNS_DIR), Path::new("/run"), &temporary]
        .into_iter()
        .flat_map(names_in)
        .filter_map(|name| lab_of(&name))
        .collect();
    labs.sort();
    labs.dedup();
    labs
}

fn remove_where(condemned: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let labs: Vec<String> = labs().into_iter().filter(|lab| condemned(lab)).collect();
    let results: Vec<Result<()>> = labs
        .iter()
        .map(|lab| remove_lab(lab).with_context(|| format!("removing what is left of lab {lab}")))
        .collect();
    results.into_iter().collect::<Result<()>>()?;
    Ok(labs)
}

fn install_signal_thread() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .context("installing the handler that removes the lab on Ctrl-C")?;
    std::thread::Builder::new()
        .name("lab-teardown".to_owned())
        .spawn(move || {
            let Some(signal) = signals.forever().next() else {
                return;
            };
            let own = std::process::id();
            // Twice: another thread may be in the middle of making a lab.
            for _ in 0..2 {
                if let Err(error) = remove_where(|lab| !is_kept(lab) && owner(lab) == Some(own)) {
                    eprintln!("{error:#}");
                }
            }
            std::process::exit(128 + signal);
        })
        .context("starting the thread that removes the lab on Ctrl-C")?;
    Ok(())
}

fn kill_processes_in(namespace: &str) -> Result<()> {
    let what = format!("the processes in namespace {namespace} to end");
    Deadline::after(KILL_TIMEOUT).poll(&what, || {
        let processes = processes_in(namespace)?;
        for pid in &processes {
            match kill(*pid, Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).context("killing a process of the lab"),
            }
        }
        Ok(processes.is_empty().then_some(()))
    })
}

/// Every process whose main thread is in the namespace; zombies have left theirs, and this process is in its own.
pub(crate) fn processes_in(namespace: &str) -> Result<Vec<Pid>> {
    let handle = match fs::metadata(netns_path(namespace)) {
        Ok(handle) => handle,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("looking at namespace {namespace}"));
        }
    };
    let own = fs::metadata("/proc/self/ns/net").context("looking at the own namespace")?;
    if (handle.dev(), handle.ino()) == (own.dev(), own.ino()) {
        return Ok(Vec::new());
    }
    Ok(names_in(Path::new("/proc"))
        .into_iter()
        .filter_map(|name| name.parse().ok())
        .filter(|pid: &i32| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|net| (net.dev(), net.ino()) == (handle.dev(), handle.ino()))
        })
        .map(Pid::from_raw)
        .collect())
}

fn namespaces_of(lab: &str) -> Vec<String> {
    let mut names = names_in(Path::new(NETNS_DIR));
    names.retain(|name| lab_of(name).as_deref() == Some(lab));
    names
}

/// `sng-12-0-gateway` and `sng-12-0` both belong to the lab `sng-12-0`.
fn lab_of(name: &str) -> Option<String> {
    let mut fields = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let pid: u32 = fields.next()?.parse().ok()?;
    let serial: u32 = fields.next()?.parse().ok()?;
    Some(format!("{PREFIX}{pid}-{serial}"))
}

fn owner(lab: &str) -> Option<u32> {
    lab.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn is_kept(lab: &str) -> bool {
    run_dir(lab).join(KEEP_MARK).exists()
}

/// A zombie is dead: nobody may ever collect it, as in a container whose first process does not.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // The state follows the program's name, which is in parentheses and may contain some (proc_pid_stat(5)).
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        // Only /run/netns can be missing, before the first namespace: nothing in it, then.
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// Two labs that start at the same moment clear the same remains.
pub(crate) fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_lab_and_owner() {
        assert_eq!(lab_of("sng-12-3-gateway").as_deref(), Some("sng-12-3"));
        assert_eq!(lab_of("sng-12-3").as_deref(), Some("sng-12-3"));
        assert_eq!(lab_of("sng-x-3-gateway"), None);
        assert_eq!(lab_of("other-12-3"), None);
        assert_eq!(owner("sng-12-3"), Some(12));
    }

    #[test]
    fn this_process_lives() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(u32::MAX));
    }
}
