//! What the agent refuses to do, and what it says then: one sentence that names the thing and the way out.

use std::{net::SocketAddr, path::Path, process::Output, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::ABI_VERSION;
use snigate_tests::{
    Lab, Topology,
    addresses::{SIP_TLS, VIP_1},
    gateway::{Gateway, binary, two_ip_sets},
    lab_test, output_within,
    peers::{Edge, Partner},
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Runs `snigate run` on a configuration that must be refused.
fn run(lab: &Lab, config: &Path, options: &[&str]) -> Result<Output> {
    let mut command = lab.gateway.command(binary()?);
    command.args(["run", "--config"]).arg(config).args(options);
    output_within(&mut command, TIMEOUT)
}

fn refused(output: &Output, sentences: &[&str]) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1),
        "ended with {} and said: {said}",
        output.status
    );
    for sentence in sentences {
        ensure!(
            said.contains(sentence),
            "{sentence:?} is missing in: {said}"
        );
    }
    Ok(())
}

fn config(lab: &Lab, gateway: &str) -> Result<std::path::PathBuf> {
    let pins = lab.bpffs()?.join("snigate");
    lab.write_file(
        "refused.toml",
        &format!(
            "[gateway]\npin_path = \"{}\"\n{gateway}\n{}",
            pins.display(),
            two_ip_sets()
        ),
    )
}

/// Nothing is attached, and nothing pinned.
fn untouched(lab: &Lab) -> Result<()> {
    let links = lab.gateway.output("ip", &["-d", "link", "show"])?;
    ensure!(!links.contains("xdp"), "{links}");
    ensure!(!lab.bpffs()?.join("snigate/FLOWS").exists());
    Ok(())
}

fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

#[test]
fn an_unknown_interface() {
    lab_test("refuse-interface", &quiet(), |lab| {
        let config = config(lab, "interfaces = [\"wan\", \"lan0\"]")?;
        refused(
            &run(lab, &config, &[])?,
            &["no interface `wan`", "did you mean `wan0`?", "`lan1`"],
        )?;
        untouched(lab)
    });
}

#[test]
fn missing_privileges() {
    lab_test("refuse-privileges", &quiet(), |lab| {
        let config = config(lab, "interfaces = [\"wan0\", \"lan0\", \"lan1\"]")?;
        let mut command = lab.gateway.command("setpriv");
        command
            .args(["--bounding-set", "-all", "--inh-caps", "-all"])
            .arg(binary()?);
        command.args(["run", "--config"]).arg(config);
        refused(
            &output_within(&mut command, TIMEOUT)?,
            &["CAP_BPF", "CAP_NET_ADMIN", "run it as root"],
        )?;
        untouched(lab)
    });
}

#[test]
fn forwarding_that_is_off() {
    lab_test("refuse-forwarding", &quiet(), |lab| {
        lab.gateway.sysctl("net/ipv4/conf/lan0/forwarding", "0")?;
        let config = config(lab, "interfaces = [\"wan0\", \"lan0\", \"lan1\"]")?;
        refused(
            &run(lab, &config, &[])?,
            &["sysctl -w net.ipv4.conf.lan0.forwarding=1"],
        )?;
        untouched(lab)
    });
}

#[test]
fn a_hook_that_a_driver_lacks() {
    lab_test("refuse-hook", &quiet(), |lab| {
        let config = config(lab, "interfaces = [\"wan0\", \"lo\"]\nhook = \"xdp\"")?;
        refused(&run(lab, &config, &[])?, &["driver of lo", "\"tcx\""])?;
        untouched(lab)
    });
}

#[test]
fn a_pin_path_that_is_no_bpf_filesystem() {
    lab_test("refuse-bpffs", &quiet(), |lab| {
        let config = lab.write_file(
            "refused.toml",
            &format!(
                "[gateway]\ninterfaces = [\"wan0\"]\npin_path = \"{}\"\n{}",
                lab.dir().join("pins").display(),
                two_ip_sets()
            ),
        )?;
        refused(&run(lab, &config, &[])?, &["mount -t bpf bpf /sys/fs/bpf"])?;
        untouched(lab)
    });
}

