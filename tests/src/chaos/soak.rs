//! A long time of mixed traffic, with connections that come and go, reloads and agents that die: what the gateway holds must not grow.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value as Json, json};

use super::{Outcome, Play, Scenario, scenarios::agents::NEW_DOMAIN};
use crate::{
    flood::kilobytes,
    plot::{Axis, Line, Lines, Plot, Value},
};

/// Before anything is measured: flows that have ended keep their entries for a minute, and until then there are more from one moment to the next.
const WARM_UP: Duration = Duration::from_secs(90);
/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Between two things that happen to the agent, in milliseconds.
const QUIET: std::ops::Range<u64> = 5_000..15_000;
/// One of so many is a death; the others are reloads.
const DEATHS: u32 = 4;

/// Something that must not grow.
struct Measure {
    name: &'static str,
    /// How much more it may be in the last third than in the first: a part of what it was, and so much.
    part: f64,
    more: f64,
    look: fn(&Play<'_, '_>) -> Result<f64>,
}

const MEASURES: [Measure; 6] = [
    Measure {
        name: "agent, MiB",
        part: 0.1,
        more: 8.0,
        look: |play| {
            let pid = play.stage.gateway.borrow().pid()?;
            mebibytes(&format!("/proc/{pid}/status"), "VmRSS")
        },
    },
    Measure {
        name: "agent, descriptors",
        part: 0.1,
        more: 16.0,
        look: |play| {
            let pid = play.stage.gateway.borrow().pid()?;
            Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64)
        },
    },
    Measure {
        name: "kernel's slab, MiB",
        part: 0.1,
        more: 32.0,
        look: |_| mebibytes("/proc/meminfo", "Slab"),
    },
    Measure {
        name: "flows",
        part: 0.25,
        more: 100.0,
        look: |play| entries(play, &["FLOWS"]),
    },
    Measure {
        name: "beginnings",
        part: 0.25,
        more: 100.0,
        look: |play| entries(play, &["HALF_OPEN", "PENDING", "HELLOS", "HANDING_OFF"]),
    },
    Measure {
        name: "configuration",
        part: 0.0,
        more: 2.0,
        look: |play| entries(play, &["SERVICES", "SNI_ROUTES", "LABELS"]),
    },
];

fn mebibytes(file: &str, name: &str) -> Result<f64> {
    Ok(kilobytes(file, name)? as f64 / 1024.0)
}

/// Of some maps together.
fn entries(play: &Play<'_, '_>, maps: &[&str]) -> Result<f64> {
    let listed = play.stage.gateway.borrow().json(&["map", "ls"])?;
    let rows = listed.as_array().context("maps")?;
    let wanted = rows
        .iter()
        .filter(|row| maps.iter().any(|name| row["name"] == *name));
    let counts: Option<Vec<_>> = wanted.map(|row| row["entries"].as_u64()).collect();
    let counts = counts.with_context(|| format!("no entries in {listed}"))?;
    ensure!(counts.len() == maps.len(), "{maps:?} in {listed}");
    Ok(counts.iter().sum::<u64>() as f64)
}

/// A look at everything.
struct Sample {
    minutes: f64,
    values: [f64; MEASURES.len()],
}

/// What came of it.
pub struct Soak {
    /// What became of the connections.
    pub outcome: Outcome,
    samples: Vec<Sample>,
}

/// One measure in the end.
struct Verdict {
    name: &'static str,
    first: f64,
    last: f64,
    most: f64,
}

impl Soak {
    /// Soaks the gateway for so long, after a time in which it gets warm.
    ///
    /// # Errors
    /// There is too little to compare.
    pub fn run(minutes: f64, seed: u64, hook: &'static str) -> Result<Self> {
        let (sender, samples) = std::sync::mpsc::channel();
        let scenario = Scenario::new("soak", "a long time", move |play| {
            soak(play, minutes, &sender)
        });
        let outcome = scenario.run(seed, hook);
        drop(scenario);
        let samples: Vec<_> = samples.iter().collect();
        ensure!(
            samples.len() >= 6 || outcome.error.is_some(),
            "{} looks are too few to compare: soak for longer",
            samples.len()
        );
        Ok(Self { outcome, samples })
    }

    /// The medians of the first and of the last third, and how much the latter may be.
    fn verdicts(&self) -> Vec<Verdict> {
        let third = self.samples.len() / 3;
        let last = self.samples.len() - third;
        let verdict = |(index, measure): (usize, &Measure)| {
            let first = median(&self.samples[..third], index);
            Verdict {
                name: measure.name,
                first,
                last: median(&self.samples[last..], index),
                most: first * (1.0 + measure.part) + measure.more,
            }
        };
        MEASURES.iter().enumerate().map(verdict).collect()
    }

