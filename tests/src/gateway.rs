//! The gateway under test: the real `snigate`, in the lab's gateway namespace, and its command line.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};
use sni_user::kill_point::KillPoint;

use crate::{
    Lab, Process,
    addresses::{EDGE_A, EDGE_B, VIP_1, VIP_2},
    output_within,
    process::TERMINATE_TIMEOUT,
};

/// How long `snigate run` may take until it is ready: the verifier's work on a busy machine, or on an emulated one.
const START: Duration = Duration::from_secs(300);
const COMMAND: Duration = Duration::from_secs(30);

/// A running gateway. Dropping it ends the agent, and the lab removes what is pinned.
pub struct Gateway<'lab> {
    lab: &'lab Lab,
    config: PathBuf,
    pin_path: PathBuf,
    agent: Option<Process>,
    starts: usize,
    tuning: Tuning,
    kill_at: Option<String>,
}

/// What a test and a bench want differently of the agent.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// Another `snigate` than the built one.
    pub binary: Option<PathBuf>,
    /// It logs what an installed one logs, and no more: every line costs time.
    pub quiet: bool,
    /// Its threads; one for each CPU if nothing is said.
    pub workers: Option<usize>,
    /// `gateway.hook`; `xdp` if nothing is said, which is what the lab's links are made for.
    pub hook: Option<&'static str>,
}

/// The built `snigate`: beside the program that asks, or one directory above a test of the same profile.
///
/// # Errors
/// When it is not built.
pub fn binary() -> Result<PathBuf> {
    let this = env::current_exe().context("where is this program?")?;
    this.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("snigate"))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "there is no snigate near {}: run `cargo build`",
                this.display()
            )
        })
}

