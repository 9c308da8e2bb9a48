//! Agents that die: at any time, and at each point of a hand-off, of a reload, and of a start.

use anyhow::{Context as _, Result, ensure};
use sni_user::kill_point::KillPoint;

use super::{Play, Scenario};
use crate::chaos::{AGENT_DIED, Ends, load::PATIENCE};

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
        play.start_agent()?;
        play.load.wait_for_new(|_| true)?;
    }
    Ok(())
}

fn restarted(play: &mut Play<'_, '_>) -> Result<()> {
    play.kill_agent()?;
    play.stage.gateway.borrow_mut().run(&["--leave"])?;
    play.load.wait_for_new(|_| true)?;
    play.stage.gateway.borrow_mut().stop()?;
    play.agent_died();
    play.ensure_datapath_goes_on()?;
    play.start_agent()
}

/// Connections are handed off all the time; one of them is in the middle of it.
fn in_hand_off(play: &mut Play<'_, '_>, point: KillPoint) -> Result<()> {
    // What waits at its start is handed off before it is ready.
    play.load.pause()?;
    play.kill_agent()?;
    let time = play.rng.u32(1..=PASSINGS);
    play.stage.gateway.borrow_mut().kill_next_at(point, time);
    play.start_agent()?;
    play.load.resume();
    play.wait_until_killed(point, time)?;
    play.ensure_datapath_goes_on()?;
    play.start_agent()
}

/// What comes with the new configuration.
pub(in crate::chaos) const NEW_DOMAIN: &str =
    "[[domain]]\nsip_domain = \"litware.example\"\npool = \"passed\"\n";

fn in_reload(play: &mut Play<'_, '_>, point: KillPoint) -> Result<()> {
    play.kill_agent()?;
    let time = if is_passed_at_start(point) { 2 } else { 1 };
    play.stage.gateway.borrow_mut().kill_next_at(point, time);
    play.start_agent()?;
    play.load.wait_for_new(|_| true)?;
    play.stage.configure(NEW_DOMAIN)?;
    let answer = play.stage.gateway.borrow().command(&["reload"])?;
    ensure!(!answer.status.success(), "the reload went well: {answer:?}");
    play.wait_until_killed(point, time)?;
    play.ensure_datapath_goes_on()?;
    play.start_agent()?;
    ensure_active(play)
}

fn in_start(play: &mut Play<'_, '_>, point: KillPoint) -> Result<()> {
    play.kill_agent()?;
    play.stage.configure(NEW_DOMAIN)?;
    play.stage.gateway.borrow_mut().kill_next_at(point, 1);
    let started = play.stage.gateway.borrow_mut().run(&[]);
    let said = started.err().context("the agent started")?.to_string();
    ensure!(said.contains("signal: 9"), "{said}");
    play.ensure_datapath_goes_on()?;
    play.start_agent()?;
    ensure_active(play)
}

/// The configuration that is on disk is the one that holds.
fn ensure_active(play: &Play<'_, '_>) -> Result<()> {
    let routes = play.stage.gateway.borrow().output(&["route", "ls"])?;
    ensure!(routes.contains("sip.litware.example"), "{routes}");
    Ok(())
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
        self.stage.gateway.borrow_mut().kill()?;
        self.agent_died();
        Ok(())
    }

    pub(in crate::chaos) fn start_agent(&mut self) -> Result<()> {
        self.stage.gateway.borrow_mut().run(&[])
    }

    fn wait_until_killed(&mut self, point: KillPoint, time: u32) -> Result<()> {
        let killed = self.stage.gateway.borrow_mut().wait_until_killed(PATIENCE);
        killed.with_context(|| format!("at {} for the {time}th time", point.name()))?;
        self.note(format!("killed at passing {time}"));
        if is_survived(point) {
            self.excuse(AGENT_DIED, Ends::TheAgents);
        } else {
            self.agent_died();
        }
        Ok(())
    }
}
