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
/// What is only counted is read in smaller portions: it happens again and again, beside connections.
const COUNTING_BYTES: usize = 1 << 20;
const SMALLEST_BATCH: usize = 64;

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
    let mut position = None;
    loop {
        let buffers = (keys.as_mut_ptr() as u64, values.as_mut_ptr() as u64);
        // SAFETY: buffers of `size` keys and values of the map's own types (the caller's).
        let batch = unsafe { next(name, map, &mut position, buffers, size) }?;
        let Batch::Entries { count, last } = batch else {
            size *= 4;
            keys.reserve(size);
            values.reserve(size);
            continue;
        };
        // SAFETY: the kernel has written `count` of each, at most `size`.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        for (key, value) in keys.drain(..).zip(values.drain(..)) {
            each(key, value)?;
        }
        if last {
            return Ok(());
        }
    }
}

/// How many entries the hash map `name` has, while the counting passes by.
///
/// # Errors
/// When the map can't be read.
pub(super) fn count(name: &str, map: &MapData) -> Result<u64, DatapathError> {
    let info = map
        .info()
        .map_err(|e| DatapathError::kernel(format!("reading the map {name}"), e))?;
    // The kernel hands values over in multiples of eight bytes.
    let key = info.key_size() as usize;
    let value = (info.value_size() as usize).next_multiple_of(8);
    let mut size = (COUNTING_BYTES / (key + value)).clamp(SMALLEST_BATCH, FIRST_BATCH);
    let (mut keys, mut values) = (vec![0u8; size * key], vec![0u8; size * value]);
    let mut position = None;
    let mut sum = 0;
    loop {
        let buffers = (keys.as_mut_ptr() as u64, values.as_mut_ptr() as u64);
        // SAFETY: buffers of `size` keys and values of the sizes that the kernel tells.
        match unsafe { next(name, map, &mut position, buffers, size) }? {
            Batch::TooSmall => {
                size *= 4;
                keys.resize(size * key, 0);
                values.resize(size * value, 0);
            }
            Batch::Entries { count, last } => {
                sum += count as u64;
                if last {
                    return Ok(sum);
                }
            }
        }
    }
}

/// What one call has brought.
enum Batch {
    Entries {
        count: usize,
        last: bool,
    },
    /// One bucket holds more than the buffers: again from the same position, with larger ones.
    TooSmall,
}

/// Reads the entries from `position` on, which is the kernel's own: a bucket number, and none before the first call.
///
/// # Safety
/// `buffers` must be the addresses of `size` keys and of `size` values.
unsafe fn next(
    name: &str,
    map: &MapData,
    position: &mut Option<u32>,
    (keys, values): (u64, u64),
    size: usize,
) -> Result<Batch, DatapathError> {
    let from = position.unwrap_or_default();
    let mut to = 0u32;
    let mut attributes = BatchAttributes {
        in_batch: position.map_or(0, |_| &raw const from as u64),
        out_batch: &raw mut to as u64,
        keys,
        values,
        count: size as u32,
        map_fd: descriptor(map),
        ..BatchAttributes::default()
    };
    // SAFETY: the attributes point to buffers of `count` keys and values (the caller's), and to positions.
    let error = unsafe { bpf(Command::LookupBatch, &mut attributes) }.err();
    let errno = error.as_ref().and_then(io::Error::raw_os_error);
    match (error, errno) {
        (Some(_), Some(libc::ENOSPC)) if size < LARGEST_BATCH => Ok(Batch::TooSmall),
        (Some(error), errno) if errno != Some(libc::ENOENT) => Err(DatapathError::kernel(
            format!("reading the map {name}"),
            error,
        )),
        (_, errno) => {
            *position = Some(to);
            Ok(Batch::Entries {
                count: attributes.count as usize,
                // ENOENT: the end.
                last: errno == Some(libc::ENOENT),
            })
        }
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