/// A script in the place of `snigate`, for what must be so before the agent begins. In it, `$DIR` is the lab's directory, and `"$SNIGATE" "$@"` the agent.
///
/// # Errors
/// `snigate` is not built, or the script can't be written.
pub fn instead_of_agent(lab: &Lab, script: &str) -> Result<PathBuf> {
    let text = format!(
        "#!/bin/sh\nexport DIR={:?} SNIGATE={:?}\n{script}\n",
        lab.dir(),
        binary()?
    );
    let path = lab.write_file("agent.sh", &text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Two IP sets, each with an IPv4 and an IPv6 address and an Edge of its own, both `preserve`.
#[must_use]
pub fn two_ip_sets() -> String {
    two_ip_sets_with_source("preserve")
}

/// Likewise, with this source mode of all Edges.
#[must_use]
pub fn two_ip_sets_with_source(source: &str) -> String {
    let mut text = two_pools(source);
    for (letter, set, vip) in [("a", 1, VIP_1), ("b", 2, VIP_2)] {
        text += &format!(
            r#"
[[ip_set]]
name = "san-group-{set}"
addresses = ["{vip4}", "{vip6}"]
steer = "edges-{letter}"
"#,
            vip4 = vip.v4,
            vip6 = vip.v6,
        );
    }
    text
}

/// Two pools, each with an Edge of both families, all with this source mode.
#[must_use]
pub fn two_pools(source: &str) -> String {
    let mut text = String::new();
    for (letter, edge) in [("a", EDGE_A), ("b", EDGE_B)] {
        text += &format!(
            r#"
[[edge]]
name = "edge-{letter}"
address = "{v4}:5061"
source = "{source}"

[[edge]]
name = "edge-{letter}-v6"
address = "[{v6}]:5061"
source = "{source}"

[[pool]]
name = "edges-{letter}"
edges = ["edge-{letter}", "edge-{letter}-v6"]
"#,
            v4 = edge.v4,
            v6 = edge.v6,
        );
    }
    text
}

impl<'lab> Gateway<'lab> {
    /// Starts the gateway with a configuration; `tables` is everything but `[gateway]`.
    ///
    /// # Errors
    /// When it does not get ready; the error has what it said.
    pub fn start(lab: &'lab Lab, tables: &str) -> Result<Self> {
        Self::start_with(lab, "", tables)
    }

    /// Likewise, with further lines of `[gateway]`.
    ///
    /// # Errors
    /// As for [`Gateway::start`].
    pub fn start_with(lab: &'lab Lab, gateway: &str, tables: &str) -> Result<Self> {
        Self::start_tuned(lab, Tuning::default(), gateway, tables)
    }

    /// Likewise, tuned.
    ///
    /// # Errors
    /// As for [`Gateway::start`].
    pub fn start_tuned(
        lab: &'lab Lab,
        tuning: Tuning,
        gateway: &str,
        tables: &str,
    ) -> Result<Self> {
        let mut this = Self::prepare(lab, tuning)?;
        this.configure(gateway, tables)?;
        this.run(&[])?;
        Ok(this)
    }

    /// Nothing yet: a configuration is to be written, and the agent to be run.
    ///
    /// # Errors
    /// When there is no BPF filesystem to be had.
    pub fn prepare(lab: &'lab Lab, tuning: Tuning) -> Result<Self> {
        Ok(Self {
            config: lab.dir().join("snigate.toml"),
            pin_path: lab.bpffs()?.join("snigate"),
            lab,
            agent: None,
            starts: 0,
            tuning,
            kill_at: None,
        })
    }

    /// From the next configuration on, the hook is this one.
    pub fn set_hook(&mut self, hook: &'static str) {
        self.tuning.hook = Some(hook);
    }

    /// Writes another configuration, for the next start.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn configure(&mut self, gateway: &str, tables: &str) -> Result<()> {
        self.configure_on(&["wan0", "lan0", "lan1"], gateway, tables)
    }

    /// Likewise, with the datapath on these interfaces.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn configure_on(&mut self, interfaces: &[&str], gateway: &str, tables: &str) -> Result<()> {
        let text = format!(
            "[gateway]\ninterfaces = {interfaces:?}\npin_path = \"{}\"\ncontrol = \"{}\"\nhook = \"{}\"\n{gateway}\n{tables}",
            self.pin_path.display(),
            self.control().display(),
            self.tuning.hook.unwrap_or("xdp"),
        );
        self.config = self.lab.write_file("snigate.toml", &text)?;
        Ok(())
    }

    /// Starts the agent again, after it has ended.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn run(&mut self, options: &[&str]) -> Result<()> {
        ensure!(self.agent.is_none(), "the agent runs already");
        self.starts += 1;
        let mut command = self.lab.gateway.command(match &self.tuning.binary {
            Some(other) => other.clone(),
            None => binary()?,
        });
        command
            .args(["run", "--config"])
            .arg(&self.config)
            .args(options);
        let log = if self.tuning.quiet {
            "info"
        } else {
            "info,sni_user=debug"
        };
        command.env("RUST_LOG", log);
        if let Some(workers) = self.tuning.workers {
            // tokio's own variable.
            command.env("TOKIO_WORKER_THREADS", workers.to_string());
        }
        if let Some(kill_at) = self.kill_at.take() {
            command.env(KillPoint::VARIABLE, kill_at);
        }
        let mut agent = self
            .lab
            .spawn(&format!("snigate-{}", self.starts), command)?;
        if let Err(error) = agent.wait_for_line("ready", START) {
            bail!(
                "snigate did not get ready ({error}); it said:\n{}",
                agent.stderr()?
            );
        }
        self.agent = Some(agent);
        Ok(())
    }

    /// Has the next agent be killed when it passes a point for the `time`th time.
    pub fn kill_next_at(&mut self, point: KillPoint, time: u32) {
        self.kill_at = Some(format!("{}:{time}", point.name()));
    }

    /// Waits for the end of an agent that has been killed at the point that [`Gateway::kill_next_at`] has named, and by nobody else.
    ///
    /// # Errors
    /// When it goes on, or ends otherwise.
    pub fn ensure_killed(&mut self, point: KillPoint, timeout: Duration) -> Result<()> {
        let mut agent = self.agent.take().context("the agent does not run")?;
        let status = agent.wait_for_exit(timeout)?;
        let (signal, said) = (status.signal(), agent.stderr()?);
        ensure!(
            signal == Some(Signal::SIGKILL as i32) && said.contains(&point.last_words()),
            "the agent ended with {status}: {said}"
        );
        Ok(())
    }

    /// Whether the agent lives.
    ///
    /// # Errors
    /// When there was none, or the kernel's.
    pub fn is_running(&mut self) -> Result<bool> {
        let agent = self.agent.as_mut().context("the agent does not run")?;
        agent.is_running()
    }

    /// Leaves an agent alone that has ended by itself.
    pub fn forget(&mut self) {
        self.agent = None;
    }

    /// Kills the agent as a crash would; the datapath stays.
    ///
    /// # Errors
    /// When it was not running, or does not die.
    pub fn kill(&mut self) -> Result<()> {
        self.kill_within(Duration::from_secs(5))
    }

    /// Likewise, on a machine that may take so long for it.
    ///
    /// # Errors
    /// As for [`Gateway::kill`].
    pub fn kill_within(&mut self, timeout: Duration) -> Result<()> {
        let mut agent = self.agent.take().context("the agent does not run")?;
        agent.signal(Signal::SIGKILL)?;
        agent.wait_for_exit(timeout)?;
        Ok(())
    }

    /// Sends the running agent a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let agent = self.agent.as_ref().context("the agent does not run")?;
        agent.signal(signal)
    }

    /// Ends the agent as an operator would, and checks that it ends well.
    ///
    /// # Errors
    /// When it was not running, or ends with an error, or too late.
    pub fn stop(&mut self) -> Result<()> {
        self.stop_within(TERMINATE_TIMEOUT)
    }

    /// Likewise; it may take so long.
    ///
    /// # Errors
    /// As for [`Gateway::stop`].
    pub fn stop_within(&mut self, timeout: Duration) -> Result<()> {
        let mut agent = self.agent.take().context("the agent does not run")?;
        let status = agent.terminate_within(timeout)?;
        ensure!(
            status.success(),
            "snigate ended with {status}: {}",
            agent.stderr()?
        );
        Ok(())
    }

    /// The process that keeps the agent's listener for the next agent; `None` where there is none.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn holder(&self) -> Result<Option<Pid>> {
        let holders = self.lab.gateway.processes("snigate-holder")?;
        ensure!(holders.len() <= 1, "{} holders", holders.len());
        Ok(holders.first().copied())
    }

    /// What the running agent has logged.
    ///
    /// # Errors
    /// When it does not run.
    pub fn log(&self) -> Result<String> {
        self.agent
            .as_ref()
            .context("the agent does not run")?
            .stderr()
    }

    /// The running agent's process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.agent.as_ref().context("the agent does not run")?.pid())
    }

    /// The running agent's facts, as its control socket tells them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn agent(&self) -> Result<serde_json::Value> {
        let mut socket = UnixStream::connect(self.lab.dir().join("control.sock"))?;
        socket.set_read_timeout(Some(COMMAND))?;
        socket.write_all(b"{\"version\":1,\"request\":\"status\"}\n")?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line)?;
        let reply: serde_json::Value = serde_json::from_str(&line)?;
        let answer = reply.get("answer").with_context(|| line.clone())?;
        Ok(answer.clone())
    }

    /// The directory of its pins.
    #[must_use]
    pub fn pin_path(&self) -> &Path {
        &self.pin_path
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The agent's control socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.lab.dir().join("control.sock")
    }

    /// Runs a command of `snigate` on the pinned maps, or has it ask the running agent.
    ///
    /// # Errors
    /// When it can't be run; not when it fails.
    pub fn command(&self, arguments: &[&str]) -> Result<Output> {
        output_within(&mut self.prepared(arguments)?, COMMAND)
    }

    /// The same command, to be run otherwise.
    ///
    /// # Errors
    /// When `snigate` is not built.
    pub fn prepared(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.lab.gateway.command(binary()?);
        // All that the configuration would say: it may be broken, which is what some tests are about.
        command
            .arg("--config")
            .arg(&self.config)
            .arg("--pin-path")
            .arg(&self.pin_path)
            .arg("--control")
            .arg(self.control())
            .args(arguments);
        Ok(command)
    }

    /// What a command says that must fail, with status 1.
    ///
    /// # Errors
    /// When it does not.
    pub fn refusal(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments)?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code() == Some(1),
            "snigate {arguments:?} ended with {}: {errors}",
            output.status
        );
        Ok(errors)
    }

    /// The output of a command that must succeed.
    ///
    /// # Errors
    /// When it fails; the error has what it said.
    pub fn output(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "snigate {arguments:?} failed ({}): {errors}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The output of a command with `--json`, parsed.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let output = self.output(&[arguments, &["--json"]].concat())?;
        serde_json::from_str(&output)
            .with_context(|| format!("`snigate {arguments:?} --json` printed {output}"))
    }
}
