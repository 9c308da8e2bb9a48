//! A line between two machines that is not as good as a veth: frames come late, twice, or after those behind them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use socket2::Socket;

use crate::line;
use crate::netns::Namespace;

/// How long the carrier may sleep before it looks whether it shall end.
const STOP_INTERVAL: Duration = Duration::from_millis(20);
/// The longest that a segment waits for those that shall overtake it.
const OVERTAKEN_WITHIN: Duration = Duration::from_millis(4);
/// Before a frame: struct virtio_net_hdr, include/uapi/linux/virtio_net.h.
const OFFLOAD_HEADER: usize = 10;
const LARGEST_FRAME: usize = OFFLOAD_HEADER + 18 + 64 * 1024;
/// Frames under way in one direction; more are lost, as in any queue.
const QUEUE: usize = 20_000;

/// What a wire does to each direction. Only TCP segments with data are counted, overtaken or doubled; all frames are
/// delayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbance {
    /// How much later each frame arrives.
    pub delay: Duration,
    /// Each so-manieth segment is overtaken by some behind it. 0: none.
    pub overtaken: u32,
    /// How many overtake it.
    pub by: u32,
    /// Each so-manieth segment arrives twice. 0: none.
    pub doubled: u32,
}

/// What a wire has done so far, both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireCounts {
    /// TCP segments with data.
    pub segments: u64,
    /// Those of them that others have overtaken.
    pub overtaken: u64,
    /// Those that arrived twice.
    pub doubled: u64,
    /// Frames lost for want of room: none, if a test is to mean anything.
    pub lost: u64,
}

/// A namespace that is a line: frames that enter at one interface leave at the other.
///
/// Neither end can tell it from a veth; there is no address, and no stack that would answer.
#[derive(Debug)]
pub struct Wire {
    shared: Arc<Shared>,
    carriers: Vec<JoinHandle<Result<()>>>,
    // After the carriers, which hold its interfaces' sockets.
    _namespace: Namespace,
}

/// What becomes of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives.
    Arrives,
    /// It is lost.
    Lost,
    /// It arrives twice.
    Twice,
    /// It arrives with one bit behind its Ethernet header turned over: this one, counted round and round.
    Damaged(usize),
    /// The next frame in its direction overtakes it, if there is one soon.
    Overtaken,
}

/// The direction of a frame on a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// The gateway.
    Gateway,
    /// The partner, or the Edge.
    Peer,
}

type Judge = dyn FnMut(Toward, &[u8]) -> Fate + Send;

#[derive(Default)]
struct Judged(Option<Box<Judge>>);

impl fmt::Debug for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Judged").field(&self.0.is_some()).finish()
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    judge: Mutex<Judged>,
    disturbance: Mutex<Disturbance>,
    counts: Mutex<WireCounts>,
}

impl Wire {
    /// Carries frames between two interfaces of `namespace`, which are up.
    ///
    /// # Errors
    /// The interfaces are not there.
    pub(crate) fn start(namespace: Namespace, devices: [&str; 2]) -> Result<Self> {
        for device in devices {
            // What arrives here was sent in segments of the ends' size, and shall go on as such: GRO has to be on, else
            // nobody may redirect to here (see `topology::link`), but it joins nothing that is larger than this.
            namespace.ip(&format!("link set dev {device} gro_max_size 1"))?;
        }
        let [left, right] = devices;
        let open = |device: &str| -> Result<Arc<Socket>> {
            let line = line::open_incoming(device)?;
            line::with_offload_headers(&line)?;
            Ok(Arc::new(line))
        };
        let (left, right) = namespace.run(|| Ok((open(left)?, open(right)?)))?;
        let shared = Arc::new(Shared::default());
        let mut carriers = Vec::new();
        for (from, to, toward) in [
            (&left, &right, Toward::Peer),
            (&right, &left, Toward::Gateway),
        ] {
            let (from, to, shared) = (Arc::clone(from), Arc::clone(to), Arc::clone(&shared));
            let carrier = thread::Builder::new()
                .name("wire".to_owned())
                .spawn(move || carry(&from, &to, toward, &shared))?;
            carriers.push(carrier);
        }
        Ok(Self {
            shared,
            carriers,
            _namespace: namespace,
        })
    }

