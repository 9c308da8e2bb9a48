//! Many entries of a hash map at a time.
//!
//! aya asks the kernel twice per entry; with a million flows that is seconds of system calls. The batch commands (Linux 5.6) hand over a few
//! thousand at once.

use std::io;

use aya::{Pod, maps::MapData};

use super::{
    DatapathError,
    sys::{BatchAttributes, Command, bpf, descriptor},
};

const FIRST_BATCH: usize = 4096;
const LARGEST_BATCH: usize = 1 << 20;

/// Hands every entry of the hash map `name` to `each`, as it is while the reading passes by.
///
/// # Errors
/// When the map can't be read, or what `each` returns.
///
/// # Safety
/// `K` and `V` must be the types of the map's keys and values.
pub(super) unsafe fn for_each<K: Pod, V: Pod>(
    name: &str,
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
            map_fd: descriptor(map),
            ..BatchAttributes::default()
        };
        // SAFETY: the attributes point to buffers of `count` keys and values of the map's own types (the caller's), and to a position.
        let error = unsafe { bpf(Command::LookupBatch, &mut attributes) }.err();
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
            return Err(DatapathError::kernel(
                format!("reading the map {name}"),
                error,
            ));
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

/// Inserts entries into the hash map `name`, or writes them anew.
///
/// # Errors
/// When an entry can't be written; those before it are.
///
/// # Safety
/// `K` and `V` must be the types of the map's keys and values.
pub(super) unsafe fn insert<K: Pod, V: Pod>(
    name: &str,
    map: &MapData,
    entries: impl IntoIterator<Item = (K, V)>,
) -> Result<(), DatapathError> {
    let mut entries = entries.into_iter();
    loop {
        let (keys, values): (Vec<K>, Vec<V>) = entries.by_ref().take(FIRST_BATCH).unzip();
        if keys.is_empty() {
            return Ok(());
        }
        let mut attributes = BatchAttributes {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: keys.len() as u32,
            map_fd: descriptor(map),
            ..BatchAttributes::default()
        };
        // SAFETY: the attributes point to `count` keys and values of the map's own types (the caller's).
        unsafe { bpf(Command::UpdateBatch, &mut attributes) }
            .map_err(|e| DatapathError::kernel(format!("writing the map {name}"), e))?;
    }
}

/// Removes entries of the hash map `name`.
///
/// # Errors
/// When an entry can't be removed, or is gone already; those before it are removed.
///
/// # Safety
/// `K` must be the type of the map's keys.
pub(super) unsafe fn remove<K: Pod>(
    name: &str,
    map: &MapData,
    keys: &[K],
) -> Result<(), DatapathError> {
    for keys in keys.chunks(FIRST_BATCH) {
        let mut attributes = BatchAttributes {
            keys: keys.as_ptr() as u64,
            count: keys.len() as u32,
            map_fd: descriptor(map),
            ..BatchAttributes::default()
        };
        // SAFETY: the attributes point to `count` keys of the map's own type (the caller's).
        unsafe { bpf(Command::DeleteBatch, &mut attributes) }
            .map_err(|e| DatapathError::kernel(format!("cleaning the map {name}"), e))?;
    }
    Ok(())
}
