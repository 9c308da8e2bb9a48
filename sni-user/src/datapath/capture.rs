//! Packets that the datapath shows to whoever asks for them.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use aya::maps::{Map, MapData, RingBuf};
use sni_common::contract::{CAPTURE_LEASE_NS, Captured, Capturing, Counter};
use tokio::io::unix::AsyncFd;

use super::{Maps, error::DatapathError, events::prefix, maps::open};
use crate::clock::monotonic_ns;

/// Packets that are handed over at once.
const MOST_AT_ONCE: usize = 1024;

const RING: &str = "CAPTURED";

/// A packet as it came in, and what became of it.
#[derive(Clone, Debug, Default)]
pub struct CapturedPacket {
    /// Everything about it.
    pub head: Captured,
    /// Its first bytes.
    pub bytes: Vec<u8>,
}

impl CapturedPacket {
    /// From a record; none for what this version does not know.
    fn read(record: &[u8]) -> Option<Self> {
        let head: Captured = prefix(record)?;
        let bytes = record.get(size_of::<Captured>()..)?;
        let bytes = bytes.get(..head.taken as usize)?.to_vec();
        Some(Self { head, bytes })
    }
}

/// The one capture of a datapath, which shows packets until this is dropped; or until it has not been renewed for a while, where its process is killed
/// or stopped.
pub struct Capture {
    maps: Maps,
    ring: AsyncFd<RingBuf<MapData>>,
    session: u32,
    /// Lost before this one began.
    lost_before: u64,
    /// The ring's pin, by its number.
    pin: u64,
    /// Locked, which ends with the process however that ends.
    _alone: File,
}

impl Capture {
    /// Has the datapath show what is wanted, from now on.
    ///
    /// # Errors
    /// Another capture runs, or the maps can't be read and written.
    pub fn begin(mut maps: Maps, wanted: Capturing) -> Result<Self, DatapathError> {
        let pin_path = maps.pin_path().to_owned();
        let alone = alone(&pin_path)?;
        let session = (monotonic_ns() / 1000) as u32;
        // What one that was killed has left.
        maps.capture_until(0)?;
        let mut ring = ring(&pin_path)?;
        while ring.get_mut().next().is_some() {}
        maps.capturing
            .set(0, Capturing { session, ..wanted }, 0)
            .map_err(|e| DatapathError::map("CAPTURING", e))?;
        let mut capture = Self {
            lost_before: lost(&maps)?,
            maps,
            ring,
            session,
            pin: number(&pin_path)
                .map_err(|e| DatapathError::kernel(format!("looking for the pin of {RING}"), e))?,
            _alone: alone,
        };
        capture.renew()?;
        Ok(capture)
    }

    /// Lets it go on for another while. To be called every second or two.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn renew(&mut self) -> Result<(), DatapathError> {
        self.maps.capture_until(monotonic_ns() + CAPTURE_LEASE_NS)
    }

    /// Waits for packets, and takes those that are there, up to a thousand or so; none where all were an earlier capture's. Cancelling it loses none.
    ///
    /// # Errors
    /// When the ring can't be waited for.
    pub async fn next(&mut self) -> Result<Vec<CapturedPacket>, DatapathError> {
        let mut guard = self
            .ring
            .readable_mut()
            .await
            .map_err(|e| DatapathError::kernel("waiting for packets", e))?;
        let (packets, is_empty) = take(guard.get_inner_mut(), self.session);
        if is_empty {
            guard.clear_ready();
        }
        Ok(packets)
    }

    /// Has the datapath show no more, and takes the next of the packets that are there yet; none when that were all.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn rest(&mut self) -> Result<Option<Vec<CapturedPacket>>, DatapathError> {
        self.maps.capture_until(0)?;
        let (packets, is_empty) = take(self.ring.get_mut(), self.session);
        Ok((!is_empty || !packets.is_empty()).then_some(packets))
    }

    /// Packets that were wanted and not shown, so far.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn lost(&self) -> Result<u64, DatapathError> {
        Ok(lost(&self.maps)?.wrapping_sub(self.lost_before))
    }

    /// Whether the datapath has been removed, or replaced.
    pub fn is_over(&self) -> bool {
        number(self.maps.pin_path()).ok() != Some(self.pin)
    }

    /// The maps.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Where it fails, the datapath ends it.
        let _ = self.maps.capture_until(0);
    }
}

/// Takes what is in the ring; and whether that was all of it.
fn take(ring: &mut RingBuf<MapData>, session: u32) -> (Vec<CapturedPacket>, bool) {
    let mut packets = Vec::new();
    for _ in 0..MOST_AT_ONCE {
        let Some(record) = ring.next() else {
            return (packets, true);
        };
        let packet = CapturedPacket::read(&record);
        packets.extend(packet.filter(|packet| packet.head.session == session));
    }
    (packets, false)
}

fn lost(maps: &Maps) -> Result<u64, DatapathError> {
    Ok(maps.stats()?.counter(Counter::CaptureLost))
}

/// The ring has one reader. The lock is one of the directory, because maps that are pinned can't be opened as files.
fn alone(pin_path: &Path) -> Result<File, DatapathError> {
    let failed = |e| DatapathError::kernel(format!("locking {}", pin_path.display()), e);
    let directory = File::open(pin_path).map_err(failed)?;
    match directory.try_lock() {
        Ok(()) => Ok(directory),
        Err(TryLockError::WouldBlock) => Err(DatapathError::Capturing),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn ring(pin_path: &Path) -> Result<AsyncFd<RingBuf<MapData>>, DatapathError> {
    let what = || format!("opening the ring {RING}");
    let map =
        Map::from_map_data(open(pin_path, RING)?).map_err(|e| DatapathError::kernel(what(), e))?;
    let ring = RingBuf::try_from(map).map_err(|e| DatapathError::kernel(what(), e))?;
    // SAFETY: the ring owns its descriptor and keeps it open for as long as it lives.
    unsafe { AsyncFd::register(ring) }.map_err(|e| DatapathError::kernel(what(), e))
}

/// A new pin has a new number.
fn number(pin_path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(pin_path.join(RING))?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_the_bytes_that_it_says() {
        let head = Captured {
            taken: 5,
            length: 60,
            ..Captured::default()
        };
        let start = std::ptr::from_ref(&head).cast::<u8>();
        // SAFETY: plain old data without padding, which outlives the copy.
        let mut record =
            unsafe { std::slice::from_raw_parts(start, size_of::<Captured>()) }.to_vec();
        record.extend(*b"hello and what the ring has added");
        let packet = CapturedPacket::read(&record).expect("a packet");
        assert_eq!(
            (packet.head, packet.bytes.as_slice()),
            (head, &b"hello"[..])
        );
        for short in [0, 1, size_of::<Captured>() - 1, size_of::<Captured>() + 4] {
            assert!(CapturedPacket::read(&record[..short]).is_none(), "{short}");
        }
    }
}