    /// Whether nothing has grown, and nothing was lost that may not be.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.outcome.is_well() && self.verdicts().iter().all(Verdict::is_flat)
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:20} {:>12} {:>12} {:>12}\n",
            "median of", "first third", "last third", "at most"
        );
        for verdict in self.verdicts() {
            let Verdict {
                name,
                first,
                last,
                most,
            } = &verdict;
            let flat = if verdict.is_flat() { "" } else { "  GROWS" };
            text += &format!("{name:20} {first:>12.1} {last:>12.1} {most:>12.1}{flat}\n");
        }
        text
    }

    /// For programs.
    #[must_use]
    pub fn as_json(&self) -> Json {
        let verdicts = self.verdicts().into_iter().map(|verdict| {
            json!({
                "name": verdict.name,
                "first_third": verdict.first,
                "last_third": verdict.last,
                "at_most": verdict.most,
                "flat": verdict.is_flat(),
            })
        });
        json!({
            "well": self.is_well(),
            "connections": self.outcome.as_json(),
            "measures": verdicts.collect::<Vec<_>>(),
        })
    }

    /// Writes `soak-light.svg` and `soak-dark.svg` into a directory: each measure in parts of what it was in the first third.
    ///
    /// # Errors
    /// They can't be written.
    pub fn plot(&self, directory: &Path) -> Result<()> {
        let line = |(index, verdict): (usize, Verdict)| {
            let part = |sample: &Sample| 100.0 * sample.values[index] / verdict.first.max(1.0);
            let points = self.samples.iter();
            Line {
                name: verdict.name.to_owned(),
                points: points
                    .map(|sample| (sample.minutes, Value::exact(part(sample))))
                    .collect(),
            }
        };
        let plot = Plot::Lines(Lines {
            title: "what the gateway holds, under traffic, reloads and deaths of the agent"
                .to_owned(),
            x: Axis::linear("time, minutes"),
            y: Axis::linear("percent of the first third's median"),
            lines: self.verdicts().into_iter().enumerate().map(line).collect(),
        });
        plot.write(directory, "soak")
    }
}

impl Verdict {
    fn is_flat(&self) -> bool {
        self.last <= self.most
    }
}

fn median(samples: &[Sample], index: usize) -> f64 {
    let mut values: Vec<_> = samples.iter().map(|sample| sample.values[index]).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Looks at everything from time to time, while things happen to the agent.
fn soak(
    play: &mut Play<'_, '_>,
    minutes: f64,
    samples: &std::sync::mpsc::Sender<Sample>,
) -> Result<()> {
    let began = Instant::now();
    let end = began + WARM_UP + Duration::from_secs_f64(minutes * 60.0);
    let mut next = Instant::now();
    let (mut reloads, mut deaths) = (0_u32, 0_u32);
    while Instant::now() < end {
        if Instant::now() >= next {
            if play.rng.u32(..DEATHS) == 0 {
                deaths += 1;
                play.kill_agent()?;
                play.start_agent()?;
            } else {
                reloads += 1;
                let more = if reloads % 2 == 0 { "" } else { NEW_DOMAIN };
                play.stage.configure(more)?;
                play.stage.gateway.borrow().output(&["reload"])?;
            }
            next = Instant::now() + Duration::from_millis(play.rng.u64(QUIET));
        }
        thread::sleep(INTERVAL);
        if began.elapsed() > WARM_UP {
            let mut values = [0.0; MEASURES.len()];
            for (value, measure) in values.iter_mut().zip(&MEASURES) {
                *value = (measure.look)(play).context(measure.name)?;
            }
            let minutes = began.elapsed().as_secs_f64() / 60.0;
            // Whoever does not listen does not want them.
            let _ = samples.send(Sample { minutes, values });
        }
    }
    play.note(format!("{reloads} reloads, {deaths} deaths of the agent"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growing(by: f64) -> Soak {
        let sample = |n: u32| Sample {
            minutes: n.into(),
            values: [1000.0 + by * f64::from(n); MEASURES.len()],
        };
        let mut outcome = Scenario::new("soak", "", |_| Ok(())).unplayed(1);
        outcome.error = None;
        Soak {
            outcome,
            samples: (0..30).map(sample).collect(),
        }
    }

    #[test]
    fn what_grows_is_told() {
        assert!(growing(0.0).is_well());
        let grown = growing(100.0);
        assert!(!grown.is_well());
        assert!(grown.verdicts().iter().all(|verdict| !verdict.is_flat()));
        assert_eq!(grown.table().matches("GROWS").count(), MEASURES.len());
    }
}
