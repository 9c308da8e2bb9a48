//! No file descriptors left.

use std::{
    fs,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{SysconfVar, sysconf};
use snigate_tests::{
    deadline::Deadline,
    gateway::Gateway,
    lab_test,
    peers::{Connection, Opener, open_socket, pour},
};

use crate::{
    TIMEOUT, counted, lines, metrics, quiet, said, sample,
    scene::{BOUND, RELAYED, STEERED, STREAMS, Scene, WAYS, all_live},
};

/// So many more clients than the agent has descriptors for wait in the kernel's queue.
const TOO_MANY: usize = 10;
/// What connections may have, beyond what the agent has open, and what they leave to others.
const ROOM: u64 = 40 + 64;

/// Allows the agent so many from now on; what is open already stays.
fn allow(gateway: &Gateway<'_>, descriptors: u64) -> Result<()> {
    let pid = libc::pid_t::try_from(gateway.pid()?)?;
    let mut limits = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    for new in [None, Some(descriptors)] {
        limits.rlim_cur = new.unwrap_or(0);
        let (to, from) = match new {
            Some(_) => (&raw const limits, std::ptr::null_mut()),
            None => (std::ptr::null(), &raw mut limits),
        };
        // SAFETY: both are null or point to a limit that outlives the call.
        let result = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, to, from) };
        ensure!(result == 0, "prlimit: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

fn open_files(gateway: &Gateway<'_>) -> Result<u64> {
    let directory = format!("/proc/{}/fd", gateway.pid()?);
    Ok(fs::read_dir(directory)?.count() as u64)
}

/// The time that the agent has had of a processor.
fn worked(gateway: &Gateway<'_>) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.pid()?))?;
    let (_, fields) = stat.rsplit_once(") ").context("a process")?;
    // proc_pid_stat(5): utime and stime are the 14th and 15th, of which two are before the parenthesis.
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("a clock")?;
    Ok(Duration::from_secs(ticks) / u32::try_from(per_second)?)
}

/// Has connections speak for two seconds, and returns how long that was, and how long the agent has worked meanwhile.
fn work_of_a_while(gateway: &Gateway<'_>, open: &mut [Connection]) -> Result<(Duration, Duration)> {
    let (began, before) = (Instant::now(), worked(gateway)?);
    while began.elapsed() < Duration::from_secs(2) {
        all_live(open)?;
        thread::sleep(Duration::from_millis(100));
    }
    Ok((began.elapsed(), worked(gateway)? - before))
}

#[test]
fn clients_wait_and_everything_else_goes_on() {
    lab_test("faults-descriptors", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let gateway = scene.gateway("hello_timeout = \"5m\"", None)?;
        let mut open = scene.open_all(&WAYS)?;
        let relay = RELAYED.addresses()[0];
        let mut streams = Opener::new(&lab.partner, relay, STREAMS)?.counting(2)?;
        let [v4, v6] = RELAYED.addresses();

        let (_, usual) = work_of_a_while(&gateway, &mut open)?;
        let limit = open_files(&gateway)? + ROOM;
        allow(&gateway, limit)?;
        let mut silent: Vec<TcpStream> = Vec::new();
        let mut connect = |many: usize| -> Result<()> {
            let connect = || -> Result<_> { Ok(open_socket(None, relay, TIMEOUT)?) };
            let more = lab
                .partner
                .run(|| (0..many).map(|_| connect()).collect::<Result<Vec<_>>>())?;
            silent.extend(more);
            Ok(())
        };
        Deadline::after(TIMEOUT).poll("the agent to run out of descriptors", || {
            connect(5)?;
            Ok((counted(&gateway, "accept-failed")? > 0).then_some(()))
        })?;
        connect(TOO_MANY)?;
        said(
            &gateway,
            "connections can't be accepted: raise the limit of open files",
        )?;

        // It does not turn in circles, in what it does and in what it says; and whoever is connected is served.
        let told = lines(&gateway, "connections can't be accepted")?;
        let (passed, busy) = work_of_a_while(&gateway, &mut open)?;
        ensure!(
            busy < usual * 3 / 2 + passed / 2,
            "busy for {busy:?} of {passed:?}, instead of {usual:?}"
        );
        let more = lines(&gateway, "connections can't be accepted")? - told;
        ensure!(
            more as u64 <= 10 * (passed.as_secs() + 1),
            "{more} lines in {passed:?}"
        );
        // In bulk, too, which otherwise goes by pipes.
        pour(&mut streams, Duration::from_millis(300)).context("in bulk")?;
        // What needs no agent does not wait for it, and those who operate it have what connections leave them.
        for way in [STEERED, BOUND] {
            open.extend(scene.open_all(&[way])?);
        }
        gateway.json(&["status"])?;
        gateway.output(&["reload"])?;
        let told = metrics(&lab.gateway)?;
        let event = "snigate_agent_events_total{event=\"accept-failed\"}";
        ensure!(sample(&told, event) > 0.0, "{told}");
        ensure!(
            lines(&gateway, "the Edge is down")? == 0,
            "{}",
            gateway.log()?
        );

        // Who waits is served when others have gone.
        thread::scope(|scope| -> Result<()> {
            let waiting = [v4, v6].map(|address| {
                let scene = &scene;
                scope.spawn(move || scene.open(RELAYED, address))
            });
            drop(silent);
            for waiting in waiting {
                let connection = waiting.join().ok().context("a client panicked")??;
                open.push(connection);
            }
            Ok(())
        })?;
        open.extend(scene.open_all(&WAYS)?);
        all_live(&mut open)?;
        ensure!(lines(&gateway, "panicked")? == 0);
        Ok(())
    });
}

#[test]
fn an_edge_is_not_down_because_nobody_can_look() {
    lab_test("faults-no-descriptor", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let gateway = scene.gateway("", None)?;
        let mut open = scene.open_all(&WAYS)?;
        let limit = open_files(&gateway)?;
        // Not even the reserve: as if the whole host had none.
        allow(&gateway, 3)?;
        said(&gateway, "an Edge can't be checked")?;
        let checks = || lines(&gateway, "NotMade(");
        let first = checks()?;
        let many = || Ok((checks()? > first + 12).then_some(()));
        Deadline::after(TIMEOUT).poll("more such checks than make an Edge fall", many)?;
        all_live(&mut open)?;
        for way in [STEERED, BOUND] {
            open.extend(scene.open_all(&[way])?);
        }
        ensure!(
            lines(&gateway, "the Edge is down")? == 0,
            "{}",
            gateway.log()?
        );

        allow(&gateway, limit + 500)?;
        open.extend(scene.open_all(&WAYS)?);
        all_live(&mut open)?;
        let status = gateway.agent()?;
        let edges = status["edges"].as_array().context("Edges")?;
        ensure!(edges.iter().all(|edge| edge["state"] == "up"), "{status}");
        ensure!(lines(&gateway, "panicked")? == 0);
        Ok(())
    });
}
