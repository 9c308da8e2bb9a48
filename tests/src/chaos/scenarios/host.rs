//! What the gateway's host runs out of, and a clock that jumps.

use std::{
    io::Write as _,
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{Play, Scenario};
use crate::{
    chaos::{Ends, Way, load::PATIENCE, stage::Setting},
    clock::Clock,
    deadline::Deadline,
    flood::kilobytes,
    output_within,
    peers::open_socket,
};

/// Connections that there is room for; those that have ended keep their entries for a minute.
const ROOM: &str = "max_flows = 60";
/// Connections that are refused for want of room.
const REFUSED: u64 = 10;
/// When certificates have expired: while the agent's clock says so, what is new and terminated is refused, and nothing else.
const EXPIRED: &str = "+400d";

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario::new("map/full", "the flow table has no room left", full).with_setting(|_, _| {
            Ok(Setting {
                gateway: ROOM,
                ..Setting::default()
            })
        })
        // Those that the agent keeps need no entry.
        .may_refuse(&[Way::Steered, Way::Bound]),
        Scenario::new(
            "memory/pressure",
            "the agent gets no more memory, and clients that need much of it come",
            no_memory,
        ),
        Scenario::new(
            "clock/jumps",
            "the agent's clock jumps forward by a day and by more than a year, back by more than a year, and to the true time",
            clock_jumps,
        )
        .with_setting(|lab, _| {
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
    let paused = play.load.pause();
    let entries = play.stage.entries("FLOWS")?;
    let room = || Ok((play.stage.entries("FLOWS")? < entries / 2).then_some(()));
    Deadline::after(PATIENCE).poll("room in the table", room)?;
    drop(paused);
    Ok(())
}

fn no_memory(play: &mut Play<'_, '_>) -> Result<()> {
    let lab = play.stage.lab;
    let from = Instant::now();
    let pid = play.stage.gateway.borrow().pid()?;
    let has = kilobytes(&format!("/proc/{pid}/status"), "VmData")?;
    allow_memory(pid, has * 1024)?;
    let deadline = Deadline::after(PATIENCE);
    let mut clients = Vec::new();
    while play.stage.gateway.borrow_mut().is_running()? {
        ensure!(
            !deadline.expired(),
            "nothing was pressed: the agent goes on beside {} clients",
            clients.len()
        );
        clients.extend(lab.partner.run(ask_for_memory)?);
    }
    let (count, until) = (clients.len(), Instant::now());
    drop(clients);
    let said = play.stage.gateway.borrow().log()?;
    ensure!(
        said.contains("memory allocation"),
        "the agent has ended otherwise: {said}"
    );
    play.stage.gateway.borrow_mut().forget();
    play.note(format!("the agent had no memory for the {count}th client"));
    play.agent_died(from..=until, false)?;
    play.ensure_datapath_goes_on()?;
    play.start_agent(&[])
}

/// A client that says as much of a ClientHello as an agent bears with, and not its end; nobody, where none can be made.
fn ask_for_memory() -> Result<Option<TcpStream>> {
    let address = Way::Relayed.addresses()[0];
    let Ok(mut client) = open_socket(None, address, Duration::from_secs(5)) else {
        return Ok(None);
    };
    client.set_write_timeout(Some(Duration::from_secs(5)))?;
    // Whom the agent's death has met says no more.
    let said = client.write_all(&endless_hello());
    Ok(said.is_ok().then_some(client))
}

/// Records of a ClientHello (RFC 8446, sections 4.1.2 and 5.1) whose extensions go on behind its end.
fn endless_hello() -> Vec<u8> {
    const EXTENSIONS: u16 = 63_000;
    // Version, random, no session, one cipher, no compression.
    let mut hello = [[3, 3].as_slice(), &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    hello.extend(EXTENSIONS.to_be_bytes());
    // Padding (RFC 7685).
    hello.extend([0, 21]);
    hello.extend((EXTENSIONS - 4).to_be_bytes());
    hello.resize(hello.len() + usize::from(EXTENSIONS) - 4, 0);
    let length = u32::try_from(hello.len())
        .expect("a short hello")
        .to_be_bytes();
    let handshake = [&[1], &length[1..], &hello].concat();
    let records = handshake.chunks(16 * 1024).flat_map(|part| {
        let length = (part.len() as u16).to_be_bytes();
        [&[22, 3, 1], length.as_slice(), part].concat()
    });
    let mut records: Vec<u8> = records.collect();
    records.truncate(records.len() - 1);
    records
}

fn allow_memory(pid: u32, bytes: u64) -> Result<()> {
    let mut command = Command::new("prlimit");
    command.args([
        "--pid",
        &pid.to_string(),
        &format!("--data={bytes}:unlimited"),
    ]);
    let output = output_within(&mut command, PATIENCE)?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

fn clock_jumps(play: &mut Play<'_, '_>) -> Result<()> {
    let clock = Clock::new(play.stage.lab)?;
    for offset in ["+1d", EXPIRED, "-12h", "+0"] {
        let from = Instant::now();
        clock.jump(offset)?;
        play.sleep(500..2000);
        play.load.wait_for_held(|_| true).context(offset)?;
        if offset != EXPIRED {
            play.load.wait_for_new(|_| true).context(offset)?;
            continue;
        }
        let others = |way: Way| way != Way::Terminated;
        play.load.wait_for_new(others).context(offset)?;
        play.load
            .wait_for_loss("a partner whose certificate has expired", |loss| {
                loss.way == Way::Terminated
                    && loss.opened >= from
                    && loss.symptom.to_string().contains("CertificateExpired")
            })?;
        // At once back to a time at which they are valid; what has begun by then may be refused.
        clock.jump("+0")?;
        let ends = Ends::Openings(Way::Terminated);
        play.excuse("certificate expired", from..=Instant::now(), ends);
    }
    Ok(())
}
