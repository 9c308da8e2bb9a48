//! The socket lookup.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Result, ensure};
use sni_common::contract::{Counter, DropReason};
use sni_user::datapath::{AttachMode, Attached, Datapath, Origin, attached_interfaces};
use snigate_tests::{
    Lab, Topology,
    addresses::{GATEWAY_WAN, Host, SIP_TLS, VIP_1},
    lab_test,
};

use crate::{Agent, Client, ELSEWHERE, TIMEOUT, interfaces, serve};

fn at(host: Host, port: u16) -> [SocketAddr; 2] {
    host.both().map(|address| SocketAddr::new(address, port))
}

fn listen(lab: &Lab, port: u16) -> Result<TcpListener> {
    lab.gateway.run(|| Ok(TcpListener::bind(("::", port))?))
}

fn attached(interface: &str) -> Attached {
    Attached {
        interface: interface.to_owned(),
        mode: AttachMode::Xdp,
    }
}

fn is_refused(lab: &Lab, to: SocketAddr) -> Result<bool> {
    lab.partner
        .run(|| match TcpStream::connect_timeout(&to, TIMEOUT) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(false),
        })
}

#[test]
fn the_agents_listener_gets_inspected_connections_and_nobody_else_does() {
    lab_test("sockets-dispatch", &Topology::default(), |lab| {
        // Another program of the host, on every address.
        serve(listen(lab, SIP_TLS)?);
        serve(listen(lab, ELSEWHERE)?);
        let mut agent = Agent::start(lab)?;
        for to in at(VIP_1, SIP_TLS) {
            ensure!(is_refused(lab, to)?, "somebody answers at {to}");
        }
        ensure!(agent.drops(DropReason::NoListener)? == 2);
        ensure!(agent.counter(Counter::Dispatched)? == 0);

        let listener = listen(lab, 0)?;
        agent.datapath.serve_listener(&listener)?;
        for to in at(VIP_1, SIP_TLS) {
            let client = lab.partner.run(|| Ok(TcpStream::connect(to)?))?;
            let (stream, peer) = listener.accept()?;
            ensure!(peer.ip().to_canonical() == client.local_addr()?.ip());
            let local = stream.local_addr()?;
            ensure!(
                (local.ip().to_canonical(), local.port()) == (to.ip(), SIP_TLS),
                "it arrived at {local}, not at {to}"
            );
        }
        ensure!(agent.counter(Counter::Dispatched)? == 2);
        // Nothing but what is configured: other ports of the address, and the port on other addresses.
        for to in [at(VIP_1, ELSEWHERE), at(GATEWAY_WAN, SIP_TLS)].concat() {
            let mut client = Client::connect(&lab.partner, to)?;
            client.echo(b"untouched")?;
            ensure!(client.seen == [client.local()?, to], "{:?}", client.seen);
        }
        ensure!(agent.counter(Counter::Dispatched)? == 2);
        // The port that the listener is bound to is no way in.
        let own = listener.local_addr()?.port();
        for to in at(GATEWAY_WAN, own) {
            ensure!(is_refused(lab, to)?, "{to} is the listener's own port");
        }

        drop(listener);
        for to in at(VIP_1, SIP_TLS) {
            ensure!(is_refused(lab, to)?, "somebody answers at {to}");
        }
        ensure!(agent.datapath.maps.listeners.cookie()?.is_none());
        Ok(())
    });
}

#[test]
fn the_lookup_outlives_its_agent_and_goes_with_the_datapath() {
    lab_test("sockets-adopted", &Topology::default(), |lab| {
        serve(listen(lab, SIP_TLS)?);
        let Agent { datapath, pins } = Agent::start(lab)?;
        drop(datapath);
        let [to, _] = at(VIP_1, SIP_TLS);
        ensure!(is_refused(lab, to)?, "without an agent somebody answers");

        let Agent { mut datapath, .. } = Agent::start(lab)?;
        ensure!(datapath.origin == Origin::Adopted);
        let listener = listen(lab, 0)?;
        datapath.serve_listener(&listener)?;
        lab.partner.run(|| Ok(TcpStream::connect(to)?))?;
        listener.accept()?;
        ensure!(attached_interfaces(&pins)? == [attached("lan0"), attached("wan0")]);
        let keep = lab.gateway.run(|| interfaces(&["wan0"]))?;
        ensure!(datapath.detach_others(&keep, AttachMode::Xdp)? == [attached("lan0")]);
        for (interface, attached) in [("wan0", true), ("lan0", false)] {
            let shown = lab.gateway.output("ip", &["link", "show", interface])?;
            ensure!(shown.contains(" xdp ") == attached, "{shown}");
        }
        lab.partner.run(|| Ok(TcpStream::connect(to)?))?;
        listener.accept()?;

        // Unwanted, wanted again, each of them twice.
        for wanted in [false, false, true, true] {
            lab.gateway.run(|| Ok(datapath.dispatch(wanted)?))?;
            drop(lab.partner.run(|| Ok(TcpStream::connect(to)?))?);
            listener.set_nonblocking(true)?;
            ensure!(listener.accept().is_ok() == wanted, "wanted: {wanted}");
        }
        datapath.remove()?;
        Client::connect(&lab.partner, to)?.echo(b"the host's again")?;
        ensure!(!pins.exists());
        Datapath::remove_pinned(&pins)?;
        Ok(())
    });
}
