//! Binding without an agent, and while agents die and begin.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use snigate_tests::{
    addresses::{SIP_TLS, vips},
    deadline::Deadline,
    peers::{
        Connection, Edge, Introduction, Limit, Partner, PartnerTls, Storm, client_hello, is_reset,
    },
};

use crate::{
    BOUND, HANDED_OFF, NAME, Scene, TIMEOUT, client::connect_within, in_scenes, on_hooks, quiet,
};

/// For what is not to happen.
const IN_VAIN: Duration = Duration::from_millis(1500);
/// How often the agent dies in a storm.
const KILLS: usize = 5;
/// How many clients connect at once in a storm, in each family.
const CLIENTS: usize = 4;
/// Connections of a storm between two deaths.
const MEANWHILE: usize = 60;

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A client that has sent a hello with a name that only the agent knows.
fn unknown(scene: &Scene<'_>, address: SocketAddr) -> Result<TcpStream> {
    let mut stream = connect_within(&scene.lab.partner, None, address, TIMEOUT)?;
    let name = format!("n{}.example", stream.local_addr()?.port());
    stream.write_all(&client_hello(&name)?)?;
    Ok(stream)
}

#[test]
fn without_an_agent_known_names_are_bound_and_others_wait_for_the_next_one() {
    in_scenes("no-agent", &quiet(), |scene| {
        let _edges = scene.edges()?;
        scene.configure("default = \"edges-b\"", crate::DOMAINS)?;
        let learned = "learned.example";
        scene.reaches(vips()[0], learned, "b", HANDED_OFF)?;
        let hello = client_hello(NAME)?;
        let mut held = vips()
            .into_iter()
            .map(|address| scene.open(address, &hello))
            .collect::<Result<Vec<_>>>()?;
        scene.gateway.borrow_mut().kill()?;
        for address in vips() {
            for _ in 0..5 {
                scene.reaches(address, NAME, "a", BOUND)?;
                scene.reaches(address, learned, "b", BOUND)?;
            }
        }
        let mut waiting = Vec::new();
        for address in vips() {
            let mut stream = unknown(scene, address)?;
            stream.set_read_timeout(Some(IN_VAIN))?;
            let said = stream.read(&mut [0; 16]);
            let silent = said.as_ref().is_err_and(is_silence);
            ensure!(silent, "{address}: {said:?} without an agent");
            waiting.push(stream);
        }
        for client in &mut held {
            client.ping()?;
        }
        scene.gateway.borrow_mut().run(&[])?;
        for mut stream in waiting {
            stream.set_read_timeout(Some(TIMEOUT))?;
            let by = Introduction::read(&mut stream)
                .context("of the next agent, by one that has waited")?;
            ensure!(by.edge == "b", "{by:?}");
        }
        for client in &mut held {
            client.ping()?;
        }
        for address in vips() {
            scene.reaches(address, NAME, "a", BOUND)?;
        }
        Ok(())
    });
}

#[test]
fn without_a_listener_known_names_are_bound_and_others_are_refused() {
    on_hooks("no-listener", &quiet(), |scene| {
        let _edges = scene.edges()?;
        scene.configure("default = \"edges-b\"", crate::DOMAINS)?;
        let holder = scene.gateway.borrow().holder()?;
        scene.gateway.borrow_mut().kill()?;
        // As if its patience had ended.
        let holder = holder.context("nobody keeps the listener")?;
        kill(holder, Signal::SIGKILL)?;
        Deadline::after(TIMEOUT).poll("the holder's end", || {
            Ok(scene.gateway.borrow().holder()?.is_none().then_some(()))
        })?;
        for address in vips() {
            scene
                .reaches(address, NAME, "a", BOUND)
                .with_context(|| scene.told())?;
        }
        for address in vips() {
            let refused = unknown(scene, address).and_then(|mut stream| {
                stream.set_read_timeout(Some(Duration::from_secs(10)))?;
                Ok(stream.read(&mut [0; 16])?)
            });
            match refused {
                Err(error) if is_reset(&error) => {}
                other => anyhow::bail!("{address}: {other:?} without a listener"),
            }
        }
        scene.gateway.borrow_mut().run(&[])?;
        for address in vips() {
            scene.reaches(address, NAME, "a", BOUND)?;
        }
        scene.reaches(vips()[0], "any.example", "b", HANDED_OFF)
    });
}

fn ping_all(open: &mut [Connection]) -> Result<()> {
    open.iter_mut().try_for_each(|connection| {
        connection.ping()?;
        Ok(())
    })
}

#[test]
fn agents_die_and_begin_in_a_storm_and_known_names_lose_nothing() {
    on_hooks("agents", &quiet(), |scene| {
        let edge = Edge::start(&scene.lab.edge_a, SIP_TLS, None)?;
        let replayed = PartnerTls::replayed(client_hello(NAME)?);
        let partner = Partner {
            namespace: &scene.lab.partner,
            source: None,
            tls: Some(&replayed),
            timeout: TIMEOUT,
        };
        let mut open = vips()
            .into_iter()
            .flat_map(|address| [address; 5])
            .map(|address| partner.echo(address))
            .collect::<Result<Vec<_>>>()?;
        let limit = Limit::Time(Duration::from_secs(90));
        let storms = vips()
            .into_iter()
            .map(|address| Storm::start(&partner, address, CLIENTS, limit))
            .collect::<Result<Vec<_>>>()?;
        let go_on = || -> Result<()> {
            storms
                .iter()
                .try_for_each(|storm| storm.wait_for(storm.ended() + MEANWHILE, TIMEOUT))
                .with_context(|| scene.told())
        };
        for turn in 0..KILLS {
            go_on().with_context(|| format!("before death {turn}"))?;
            scene.gateway.borrow_mut().kill()?;
            ping_all(&mut open)?;
            // Without any agent, and in the midst of its start.
            if turn % 2 == 0 {
                go_on().with_context(|| format!("after death {turn}"))?;
            }
            scene.gateway.borrow_mut().run(&[])?;
            ping_all(&mut open)?;
        }
        // A planned restart, too.
        scene.gateway.borrow_mut().kill()?;
        scene.gateway.borrow_mut().run(&["--leave"])?;
        go_on()?;
        scene.gateway.borrow_mut().stop()?;
        go_on()?;
        scene.gateway.borrow_mut().run(&[])?;
        go_on()?;
        for storm in storms {
            let report = storm.stop()?;
            eprintln!(
                "{} agents killed and one stopped, {} connections of a storm went well, failed: {:?}",
                KILLS + 1,
                report.connections.len(),
                report.failures
            );
            report.ensure_no_failure()?;
        }
        for connection in open {
            connection.close()?;
        }
        let (bound, left) = (scene.counter("bound")?, scene.counter("left-name")?);
        eprintln!("{bound} bound, {left} left to the agent for their name");
        drop(edge);
        Ok(())
    });
}
