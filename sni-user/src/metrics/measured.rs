//! What the agent counts and measures as it happens.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use prometheus::{HistogramVec, IntCounterVec};
use sni_common::contract::{Counter, Stats, Way};

use super::{Exposition, ExpositionError, connections, edges};
use crate::{
    config::Config,
    datapath::{EndedFlow, Swept},
};

/// Who a handshake is with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The partner, who has connected.
    Partner,
    /// The Edge.
    Edge,
}

/// Counts and times of the whole life of an agent.
pub(crate) struct Measured {
    hellos: IntCounterVec,
    hello_times: HistogramVec,
    connect_times: HistogramVec,
    handshake_times: HistogramVec,
    opened: IntCounterVec,
    ended: IntCounterVec,
    refused: IntCounterVec,
    kept: IntCounterVec,
    edge_failures: IntCounterVec,
    last_sweep: Mutex<Option<LastSweep>>,
}

/// What the last sweep has found.
pub(crate) struct LastSweep {
    pub(crate) at: Instant,
    pub(crate) found: Swept,
}

/// The ways of connections that the agent itself opens.
const OWN_WAYS: [&str; 3] = ["relayed", "terminated", "handed-off"];

impl Measured {
    pub(crate) fn new() -> Self {
        let new = Self {
            hellos: connections::HELLOS.counts(),
            hello_times: connections::HELLO_TIMES.times(),
            connect_times: connections::CONNECT_TIMES.times(),
            handshake_times: connections::HANDSHAKE_TIMES.times(),
            opened: connections::OPENED.counts(),
            ended: connections::ENDED.counts(),
            refused: connections::REFUSED.counts(),
            kept: connections::KEPT.counts(),
            edge_failures: edges::FAILURES.counts(),
            last_sweep: Mutex::new(None),
        };
        new.begin();
        new
    }

    /// Has what may happen on any day begin at zero: of what is not there, Prometheus does not see the first one.
    fn begin(&self) {
        self.hellos.with_label_values(&["agent", "complete"]);
        self.hello_times.with_label_values::<&str>(&[]);
        for result in ["completed", "failed"] {
            self.connect_times.with_label_values(&[result]);
            for peer in [Peer::Partner, Peer::Edge] {
                self.handshake_times
                    .with_label_values(&[peer_name(peer), result]);
            }
        }
        for way in OWN_WAYS {
            self.opened.with_label_values(&[way]);
        }
        for result in ["closed", "reset", "idle"] {
            self.ended
                .with_label_values(&["address", "steered", result]);
            for route in ["name", "default"] {
                for way in ["bound", "handed-off", "relayed", "terminated"] {
                    self.ended.with_label_values(&[route, way, result]);
                }
            }
        }
    }

    /// A ClientHello was read, so long after its connection was accepted.
    pub(crate) fn hello(&self, took: Duration) {
        self.hellos.with_label_values(&["agent", "complete"]).inc();
        let times = self.hello_times.with_label_values::<&str>(&[]);
        times.observe(took.as_secs_f64());
    }

    /// There was none, for this reason.
    pub(crate) fn no_hello(&self, reason: &str) {
        self.hellos.with_label_values(&["agent", reason]).inc();
    }

    /// An attempt to connect to an Edge is over.
    pub(crate) fn connect(&self, edge: &str, took: Duration, connected: bool) {
        let times = self.connect_times.with_label_values(&[result(connected)]);
        times.observe(took.as_secs_f64());
        if !connected {
            self.edge_failures.with_label_values(&[edge]).inc();
        }
    }

    /// A TLS handshake is over.
    pub(crate) fn handshake(&self, peer: Peer, took: Duration, completed: bool) {
        let labels = [peer_name(peer), result(completed)];
        let times = self.handshake_times.with_label_values(&labels);
        times.observe(took.as_secs_f64());
    }

    /// A connection goes this way from now on.
    pub(crate) fn opened(&self, way: &str) {
        self.opened.with_label_values(&[way]).inc();
    }

    /// A connection of the agent's is over, which a configured name has decided about or not.
    pub(crate) fn ended(&self, named: bool, way: &str, result: &str) {
        let labels = [by_name(named), way, result];
        self.ended.with_label_values(&labels).inc();
    }

    /// A connection was not carried.
    pub(crate) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// A connection stays in the relay, for now.
    pub(crate) fn kept(&self, reason: &str) {
        self.kept.with_label_values(&[reason]).inc();
    }

    /// A sweep has found this.
    pub(crate) fn swept(&self, found: Swept) {
        for (flow, count) in &found.ended {
            let labels = ended_flow(flow);
            let ended = self.ended.with_label_values(&labels);
            ended.inc_by(u64::from(*count));
        }
        let at = Instant::now();
        *self.last_sweep() = Some(LastSweep { at, found });
    }

