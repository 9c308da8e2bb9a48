//! The way back to transparent sockets.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::TRANSPARENT_MARK;
use sni_user::datapath::{AttachMode, ReturnHook};
use snigate_tests::{
    Lab, Topology,
    addresses::{EDGE_A, PARTNER, SIP_TLS},
    lab_test,
};
use socket2::{Domain, Socket, Type};

use crate::{Agent, Client, IN_VAIN, TIMEOUT, interfaces, serve};

/// What the agent does for a whole host: marked packets are local.
fn route_marked(lab: &Lab) -> Result<()> {
    for family in ["-4", "-6"] {
        lab.gateway.ip(&format!(
            "{family} rule add fwmark {TRANSPARENT_MARK:#x}/{TRANSPARENT_MARK:#x} lookup 100
             {family} route add local default dev lo table 100"
        ))?;
    }
    Ok(())
}

/// A connection from the gateway in the name of another host.
fn connect_as(lab: &Lab, source: IpAddr, to: SocketAddr, timeout: Duration) -> Result<TcpStream> {
    lab.gateway.run(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        match source {
            IpAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            IpAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket
            .connect_timeout(&to.into(), timeout)
            .with_context(|| format!("connecting from {source} to {to}"))?;
        Ok(socket.into())
    })
}

fn edges(lab: &Lab) -> Result<[(IpAddr, SocketAddr); 2]> {
    serve(lab.edge_a.run(|| Ok(TcpListener::bind(("::", SIP_TLS))?))?);
    let [v4, v6] = EDGE_A.both().map(|edge| SocketAddr::new(edge, SIP_TLS));
    Ok([(PARTNER.v4.into(), v4), (PARTNER.v6.into(), v6)])
}

/// A connection in the partner's name, and the partner's own, both at once, to one Edge.
fn both_at_once(lab: &Lab, partner: IpAddr, edge: SocketAddr) -> Result<()> {
    let mut direct = Client::connect(&lab.partner, edge)?;
    let mut ours = Client::new(connect_as(lab, partner, edge, TIMEOUT)?)?;
    for _ in 0..3 {
        ours.echo(&[1; 100_000])?;
        direct.echo(&[2; 100_000])?;
    }
    for (client, name) in [(&ours, "ours"), (&direct, "direct")] {
        ensure!(
            client.local()?.ip() == partner && client.seen == [client.local()?, edge],
            "{name}: {:?}",
            client.seen
        );
    }
    // Each end once in each order.
    direct.close()?;
    ours.echo(b"still there")?;
    ours.close()
}

#[test]
fn an_edge_answers_a_socket_in_the_partners_name_and_the_partner_itself() {
    for hook in [ReturnHook::Tcx, ReturnHook::Clsact] {
        let name = format!("sockets-return-{hook:?}").to_lowercase();
        lab_test(&name, &Topology::default(), |lab| {
            let edges = edges(lab)?;
            route_marked(lab)?;
            let mut agent = Agent::start(lab)?;
            let mut attach = |names: &[&str]| {
                lab.gateway
                    .run(|| Ok(agent.datapath.attach_return(&interfaces(names)?, hook)?))
            };
            for (partner, edge) in edges {
                ensure!(
                    connect_as(lab, partner, edge, IN_VAIN).is_err(),
                    "it works without the classifier"
                );
            }
            attach(&["wan0", "lan0"])?;
            // Nothing is attached twice, and another interface's change does not matter.
            attach(&["wan0", "lan0"])?;
            attach(&["lan0"])?;
            for (partner, edge) in edges {
                both_at_once(lab, partner, edge)?;
            }
            attach(&[])?;
            for (partner, edge) in edges {
                ensure!(
                    connect_as(lab, partner, edge, IN_VAIN).is_err(),
                    "it works when the classifier is gone"
                );
            }
            Ok(())
        });
    }
}

#[test]
fn the_filter_of_a_killed_agent_is_replaced() {
    lab_test("sockets-return-killed", &Topology::default(), |lab| {
        let edges = edges(lab)?;
        route_marked(lab)?;
        let filters = || -> Result<usize> {
            let shown = lab
                .gateway
                .output("tc", &["filter", "show", "dev", "lan0", "ingress"])?;
            Ok(shown.matches(" name snigate_return ").count())
        };
        let start = || -> Result<Agent> {
            let mut agent = Agent::start(lab)?;
            lab.gateway.run(|| {
                let interfaces = interfaces(&["lan0"])?;
                Ok(agent
                    .datapath
                    .attach_return(&interfaces, ReturnHook::Clsact)?)
            })?;
            Ok(agent)
        };
        // Nothing of it is dropped, as after SIGKILL.
        std::mem::forget(start()?);
        ensure!(filters()? == 1);
        let agent = start()?;
        ensure!(filters()? == 1);
        for (partner, edge) in edges {
            both_at_once(lab, partner, edge)?;
        }
        lab.gateway.run(|| {
            drop(agent);
            Ok(())
        })?;
        ensure!(filters()? == 0, "an orderly end leaves the filter");
        Ok(())
    });
}

#[test]
fn a_smaller_mtu_before_the_edge_is_found_out() {
    let topology = Topology {
        router_mtu: Some(1400),
        ..Topology::default()
    };
    lab_test("sockets-return-mtu", &topology, |lab| {
        let edges = edges(lab)?;
        route_marked(lab)?;
        let mut agent = Agent::start(lab)?;
        lab.gateway.run(|| {
            let interfaces = interfaces(&["lan0"])?;
            Ok(agent
                .datapath
                .attach_return(&interfaces, ReturnHook::beside(AttachMode::Xdp))?)
        })?;
        for (partner, edge) in edges {
            // The router's errors go to the partner's address, and must come to our socket.
            let mut ours = Client::new(connect_as(lab, partner, edge, TIMEOUT)?)?;
            ours.echo(&[3; 300_000])?;
        }
        Ok(())
    });
}
