//! Who may ask a running agent for what.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Result, ensure};
use serde_json::Value;
use snigate_tests::{
    Lab, Process,
    addresses::VIP_1,
    gateway::{Gateway, binary},
    lab_test, output_within,
};

use crate::{
    TIMEOUT, both,
    federation::{Federation, domain, ip_set},
    quiet,
};

/// A user without any name or privilege.
const USER: &str = "64123";
/// The group `snigate` of the agent's own /etc/group, where the host has none.
const GROUP: u32 = 64_124;

/// The agent, where there is a group `snigate`: in a mount namespace of its own, so that the host's /etc/group stays as it is.
fn agent(lab: &Lab, config: &Path) -> Result<Process> {
    let mut command = lab.gateway.command("unshare");
    let groups = lab.write_file("group", &format!("root:x:0:\nsnigate:x:{GROUP}:\n"))?;
    let script = "mount --bind \"$1\" /etc/group && exec \"$2\" run --config \"$3\"";
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(groups)
        .arg(binary()?)
        .arg(config);
    let mut agent = lab.spawn("snigate-in-group", command)?;
    agent.wait_for_line("ready", TIMEOUT)?;
    Ok(agent)
}

/// Runs a command as an ordinary user, a member of `groups` and no other.
fn ordinary(gateway: &Gateway<'_>, groups: &[&str], arguments: &[&str]) -> Result<Output> {
    output_within(&mut as_ordinary(gateway, groups, arguments)?, TIMEOUT)
}

fn as_ordinary(gateway: &Gateway<'_>, groups: &[&str], arguments: &[&str]) -> Result<Command> {
    let prepared = gateway.prepared(arguments)?;
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", USER, "--regid", USER])
        .args(groups)
        .arg("--");
    command
        .arg(prepared.get_program())
        .args(prepared.get_args());
    Ok(command)
}

#[test]
fn the_group_may_look_and_nobody_else() {
    lab_test("permissions", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let tables = federation.pools()?
            + &ip_set("shared", VIP_1, "inspect = true\nbind = false")
            + &domain("contoso.example", "edges-a");
        let mut gateway = Gateway::start(lab, &tables)?;
        gateway.stop()?;
        let mut agent = agent(lab, gateway.config())?;
        let socket = gateway.control().metadata()?;
        ensure!(
            (socket.mode() & 0o7777, socket.uid(), socket.gid()) == (0o660, 0, GROUP),
            "{socket:?}"
        );
        let group = GROUP.to_string();
        let member = ["--groups", &group];
        let stranger = ["--clear-groups"];
        let generation = || -> Result<_> { Ok(gateway.json(&["status"])?["generation"].clone()) };
        let before = generation()?;

        // Members look: at what the agent knows, since the maps are root's.
        let status = ordinary(&gateway, &member, &["status"])?;
        let said = String::from_utf8(status.stderr)?;
        let text = String::from_utf8(status.stdout)?;
        ensure!(
            status.status.success() && said.contains("only the agent is shown"),
            "{said}"
        );
        ensure!(
            text.contains("configured") && text.contains("active for"),
            "{text}"
        );
        let status = ordinary(&gateway, &member, &["status", "--json"])?;
        let status: Value = serde_json::from_slice(&status.stdout)?;
        ensure!(
            status["agent"]["configuration"]["generation"] == before,
            "{status}"
        );
        let watching = as_ordinary(&gateway, &member, &["watch"])?;
        let mut watcher = lab.spawn("watch", watching)?;
        watcher.wait_for_line("SERVER NAME", TIMEOUT)?;
        federation.reach("sip.contoso.example", both(VIP_1)[0])?;
        let line = watcher.wait_for_line("sip.contoso.example", TIMEOUT)?;
        ensure!(line.ends_with("passed to edge-a-v4"), "{line}");

        // They change nothing, and are told why.
        let changes: [&[&str]; 5] = [
            &["reload"],
            &["route", "add", "sip.fabrikam.example", "edges-a"],
            &["route", "rm", "sip.fabrikam.example"],
            &["domain", "add", "fabrikam.example", "--pool", "edges-a"],
            &["domain", "rm", "fabrikam.example"],
        ];
        for change in changes {
            let said = failure(ordinary(&gateway, &member, change)?)?;
            ensure!(said.contains(&format!("only root and the agent's own user may change anything, and you are user {USER}")), "{change:?}: {said}");
        }
        // Others are not even heard.
        for arguments in changes.into_iter().chain([&["watch"][..]]) {
            let said = failure(ordinary(&gateway, &stranger, arguments)?)?;
            ensure!(
                said.contains("may not be opened by this user") && said.contains("group snigate"),
                "{arguments:?}: {said}"
            );
        }
        failure(ordinary(&gateway, &stranger, &["status"])?)?;
        ensure!(generation()? == before);
        // The log says that they have tried, and nothing else of it.
        let log = agent.stderr()?;
        let audit = log
            .lines()
            .filter(|line| line.contains("administrative command"));
        let (denied, others): (Vec<_>, Vec<_>) =
            audit.partition(|line| line.contains("outcome=\"not allowed\""));
        ensure!(denied.len() == changes.len() && others.is_empty(), "{log}");
        ensure!(
            denied
                .iter()
                .all(|line| line.contains(&format!("uid={USER}")))
        );
        ensure!(agent.is_running()?);
        Ok(())
    });
}

/// What a command has said that has failed.
fn failure(output: Output) -> Result<String> {
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    Ok(said)
}
