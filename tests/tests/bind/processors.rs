//! Packets of one connection on two processors at once.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use snigate_tests::{
    addresses::vips,
    peers::{Segments, captured_hello},
};

use crate::{BOUND, client::Client, on_hooks, quiet};

/// Connections in each family.
const CONNECTIONS: usize = 300;
/// What the client says behind its hello, without waiting: with it the stream just fits what its SYN-ACK has allowed it.
const MORE: usize = 1000;

/// The calling thread's processors, which it gets back.
struct Pinned(CpuSet);

impl Pinned {
    fn to(processor: usize) -> Result<Self> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this)?;
        let mut one = CpuSet::new();
        one.set(processor)?;
        sched_setaffinity(this, &one)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.0);
    }
}

/// The client's segments pass the gateway on the processor that the client runs on, the Edge's SYN-ACKs on the one that the Edge's host takes packets
/// in on: so the end of the hello and what comes behind it meet the SYN-ACK on the way.
#[test]
fn the_second_segment_meets_the_edges_answer() {
    if !std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
        eprintln!("skipped: there is one processor only");
        return;
    }
    on_hooks("processors", &quiet(), |scene| {
        let _edges = scene.edges()?;
        scene.lab.edge_a.receive_on(1)?;
        let _pinned = Pinned::to(0)?;
        let mut stream = captured_hello("chromium")?;
        let hello = stream.len();
        stream.extend((0..MORE).map(|n| (n % 251) as u8));
        for address in vips() {
            // Cut at the end of the hello, and everywhere.
            for size in [hello / 2, 700, 400] {
                for number in 0..CONNECTIONS / 3 {
                    let what = || format!("{address}, {size} bytes at once, number {number}");
                    let segments = Segments::Of(size, Duration::ZERO);
                    let mut client =
                        Client::open(&scene.lab.partner, None, address, &stream, segments)
                            .with_context(what)
                            .with_context(|| scene.told())?;
                    if number == 0 {
                        scene.goes(&client, "a", BOUND).with_context(what)?;
                    }
                    client.ping().with_context(what)?;
                    client.close().with_context(what)?;
                }
            }
        }
        let bound = scene.counter("bound")?;
        ensure!(bound >= 2 * CONNECTIONS as u64, "{bound} were bound");
        Ok(())
    });
}
