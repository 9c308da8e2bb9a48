//! A family of metrics: a name, its labels, and what it means.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};

/// A family of metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Family {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub help: &'static str,
}

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only grows, until the agent or the datapath begins anew.
    Counter,
    /// It is what it is at the moment.
    Gauge,
    /// How many took how long: these are the upper bounds of its buckets, in seconds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word of the exposition format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

impl Family {
    /// A counter.
    pub(super) const fn counter(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self::new(name, Kind::Counter, labels, help)
    }

    /// A gauge.
    pub(super) const fn gauge(
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self::new(name, Kind::Gauge, labels, help)
    }

    /// A histogram.
    pub(super) const fn histogram(
        name: &'static str,
        buckets: &'static [f64],
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self::new(name, Kind::Histogram(buckets), labels, help)
    }

    const fn new(
        name: &'static str,
        kind: Kind,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            labels,
            help,
        }
    }

    pub(super) fn options(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    /// A counter that lives as long as the agent.
    ///
    /// # Panics
    /// When the name is none.
    pub(super) fn counts(&self) -> IntCounterVec {
        IntCounterVec::new(self.options(), self.labels).expect("a name and labels")
    }

    /// A histogram that lives as long as the agent.
    ///
    /// # Panics
    /// When it is none, or its name.
    pub(super) fn times(&self) -> HistogramVec {
        let Kind::Histogram(buckets) = self.kind else {
            panic!("{} is no histogram", self.name);
        };
        let options = HistogramOpts::from(self.options()).buckets(buckets.to_vec());
        HistogramVec::new(options, self.labels).expect("a name, labels and ascending buckets")
    }
}
