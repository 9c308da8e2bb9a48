//! When a flow has ended: what the agent's sweep asks for every flow.

use crate::{contract::Flow, tcp::state};

/// How long a flow may be idle, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// With nothing to say that it has ended: `idle_timeout`.
    pub established_ns: u64,
    /// After a FIN in both directions: long enough for lost FINs and the last acknowledgements to be repeated.
    pub closed_ns: u64,
    /// After an RST: long enough for the other side to object if it was forged.
    pub reset_ns: u64,
    /// Before the handshake is complete: a little more than a client repeats its SYN (RFC 6298 with Linux' six tries: 63 s).
    pub half_open_ns: u64,
}

impl Timeouts {
    /// The timeouts around a configured `idle_timeout`.
    pub const fn with_idle(idle_ns: u64) -> Self {
        const SECOND: u64 = 1_000_000_000;
        Self {
            established_ns: idle_ns,
            // Twice the maximum segment lifetime that Linux assumes.
            closed_ns: 60 * SECOND,
            reset_ns: 10 * SECOND,
            half_open_ns: 75 * SECOND,
        }
    }
}

/// Why a flow is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// FIN both ways, then idle.
    Closed,
    /// RST, then idle.
    Reset,
    /// Idle for too long.
    Idle,
    /// One direction's entry has no other: it was evicted, or never completed.
    Orphaned,
}

impl Ended {
    /// Its name, as in metrics and in the connection log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Idle => "idle",
            Self::Orphaned => "orphaned",
        }
    }
}

/// Whether an established flow is over, by both of its entries.
pub fn established(
    entry: &Flow,
    other: Option<&Flow>,
    now_ns: u64,
    timeouts: &Timeouts,
) -> Option<Ended> {
    let idle = |timeout: u64| {
        let last = entry.last_seen_ns.max(other.map_or(0, |o| o.last_seen_ns));
        now_ns.saturating_sub(last) >= timeout
    };
    let Some(other) = other else {
        return idle(timeouts.reset_ns).then_some(Ended::Orphaned);
    };
    if (entry.state | other.state) & state::RST != 0 && idle(timeouts.reset_ns) {
        Some(Ended::Reset)
    } else if entry.state & other.state & state::FIN != 0 && idle(timeouts.closed_ns) {
        Some(Ended::Closed)
    } else if idle(timeouts.established_ns) {
        Some(Ended::Idle)
    } else {
        None
    }
}

/// Whether one entry of an established flow suggests that it is over, as if the other direction said the same: what neither suggests is not the case. Who looks at
/// all flows, time and again, need not look for the other entry of those that have ended and only wait for their time.
pub fn may_be_over(entry: &Flow, now_ns: u64, timeouts: &Timeouts) -> bool {
    established(entry, Some(entry), now_ns, timeouts).is_some()
}

/// Whether a half-open flow is over.
pub fn half_open(entry: &Flow, now_ns: u64, timeouts: &Timeouts) -> bool {
    now_ns.saturating_sub(entry.last_seen_ns) >= timeouts.half_open_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const T: Timeouts = Timeouts::with_idle(7200 * SECOND);

    fn entry(state: u8, last_seen: u64) -> Flow {
        Flow {
            state,
            last_seen_ns: last_seen * SECOND,
            ..Flow::default()
        }
    }

    fn at(now: u64, a: Flow, b: Flow) -> Option<Ended> {
        established(&a, Some(&b), now * SECOND, &T)
    }

    #[test]
    fn either_direction_keeps_a_flow_alive() {
        assert_eq!(at(7300, entry(0, 0), entry(0, 200)), None);
        assert_eq!(at(7400, entry(0, 0), entry(0, 200)), Some(Ended::Idle));
    }

    #[test]
    fn a_half_closed_flow_waits_as_long_as_an_open_one() {
        assert_eq!(at(7000, entry(state::FIN, 0), entry(0, 0)), None);
    }

    #[test]
    fn closed_and_reset_flows_go_soon_but_not_at_once() {
        assert_eq!(at(59, entry(state::FIN, 0), entry(state::FIN, 0)), None);
        assert_eq!(
            at(60, entry(state::FIN, 0), entry(state::FIN, 0)),
            Some(Ended::Closed)
        );
        assert_eq!(at(9, entry(state::RST, 0), entry(0, 0)), None);
        assert_eq!(
            at(10, entry(state::RST, 0), entry(0, 0)),
            Some(Ended::Reset)
        );
        // The side that did not accept a forged RST has gone on talking.
        assert_eq!(at(10, entry(state::RST, 0), entry(0, 5)), None);
    }

    #[test]
    fn what_is_over_is_suggested_by_one_entry_at_least() {
        let states = [0, state::FIN, state::RST, state::FIN | state::RST];
        let times = [0, 5, 50, 100, 7000];
        for now in [9, 10, 59, 60, 110, 160, 7199, 7200, 15_000] {
            for (a, b) in states.into_iter().flat_map(|a| states.map(|b| (a, b))) {
                for (at_a, at_b) in times.into_iter().flat_map(|a| times.map(|b| (a, b))) {
                    let (a, b) = (entry(a, at_a), entry(b, at_b));
                    if at(now, a, b).is_some() {
                        let suggests = |it| may_be_over(it, now * SECOND, &T);
                        assert!(suggests(&a) || suggests(&b), "{now}: {a:?} {b:?}");
                    }
                }
            }
        }
        // One that has only just ended is left alone.
        assert!(!may_be_over(&entry(state::FIN, 0), 59 * SECOND, &T));
    }

    #[test]
    fn an_entry_without_the_other_is_no_flow() {
        assert_eq!(
            established(&entry(0, 0), None, 10 * SECOND, &T),
            Some(Ended::Orphaned)
        );
        assert!(half_open(&entry(0, 0), 75 * SECOND, &T));
        assert!(!half_open(&entry(0, 0), 74 * SECOND, &T));
    }

    #[test]
    fn a_clock_that_steps_back_reaps_nothing() {
        assert_eq!(
            established(
                &entry(state::FIN, 100),
                Some(&entry(state::FIN, 100)),
                0,
                &T
            ),
            None
        );
    }
}