    /// What the last one has found; none before the first.
    pub(crate) fn last_sweep(&self) -> MutexGuard<'_, Option<LastSweep>> {
        let last = self.last_sweep.lock();
        last.unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds all of it, with what the datapath has counted likewise.
    pub(crate) fn expose(
        &self,
        to: &Exposition,
        stats: &Stats,
        config: &Config,
    ) -> Result<(), ExpositionError> {
        for edge in &config.edges {
            self.edge_failures.with_label_values(&[edge.name.as_str()]);
        }
        for counter in OF_HELLOS {
            let labels = ["datapath", counter.name()];
            set(&self.hellos, &labels, stats.counter(counter));
        }
        for (way, counter) in [
            (Way::Steered, Counter::Opened),
            (Way::Bound, Counter::Bound),
        ] {
            set(&self.opened, &[way.name()], stats.counter(counter));
        }
        for counts in [
            &self.hellos,
            &self.opened,
            &self.ended,
            &self.refused,
            &self.kept,
            &self.edge_failures,
        ] {
            to.with(counts.clone())?;
        }
        for times in [
            &self.hello_times,
            &self.connect_times,
            &self.handshake_times,
        ] {
            to.with(times.clone())?;
        }
        Ok(())
    }
}

/// What the datapath counts of the ClientHellos that it reads.
const OF_HELLOS: [Counter; 4] = [
    Counter::Bound,
    Counter::LeftName,
    Counter::LeftHello,
    Counter::LeftWay,
];

/// Has a counter say what somebody else has counted. One scrape at a time does so.
fn set(counts: &IntCounterVec, labels: &[&str], value: u64) {
    let counter = counts.with_label_values(labels);
    counter.reset();
    counter.inc_by(value);
}

fn peer_name(peer: Peer) -> &'static str {
    match peer {
        Peer::Partner => "partner",
        Peer::Edge => "edge",
    }
}

fn result(completed: bool) -> &'static str {
    if completed { "completed" } else { "failed" }
}

fn by_name(named: bool) -> &'static str {
    if named { "name" } else { "default" }
}

/// The labels of a flow of the datapath.
fn ended_flow(flow: &EndedFlow) -> [&'static str; 3] {
    let way = Way::try_from(flow.way).map_or("unknown", Way::name);
    let route = if flow.way == Way::Steered as u8 {
        "address"
    } else {
        by_name(flow.named)
    };
    [route, way, flow.why.name()]
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, path::Path};

    use sni_common::expiry::Ended;

    use super::*;

    const CONFIG: &str = r#"
[gateway]
interfaces = ["wan0"]
[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"
"#;

    #[test]
    fn ended_flows_are_told_by_route_way_and_result() {
        let measured = Measured::new();
        let flow = |way: Way, named, why| EndedFlow {
            way: way as u8,
            named,
            why,
        };
        let found = Swept {
            ended: HashMap::from([
                (flow(Way::Steered, false, Ended::Closed), 3),
                (flow(Way::HandedOff, true, Ended::Reset), 2),
                (flow(Way::Bound, false, Ended::Orphaned), 1),
            ]),
            ..Swept::default()
        };
        measured.swept(found.clone());
        measured.swept(found);
        let mut stats = Stats::default();
        stats.0[Counter::Bound as usize] = 7;
        let config = Config::parse(Path::new("/snigate.toml"), CONFIG);
        let config = config.unwrap_or_else(|found| panic!("{found}")).config;
        measured.connect("edge-b", Duration::from_millis(30), false);
        let exposition = |stats: &Stats| {
            let exposition = Exposition::new();
            measured.expose(&exposition, stats, &config).unwrap();
            exposition.text().unwrap()
        };
        exposition(&stats);
        stats.0[Counter::Bound as usize] = 9;
        let text = exposition(&stats);
        for line in [
            "snigate_connections_ended_total{result=\"closed\",route=\"address\",way=\"steered\"} 6",
            "snigate_connections_ended_total{result=\"reset\",route=\"name\",way=\"handed-off\"} 4",
            "snigate_connections_ended_total{result=\"orphaned\",route=\"default\",way=\"bound\"} 2",
            "snigate_connections_ended_total{result=\"idle\",route=\"name\",way=\"relayed\"} 0",
            "snigate_connections_opened_total{way=\"bound\"} 9",
            "snigate_hellos_total{reader=\"datapath\",result=\"bound\"} 9",
            "snigate_hello_seconds_count 0",
            "snigate_edge_connect_failures_total{edge=\"edge-a\"} 0",
            "snigate_edge_connect_failures_total{edge=\"edge-b\"} 1",
            "snigate_edge_connect_seconds_bucket{result=\"failed\",le=\"0.05\"} 1",
            "snigate_edge_connect_seconds_bucket{result=\"failed\",le=\"0.025\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} in\n{text}");
        }
    }
}
