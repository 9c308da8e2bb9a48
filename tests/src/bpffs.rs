//! A BPF filesystem of the lab's own, for the datapath's pins.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::leftovers;

/// Where a lab's BPF filesystem is mounted.
#[must_use]
pub fn mount_point(lab: &str) -> PathBuf {
    leftovers::run_dir(lab).join("bpf")
}

/// Mounts a fresh BPF filesystem for `lab`.
///
/// # Errors
/// No privilege, or a kernel without BPF.
pub(crate) fn mount_for(lab: &str) -> Result<PathBuf> {
    let path = mount_point(lab);
    fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    mount(
        Some("bpf"),
        &path,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )
    .with_context(|| format!("mounting a BPF filesystem on {}", path.display()))?;
    Ok(path)
}

/// Removes every pin, then unmounts.
///
/// The order matters: a copy of the mount in another mount namespace (`ip netns exec` makes one) keeps pinned links
/// attached after an unmount, and the interface stays busy.
///
/// # Errors
/// A pin or the mount could not be removed.
pub fn unmount(path: &Path) -> Result<()> {
    if !is_mounted(path)? {
        return Ok(());
    }
    remove_pins(path)?;
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("unmounting {}", path.display())),
    }
}

fn remove_pins(directory: &Path) -> Result<()> {
    let entries = fs::read_dir(directory)
        .with_context(|| format!("reading {}", directory.display()))?
        .collect::<Result<Vec<_>, _>>()?;
    for entry in entries {
        // A dot is reserved for the kernel: it has put maps.debug and progs.debug here itself and keeps them.
        if entry.file_name().to_string_lossy().contains('.') {
            continue;
        }
        let path = entry.path();
        let removed = if entry.file_type()?.is_dir() {
            remove_pins(&path)?;
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        };
        leftovers::absent_is_fine(removed)
            .with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

fn is_mounted(path: &Path) -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mount table")?;
    Ok(mounts
        .lines()
        .any(|line| line.split_whitespace().nth(1).map(Path::new) == Some(path)))
}
