//! What aya has no call for: whole batches of a map's entries, and sockets in maps whose values are read.

use std::{io, mem, os::fd::AsFd, os::fd::AsRawFd as _};

use aya::maps::MapData;
use libc::{SYS_bpf, syscall};

/// Commands of bpf(2) on maps (`enum bpf_cmd` in linux/bpf.h).
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    LookupElement = 1,
    UpdateElement = 2,
    LookupAndDeleteElement = 21,
    LookupBatch = 24,
    UpdateBatch = 26,
    DeleteBatch = 27,
}

/// The part of `union bpf_attr` for batches. Addresses are those of arrays of `count` keys and values.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct BatchAttributes {
    pub(super) in_batch: u64,
    pub(super) out_batch: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    /// Becomes the number of entries that were worked on.
    pub(super) count: u32,
    pub(super) map_fd: u32,
    pub(super) elem_flags: u64,
    pub(super) flags: u64,
}

/// The part of `union bpf_attr` for one entry.
#[repr(C)]
#[derive(Debug)]
pub(super) struct ElementAttributes {
    pub(super) map_fd: u32,
    pub(super) padding: u32,
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) flags: u64,
}

/// A map's descriptor as the attributes have it.
pub(super) fn descriptor(map: &MapData) -> u32 {
    map.fd().as_fd().as_raw_fd() as u32
}

/// Calls the kernel.
///
/// # Safety
/// The attributes must be the command's, and what they point to as long as the map's keys and values want.
pub(super) unsafe fn bpf<T>(command: Command, attributes: &mut T) -> io::Result<()> {
    // SAFETY: the caller's.
    let result = unsafe {
        syscall(
            SYS_bpf,
            command as u32,
            std::ptr::from_mut(attributes),
            mem::size_of::<T>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
