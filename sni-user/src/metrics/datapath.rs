//! Packets, drops, and what the programs cost.

use sni_common::contract::{Counter, DropReason, Stats};

use super::{Exposition, ExpositionError, Family};
use crate::datapath::RunTime;

pub(super) const FAMILIES: &[&Family] = &[
    &DROPPED,
    &FORWARDED,
    &FORWARDED_BYTES,
    &EVENTS,
    &TIME,
    &RUNS,
];

const DROPPED: Family = Family::counter(
    "snigate_dropped_packets_total",
    &["reason"],
    "Packets of services and flows that the datapath dropped or answered with a reset or an ICMP error, by reason.",
);
const FORWARDED: Family = Family::counter(
    "snigate_forwarded_packets_total",
    &[],
    "Packets that the datapath translated and forwarded, whichever way.",
);
const FORWARDED_BYTES: Family = Family::counter(
    "snigate_forwarded_bytes_total",
    &[],
    "Bytes of those, IP headers included.",
);
const EVENTS: Family = Family::counter(
    "snigate_datapath_events_total",
    &["event"],
    "Everything else that the datapath counts, by the names of `snigate status`.",
);
const TIME: Family = Family::counter(
    "snigate_datapath_run_seconds_total",
    &["program"],
    "CPU time of the datapath's programs, while the kernel measures it (datapath_time).",
);
const RUNS: Family = Family::counter(
    "snigate_datapath_runs_total",
    &["program"],
    "Runs of the datapath's programs, while the kernel measures them (datapath_time).",
);

/// Adds what the datapath has counted, and what the kernel has measured of it.
pub(crate) fn expose(
    to: &Exposition,
    stats: &Stats,
    run_times: &[RunTime],
) -> Result<(), ExpositionError> {
    let dropped = to.family(&DROPPED)?;
    for reason in DropReason::ALL {
        dropped.add(&[reason.name()], stats.drops(*reason) as f64);
    }
    let events = to.family(&EVENTS)?;
    for counter in Counter::ALL {
        let value = stats.counter(*counter) as f64;
        match counter {
            Counter::Forwarded => to.single(&FORWARDED, value)?,
            Counter::ForwardedBytes => to.single(&FORWARDED_BYTES, value)?,
            _ => events.add(&[counter.name()], value),
        }
    }
    let (time, runs) = (to.family(&TIME)?, to.family(&RUNS)?);
    for run in run_times {
        time.add(&[&run.program], run.time.as_secs_f64());
        runs.add(&[&run.program], run.runs as f64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_counter_and_reason_is_there_from_the_first_scrape_on() {
        let mut stats = Stats::default();
        stats.0[Counter::Forwarded as usize] = 8;
        stats.0[DropReason::NoEdge.index() as usize] = 3;
        let run = RunTime {
            program: "snigate_tc".to_owned(),
            runs: 2,
            time: Duration::from_millis(1500),
        };
        let exposition = Exposition::new();
        expose(&exposition, &stats, &[run]).unwrap();
        let text = exposition.text().unwrap();
        let count = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        let reasons = count("snigate_dropped_packets_total{");
        assert_eq!(reasons, DropReason::ALL.len());
        let events = count("snigate_datapath_events_total{");
        assert_eq!(events, Counter::ALL.len() - 2);
        for line in [
            "snigate_forwarded_packets_total 8",
            "snigate_dropped_packets_total{reason=\"no-edge\"} 3",
            "snigate_datapath_run_seconds_total{program=\"snigate_tc\"} 1.5",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
    }
}
