//! What became of the connections of a scenario.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
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

/// What a client has seen of a loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// Bytes that nobody has sent to it. Nothing excuses that.
    WrongBytes,
    /// What its kernel, or TLS, said: `reset`, `refused`, `timed out`, …
    Told(String),
}

impl fmt::Display for Symptom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongBytes => f.write_str("WRONG BYTES"),
            Self::Told(what) => f.write_str(what),
        }
    }
}

/// A connection that was lost.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The way that it went, or was to go.
    pub way: Way,
    /// How far it had come.
    pub phase: Phase,
    /// How its client knows.
    pub symptom: Symptom,
    /// The client, where it had a connection at all.
    pub client: Option<SocketAddr>,
    /// When it was begun.
    pub opened: Instant,
    /// When its client knew.
    pub lost: Instant,
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

/// Something that may take connections with it.
#[derive(Clone, Debug)]
pub struct Excuse {
    /// Its name, as tables have it.
    pub name: &'static str,
    /// Not before the one, not after the other: what was lost before, or opened later, has another reason.
    pub when: RangeInclusive<Instant>,
    /// Which connections it ends.
    pub ends: Ends,
}

/// Which connections something ends.
#[derive(Clone, Debug)]
pub enum Ends {
    /// The agent has died: those of which it is an end.
    TheAgents,
    /// It has died, and may have been in the middle of a hand-off: those to be handed off, but for these clients', which the datapath has.
    HandOffs {
        /// Clients whose flows are complete, and nobody's but the datapath's.
        but: BTreeSet<SocketAddr>,
    },
    /// An end of these clients' connections has died.
    Clients(Vec<SocketAddr>),
    /// None that are there; those of this way that would begin.
    Openings(Way),
}