    /// From now on, this happens to frames in both directions.
    pub fn disturb(&self, disturbance: Disturbance) {
        let mut current = self.shared.disturbance.lock();
        **current.as_mut().unwrap_or_else(|error| error.get_mut()) = disturbance;
    }

    /// From now on, `judge` decides of each frame, which begins with its Ethernet header, before the disturbance has its turn.
    pub fn judge(&self, judge: impl FnMut(Toward, &[u8]) -> Fate + Send + 'static) {
        let mut current = self.shared.judge.lock();
        let current = current.as_mut().unwrap_or_else(|error| error.get_mut());
        current.0 = Some(Box::new(judge));
    }

    /// Ends [`Self::judge`]; what the judge has owned is dropped.
    pub fn acquit(&self) {
        let mut current = self.shared.judge.lock();
        let current = current.as_mut().unwrap_or_else(|error| error.get_mut());
        current.0 = None;
    }

    /// What has happened.
    #[must_use]
    pub fn counts(&self) -> WireCounts {
        *self
            .shared
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for carrier in self.carriers.drain(..) {
            match carrier.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => eprintln!("a wire failed: {error:#}"),
                Err(_) => eprintln!("a wire panicked"),
            }
        }
    }
}

/// A frame under way, in the order in which frames leave.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: Instant,
    serial: u64,
    frame: Vec<u8>,
}

/// A segment that waits for those that overtake it.
struct Waiting {
    until: Instant,
    overtaking: u32,
    frame: Vec<u8>,
}

fn carry(from: &Socket, to: &Socket, toward: Toward, shared: &Shared) -> Result<()> {
    let mut queue: BinaryHeap<Reverse<Due>> = BinaryHeap::new();
    let mut waiting: Option<Waiting> = None;
    let (mut serial, mut segments) = (0_u64, 0_u32);
    while !shared.stop.load(Ordering::Relaxed) {
        let next = queue.peek().map(|Reverse(due)| due.at);
        let wake = next.into_iter().chain(waiting.as_ref().map(|w| w.until));
        let sleep = wake
            .min()
            .map_or(STOP_INTERVAL, |at| {
                at.saturating_duration_since(Instant::now())
            })
            .min(STOP_INTERVAL);
        ppoll(
            &mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)],
            Some(TimeSpec::from_duration(sleep)),
            None,
        )?;

        let what = *shared
            .disturbance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut counts = WireCounts::default();
        let mut send = |frame: Vec<u8>| -> Result<()> {
            if what.delay.is_zero() && queue.is_empty() {
                return line::deliver(to.send(&frame)).context("sending a frame");
            }
            if queue.len() >= QUEUE {
                counts.lost += 1;
                return Ok(());
            }
            serial += 1;
            let at = Instant::now() + what.delay;
            queue.push(Reverse(Due { at, serial, frame }));
            Ok(())
        };
        // A bound, so that what is due is not kept waiting by what arrives.
        for _ in 0..64 {
            let frame = line::receive(LARGEST_FRAME, |buffer| (&mut &*from).read(buffer));
            let Some(mut frame) = frame.context("receiving a frame")? else {
                break;
            };
            let fate = {
                let mut judge = shared.judge.lock().unwrap_or_else(PoisonError::into_inner);
                match &mut judge.0 {
                    Some(judge) => judge(toward, frame.get(OFFLOAD_HEADER..).unwrap_or_default()),
                    None => Fate::Arrives,
                }
            };
            match fate {
                Fate::Arrives => {}
                Fate::Lost => continue,
                Fate::Twice => send(frame.clone())?,
                Fate::Damaged(bit) => damage(&mut frame, bit),
                Fate::Overtaken if waiting.is_none() => {
                    waiting = Some(Waiting {
                        until: Instant::now() + OVERTAKEN_WITHIN,
                        overtaking: 1,
                        frame,
                    });
                    continue;
                }
                Fate::Overtaken => {}
            }
            if !has_tcp_data(&frame) {
                send(frame)?;
                continue;
            }
            counts.segments += 1;
            segments = segments.wrapping_add(1);
            let each = |n: u32| n != 0 && segments.is_multiple_of(n);
            if each(what.doubled) {
                counts.doubled += 1;
                send(frame.clone())?;
            }
            if each(what.overtaken) && waiting.is_none() {
                waiting = Some(Waiting {
                    until: Instant::now() + OVERTAKEN_WITHIN,
                    overtaking: what.by.max(1),
                    frame,
                });
                continue;
            }
            send(frame)?;
            if let Some(mut segment) = waiting.take() {
                segment.overtaking -= 1;
                if segment.overtaking > 0 {
                    waiting = Some(segment);
                } else {
                    counts.overtaken += 1;
                    send(segment.frame)?;
                }
            }
        }
        if let Some(segment) = waiting.take_if(|segment| segment.until <= Instant::now()) {
            send(segment.frame)?;
        }
        while let Some(due) = queue.peek() {
            if due.0.at > Instant::now() {
                break;
            }
            if let Some(Reverse(due)) = queue.pop() {
                line::deliver(to.send(&due.frame)).context("sending a frame")?;
            }
        }
        let mut total = shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        total.segments += counts.segments;
        total.overtaken += counts.overtaken;
        total.doubled += counts.doubled;
        total.lost += counts.lost;
    }
    Ok(())
}

