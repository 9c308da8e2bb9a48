//! One answer to a scrape.

use prometheus::{CounterVec, GaugeVec, Registry, TextEncoder, core::Collector};

use super::{Family, Kind};
use crate::datapath::DatapathError;

/// Why there is no answer to a scrape.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExpositionError {
    /// The maps.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The process's own files.
    #[error("reading {path}: {source}")]
    Process {
        /// Which one.
        path: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// Two families of one name, or a value that belongs to none.
    #[error("the metrics contradict each other ({0}): report this")]
    Metrics(#[from] prometheus::Error),
}

/// The answer to one scrape, as it is put together. Made anew each time: nothing remains of what has gone since the last one.
pub(crate) struct Exposition(Registry);

impl Exposition {
    pub(crate) fn new() -> Self {
        Self(Registry::new())
    }

    /// Begins a family, to which samples are added.
    pub(crate) fn family(&self, family: &Family) -> Result<Samples, ExpositionError> {
        let (options, labels) = (family.options(), family.labels);
        Ok(match family.kind {
            Kind::Counter => Samples::Counter(self.with(CounterVec::new(options, labels)?)?),
            Kind::Gauge => Samples::Gauge(self.with(GaugeVec::new(options, labels)?)?),
            Kind::Histogram(_) => {
                let reason = format!("{} is no number", family.name);
                return Err(prometheus::Error::Msg(reason).into());
            }
        })
    }

    /// A family of a single number.
    pub(crate) fn single(&self, family: &Family, value: f64) -> Result<(), ExpositionError> {
        self.family(family)?.add(&[], value);
        Ok(())
    }

    /// Adds what is counted elsewhere.
    pub(super) fn with<C: Collector + Clone + 'static>(
        &self,
        collector: C,
    ) -> Result<C, ExpositionError> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    /// In Prometheus' text format. Families without a sample are left out.
    pub(crate) fn text(&self) -> Result<String, ExpositionError> {
        Ok(TextEncoder::new().encode_to_string(&self.0.gather())?)
    }
}

/// The samples of a family.
pub(crate) enum Samples {
    Counter(CounterVec),
    Gauge(GaugeVec),
}

impl Samples {
    /// Adds to the sample with these values of the family's labels.
    ///
    /// # Panics
    /// When there are more or fewer labels.
    pub(crate) fn add(&self, labels: &[&str], value: f64) {
        match self {
            Self::Counter(counter) => counter.with_label_values(labels).inc_by(value),
            Self::Gauge(gauge) => gauge.with_label_values(labels).add(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROPS: Family = Family::counter("drops_total", &["reason"], "Dropped.");
    const AGE: Family = Family::gauge("age_seconds", &[], "Old.");
    const NOTHING: Family = Family::gauge("nothing", &["edge"], "None.");

    #[test]
    fn samples_add_up_and_what_has_none_is_left_out() {
        let exposition = Exposition::new();
        let drops = exposition.family(&DROPS).unwrap();
        drops.add(&["no \"edge\""], 2.0);
        drops.add(&["no \"edge\""], 3.0);
        exposition.single(&AGE, 1.5).unwrap();
        exposition.family(&NOTHING).unwrap();
        let expected = "# HELP age_seconds Old.\n# TYPE age_seconds gauge\nage_seconds 1.5\n\
                        # HELP drops_total Dropped.\n# TYPE drops_total counter\ndrops_total{reason=\"no \\\"edge\\\"\"} 5\n";
        assert_eq!(exposition.text().unwrap(), expected);
        assert!(exposition.family(&AGE).is_err(), "twice");
    }
}
