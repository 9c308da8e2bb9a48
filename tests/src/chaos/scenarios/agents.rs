//! Agents that die: at any time, and at each point of a hand-off, of a reload, and of a start.

use std::{collections::BTreeSet, net::SocketAddr, ops::RangeInclusive, time::Instant};

use anyhow::{Context as _, Result, ensure};
use sni_user::kill_point::KillPoint;

use super::{Play, Scenario};
use crate::{
    chaos::{load::PATIENCE, stage::PATIENT},
    deadline::Deadline,
};

/// How often it dies at any time.
const KILLS: u32 = 3;
/// At the latest at which of its passings an agent dies.
const PASSINGS: u32 = 12;

pub(super) fn all() -> Vec<Scenario> {
    let mut all = vec![
        Scenario::new("agent/killed", "the agent is killed at any time", killed),
        Scenario::new(
            "agent/restarted",
            "the agent ends in good order with --leave, and another one starts",
            restarted,
        ),
    ];
    for point in KillPoint::ALL.iter().copied() {
        let (kind, step) = point.name().split_once('/').unwrap_or_default();
        match kind {
            "hand-off" => all.push(Scenario::new(
                point.name(),
                format!("the agent is killed in a hand-off, at {step}"),
                move |play| in_hand_off(play, point),
            )),
            _ => {
                all.push(Scenario::new(
                    point.name(),
                    format!("the agent is killed in a reload, at {step}"),
                    move |play| in_reload(play, point),
                ));
                if is_passed_at_start(point) {
                    all.push(Scenario::new(
                        format!("start/{step}"),
                        format!("the agent is killed while it starts, at {step}"),
                        move |play| in_start(play, point),
                    ));
                }
            }
        }
    }
    all
}

fn killed(play: &mut Play<'_, '_>) -> Result<()> {
    for _ in 0..KILLS {
        play.sleep(100..1500);
        play.kill_agent()?;
        play.ensure_datapath_goes_on()?;
        play.start_agent(&[])?;
        play.load.wait_for_new(|_| true)?;
    }
    Ok(())
}

fn restarted(play: &mut Play<'_, '_>) -> Result<()> {
    // The one that runs would take the datapath with it.
    play.kill_agent()?;
    play.start_agent(&["--leave"])?;
    play.load.wait_for_new(|_| true)?;
    play.stop_agent()?;
    play.ensure_datapath_goes_on()?;
    play.start_agent(&[])
}

/// Connections are handed off all the time; one of them is in the middle of it.
fn in_hand_off(play: &mut Play<'_, '_>, point: KillPoint) -> Result<()> {
    let first = play.rng.u32(1..=PASSINGS);
    let times = if is_passed_twice(point) {
        first..=first + 1
    } else {
        first..=first
    };
    for time in times {
        // What waits at its start is handed off before it is ready.
        let paused = play.load.pause();
        play.kill_agent()?;
        play.stage.gateway.borrow_mut().kill_next_at(point, time);
        play.start_agent(&[])?;
        let since = Instant::now();
        drop(paused);
        let (when, go_on) = play.wait_until_killed(point, time, since)?;
        play.ensure_datapath_goes_on()?;
        play.start_agent(&[])?;
        // Also what was in the middle has come to an end then.
        play.load.wait_for_new(|_| true)?;
        if is_survived(point) {
            let there = play.load.lived_through(&when, since, &go_on);
            ensure!(there > 0, "nobody was in the middle of a hand-off");
        }
    }
    Ok(())
}

/// A configuration, and the next one: a name comes, a name goes, and one leads elsewhere.
pub(in crate::chaos) const BEFORE: &str = "[[domain]]\nsip_domain = \"proseware.example\"\npool = \"passed\"\n\
     [[domain]]\nsip_domain = \"adatum.example\"\npool = \"passed\"\n";
pub(in crate::chaos) const AFTER: &str = "[[domain]]\nsip_domain = \"litware.example\"\npool = \"passed\"\n\
     [[domain]]\nsip_domain = \"adatum.example\"\npool = \"tls\"\n";

/// Where these names lead: with the one, and with the other.
const ROUTES: [(&str, [Option<&str>; 2]); 3] = [
    ("sip.proseware.example", [Some("passed"), None]),
    ("sip.adatum.example", [Some("passed"), Some("tls")]),
    ("sip.litware.example", [None, Some("passed")]),
];

/// What a configuration leaves in the maps, and nothing else does.
pub(in crate::chaos) const CONFIGURED: [&str; 3] = ["SERVICES", "SNI_ROUTES", "LABELS"];

fn in_reload(play: &mut Play<'_, '_>, point: KillPoint) -> Result<()> {
    let clean = load_both(play)?;
    play.kill_agent()?;
    let time = if is_passed_at_start(point) { 2 } else { 1 };
    play.stage.gateway.borrow_mut().kill_next_at(point, time);
    play.start_agent(&[])?;
    play.load.wait_for_new(|_| true)?;
    let alive = Instant::now();
    play.stage.configure(AFTER)?;
    let answer = play.stage.gateway.borrow().command(&["reload"])?;
    ensure!(!answer.status.success(), "the reload went well: {answer:?}");
    play.wait_until_killed(point, time, alive)?;
    ensure_whole(play, point, clean)
}

fn in_start(play: &mut Play<'_, '_>, point: KillPoint) -> Result<()> {
    let clean = load_both(play)?;
    play.kill_agent()?;
    play.stage.configure(AFTER)?;
    play.stage.gateway.borrow_mut().kill_next_at(point, 1);
    let started = play.start_agent(&[]);
    let said = started.err().context("the agent started")?.to_string();
    ensure!(said.contains("signal: 9"), "{said}");
    ensure!(said.contains(&point.last_words()), "{said}");
    ensure_whole(play, point, clean)
}