impl Excuse {
    fn covers(&self, loss: &Loss) -> bool {
        if loss.symptom == Symptom::WrongBytes
            || loss.lost < *self.when.start()
            || loss.opened > *self.when.end()
        {
            return false;
        }
        // Who has no connection was refused, or not heard: whatever has died, somebody else answers a SYN.
        let is_one_of = |is: &dyn Fn(&SocketAddr) -> bool| loss.client.as_ref().is_some_and(is);
        match &self.ends {
            Ends::TheAgents => loss.way.is_the_agents() && loss.client.is_some(),
            Ends::HandOffs { but } => {
                loss.way == Way::HandedOff
                    && loss.phase != Phase::Held
                    && is_one_of(&|client| !but.contains(client))
            }
            Ends::Clients(clients) => is_one_of(&|client| clients.contains(client)),
            Ends::Openings(way) => loss.way == *way && loss.phase == Phase::Opening,
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

/// A connection that was to be handed off, from its beginning to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life {
    pub(super) client: SocketAddr,
    pub(super) opened: Instant,
    pub(super) ended: Instant,
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
    /// The ways in their order, and what nothing excuses. Connections of the ways of `may_refuse` may fail while they are opened.
    pub(super) fn judge(&self, may_refuse: &[Way]) -> ([WayTally; Way::ALL.len()], Vec<Loss>) {
        let mut inexcusable = Vec::new();
        let ways = Way::ALL.map(|way| {
            let mut tally = WayTally {
                opened: count(&self.opened, way),
                completed: count(&self.completed, way),
                lost: BTreeMap::new(),
            };
            for loss in self.losses.iter().filter(|loss| loss.way == way) {
                let excuse = self.excuses.iter().find(|excuse| excuse.covers(loss));
                let is_refusal = loss.phase == Phase::Opening
                    && loss.symptom != Symptom::WrongBytes
                    && may_refuse.contains(&way);
                let reason = match excuse {
                    Some(excuse) => excuse.name.to_owned(),
                    None if is_refusal => format!("opening: {}", loss.symptom),
                    None => {
                        inexcusable.push(loss.clone());
                        let phase = match loss.phase {
                            Phase::Opening => "OPENING",
                            Phase::Established | Phase::Held => "ESTABLISHED",
                        };
                        format!("{phase}: {}", loss.symptom)
                    }
                };
                *tally.lost.entry(reason).or_default() += 1;
            }
            tally
        });
        (ways, inexcusable)
    }

    /// Each connection that was opened has completed or was lost, once.
    ///
    /// # Errors
    /// The load is wrong: what it says of the gateway means nothing.
    pub(super) fn ensure_complete(&self) -> Result<()> {
        for way in Way::ALL {
            let lost = self.losses.iter().filter(|loss| loss.way == way).count() as u64;
            let (opened, completed) = (count(&self.opened, way), count(&self.completed, way));
            ensure!(
                opened == completed + lost,
                "of {opened} {} connections {completed} have completed and {lost} were lost",
                way.name()
            );
        }
        Ok(())
    }
}

fn count(counts: &BTreeMap<Way, u64>, way: Way) -> u64 {
    counts.get(&way).copied().unwrap_or(0)
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
    pub ways: [WayTally; Way::ALL.len()],
    /// Connections that were lost to nothing that may end them.
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

    const CLIENT: &str = "198.51.100.1:4711";

    /// So many seconds behind a moment that is the same for a test.
    struct Clock(Instant);

    impl Clock {
        fn at(&self, second: u64) -> Instant {
            self.0 + Duration::from_secs(second)
        }

        /// Opened at the one second, and lost at the other.
        fn loss(&self, way: Way, phase: Phase, opened: u64, lost: u64) -> Loss {
            Loss {
                way,
                phase,
                symptom: Symptom::Told("reset".to_owned()),
                client: CLIENT.parse().ok(),
                opened: self.at(opened),
                lost: self.at(lost),
            }
        }

        /// From the tenth to the eleventh second.
        fn death(&self, ends: Ends) -> Excuse {
            Excuse {
                name: "died",
                when: self.at(10)..=self.at(11),
                ends,
            }
        }
    }

    #[test]
    fn a_death_excuses_what_dies_with_it_and_nothing_else() {
        use Phase::{Established, Held, Opening};
        let clock = Clock(Instant::now());
        let (nobody, somebody) = (
            BTreeSet::new(),
            BTreeSet::from([CLIENT.parse().expect("an address")]),
        );
        let handing_off = |but: &BTreeSet<_>| Ends::HandOffs { but: but.clone() };
        let clients = || Ends::Clients(somebody.iter().copied().collect());
        for (what, loss, ends, excused) in [
            (
                "relayed",
                clock.loss(Way::Relayed, Established, 1, 12),
                Ends::TheAgents,
                true,
            ),
            (
                "opening",
                clock.loss(Way::Terminated, Opening, 9, 12),
                Ends::TheAgents,
                true,
            ),
            (
                "lost before the death",
                clock.loss(Way::Relayed, Established, 1, 9),
                Ends::TheAgents,
                false,
            ),
            (
                "opened after it",
                clock.loss(Way::Relayed, Established, 12, 13),
                Ends::TheAgents,
                false,
            ),
            (
                "steered",
                clock.loss(Way::Steered, Established, 1, 12),
                Ends::TheAgents,
                false,
            ),
            (
                "steered, opening",
                clock.loss(Way::Steered, Opening, 1, 12),
                Ends::TheAgents,
                false,
            ),
            (
                "handed off before",
                clock.loss(Way::HandedOff, Held, 1, 12),
                handing_off(&nobody),
                false,
            ),
            (
                "being handed off",
                clock.loss(Way::HandedOff, Opening, 9, 12),
                handing_off(&nobody),
                true,
            ),
            (
                "the datapath's",
                clock.loss(Way::HandedOff, Opening, 9, 12),
                handing_off(&somebody),
                false,
            ),
            (
                "the datapath's",
                clock.loss(Way::HandedOff, Established, 9, 12),
                handing_off(&somebody),
                false,
            ),
            (
                "at the Edge that died",
                clock.loss(Way::Steered, Held, 1, 12),
                clients(),
                true,
            ),
            (
                "opening",
                clock.loss(Way::Bound, Opening, 9, 12),
                Ends::Openings(Way::Bound),
                true,
            ),
            (
                "opening, of another way",
                clock.loss(Way::Steered, Opening, 9, 12),
                Ends::Openings(Way::Bound),
                false,
            ),
            (
                "not opening",
                clock.loss(Way::Bound, Established, 9, 12),
                Ends::Openings(Way::Bound),
                false,
            ),
            (
                "lost for another reason before",
                clock.loss(Way::Steered, Held, 1, 9),
                clients(),
                false,
            ),
            (
                "lost for another reason later",
                clock.loss(Way::Steered, Established, 12, 30),
                clients(),
                false,
            ),
        ] {
            let wrong = Loss {
                symptom: Symptom::WrongBytes,
                ..loss.clone()
            };
            let refused = Loss {
                client: None,
                ..loss.clone()
            };
            let death = clock.death(ends);
            assert_eq!(death.covers(&loss), excused, "{what}");
            assert!(!death.covers(&wrong), "{what}, with wrong bytes");
            let is_opening = excused && matches!(death.ends, Ends::Openings(_));
            assert_eq!(
                death.covers(&refused),
                is_opening,
                "{what}, without a connection"
            );
        }
    }

    #[test]
    fn what_nothing_excuses_is_told() {
        let clock = Clock(Instant::now());
        let wrong = Loss {
            symptom: Symptom::WrongBytes,
            ..clock.loss(Way::Bound, Phase::Opening, 1, 2)
        };
        let tally = Tally {
            losses: vec![
                clock.loss(Way::Relayed, Phase::Established, 1, 12),
                clock.loss(Way::Relayed, Phase::Established, 1, 9),
                clock.loss(Way::Steered, Phase::Opening, 1, 12),
                clock.loss(Way::Bound, Phase::Opening, 1, 12),
                wrong,
            ],
            excuses: vec![clock.death(Ends::TheAgents)],
            ..Tally::default()
        };
        let (ways, inexcusable) = tally.judge(&[Way::Bound]);
        let lost = |way: Way| ways[way as usize].lost.clone();
        assert_eq!(lost(Way::Relayed)["died"], 1);
        assert_eq!(lost(Way::Relayed)["ESTABLISHED: reset"], 1);
        assert_eq!(lost(Way::Steered)["OPENING: reset"], 1);
        assert_eq!(lost(Way::Bound)["opening: reset"], 1);
        assert_eq!(lost(Way::Bound)["OPENING: WRONG BYTES"], 1);
        assert_eq!(inexcusable.len(), 3);
    }

    #[test]
    fn a_connection_that_is_counted_nowhere_is_told() {
        let clock = Clock(Instant::now());
        let mut tally = Tally {
            opened: BTreeMap::from([(Way::Bound, 2)]),
            completed: BTreeMap::from([(Way::Bound, 1)]),
            ..Tally::default()
        };
        assert!(tally.ensure_complete().is_err());
        tally.losses = vec![clock.loss(Way::Bound, Phase::Opening, 1, 2)];
        assert!(tally.ensure_complete().is_ok());
    }
}
