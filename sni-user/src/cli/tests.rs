//! The command line as a whole, as far as no datapath is needed.

use super::*;
use crate::control::{
    Server,
    fake::{FakeAgent, hello as control_hello},
};

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
    let writes = [
        "run",
        "detach",
        "hold",
        "reload",
        "route add",
        "route rm",
        "domain add",
        "domain rm",
        "edge drain",
        "edge enable",
        "flow kill",
        "ca init",
        "log",
        "capture",
        "completions",
        "man",
    ];
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
        vec!["route", "add", "sip.fabrikam.example"],
        vec!["route", "ls", "--configured", "--learned"],
        vec!["route", "ls", "["],
        vec!["domain", "add", "fabrikam.example"],
        vec![
            "domain",
            "add",
            "a.example",
            "--pool",
            "p",
            "--certificate",
            "c.pem",
        ],
        vec![
            "domain",
            "add",
            "a.example",
            "--pool",
            "p",
            "--identity",
            "mirror",
        ],
        vec!["watch", "--source", "192.0.2.0/33"],
        vec!["plan", "domains.csv", "--edge", "203.0.113.10:5061"],
        vec!["plan", "domains.csv", "--address", "198.51.100.10:5061"],
        vec![
            "plan",
            "domains.csv",
            "--write",
            "plan",
            "--outbound",
            "kamailio",
        ],
        vec!["dns", "--list", "domains.csv"],
        vec!["trace", "packet", "--from", "192.0.2.1:1"],
        vec!["trace", "name", "a.example", "--from", "192.0.2.1:1"],
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
        "route ls",
        "trace name sip.fabrikam.example",
        "trace packet --from 192.0.2.1:1 --to 198.51.100.10",
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

#[test]
fn without_an_agent_commands_say_so() {
    let place = tempfile::tempdir().expect("a directory");
    let socket = place.path().join("control.sock").display().to_string();
    for command in [
        "reload",
        "watch",
        "route add sip.fabrikam.example edges-a",
        "route rm sip.fabrikam.example",
        "domain add fabrikam.example --pool edges-a",
        "domain rm fabrikam.example",
    ] {
        let mut arguments = vec!["--control", &socket];
        arguments.extend(command.split(' '));
        let (status, out, err) = snigate(&arguments);
        assert_eq!((status, out.as_str()), (1, ""), "{command}: {err}");
        assert!(
            err.starts_with(&format!("snigate: no agent answers at {socket}")),
            "{command}: {err}"
        );
    }
}

/// Runs commands against an agent that only remembers what it was asked.
struct Agent {
    agent: std::sync::Arc<FakeAgent>,
    socket: String,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let agent = std::sync::Arc::new(FakeAgent::default());
        let server = runtime.block_on(Server::bind(&path)).expect("a socket");
        runtime.spawn(server.serve(std::sync::Arc::clone(&agent)));
        Self {
            agent,
            socket: path.display().to_string(),
            runtime,
            _directory: directory,
        }
    }

    fn run(&self, command: &str) -> (u8, String, String) {
        let mut arguments = vec!["--control", &self.socket];
        arguments.extend(command.split(' '));
        snigate(&arguments)
    }
}

#[test]
fn reload_tells_what_became_active() {
    let agent = Agent::start();
    agent.agent.go_on.notify_one();
    let (status, out, err) = agent.run("reload");
    assert_eq!(
        (status, out.as_str(), err.as_str()),
        (
            0,
            "configuration active after 1ms: generation 7, from 2 files\n\
             1 IP set, 2 Edges in 1 pool, 3 domains with 4 names (1 terminated here)\n",
            "too quiet\n"
        )
    );
}

#[test]
fn changes_are_confirmed_and_refusals_shown_in_full() {
    let agent = Agent::start();
    let (status, out, err) = agent.run("route add SIP.Fabrikam.example edges-a");
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "sip.fabrikam.example goes to edges-a, until the agent ends or the configuration defines the name\n"
    );
    let (status, out, err) = agent.run("route rm sip.fabrikam.example");
    assert_eq!((status, out.as_str()), (1, ""));
    assert_eq!(err, "snigate: sip.fabrikam.example has no live route\n");

    let (status, out, err) = agent.run("edge enable edge-a");
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(out, "edge-a gets new connections again\n");

    let (status, out, _) = agent.run("domain add contoso.example --pool edges-a --alpn sip");
    assert_eq!(status, 0);
    assert!(
        out.starts_with("contoso.example added in domains.d/x.toml\n"),
        "{out}"
    );
    let asked = agent.agent.asked().join("\n");
    assert!(
        asked.contains("edges-a") && asked.contains("alpn"),
        "{asked}"
    );

    // As the agent refuses a configuration: every finding with its line, then the sentence.
    let (status, out, err) = agent.run("domain rm contoso.example");
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(
        err.contains("/etc/snigate.toml:1:1") && err.contains("`hok`"),
        "{err}"
    );
    let last = err.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("snigate: /etc/snigate.toml can't be used")
            && last.ends_with("what was active stays active"),
        "{err}"
    );
}

