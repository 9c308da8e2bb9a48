//! The agent's life beside the connections.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use snigate_tests::{
    Topology,
    addresses::{SIP_TLS, VIP_1, at},
    deadline::Deadline,
    gateway::{Gateway, binary, two_ip_sets},
    lab_test, output_within,
    peers::{Edge, End},
};

use crate::{MEGABYTE, TIMEOUT, quiet, tcp, vip};

#[test]
fn the_agent_may_die_while_traffic_flows() {
    lab_test("steer-kill", &quiet(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let mut gateway = Gateway::start(lab, &two_ip_sets())?;
        let mut idle = Vec::new();
        for address in vip(VIP_1) {
            idle.push(tcp(lab).echo(address)?);
        }
        thread::scope(|scope| -> Result<()> {
            let bulk = scope
                .spawn(|| tcp(lab).exchange(at(VIP_1.v4.into()), 200 * MEGABYTE, 200 * MEGABYTE));
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(200));
                gateway.kill()?;
                // Steering goes on without an agent.
                tcp(lab).exchange(at(VIP_1.v6.into()), 1000, 1000)?;
                for connection in &mut idle {
                    connection.ping()?;
                }
                gateway.run(&[])?;
                ensure!(gateway.log()?.contains("adopted"), "{}", gateway.log()?);
            }
            bulk.join()
                .map_err(|_| anyhow::anyhow!("the transfer panicked"))??;
            Ok(())
        })?;
        for connection in idle {
            connection.close()?;
        }
        for _ in 0..6 {
            ensure!(edge.report(TIMEOUT)?.end == End::Clean);
        }
        Ok(())
    });
}

#[test]
fn nothing_is_left_when_the_agent_ends() {
    lab_test("steer-detach", &Topology::default(), |lab| {
        let mut gateway = Gateway::start(lab, &two_ip_sets())?;
        let attached = || lab.gateway.output("ip", &["-d", "link", "show", "wan0"]);
        ensure!(attached()?.contains("xdp"), "{}", attached()?);
        gateway.stop()?;
        ensure!(!gateway.pin_path().exists());
        // The kernel frees a link, and detaches by that, a moment after its last reference is gone.
        Deadline::after(Duration::from_secs(5)).poll("the detachment", || {
            Ok((!attached()?.contains("xdp")).then_some(()))
        })?;

        gateway.run(&["--leave"])?;
        gateway.stop()?;
        ensure!(attached()?.contains("xdp"), "{}", attached()?);
        ensure!(
            gateway
                .json(&["service", "ls"])?
                .as_array()
                .is_some_and(|rows| rows.len() == 4)
        );
        Ok(())
    });
}

#[test]
fn a_killed_flow_is_reset_on_both_sides() {
    lab_test("steer-kill-flow", &Topology::default(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = Gateway::start(lab, &two_ip_sets())?;
        for address in vip(VIP_1) {
            let mut connection = tcp(lab).echo(address)?;
            connection.ping()?;
            gateway.output(&["flow", "kill", &connection.local().to_string()])?;
            let started = Instant::now();
            ensure!(connection.ping().is_err(), "the partner's side lives on");
            ensure!(
                started.elapsed() < Duration::from_secs(5),
                "the partner was not told"
            );
            ensure!(edge.report(TIMEOUT)?.end == End::Reset);
        }
        ensure!(
            gateway
                .json(&["flow", "ls"])?
                .as_array()
                .is_some_and(Vec::is_empty)
        );
        Ok(())
    });
}

