//! What the gateway's host runs out of, and a clock that jumps.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Play, Scenario};
use crate::{
    chaos::{Way, load::PATIENCE, stage::Setting},
    clock::Clock,
    deadline::Deadline,
    flood::kilobytes,
    output_within,
};

/// Connections that there is room for; those that have ended keep their entries for a minute.
const ROOM: &str = "max_flows = 60";
/// Connections that are refused for want of room.
const REFUSED: u64 = 10;
/// What the agent may still have beyond what it has, and how long others ask it for more.
const LEFT_KB: u64 = 512;
const SQUEEZED: Duration = Duration::from_secs(5);

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new("map/full", "the flow table has no room left", full).with_setting(|_| {
            Ok(Setting {
                gateway: ROOM,
                ..Setting::default()
            })
        }),
        Scenario::new(
            "memory/pressure",
            "the agent gets no more memory",
            no_memory,
        ),
        Scenario::new(
            "clock/jumps",
            "the agent's clock jumps forward by days and by more than a year, back by days, and to the true time",
            clock_jumps,
        )
        .with_setting(|lab| {
            Clock::new(lab)?;
            Ok(Setting {
                agent: Some(Clock::agent(lab)?),
                ..Setting::default()
            })
        }),
    ]
}

fn full(play: &mut Play<'_, '_>) -> Result<()> {
    let refused = || play.stage.drops("flow-table-full");
    Deadline::after(PATIENCE).poll("a full table", || Ok((refused()? >= REFUSED).then_some(())))?;
    play.load
        .wait_for_held(|_| true)
        .context("in a full table")?;
    let refused = refused()?;
    play.note(format!("{refused} packets were dropped for want of room"));
    // What has ended is swept after a minute.
    play.load.pause()?;
    let entries = play.stage.entries("FLOWS")?;
    let room = || Ok((play.stage.entries("FLOWS")? < entries / 2).then_some(()));
    Deadline::after(PATIENCE).poll("room in the table", room)?;
    play.load.resume();
    Ok(())
}

fn no_memory(play: &mut Play<'_, '_>) -> Result<()> {
    let pid = play.stage.gateway.borrow().pid()?;
    let has = kilobytes(&format!("/proc/{pid}/status"), "VmData")?;
    allow_memory(pid, &((has + LEFT_KB) * 1024).to_string())?;
    let clients = play.stage.lab.partner.run(|| {
        let address = Way::Relayed.addresses()[0];
        let open = |_| crate::peers::open_socket(None, address, Duration::from_secs(5)).ok();
        Ok((0..500).filter_map(open).collect::<Vec<_>>())
    })?;
    thread::sleep(SQUEEZED);
    let lives = fs::metadata(format!("/proc/{pid}")).is_ok()
        && play.stage.gateway.borrow_mut().is_running()?;
    play.note(format!(
        "{} silent clients; the agent {}",
        clients.len(),
        if lives { "goes on" } else { "has ended" }
    ));
    drop(clients);
    if lives {
        allow_memory(pid, "unlimited")?;
        return Ok(());
    }
    play.stage.gateway.borrow_mut().forget();
    play.agent_died();
    play.ensure_datapath_goes_on()?;
    play.start_agent()
}

fn allow_memory(pid: u32, most: &str) -> Result<()> {
    let mut command = Command::new("prlimit");
    command.args([
        "--pid",
        &pid.to_string(),
        &format!("--data={most}:unlimited"),
    ]);
    let output = output_within(&mut command, PATIENCE)?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

fn clock_jumps(play: &mut Play<'_, '_>) -> Result<()> {
    let clock = Clock::new(play.stage.lab)?;
    // While certificates have expired, what is new and terminated is refused, and nothing else.
    for offset in ["+1d", "+400d", "-2d", "+0"] {
        clock.jump(offset)?;
        play.sleep(500..2000);
        play.load.wait_for_held(|_| true).context(offset)?;
        let decided = |way: Way| way != Way::Terminated;
        play.load.wait_for_new(decided).context(offset)?;
    }
    Ok(())
}