#[test]
fn watch_shows_what_comes_until_the_agent_ends() {
    for json in [false, true] {
        let agent = Agent::start();
        let socket = agent.socket.clone();
        let watching = std::thread::spawn(move || {
            let mut arguments = vec!["--control", &*socket, "watch", "--name", "*.fabrikam.*"];
            arguments.extend(json.then_some("--json"));
            snigate(&arguments)
        });
        while agent.agent.seen.receiver_count() == 0 {
            std::thread::yield_now();
        }
        for name in ["sip.contoso.example", "sip.fabrikam.example"] {
            agent
                .agent
                .seen
                .send(control_hello(name, "192.0.2.1:1000"))
                .expect("a watcher");
        }
        // The channel closes with its last sender.
        while !agent.agent.seen.is_empty() {
            std::thread::yield_now();
        }
        agent.runtime.shutdown_background();
        let (status, out, err) = watching.join().expect("no panic");
        assert_eq!((status, err.as_str()), (0, "the agent has ended\n"));
        if json {
            let seen: serde_json::Value = serde_json::from_str(&out).expect("one object");
            assert_eq!(seen["server_name"], "sip.fabrikam.example");
            assert_eq!(
                (&seen["matched"], &seen["alpn"][0]),
                (&"exact".into(), &"sip".into())
            );
        } else {
            let lines: Vec<_> = out.lines().collect();
            assert_eq!(lines.len(), 2, "{out}");
            assert!(lines[0].starts_with("TIME (UTC)"), "{out}");
            assert!(
                lines[1].contains("  sip.fabrikam.example  ")
                    && lines[1].ends_with("  passed to edge-a"),
                "{out}"
            );
        }
    }
}

#[test]
fn domains_are_listed_with_their_places() {
    let file = fixture("design.toml");
    let (status, out, err) = snigate(&["domain", "ls", "-c", &file, "--json"]);
    assert_eq!((status, err.as_str()), (0, ""));
    let domains: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(domains[0]["sip_domain"], "fabrikam.example");
    assert_eq!(
        (&domains[0]["line"], &domains[1]["line"]),
        (&36.into(), &40.into())
    );
    let (_, out, _) = snigate(&["domain", "ls", "-c", &file]);
    for (domain, tls) in [("fabrikam", "passed"), ("contoso", "terminated")] {
        let row = out.lines().find(|line| line.starts_with(domain));
        assert!(
            row.is_some_and(|row| row.contains("edges-a") && row.contains(tls)),
            "{out}"
        );
    }
    let (status, out, err) = snigate(&["domain", "ls", "-c", "/nonexistent/snigate.toml"]);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.contains("cannot be read"), "{err}");
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

/// What README.md and docs/ have people type: code lines that begin with the program's name, several of them parted by ` ; `, and code spans.
fn commands_of(text: &str) -> Vec<String> {
    let text = text.replace("\\\n", " ");
    let lines = text
        .lines()
        .filter(|line| line.starts_with("    snigate "))
        .flat_map(|line| line.split(" # ").next().unwrap_or(line).split(" ; "));
    let spans = text.split('`').skip(1).step_by(2);
    lines
        .chain(spans)
        .map(str::trim)
        .filter(|command| command.starts_with("snigate "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_documents_name_commands_that_there_are() {
    use clap::error::ErrorKind;

    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = std::fs::read_dir(root.join("docs")).expect("docs/");
    let files = docs
        .map(|entry| entry.expect("a file").path())
        .chain([root.join("README.md")])
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut found = 0;
    for file in files {
        for command in commands_of(&std::fs::read_to_string(&file).expect("a page")) {
            found += 1;
            let outcome = Cli::try_parse_from(command.split_whitespace());
            // A page may name a command without what it needs.
            let kind = outcome.err().map(|error| error.kind());
            let understood = [
                None,
                Some(ErrorKind::MissingRequiredArgument),
                Some(ErrorKind::MissingSubcommand),
                Some(ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ];
            assert!(
                understood.contains(&kind),
                "{}: `{command}`: {kind:?}",
                file.display()
            );
        }
    }
    assert!(found > 30, "{found} commands in all pages");
}