#[test]
fn diagnostics_are_switched_while_it_runs() {
    lab_test("steer-log", &quiet(), |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = Gateway::start(lab, &two_ip_sets())?;
        let lines = || -> Result<usize> {
            Ok(gateway
                .log()?
                .lines()
                .filter(|line| line.contains("forward"))
                .count())
        };
        tcp(lab).exchange(at(VIP_1.v4.into()), 1000, 1000)?;
        ensure!(lines()? == 0, "off by default");
        gateway.output(&["log", "on"])?;
        tcp(lab).exchange(at(VIP_1.v4.into()), 1000, 1000)?;
        tcp(lab).exchange(at(VIP_1.v6.into()), 1000, 1000)?;
        Deadline::after(TIMEOUT).poll("the diagnostics of both connections", || {
            let log = gateway.log()?;
            let both = [VIP_1.v4.to_string(), VIP_1.v6.to_string()]
                .iter()
                .all(|vip| {
                    log.contains(&format!("-> ::ffff:{vip}")) || log.contains(&format!("-> {vip}"))
                });
            Ok(both.then_some(()))
        })?;
        gateway.output(&["log", "off"])?;
        // What was on its way to the log.
        thread::sleep(Duration::from_millis(500));
        let before = lines()?;
        tcp(lab).exchange(at(VIP_1.v4.into()), 1000, 1000)?;
        thread::sleep(Duration::from_millis(500));
        ensure!(lines()? == before);
        Ok(())
    });
}

#[test]
fn flows_that_have_ended_leave_the_table() {
    lab_test("steer-sweep", &quiet(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = Gateway::start(lab, &two_ip_sets())?;
        let mut alive = tcp(lab).echo(at(VIP_1.v4.into()))?;
        for address in vip(VIP_1) {
            tcp(lab).be_reset(address)?;
            edge.report(TIMEOUT)?;
        }
        let flows = || -> Result<usize> {
            Ok(gateway
                .json(&["flow", "ls"])?
                .as_array()
                .map_or(0, Vec::len))
        };
        ensure!(flows()? == 3);
        // 10 idle seconds after an RST, and at most 5 until the next sweep.
        Deadline::after(Duration::from_secs(25))
            .poll("the sweep", || Ok((flows()? == 1).then_some(())))?;
        alive.ping()?;
        alive.close()?;
        Ok(())
    });
}

#[test]
fn an_interface_made_anew_is_attached_again() {
    lab_test("steer-anew", &quiet(), |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let gateway = Gateway::start(lab, &two_ip_sets())?;
        tcp(lab).exchange(at(VIP_1.v4.into()), 1000, 1000)?;
        // lan1 goes, and another interface takes its name, as when a driver is reset; flows over the others are not disturbed.
        let mut alive = tcp(lab).echo(at(VIP_1.v6.into()))?;
        lab.gateway.ip("link del lan1\nlink add lan1 type veth peer name other\nlink set lan1 up\nlink set other up\n")?;
        lab.gateway.sysctl("net/ipv4/conf/lan1/forwarding", "1")?;
        lab.gateway.sysctl("net/ipv6/conf/lan1/forwarding", "1")?;
        Deadline::after(Duration::from_secs(10)).poll(
            "the datapath on the new interface",
            || {
                let link = lab.gateway.output("ip", &["-d", "link", "show", "lan1"])?;
                Ok(link.contains("xdp").then_some(()))
            },
        )?;
        alive.ping()?;
        alive.close()?;
        tcp(lab).exchange(at(VIP_1.v4.into()), 1000, 1000)?;
        ensure!(
            gateway.json(&["status"])?["interfaces"]
                .to_string()
                .contains("lan1")
        );
        Ok(())
    });
}

#[test]
fn an_agent_that_fails_leaves_the_datapath() {
    lab_test("steer-failed", &quiet(), |lab| {
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let mut gateway = Gateway::start(lab, &two_ip_sets())?;
        let mut alive = tcp(lab).echo(at(VIP_1.v4.into()))?;
        gateway.kill()?;
        // The next start is refused half-way: its configuration names an interface that is not there.
        gateway.configure("", &two_ip_sets())?;
        let broken = lab.write_file(
            "broken.toml",
            &std::fs::read_to_string(lab.dir().join("snigate.toml"))?
                .replace("\"lan1\"", "\"lan9\""),
        )?;
        let mut command = lab.gateway.command(binary()?);
        command.args(["run", "--config"]).arg(broken);
        let refused = output_within(&mut command, TIMEOUT)?;
        ensure!(refused.status.code() == Some(1), "{refused:?}");
        alive.ping()?;
        tcp(lab).exchange(at(VIP_1.v6.into()), 1000, 1000)?;
        gateway.run(&[])?;
        alive.ping()?;
        alive.close()?;
        for _ in 0..2 {
            ensure!(edge.report(TIMEOUT)?.end == End::Clean);
        }
        Ok(())
    });
}
