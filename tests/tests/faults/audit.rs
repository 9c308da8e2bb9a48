//! Every command that changes something is one line in the agent's log: who, what, and what came of it.

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{deadline::Deadline, gateway::Gateway, lab_test};

use crate::{
    TIMEOUT, quiet,
    scene::{RELAYED, STEERED, Scene},
};

const AUDIT: &str = "administrative command";

fn audit(gateway: &Gateway<'_>) -> Result<Vec<String>> {
    let log = gateway.log()?;
    let lines = log.lines().filter(|line| line.contains(AUDIT));
    Ok(lines.map(ToOwned::to_owned).collect())
}

#[test]
fn each_change_is_one_line_with_who_and_what_and_how_it_ended() {
    lab_test("faults-audit", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let include = "include = [\"domains.d/*.toml\"]";
        let gateway = scene.gateway(include, None)?;
        let open = scene.open_all(&[STEERED, RELAYED])?;
        let client = open[0].local().to_string();
        let kill = format!("flow kill {client}");

        // The command, whether it succeeds, what it is called in the log, and what the log says of its outcome.
        let commands: [(&str, bool, &str, &str); 13] = [
            ("reload", true, "reload", "done"),
            (
                "route add sip.litware.example a",
                true,
                "route add sip.litware.example a",
                "done",
            ),
            (
                "route add sip.contoso.example a",
                false,
                "route add sip.contoso.example a",
                "refused: ",
            ),
            (
                "route rm sip.litware.example",
                true,
                "route rm sip.litware.example",
                "done",
            ),
            (
                "domain add fabrikam.example --pool a",
                true,
                "domain add fabrikam.example --pool a",
                "done",
            ),
            (
                "domain rm fabrikam.example",
                true,
                "domain rm fabrikam.example",
                "done",
            ),
            (
                "domain rm fabrikam.example",
                false,
                "domain rm fabrikam.example",
                "refused: there is no domain",
            ),
            (&kill, true, &kill, "1 flow ended"),
            ("log on", true, "log on", "done"),
            ("log off", true, "log off", "done"),
            ("edge drain b-v4", true, "edge drain b-v4", "done"),
            ("edge enable b-v4", true, "edge enable b-v4", "done"),
            (
                "edge drain nobody",
                false,
                "edge drain nobody",
                "refused: there is no Edge",
            ),
        ];
        for (command, succeeds, called, outcome) in commands {
            let before = audit(&gateway)?.len();
            let arguments: Vec<_> = command.split(' ').collect();
            let output = gateway.command(&arguments)?;
            ensure!(output.status.success() == succeeds, "{command}: {output:?}");
            let told = Deadline::after(TIMEOUT).poll("its line", || {
                let lines = audit(&gateway)?;
                Ok((lines.len() > before).then_some(lines))
            })?;
            ensure!(told.len() == before + 1, "{command}: {told:#?}");
            let line = told.last().context("a line")?;
            for words in [
                "uid=0",
                "pid=",
                &format!("command=\"{called}\""),
                &format!("outcome=\"{outcome}"),
            ] {
                ensure!(line.contains(words), "{command}: no {words} in {line}");
            }
        }

        // With a deadline, what is left is ended in both places, and both say so.
        gateway.output(&["edge", "drain", "a-v6", "--deadline", "1s"])?;
        let told = audit(&gateway)?;
        let of_drain: Vec<_> = told
            .iter()
            .filter(|line| line.contains("edge drain a-v6"))
            .collect();
        for (line, words) in of_drain.iter().zip([
            "command=\"edge drain a-v6\" outcome=\"done\"",
            "command=\"edge drain a-v6: connections of the agent\" outcome=\"done\"",
            "command=\"edge drain a-v6: flows of the datapath\" outcome=\"1 flow ended\"",
        ]) {
            ensure!(line.contains(words), "no {words} in {line}");
        }
        ensure!(of_drain.len() == 3, "{of_drain:#?}");

        // What only looks leaves none.
        let before = audit(&gateway)?.len();
        for command in [
            &["status"][..],
            &["flow", "ls"],
            &["edge", "ls"],
            &["domain", "ls"],
        ] {
            gateway.output(command)?;
        }
        ensure!(audit(&gateway)?.len() == before);
        Ok(())
    });
}

#[test]
fn without_an_agent_commands_work_and_say_nothing_of_a_log() {
    lab_test("faults-audit-none", &quiet(), |lab| {
        let scene = Scene::new(lab)?;
        let mut gateway = scene.gateway("", None)?;
        let open = scene.open_all(&[STEERED])?;
        gateway.kill()?;
        let output = gateway.command(&["flow", "kill", &open[0].local().to_string()])?;
        ensure!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        Ok(())
    });
}
