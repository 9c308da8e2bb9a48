//! What the datapath says: events for the agent, and diagnostics for people.

use std::path::Path;

use aya::{
    Ebpf,
    maps::{Map, MapData, RingBuf},
};
use aya_log::EbpfLogger;
use sni_common::contract::{Event, EventKind, HelloEvent};
use tokio::io::unix::AsyncFd;

use super::error::DatapathError;

/// Events that are handed over at once.
const MOST_AT_ONCE: usize = 4096;

/// A record of the EVENTS ring.
#[derive(Clone, Debug)]
pub enum Told {
    /// About a packet or a flow.
    Event(Event),
    /// About a ClientHello.
    Hello(Box<HelloEvent>),
}

impl Told {
    /// From its bytes; none for what this version does not know.
    fn read(record: &[u8]) -> Option<Self> {
        let event: Event = prefix(record)?;
        if record.len() == size_of::<Event>() {
            return Some(Self::Event(event));
        }
        let is_hello =
            event.kind == EventKind::HelloBound as u32 && record.len() == size_of::<HelloEvent>();
        is_hello.then(|| prefix(record).map(|hello| Self::Hello(Box::new(hello))))?
    }
}

/// The structure that a record begins with.
pub(super) fn prefix<T: aya::Pod>(record: &[u8]) -> Option<T> {
    (record.len() >= size_of::<T>()).then(|| {
        // SAFETY: as long as the structure, whose every bit pattern is valid; the ring's records are aligned to 8, but nothing relies on it.
        unsafe { record.as_ptr().cast::<T>().read_unaligned() }
    })
}

/// The EVENTS ring. It has one reader: a second agent on the same pins would take events away from the first.
pub struct EventStream {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl EventStream {
    pub(super) fn open(pin_path: &Path) -> Result<Self, DatapathError> {
        let what = || "opening the ring EVENTS".to_owned();
        let data = MapData::from_pin(pin_path.join("EVENTS"))
            .map_err(|e| DatapathError::kernel(what(), e))?;
        let map = Map::from_map_data(data).map_err(|e| DatapathError::kernel(what(), e))?;
        let ring = RingBuf::try_from(map).map_err(|e| DatapathError::kernel(what(), e))?;
        // SAFETY: the ring owns its descriptor and keeps it open for as long as it lives.
        let ring =
            unsafe { AsyncFd::register(ring) }.map_err(|e| DatapathError::kernel(what(), e))?;
        Ok(Self { ring })
    }

    /// Waits for events and hands over those that are there, up to a few thousand: a flood must not keep the agent from everything else.
    /// Cancelling it loses none.
    ///
    /// # Errors
    /// When the ring can't be waited for.
    pub async fn next(&mut self, mut each: impl FnMut(Told)) -> Result<(), DatapathError> {
        let mut guard = self
            .ring
            .readable_mut()
            .await
            .map_err(|e| DatapathError::kernel("waiting for events", e))?;
        let ring = guard.get_inner_mut();
        for _ in 0..MOST_AT_ONCE {
            let Some(item) = ring.next() else {
                guard.clear_ready();
                return Ok(());
            };
            if let Some(told) = Told::read(&item) {
                each(told);
            }
        }
        Ok(())
    }
}

/// aya-log's ring, read into `tracing`.
pub struct LogStream {
    logger: AsyncFd<EbpfLogger<&'static dyn log::Log>>,
}

impl LogStream {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let what = || "opening the datapath's diagnostics".to_owned();
        let logger = EbpfLogger::init_with_logger(ebpf, &ToTracing as &'static dyn log::Log)
            .map_err(|e| DatapathError::kernel(what(), e))?;
        // SAFETY: the logger owns its descriptor and keeps it open for as long as it lives.
        let logger =
            unsafe { AsyncFd::register(logger) }.map_err(|e| DatapathError::kernel(what(), e))?;
        Ok(Self { logger })
    }

    /// Waits for diagnostics and writes them to the log. Cancelling it loses none.
    ///
    /// # Errors
    /// When the ring can't be waited for.
    pub async fn next(&mut self) -> Result<(), DatapathError> {
        let mut guard = self
            .logger
            .readable_mut()
            .await
            .map_err(|e| DatapathError::kernel("waiting for diagnostics", e))?;
        guard.get_inner_mut().flush();
        guard.clear_ready();
        Ok(())
    }
}

/// Bridges `log`, which aya-log speaks, to `tracing`: whoever has switched diagnostics on wants to see them at any level.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::info!(target: "datapath", "{}", record.args());
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<T: aya::Pod>(value: &T) -> Vec<u8> {
        let start = std::ptr::from_ref(value).cast::<u8>();
        // SAFETY: plain old data without padding, which outlives the copy.
        unsafe { std::slice::from_raw_parts(start, size_of::<T>()) }.to_vec()
    }

    #[test]
    fn records_are_told_by_kind_and_length() {
        let event = |kind: EventKind| Event {
            kind: kind as u32,
            ..Event::default()
        };
        let hello = HelloEvent {
            event: event(EventKind::HelloBound),
            ip_set: 7,
            ..HelloEvent::default()
        };
        let Some(Told::Event(read)) = Told::read(&bytes(&event(EventKind::Dropped))) else {
            panic!("an event");
        };
        assert_eq!(read, event(EventKind::Dropped));
        let Some(Told::Hello(read)) = Told::read(&bytes(&hello)) else {
            panic!("a ClientHello");
        };
        assert_eq!(*read, hello);
        let mut other = hello;
        other.event.kind = EventKind::Dropped as u32;
        assert!(Told::read(&bytes(&other)).is_none());
        let record = bytes(&hello);
        for length in (0..record.len()).filter(|length| *length != size_of::<Event>()) {
            assert!(Told::read(&record[..length]).is_none(), "{length}");
        }
    }
}
