//! A long time of mixed traffic: first agents that die or end and others that follow, then one that lives, with reloads. What the gateway holds must not
//! grow under the one that lives.

use std::{
    fs,
    path::Path,
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value as Json, json};

use super::{
    Outcome, Play, Scenario,
    scenarios::agents::{AFTER, BEFORE, CONFIGURED, configured},
};
use crate::{
    flood::kilobytes,
    plot::{Axis, Line, Lines, Plot, Value},
};

/// The least time, and the part of the time that is measured, in which agents follow each other before.
const RESTARTS: Duration = Duration::from_secs(60);
const RESTARTS_PART: f64 = 0.25;
/// Before anything is measured: flows that have ended keep their entries for a minute, and until then there are more from one moment to the next.
const WARM_UP: Duration = Duration::from_secs(90);
/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Between two things that happen to the agent, in milliseconds.
const QUIET: std::ops::Range<u64> = 5_000..15_000;

/// Something that must not grow.
struct Measure {
    name: &'static str,
    /// How much more it may be in the last third than in the first: a part of what it was, and so much.
    part: f64,
    more: f64,
    of: fn(&Look) -> Result<f64>,
}

/// Maps that are told each for itself or together with others of their kind.
const BEGINNINGS: [&str; 4] = ["HALF_OPEN", "PENDING", "HELLOS", "HANDING_OFF"];
/// Whoever has begun is remembered here until there is no room for somebody new: they grow until they are full, and it is meant.
const MEMORIES: [&str; 2] = ["CLIENT_SYNS", "EDGE_SYN_ACKS"];

/// Measures that are no map's, which are the first ones.
const BEFORE_MAPS: usize = 6;

const MEASURES: [Measure; 10] = [
    Measure {
        name: "agent, MiB",
        part: 0.1,
        more: 8.0,
        of: |look| memory(look.agent),
    },
    Measure {
        name: "agent, descriptors",
        part: 0.1,
        more: 16.0,
        of: |look| descriptors(look.agent),
    },
    Measure {
        name: "holder, MiB",
        part: 0.1,
        more: 2.0,
        of: |look| memory(look.holder),
    },
    Measure {
        name: "holder, descriptors",
        part: 0.0,
        more: 2.0,
        of: |look| descriptors(look.holder),
    },
    Measure {
        name: "kernel's slab, MiB",
        part: 0.1,
        more: 32.0,
        of: |_| mebibytes("/proc/meminfo", "SUnreclaim"),
    },
    Measure {
        name: "kernel's per CPU, MiB",
        part: 0.1,
        more: 4.0,
        of: |_| mebibytes("/proc/meminfo", "Percpu"),
    },
    Measure {
        name: "flows",
        part: 0.25,
        more: 100.0,
        of: |look| look.entries(|map| map == "FLOWS"),
    },
    Measure {
        name: "beginnings",
        part: 0.25,
        more: 100.0,
        of: |look| look.entries(|map| BEGINNINGS.contains(&map)),
    },
    Measure {
        name: "configuration",
        part: 0.0,
        more: 2.0,
        of: |look| look.entries(|map| CONFIGURED.contains(&map)),
    },
    Measure {
        name: "other maps",
        part: 0.1,
        more: 10.0,
        of: |look| {
            look.entries(|map| {
                map != "FLOWS"
                    && ![&BEGINNINGS[..], &CONFIGURED, &MEMORIES]
                        .concat()
                        .contains(&map)
            })
        },
    },
];

/// Where there is something to be looked at.
struct Look {
    agent: u32,
    holder: u32,
    maps: Json,
}

impl Look {
    fn new(play: &Play<'_, '_>) -> Result<Self> {
        let gateway = play.stage.gateway.borrow();
        let holder = gateway.holder()?.context("nobody holds the listener")?;
        Ok(Self {
            agent: gateway.pid()?,
            holder: holder.as_raw().unsigned_abs(),
            maps: gateway.json(&["map", "ls"])?,
        })
    }

    /// Of some maps together.
    fn entries(&self, wanted: impl Fn(&str) -> bool) -> Result<f64> {
        let rows = self.maps.as_array().context("maps")?;
        let wanted = rows
            .iter()
            .filter(|row| row["name"].as_str().is_some_and(&wanted));
        let counts: Vec<_> = wanted.filter_map(|row| row["entries"].as_u64()).collect();
        ensure!(!counts.is_empty(), "no entries in {}", self.maps);
        Ok(counts.iter().sum::<u64>() as f64)
    }
}