#[test]
fn pinned_state_of_another_abi() {
    lab_test("refuse-abi", &quiet(), |lab| {
        let _edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let mut gateway = Gateway::start(lab, &two_ip_sets())?;
        let partner = Partner {
            namespace: &lab.partner,
            source: None,
            tls: None,
            timeout: Duration::from_secs(10),
        };
        let mut steered = partner.echo(SocketAddr::new(VIP_1.v4.into(), SIP_TLS))?;
        gateway.kill()?;
        sni_user::datapath::Maps::open(gateway.pin_path())?
            .control
            .set(0, 99, 0)?;
        let config = config(lab, "interfaces = [\"wan0\", \"lan0\", \"lan1\"]")?;
        let sentences = [
            "has ABI 99",
            &format!("reads and writes ABI {ABI_VERSION}"),
            "it goes on with its flows",
            "snigate flow ls",
            "snigate run --fresh",
            gateway.pin_path().to_str().unwrap_or_default(),
        ];
        refused(&run(lab, &config, &[])?, &sentences)?;
        for command in [
            &["status"][..],
            &["flow", "ls"],
            &["service", "ls"],
            &["map", "ls"],
        ] {
            refused(&gateway.command(command)?, &sentences)?;
        }
        // The other version's datapath goes on working, until it is asked to go.
        ensure!(
            lab.gateway
                .output("ip", &["-d", "link", "show", "wan0"])?
                .contains("xdp")
        );
        steered.ping().context("under the other version")?;
        let mut new = partner
            .echo(SocketAddr::new(VIP_1.v6.into(), SIP_TLS))
            .context("a new one under the other version")?;
        new.ping()?;
        // In the moment without a datapath the host answers for the public address, with a RST: no segment may be on its way then.
        thread::sleep(Duration::from_millis(300));
        gateway.run(&["--fresh"])?;
        gateway.output(&["status"])?;
        // Steered with the client's address, they are found again when the client speaks.
        steered
            .ping()
            .context("the old one after the replacement")?;
        new.ping().context("after the replacement")?;
        gateway.stop()
    });
}

#[test]
fn a_second_agent() {
    lab_test("refuse-second", &quiet(), |lab| {
        let mut gateway = Gateway::start(lab, &two_ip_sets())?;
        let config = config(lab, "interfaces = [\"wan0\", \"lan0\", \"lan1\"]")?;
        refused(
            &run(lab, &config, &[])?,
            &["another agent runs in this network namespace"],
        )?;
        gateway.output(&["status"])?;
        gateway.stop()
    });
}

#[test]
fn an_interface_that_another_program_has() {
    lab_test("refuse-busy", &quiet(), |lab| {
        // The other program is another snigate, with pins of its own.
        let mut gateway = Gateway::start(lab, &two_ip_sets())?;
        gateway.stop()?;
        gateway.run(&["--leave"])?;
        gateway.stop()?;
        let config = lab.write_file(
            "refused.toml",
            &format!(
                "[gateway]\ninterfaces = [\"wan0\"]\nhook = \"xdp\"\npin_path = \"{}\"\n{}",
                lab.bpffs()?.join("other").display(),
                two_ip_sets()
            ),
        )?;
        refused(
            &run(lab, &config, &[])?,
            &[
                "another XDP program is attached to wan0",
                "ip link set dev wan0 xdp off",
            ],
        )?;
        ensure!(
            !lab.bpffs()?.join("other/FLOWS").exists(),
            "what was made for the refused start is left behind"
        );
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
fn a_configuration_with_mistakes() {
    lab_test("refuse-configuration", &quiet(), |lab| {
        let config = config(lab, "interface = [\"wan0\"]\nidle_timeout = \"5m\"")?;
        // One table for each kind of mistake is in sni-user/tests; here, that all arrive at once, with their lines.
        refused(
            &run(lab, &config, &[])?,
            &[
                "interface",
                "interfaces",
                "idle_timeout",
                "shorter than 30m",
                "refused.toml:3",
                "refused.toml:4",
            ],
        )?;
        untouched(lab)
    });
}
