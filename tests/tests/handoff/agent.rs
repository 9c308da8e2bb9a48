//! What an agent's death, its restart and its configuration do to connections that are handed off, or are about to be.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use snigate_tests::{
    Topology,
    addresses::vips,
    peers::{Connection, Limit, Partner, Storm},
};

use crate::{HANDED_OFF, Scene, TIMEOUT, in_scenes, in_scenes_by};

/// Connections that are open all the time, in each family.
const OPEN: usize = 10;
/// How often the agent dies.
const KILLS: usize = 4;
/// How many partners connect at once meanwhile.
const CLIENTS: usize = 8;

#[test]
fn an_agents_death_ends_nothing_that_was_handed_off() {
    in_scenes("killed", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        let mut open = opened(scene)?;
        let partner = scene.partner();
        let limit = Limit::Time(Duration::from_secs(60));
        let storm = Storm::start(&partner, vips()[0], CLIENTS, limit)?;
        for _ in 0..KILLS {
            let ended = storm.ended();
            storm.wait_for(ended + 4 * CLIENTS, TIMEOUT)?;
            scene.gateway.borrow_mut().kill()?;
            // Without any agent.
            ping_all(&mut open)?;
            scene.gateway.borrow_mut().run(&[])?;
            ping_all(&mut open)?;
        }
        let report = storm.stop()?;
        eprintln!(
            "{KILLS} agents killed, {} connections open all the time, none lost; of the others {} went well, failed: {:?}",
            open.len(),
            report.connections.len(),
            report.failures
        );
        close_all(open)?;
        drop(edge);
        Ok(())
    });
}

#[test]
fn a_restart_ends_nothing_that_was_handed_off() {
    in_scenes("restarted", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        scene.gateway.borrow_mut().kill()?;
        scene.gateway.borrow_mut().run(&["--leave"])?;
        let mut open = opened(scene)?;
        scene.gateway.borrow_mut().stop()?;
        ping_all(&mut open)?;
        scene.gateway.borrow_mut().run(&["--leave"])?;
        ping_all(&mut open)?;
        close_all(open)?;
        drop(edge);
        Ok(())
    });
}

/// The configuration keeps connections in the relay, then lets them go in mid-stream.
#[test]
fn connections_are_handed_off_in_mid_stream() {
    in_scenes_by(HANDED_OFF, "mid-stream", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        scene.configure("hand_off = false")?;
        let mut open = connected(scene)?;
        ping_all(&mut open)?;
        scene.cleanly("in mid-stream", || {
            scene.configure("")?;
            // Until there is a moment of silence; pings go on meanwhile.
            for _ in 0..20 {
                ping_all(&mut open)?;
                thread::sleep(Duration::from_millis(20));
            }
            for connection in &open {
                scene.went(connection.local())?;
            }
            ping_all(&mut open)
        })?;
        close_all(open)?;
        drop(edge);
        Ok(())
    });
}

/// Both sides are told.
#[test]
fn a_killed_flow_is_reset_at_both_ends() {
    in_scenes("flow-kill", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        for mut connection in opened(scene)? {
            scene
                .gateway
                .borrow()
                .output(&["flow", "kill", &connection.local().to_string()])?;
            ensure!(connection.ping().is_err(), "it goes on");
            let report = edge.report(TIMEOUT)?;
            ensure!(report.end == snigate_tests::peers::End::Reset, "{report:?}");
        }
        Ok(())
    });
}

/// Connections that the datapath has.
fn opened(scene: &Scene<'_>) -> Result<Vec<Connection>> {
    let mut open = connected(scene)?;
    ping_all(&mut open)?;
    for connection in &open {
        scene.went(connection.local())?;
    }
    Ok(open)
}

fn connected(scene: &Scene<'_>) -> Result<Vec<Connection>> {
    let partner: Partner<'_> = scene.partner();
    vips()
        .into_iter()
        .flat_map(|address| std::iter::repeat_n(address, OPEN))
        .map(|address| partner.echo(address))
        .collect()
}

fn ping_all(open: &mut [Connection]) -> Result<()> {
    for connection in open {
        connection.ping()?;
    }
    Ok(())
}

fn close_all(open: Vec<Connection>) -> Result<()> {
    for connection in open {
        connection.close()?;
    }
    Ok(())
}
