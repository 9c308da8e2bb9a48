//! Who lacks privileges: an agent without CAP_BPF, and members of the group `snigate`, who look and change nothing.

use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{
    gateway::{Gateway, binary, instead_of_agent, two_ip_sets},
    lab_test, output_within,
};

use crate::{
    TIMEOUT, lines, metrics, quiet,
    scene::{BOUND, STEERED, Scene, all_live},
};

/// A user without any name or privilege.
const USER: &str = "64123";
/// The group `snigate` of the agent's own /etc/group, where the host has none.
const GROUP: u32 = 64_124;

#[test]
fn an_agent_without_cap_bpf_says_what_it_lacks() {
    lab_test("faults-cap-bpf", &quiet(), |lab| {
        let text = format!(
            "[gateway]\ninterfaces = [\"wan0\", \"lan0\"]\npin_path = \"{}\"\n{}",
            lab.bpffs()?.join("snigate").display(),
            two_ip_sets()
        );
        let config = lab.write_file("lacking.toml", &text)?;
        for arguments in ["run", "check"] {
            let mut command = lab.gateway.command("setpriv");
            // CAP_SYS_ADMIN stands for it.
            let without = ["--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-all"];
            command.args(without).arg(binary()?);
            command.args([arguments, "--config"]).arg(&config);
            let output = output_within(&mut command, TIMEOUT)?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said)?;
            let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
            ensure!(
                said.contains("this process lacks CAP_BPF: run it as root"),
                "{arguments}: {said}"
            );
            ensure!(
                arguments == "check" || output.status.code() == Some(1),
                "{said}"
            );
        }
        ensure!(!lab.bpffs()?.join("snigate/FLOWS").exists());
        Ok(())
    });
}

/// Runs a command as an ordinary user who is a member of the group.
fn member(gateway: &Gateway<'_>, arguments: &[&str]) -> Result<Output> {
    let prepared = gateway.prepared(arguments)?;
    let mut command = Command::new("setpriv");
    command
        .args([
            "--reuid",
            USER,
            "--regid",
            USER,
            "--groups",
            &GROUP.to_string(),
            "--",
        ])
        .arg(prepared.get_program())
        .args(prepared.get_args());
    output_within(&mut command, TIMEOUT)
}

/// What they are told who may not.
fn refused(gateway: &Gateway<'_>, arguments: &[&str]) -> Result<String> {
    let output = member(gateway, arguments)?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(1),
        "{arguments:?}: {}: {said}",
        output.status
    );
    Ok(said)
}

#[test]
fn members_of_the_group_look_and_change_nothing() {
    lab_test("faults-members", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        lab.write_file("group", &format!("root:x:0:\nsnigate:x:{GROUP}:\n"))?;
        let script = "exec unshare --mount sh -c '\n\
             mount --bind \"$DIR/group\" /etc/group && exec \"$SNIGATE\" \"$@\"' sh \"$@\"\n";
        let gateway = scene.gateway("", Some(instead_of_agent(lab, script)?))?;
        let mut open = scene.open_all(&[STEERED, BOUND])?;
        let client = open[0].local().to_string();

        let output = member(&gateway, &["status", "--json"])?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        let edges = status["agent"]["edges"].as_array().context("Edges")?;
        ensure!(edges.len() == 5, "{status}");
        ensure!(!metrics(&lab.gateway)?.is_empty());
        // The pinned maps are root's, to look at as well.
        let looks: [&[&str]; 6] = [
            &["flow", "ls"],
            &["edge", "ls"],
            &["route", "ls"],
            &["service", "ls"],
            &["map", "dump", "SERVICES"],
            &["top", "--once"],
        ];
        let changes_of_maps: [&[&str]; 4] = [
            &["flow", "kill", &client],
            &["flow", "kill", "--all"],
            &["edge", "drain", "a-v4", "--deadline", "1s"],
            &["log", "on"],
        ];
        for command in looks.into_iter().chain(changes_of_maps) {
            let said = refused(&gateway, command)?;
            ensure!(
                said.contains("run it as root") || said.contains("sudo"),
                "{command:?}: {said}"
            );
        }
        let said = refused(&gateway, &["edge", "enable", "a-v4"])?;
        ensure!(
            said.contains("only root and the agent's own user may change anything"),
            "{said}"
        );
        ensure!(
            lines(&gateway, "outcome=\"not allowed\"")? == 1,
            "{}",
            gateway.log()?
        );
        let said = refused(&gateway, &["detach"])?;
        ensure!(!said.is_empty());

        // As it was.
        all_live(&mut open)?;
        open.extend(scene.open_all(&[STEERED, BOUND])?);
        let edges = gateway.json(&["edge", "ls"])?;
        let states = edges.as_array().context("Edges")?;
        ensure!(states.iter().all(|edge| edge["state"] == "up"), "{edges}");
        all_live(&mut open)
    });
}
