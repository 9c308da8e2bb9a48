//! The command line as a whole, as far as no datapath is needed.

use super::*;

fn snigate(arguments: &[&str]) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut environment = Environment {
        out: &mut out,
        err: &mut err,
        width: Some(80),
        colour: false,
        now_ns: || 0,
        interface_name: |_| None,
    };
    let status = run(["snigate"].iter().chain(arguments), &mut environment);
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status, text(out), text(err))
}

/// Every command that has no further commands below it, with the words that lead to it.
fn leaves(command: &clap::Command, path: &[String]) -> Vec<(Vec<String>, clap::Command)> {
    if !command.has_subcommands() {
        return vec![(path.to_vec(), command.clone())];
    }
    let below = |command: &clap::Command| {
        leaves(command, &[path, &[command.get_name().to_owned()]].concat())
    };
    command.get_subcommands().flat_map(below).collect()
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_that_fits_a_terminal() {
    let mut command = Cli::command();
    command.build();
    let paths: Vec<_> = leaves(&command, &[])
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    assert!(paths.len() >= 10, "{paths:?}");
    for path in paths {
        let mut arguments: Vec<_> = path.iter().map(String::as_str).collect();
        arguments.push("--help");
        let (status, out, err) = snigate(&arguments);
        assert_eq!((status, err.as_str()), (0, ""), "{path:?}");
        assert!(
            out.contains("Usage: snigate") && out.contains("--config"),
            "{out}"
        );
    }
}

#[test]
fn every_read_command_has_json() {
    let mut command = Cli::command();
    command.build();
    let writes = ["run", "flow kill", "ca init", "log", "completions", "man"];
    for (path, command) in leaves(&command, &[]) {
        let path = path.join(" ");
        let json = command
            .get_arguments()
            .any(|argument| argument.get_id() == "json");
        assert_eq!(json, !writes.contains(&path.as_str()), "{path}");
    }
}

#[test]
fn usage_is_status_2() {
    for wrong in [
        vec![],
        vec!["nonsense"],
        vec!["flow"],
        vec!["flow", "show"],
        vec!["flow", "show", "no-address"],
        vec!["flow", "kill"],
        vec!["flow", "kill", "198.51.100.1:4711", "--all"],
        vec!["log"],
    ] {
        let (status, out, err) = snigate(&wrong);
        assert_eq!((status, out.as_str()), (2, ""), "{wrong:?}");
        assert!(!err.is_empty(), "{wrong:?}");
    }
}

#[test]
fn without_a_datapath_commands_say_so() {
    let place = tempfile::tempdir().expect("a directory");
    let pins = place.path().join("pins").display().to_string();
    for command in [
        "status",
        "service ls",
        "edge ls",
        "flow ls",
        "map ls",
        "log on",
    ] {
        let mut arguments = vec!["--pin-path", &pins];
        arguments.extend(command.split(' '));
        let (status, out, err) = snigate(&arguments);
        assert_eq!((status, out.as_str()), (1, ""), "{command}: {err}");
        assert!(
            err.starts_with("snigate: no snigate datapath is pinned at"),
            "{command}: {err}"
        );
    }
}

#[test]
fn completions_and_manual() {
    for shell in ["bash", "zsh", "fish"] {
        let (status, out, _) = snigate(&["completions", shell]);
        assert!(status == 0 && out.contains("snigate"), "{shell}");
    }
    let (status, out, _) = snigate(&["man"]);
    assert!(status == 0 && out.starts_with(".ie"), "{out}");
    let place = tempfile::tempdir().expect("a directory");
    let directory = place.path().join("man1");
    let (status, out, err) = snigate(&["man", directory.to_str().expect("UTF-8")]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("manual pages"), "{out}");
    assert!(directory.join("snigate-flow-ls.1").exists());
}

fn fixture(name: &str) -> String {
    format!("{}/tests/config/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn check_tells_what_a_configuration_means() {
    let file = fixture("design.toml");
    let (status, out, err) = snigate(&["check", "--offline", "--config", &file]);
    assert_eq!((status, err.as_str()), (0, ""));
    for line in [
        "design.toml, with 1 included file is right:",
        "2 Edges in 1 pool, 2 domains with 3 names (1 terminated here)",
        "san-group-1  198.51.100.10 2001:db8:1::10  5061   steered to edges-a",
    ] {
        assert!(out.contains(line), "{out}");
    }
    let (status, out, _) = snigate(&["check", "--offline", "--json", "-c", &file]);
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((status, &report["valid"]), (0, &true.into()));
    assert_eq!(report["config"]["gateway"]["max_flows"], 1_000_000);
    assert!(report["host"].is_null());
}

#[test]
fn check_reports_every_mistake_where_it_is() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("snigate.toml");
    std::fs::write(
        &file,
        "[gateway]\ninterfaces = [\"wan0\"]\nhok = \"xdp\"\nmax_flows = 0\n",
    )
    .expect("a file");
    let file = file.display().to_string();
    let (status, out, err) = snigate(&["check", "-c", &file]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        err.contains("`hok`") && err.contains(":4:13") && err.contains("2 errors"),
        "{err}"
    );
    assert!(!err.contains("snigate: "), "{err}");
    let (status, out, err) = snigate(&["check", "-c", &file, "--json"]);
    assert_eq!((status, err.as_str()), (1, ""));
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["valid"], false);
    let lines: Vec<_> = report["diagnostics"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|found| found["severity"] == "error")
        .map(|found| found["line"].as_u64())
        .collect();
    assert_eq!(lines, [Some(3), Some(4)]);
    assert!(report["config"].is_null());
}

#[test]
fn run_pins_where_the_configuration_says_and_nowhere_else() {
    let (status, _, err) = snigate(&["run", "--pin-path", "/sys/fs/bpf/elsewhere"]);
    assert_eq!(status, 2);
    assert!(err.contains("`gateway.pin_path`"), "{err}");
}
