//! The Debian package as an operator has it: installed, started, upgraded under traffic, and removed, with its units, its sandbox and its group,
//! in a machine of its own.

mod machine;

use std::time::Duration;

use anyhow::ensure;
use snigate_tests::{
    Lab, Topology,
    addresses::{SIP_TLS, VIP_1, VIP_3},
    lab_test,
    peers::{Edge, Opener, Partner, StreamEdge},
};

use machine::{CONFIG, Machine, UNIT};

const TIMEOUT: Duration = Duration::from_secs(30);
const NAME: &str = "sip.contoso.example";

/// What is in force once the package runs: one address steered, and another one that inspects.
const TABLES: &str = r#"
[gateway]
interfaces = ["wan0", "lan0", "lan1"]
hook = "xdp"
seed = "package"

[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"

[[edge]]
name = "edge-b"
address = "203.0.113.140:5061"

[[pool]]
name = "edges-a"
edges = ["edge-a"]

[[pool]]
name = "edges-b"
edges = ["edge-b"]

[[ip_set]]
name = "steered"
addresses = ["198.51.100.10"]
steer = "edges-a"

[[ip_set]]
name = "shared"
addresses = ["198.51.100.30"]
inspect = true
bind = false

[[domain]]
sip_domain = "contoso.example"
pool = "edges-b"
"#;

fn topology() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

fn steered(lab: &Lab) -> Partner<'_> {
    Partner {
        namespace: &lab.partner,
        source: None,
        tls: None,
        timeout: TIMEOUT,
    }
}

#[test]
fn a_package_is_installed_upgraded_and_removed() {
    lab_test("package-life", &topology(), |lab| {
        let _edge_a = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let _edge_b = StreamEdge::start(&lab.edge_b, SIP_TLS)?;
        let partner = steered(lab);
        let vip = VIP_1.sip()[0];
        let inspected = Opener::new(&lab.partner, VIP_3.sip()[0], NAME)?;
        let machine = Machine::start(lab)?;

        // Installed: enabled, and waiting for a configuration.
        machine.install("1")?;
        ensure!(machine.output("systemctl", &["--root=/", "is-enabled", UNIT])? == "enabled");
        ensure!(machine.property(UNIT, "ConditionResult")? == "no");
        for file in [
            "/usr/share/man/man1/snigate-edge-ls.1.gz",
            "/usr/share/bash-completion/completions/snigate",
            "/usr/share/doc/snigate/examples/snigate.toml",
        ] {
            ensure!(machine.has(file)?, "{file} is not there");
        }
        let checked = machine.output(
            "snigate",
            &[
                "--config",
                "/usr/share/doc/snigate/examples/snigate.toml",
                "check",
            ],
        );
        let refused = format!("{:#}", checked.expect_err("wan0 has none of its addresses"));
        ensure!(!refused.contains("unknown key"), "{refused}");

        // Started.
        machine.write(CONFIG, TABLES)?;
        machine.systemctl(&["start", UNIT])?;
        let mut steered = partner.echo(vip)?;
        let mut handed_off = inspected.echoing(1)?;
        machine.is_confined()?;
        machine.has_a_group()?;

        // Upgraded: another agent, the same flows.
        let before = machine.property(UNIT, "MainPID")?;
        let generation = machine.version()?;
        machine.install("2")?;
        ensure!(machine.version()? != generation);
        let after = machine.property(UNIT, "MainPID")?;
        ensure!(
            machine.property(UNIT, "ActiveState")? == "active"
                && !["0", &before].contains(&&*after),
            "{before} became {after}"
        );
        steered.ping()?;
        handed_off[0].ping()?;
        partner.echo(vip)?;
        inspected.echoing(1)?;

        // Reloaded, and refused to reload what is wrong.
        machine.systemctl(&["reload", UNIT])?;
        machine.write(CONFIG, &TABLES.replace("[\"edge-b\"]", "[\"edge-z\"]"))?;
        ensure!(machine.systemctl(&["reload", UNIT]).is_err());
        steered.ping()?;
        machine.write(CONFIG, TABLES)?;

        // Removed, and purged: nothing is left but what the administrator wrote.
        machine.output("dpkg", &["--remove", "snigate"])?;
        machine.leaves_nothing()?;
        ensure!(partner.echo(vip).is_err());
        machine.output("dpkg", &["--purge", "snigate"])?;
        ensure!(machine.has(CONFIG)?);
        Ok(())
    });
}
