//! What became of the connections of a scenario.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::Way;

/// How far a connection had come when it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing had come back from an Edge yet.
    Opening,
    /// Bytes had been there and back.
    Established,
    /// It was there before anything went wrong, and went its way.
    Held,
}

/// A connection that was lost.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The way that it went, or was to go.
    pub way: Way,
    /// How far it had come.
    pub phase: Phase,
    /// What its client's kernel, or TLS, said: `reset`, `refused`, `timed out`, …
    pub symptom: String,
    /// The client, where it had a connection at all.
    pub client: Option<SocketAddr>,
    /// When it was begun.
    pub opened: Instant,
}

impl Loss {
    /// Who has lost what, and how.
    #[must_use]
    pub fn sentence(&self) -> String {
        let client = self
            .client
            .map_or_else(String::new, |it| format!(" of {it}"));
        let phase = match self.phase {
            Phase::Opening => "opening",
            Phase::Established => "established",
            Phase::Held => "established before the fault",
        };
        format!(
            "{} connection{client}, {phase}: {}",
            self.way.name(),
            self.symptom
        )
    }
}

/// Something that may take connections with it, and since when.
#[derive(Clone, Debug)]
pub struct Excuse {
    /// Its name, as tables have it.
    pub name: &'static str,
    /// When it happened; what was opened later has another reason.
    pub at: Instant,
    /// Which connections it ends.
    pub ends: Ends,
}

/// Which connections something ends.
#[derive(Clone, Debug)]
pub enum Ends {
    /// The agent has died: those of which it is an end.
    TheAgents,
    /// It has died, and may have been in the middle of a hand-off.
    HandOffs,
    /// An end of these clients' connections has died.
    Clients(Vec<SocketAddr>),
}

impl Excuse {
    fn covers(&self, loss: &Loss) -> bool {
        loss.opened <= self.at
            && match &self.ends {
                Ends::TheAgents => loss.way.is_the_agents(),
                Ends::HandOffs => loss.way == Way::HandedOff && loss.phase != Phase::Held,
                Ends::Clients(clients) => {
                    loss.client.is_some_and(|client| clients.contains(&client))
                }
            }
    }
}

/// What became of one way's connections.
#[derive(Clone, Debug, Default)]
pub struct WayTally {
    /// Begun.
    pub opened: u64,
    /// Closed by both ends, with all bytes.
    pub completed: u64,
    /// Lost, by reason: an excuse's name, or what their clients saw.
    pub lost: BTreeMap<String, u64>,
}

/// What became of all connections while they were under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) opened: BTreeMap<Way, u64>,
    pub(super) completed: BTreeMap<Way, u64>,
    pub(super) losses: Vec<Loss>,
    pub(super) excuses: Vec<Excuse>,
}

impl Tally {
    /// The ways in their order, and what nothing excuses.
    pub(super) fn judge(&self) -> ([WayTally; 5], Vec<Loss>) {
        let mut inexcusable = Vec::new();
        let ways = Way::ALL.map(|way| {
            let count = |counts: &BTreeMap<Way, u64>| counts.get(&way).copied().unwrap_or(0);
            let mut tally = WayTally {
                opened: count(&self.opened),
                completed: count(&self.completed),
                lost: BTreeMap::new(),
            };
            for loss in self.losses.iter().filter(|loss| loss.way == way) {
                let excuse = self.excuses.iter().find(|excuse| excuse.covers(loss));
                let reason = match (excuse, loss.phase) {
                    (Some(excuse), _) => excuse.name.to_owned(),
                    (None, Phase::Opening) => format!("opening: {}", loss.symptom),
                    (None, Phase::Established | Phase::Held) => {
                        inexcusable.push(loss.clone());
                        format!("ESTABLISHED: {}", loss.symptom)
                    }
                };
                *tally.lost.entry(reason).or_default() += 1;
            }
            tally
        });
        (ways, inexcusable)
    }
}

/// What came of a scenario.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The scenario's.
    pub name: String,
    /// What it was run with.
    pub seed: u64,
    /// How long it took.
    pub took: Duration,
    /// In the order of [`Way::ALL`].
    pub ways: [WayTally; 5],
    /// Established connections that were lost to nothing that may end them.
    pub inexcusable: Vec<Loss>,
    /// Why it could not be carried through.
    pub error: Option<String>,
    /// What else there is to tell.
    pub notes: Vec<String>,
}

impl Outcome {
    /// Whether nothing was lost but what may be.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.inexcusable.is_empty() && self.error.is_none()
    }

    /// Losses of all ways, by reason.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for (reason, count) in self.ways.iter().flat_map(|way| &way.lost) {
            *reasons.entry(reason.clone()).or_default() += count;
        }
        reasons
    }

    /// For programs.
    #[must_use]
    pub fn as_json(&self) -> Value {
        let ways = Way::ALL.iter().zip(&self.ways).map(|(way, tally)| {
            let value = json!({
                "opened": tally.opened,
                "completed": tally.completed,
                "lost": tally.lost,
            });
            (way.name().to_owned(), value)
        });
        json!({
            "scenario": self.name,
            "seed": self.seed,
            "seconds": self.took.as_secs_f64(),
            "well": self.is_well(),
            "inexcusable": self.inexcusable.iter().map(Loss::sentence).collect::<Vec<_>>(),
            "ways": ways.collect::<serde_json::Map<_, _>>(),
            "error": self.error,
            "notes": self.notes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(way: Way, phase: Phase, opened: Instant) -> Loss {
        Loss {
            way,
            phase,
            symptom: "reset".to_owned(),
            client: None,
            opened,
        }
    }

    #[test]
    fn only_what_dies_with_the_agent_may_be_lost_to_its_death() {
        let before = Instant::now();
        let death = before + Duration::from_secs(1);
        let after = death + Duration::from_secs(1);
        let tally = Tally {
            losses: vec![
                loss(Way::Relayed, Phase::Established, before),
                loss(Way::Relayed, Phase::Established, after),
                loss(Way::Steered, Phase::Established, before),
                loss(Way::Steered, Phase::Opening, before),
            ],
            excuses: vec![Excuse {
                name: "agent killed",
                at: death,
                ends: Ends::TheAgents,
            }],
            ..Tally::default()
        };
        let (ways, inexcusable) = tally.judge();
        let lost = |way: Way| ways[way as usize].lost.clone();
        assert_eq!(lost(Way::Relayed)["agent killed"], 1);
        assert_eq!(lost(Way::Relayed)["ESTABLISHED: reset"], 1);
        assert_eq!(lost(Way::Steered)["ESTABLISHED: reset"], 1);
        assert_eq!(lost(Way::Steered)["opening: reset"], 1);
        assert_eq!(inexcusable.len(), 2);
    }
}
