//! Reading a whole hash map, many entries at a time.
//!
//! aya asks the kernel twice per entry; with a million flows that is seconds of system calls. BPF_MAP_LOOKUP_BATCH (Linux 5.6) hands over
//! a few thousand at once.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd as _},
};

use aya::{Pod, maps::MapData};
use libc::{SYS_bpf, syscall};

use super::DatapathError;

const BPF_MAP_LOOKUP_BATCH: u32 = 24;
const FIRST_BATCH: usize = 4096;
const LARGEST_BATCH: usize = 1 << 20;

/// The part of `union bpf_attr` for batches (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Hands every entry of a hash map to `each`, as it is while the reading passes by.
///
/// # Errors
/// When the map can't be read, or what `each` returns.
///
/// # Safety
/// `K` and `V` must be the types of the map's keys and values.
pub(super) unsafe fn for_each<K: Pod, V: Pod>(
    map: &MapData,
    mut each: impl FnMut(K, V) -> Result<(), DatapathError>,
) -> Result<(), DatapathError> {
    let mut size = FIRST_BATCH;
    let mut keys: Vec<K> = Vec::with_capacity(size);
    let mut values: Vec<V> = Vec::with_capacity(size);
    // The kernel's own position: a bucket number.
    let mut position = 0u32;
    let mut started = false;
    loop {
        let mut attributes = BatchAttributes {
            in_batch: if started {
                &raw const position as u64
            } else {
                0
            },
            out_batch: &raw mut position as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: size as u32,
            map_fd: map.fd().as_fd().as_raw_fd() as u32,
            ..BatchAttributes::default()
        };
        // SAFETY: the attributes point to buffers of `count` keys and values of the map's own types (the caller's), and to a position.
        let result = unsafe {
            syscall(
                SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attributes,
                mem::size_of::<BatchAttributes>(),
            )
        };
        let error = (result < 0).then(io::Error::last_os_error);
        let errno = error.as_ref().and_then(io::Error::raw_os_error);
        if errno == Some(libc::ENOSPC) && size < LARGEST_BATCH {
            // One bucket holds more than the buffers: again from the same position, with larger ones.
            size *= 4;
            keys.reserve(size);
            values.reserve(size);
            continue;
        }
        if let Some(error) = error
            && errno != Some(libc::ENOENT)
        {
            return Err(DatapathError::kernel("reading a table of flows", error));
        }
        let count = attributes.count as usize;
        // SAFETY: the kernel has written `count` of each, at most `size`.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        for (key, value) in keys.drain(..).zip(values.drain(..)) {
            each(key, value)?;
        }
        // ENOENT: the end.
        if errno == Some(libc::ENOENT) {
            return Ok(());
        }
        started = true;
    }
}