fn memory(pid: u32) -> Result<f64> {
    mebibytes(&format!("/proc/{pid}/status"), "VmRSS")
}

fn descriptors(pid: u32) -> Result<f64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64)
}

fn mebibytes(file: &str, name: &str) -> Result<f64> {
    Ok(kilobytes(file, name)? as f64 / 1024.0)
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
            "{:22} {:>12} {:>12} {:>12}\n",
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
            text += &format!("{name:22} {first:>12.1} {last:>12.1} {most:>12.1}{flat}\n");
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

    /// Writes `soak-light.svg` and `soak-dark.svg` into a directory, and likewise `soak-maps`: each measure in parts of what it was in the first third.
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
        let mut lines: Vec<_> = self.verdicts().into_iter().enumerate().map(line).collect();
        // More can't be told apart in one.
        let of_maps = lines.split_off(BEFORE_MAPS);
        for (name, lines) in [("soak", lines), ("soak-maps", of_maps)] {
            let plot = Plot::Lines(Lines {
                title: "what the gateway holds, under traffic and reloads".to_owned(),
                x: Axis::linear("time, minutes"),
                y: Axis::linear("percent of the first third's median"),
                lines,
            });
            plot.write(directory, name)?;
        }
        Ok(())
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

fn soak(play: &mut Play<'_, '_>, minutes: f64, samples: &Sender<Sample>) -> Result<()> {
    play.reload(BEFORE)?;
    let before = configured(play)?;
    let measured = Duration::from_secs_f64(minutes * 60.0);
    follow_each_other(play, RESTARTS.max(measured.mul_f64(RESTARTS_PART)))?;
    let mut reloads = Reloads::default();
    reloads.go_on(play, WARM_UP, |_, _| Ok(()))?;
    let agent = play.stage.gateway.borrow().pid()?;
    let began = Instant::now();
    reloads.go_on(play, measured, |play, at| {
        let look = Look::new(play)?;
        ensure!(look.agent == agent, "the agent is another one");
        let mut values = [0.0; MEASURES.len()];
        for (value, measure) in values.iter_mut().zip(&MEASURES) {
            *value = (measure.of)(&look).context(measure.name)?;
        }
        let minutes = (at - began).as_secs_f64() / 60.0;
        // Whoever does not listen does not want them.
        let _ = samples.send(Sample { minutes, values });
        Ok(())
    })?;
    play.note(format!("then {} reloads of one agent", reloads.done));
    play.reload(BEFORE)?;
    let after = configured(play)?;
    ensure!(
        before == after,
        "of one configuration there were {before:?} entries, and are {after:?}"
    );
    Ok(())
}

/// Agents die, or end in good order, and others take their place.
fn follow_each_other(play: &mut Play<'_, '_>, time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    let (mut deaths, mut ends) = (0_u32, 0_u32);
    while Instant::now() < end {
        play.sleep(QUIET);
        // In turns, a death first: the first agent would take the datapath with it, if it ended in good order.
        if ends < deaths {
            ends += 1;
            play.stop_agent()?;
        } else {
            deaths += 1;
            play.kill_agent()?;
        }
        play.start_agent(&["--leave"])?;
    }
    play.note(format!("{deaths} agents were killed, and {ends} ended"));
    Ok(())
}

/// Configurations that follow each other.
#[derive(Default)]
struct Reloads {
    done: u32,
}

impl Reloads {
    /// For so long, with a look from time to time.
    fn go_on(
        &mut self,
        play: &mut Play<'_, '_>,
        time: Duration,
        mut look: impl FnMut(&Play<'_, '_>, Instant) -> Result<()>,
    ) -> Result<()> {
        let end = Instant::now() + time;
        let mut next = Instant::now();
        while Instant::now() < end {
            if Instant::now() >= next {
                self.done += 1;
                let is_back = self.done.is_multiple_of(2);
                play.reload(if is_back { BEFORE } else { AFTER })?;
                next = Instant::now() + Duration::from_millis(play.rng.u64(QUIET));
            }
            thread::sleep(INTERVAL);
            look(play, Instant::now())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growing(by: f64) -> Soak {
        let sample = |n: u32| Sample {
            minutes: n.into(),
            values: [1000.0 + by * f64::from(n); MEASURES.len()],
        };
        Soak {
            outcome: Scenario::new("soak", "", |_| Ok(())).unplayed(1),
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

    #[test]
    fn all_of_it_is_plotted() -> Result<()> {
        let directory = std::env::temp_dir().join(format!("soak-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let plotted = growing(1.0).plot(&directory);
        fs::remove_dir_all(&directory)?;
        plotted
    }
}