fn damage(frame: &mut [u8], bit: usize) {
    let Some(packet) = frame.get_mut(OFFLOAD_HEADER + 14..) else {
        return;
    };
    if let Some(bits) = (packet.len() * 8).checked_sub(1) {
        let bit = bit % (bits + 1);
        packet[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Whether an untagged frame, behind its offload header, is a TCP segment with data. IPv6 extension headers do not occur.
fn has_tcp_data(frame: &[u8]) -> bool {
    const TCP: u8 = 6;
    let (Some(kind), Some(packet)) = (
        frame.get(OFFLOAD_HEADER + 12..OFFLOAD_HEADER + 14),
        frame.get(OFFLOAD_HEADER + 14..),
    ) else {
        return false;
    };
    let length = |at: usize| {
        packet
            .get(at..at + 2)
            .map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])))
    };
    let (header, total, protocol) = match kind {
        [0x08, 0x00] => (
            packet.first().map(|first| usize::from(first & 0xf) * 4),
            length(2),
            packet.get(9),
        ),
        [0x86, 0xdd] => (Some(40), length(4).map(|n| n + 40), packet.get(6)),
        _ => return false,
    };
    let (Some(header), Some(total), Some(&TCP)) = (header, total, protocol) else {
        return false;
    };
    packet
        .get(header + 12)
        .is_some_and(|offset| total > header + usize::from(offset >> 4) * 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[0; OFFLOAD_HEADER + 12], kind.as_slice(), packet].concat()
    }

    #[test]
    fn segments_with_data_are_told_from_others() {
        let mut v4 = [0; 41];
        (v4[0], v4[3], v4[9], v4[32]) = (0x45, 41, 6, 5 << 4);
        assert!(has_tcp_data(&frame([8, 0], &v4)));
        v4[3] = 40;
        // Padded to the shortest Ethernet frame.
        assert!(!has_tcp_data(&frame([8, 0], &v4)));
        (v4[3], v4[9]) = (41, 17);
        assert!(!has_tcp_data(&frame([8, 0], &v4)));
        let mut v6 = [0; 61];
        (v6[5], v6[6], v6[52]) = (21, 6, 5 << 4);
        assert!(has_tcp_data(&frame([0x86, 0xdd], &v6)));
        v6[52] = 8 << 4;
        assert!(!has_tcp_data(&frame([0x86, 0xdd], &v6)));
        assert!(!has_tcp_data(&frame([8, 6], &[0; 28])));
        assert!(!has_tcp_data(&[0; 12]));
    }
}
