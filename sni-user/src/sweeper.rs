//! The thread that removes flows that have ended.

use std::{
    mem,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sni_common::expiry::Timeouts;

use crate::{
    clock::monotonic_ns,
    connection_log::RemovedFlows,
    datapath::{DatapathError, Maps, sweep},
    proxy::Proxy,
};

/// Time between sweeps, while a sweep is quick.
const INTERVAL: Duration = Duration::from_secs(5);
/// A sweep may take this part of the time at most; with millions of flows the pauses grow.
const PAUSE_PER_SWEEP: u32 = 20;

/// The sweep in a thread of its own, because it waits for the kernel for as long as there are flows to read. Dropping it ends it.
pub(crate) struct Sweeper {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Starts sweeping `maps`. The first sweep comes at once, and tells how many connections of each Edge earlier agents have handed off.
    pub(crate) fn start(mut maps: Maps, timeouts: Timeouts, proxy: Arc<Proxy>) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut pause = Duration::ZERO;
            let mut handed_off = 0;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let started = Instant::now();
                let active = proxy.active();
                let before = active.edges.before_sweep();
                let now_ns = monotonic_ns();
                let mut removed = RemovedFlows::new(proxy.log(), now_ns);
                let swept = sweep(&mut maps, now_ns, &timeouts, |flow| {
                    removed.add(flow);
                });
                removed.say(&maps, &active.routing);
                match swept {
                    Ok(swept) => {
                        active.edges.swept(&before, |index| {
                            let slot = active.numbers.edges.get(index);
                            slot.map_or(0, |slot| swept.handed_off(*slot))
                        });
                        let before = mem::replace(&mut handed_off, swept.all_handed_off());
                        if handed_off > before {
                            release_memory();
                        }
                        tracing::debug!(
                            flows = swept.flows,
                            half_open = swept.half_open,
                            closed = swept.closed,
                            reset = swept.reset,
                            idle = swept.idle,
                            orphaned = swept.orphaned,
                            abandoned = swept.abandoned,
                            stuck = swept.stuck,
                            "swept"
                        );
                        proxy.measured().swept(swept);
                    }
                    Err(error) => report(&error),
                }
                pause = INTERVAL.max(started.elapsed() * PAUSE_PER_SWEEP);
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the sweep of ended flows had panicked");
        }
    }
}

/// Gives the memory of connections that are gone back to the system. The allocator keeps it, and of a burst of hand-offs that is megabytes for good.
fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a function without conditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn report(error: &DatapathError) {
    tracing::error!(%error, "the flow table can't be swept; ended flows stay in it until that works again");
}