/// Loads the one configuration and the other, and the one again, without any fault. Returns how many entries the other one has.
fn load_both(play: &Play<'_, '_>) -> Result<[u64; CONFIGURED.len()]> {
    let mut clean = None;
    for (configuration, index) in [(BEFORE, 0), (AFTER, 1), (BEFORE, 0)] {
        play.reload(configuration)?;
        ensure_active(play, index)?;
        if index == 1 {
            clean = Some(configured(play)?);
        }
    }
    clean.context("no other one")
}

/// After an agent's death at a point of a reload or of a start: either configuration holds, and all of it; and the next agent leaves nothing of the other.
fn ensure_whole(
    play: &mut Play<'_, '_>,
    point: KillPoint,
    clean: [u64; CONFIGURED.len()],
) -> Result<()> {
    let holds = usize::from(point >= KillPoint::ReloadSwitched);
    ensure_active(play, holds).context("without an agent")?;
    play.ensure_datapath_goes_on()?;
    play.start_agent(&[])?;
    ensure_active(play, 1).context("with the next agent")?;
    let found = configured(play)?;
    ensure!(
        found == clean,
        "entries of {CONFIGURED:?} are {found:?}, and {clean:?} where nobody was killed"
    );
    Ok(())
}

/// By the pinned maps, the one configuration holds (0), or the other (1).
fn ensure_active(play: &Play<'_, '_>, which: usize) -> Result<()> {
    let routes = play
        .stage
        .gateway
        .borrow()
        .json(&["route", "ls", "--configured"])?;
    let rows = routes.as_array().context("routes")?;
    for (name, pools) in ROUTES {
        let row = rows.iter().find(|row| row["name"] == name);
        let pool = row.and_then(|row| row["pool_v4"].as_str());
        ensure!(
            pool == pools[which],
            "{name} leads to {pool:?}, not to {:?}",
            pools[which]
        );
    }
    Ok(())
}

/// How many entries the configuration has in each of [`CONFIGURED`].
pub(in crate::chaos) fn configured(play: &Play<'_, '_>) -> Result<[u64; CONFIGURED.len()]> {
    let mut counts = [0; CONFIGURED.len()];
    for (count, map) in counts.iter_mut().zip(CONFIGURED) {
        *count = play.stage.entries(map)?;
    }
    Ok(counts)
}

/// A start makes a configuration active as a reload does.
fn is_passed_at_start(point: KillPoint) -> bool {
    use KillPoint as P;
    matches!(
        point,
        P::ReloadPrepared
            | P::ReloadPlaced
            | P::ReloadNames
            | P::ReloadWritten
            | P::ReloadSwitched
            | P::ReloadRetired
    )
}

/// For the Edge's direction and for the client's, which are two cases.
fn is_passed_twice(point: KillPoint) -> bool {
    matches!(point, KillPoint::HandOffGiving | KillPoint::HandOffNeed)
}

/// From here on the connection itself that is handed off goes on. Between silence and this, what one end has acknowledged may be lost to the other.
fn is_survived(point: KillPoint) -> bool {
    use KillPoint as P;
    matches!(
        point,
        P::HandOffDeaf | P::HandOffEnding | P::HandOffEnded | P::HandOffLingering
    )
}

impl Play<'_, '_> {
    pub(in crate::chaos) fn kill_agent(&mut self) -> Result<()> {
        let from = Instant::now();
        self.stage.gateway.borrow_mut().kill_within(PATIENCE)?;
        self.agent_died(from..=Instant::now(), false)?;
        Ok(())
    }

    /// Ends it in good order. It must have been started with `--leave`, or the datapath ends, too.
    pub(in crate::chaos) fn stop_agent(&mut self) -> Result<()> {
        let from = Instant::now();
        self.stage.gateway.borrow_mut().stop_within(PATIENCE)?;
        self.agent_died(from..=Instant::now(), false)?;
        Ok(())
    }

    /// Makes these further tables active, by an agent that goes on.
    pub(in crate::chaos) fn reload(&self, configuration: &str) -> Result<()> {
        self.stage.configure(configuration)?;
        self.stage.gateway.borrow().output(&["reload"]).map(drop)
    }

    pub(in crate::chaos) fn start_agent(&mut self, options: &[&str]) -> Result<()> {
        let options = [&PATIENT[..], options].concat();
        self.stage.gateway.borrow_mut().run(&options)
    }

    /// Of an agent that was alive at a time. Returns when it died, and the clients of handed-off connections that go on.
    fn wait_until_killed(
        &mut self,
        point: KillPoint,
        time: u32,
        alive: Instant,
    ) -> Result<(RangeInclusive<Instant>, BTreeSet<SocketAddr>)> {
        let what = format!(
            "the agent's death at {} for the {time}th time",
            point.name()
        );
        let mut from = alive;
        // Its sockets close before it is seen to have ended.
        Deadline::after(PATIENCE).poll(&what, || {
            let now = Instant::now();
            let mut gateway = self.stage.gateway.borrow_mut();
            if gateway.log()?.contains(&point.last_words()) || !gateway.is_running()? {
                return Ok(Some(()));
            }
            from = now;
            Ok(None)
        })?;
        self.stage
            .gateway
            .borrow_mut()
            .ensure_killed(point, PATIENCE)?;
        let when = from..=Instant::now();
        self.note(format!("killed at passing {time}"));
        let go_on = self.agent_died(when.clone(), is_survived(point))?;
        Ok((when, go_on))
    }
}
