//! A machine with the package.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{Lab, output_within, service_manager::ServiceManager};

pub(crate) const UNIT: &str = "snigate.service";
const DATAPATH: &str = "snigate-datapath.service";
pub(crate) const CONFIG: &str = "/etc/snigate/snigate.toml";

/// dpkg unpacks and asks the scripts; the agent's start is the verifier's work on a busy machine.
const INSTALL: Duration = Duration::from_secs(120);

/// As in linux/capability.h: CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF.
const CAPABILITIES: u64 = 1 << 10 | 1 << 12 | 1 << 38 | 1 << 39;

/// What docs/operations.md says that `systemd-analyze security` says, in tenths.
const EXPOSURE: &str = "26";

/// Has dpkg and systemd of its own, which know nothing of the host's.
pub(crate) struct Machine<'lab> {
    lab: &'lab Lab,
    manager: ServiceManager<'lab>,
}

impl<'lab> Machine<'lab> {
    pub(crate) fn start(lab: &'lab Lab) -> Result<Self> {
        let manager = ServiceManager::start_machine(lab)?;
        let machine = Self { lab, manager };
        // There is no journal.
        let directory = format!("/etc/systemd/system/{UNIT}.d");
        machine.output("mkdir", &["-p", &directory])?;
        let log = format!(
            "[Service]\nStandardError=append:{}\n",
            machine.log().display()
        );
        machine.write(&format!("{directory}/log.conf"), &log)?;
        Ok(machine)
    }

    pub(crate) fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        self.manager.output(program, arguments)
    }

    pub(crate) fn systemctl(&self, arguments: &[&str]) -> Result<String> {
        let said = || fs::read_to_string(self.log()).unwrap_or_default();
        self.manager.systemctl(arguments).with_context(said)
    }

    /// What the agent logs.
    fn log(&self) -> PathBuf {
        self.lab.dir().join("service.log")
    }

    pub(crate) fn property(&self, unit: &str, name: &str) -> Result<String> {
        self.manager.property(unit, name)
    }

    pub(crate) fn has(&self, file: &str) -> Result<bool> {
        let mut test = self.manager.command("test")?;
        Ok(output_within(test.args(["-e", file]), INSTALL)?
            .status
            .success())
    }

    pub(crate) fn write(&self, file: &str, content: &str) -> Result<()> {
        let mut tee = self.manager.command("tee")?;
        let mut tee = tee
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let mut input = tee.stdin.take().context("tee has no input")?;
        input.write_all(content.as_bytes())?;
        drop(input);
        let status = tee.wait()?;
        ensure!(status.success(), "writing {file}: {status}");
        Ok(())
    }

    /// Installs the built package, with this revision; a running agent is restarted by its scripts.
    pub(crate) fn install(&self, revision: &str) -> Result<()> {
        let package = revised(&built()?, revision, &self.lab.dir())?;
        let mut dpkg = self.manager.command("dpkg")?;
        let output = output_within(dpkg.arg("--install").arg(&package), INSTALL)?;
        ensure!(
            output.status.success(),
            "dpkg: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// The installed package's.
    pub(crate) fn version(&self) -> Result<String> {
        self.output(
            "dpkg-query",
            &["--show", "--showformat=${Version}", "snigate"],
        )
    }

    /// The running agent may do what its unit says and no more.
    pub(crate) fn is_confined(&self) -> Result<()> {
        let pid = self.property(UNIT, "MainPID")?;
        let status = self.output("cat", &[&format!("/proc/{pid}/status")])?;
        let field = |name: &str| -> Result<&str> {
            let mut lines = status.lines().filter_map(|line| line.strip_prefix(name));
            let value = lines.next().with_context(|| format!("{name} {status}"))?;
            Ok(value.trim())
        };
        for set in ["CapBnd:", "CapEff:", "CapPrm:"] {
            let mask = u64::from_str_radix(field(set)?, 16)?;
            ensure!(mask == CAPABILITIES, "{set} {mask:x}");
        }
        ensure!(
            field("NoNewPrivs:")? == "1" && field("Seccomp:")? == "2",
            "{status}"
        );
        for unit in [UNIT, DATAPATH] {
            let path = format!("/lib/systemd/system/{unit}");
            let said = self.output(
                "systemd-analyze",
                &[
                    "security",
                    "--offline=yes",
                    "--threshold",
                    EXPOSURE,
                    "--no-pager",
                    &path,
                ],
            )?;
            eprintln!("{}", said.lines().last().unwrap_or_default());
        }
        Ok(())
    }

    /// Members of the package's group may look at the agent, and change nothing.
    pub(crate) fn has_a_group(&self) -> Result<()> {
        let member = |arguments: &[&str]| {
            let mut all = vec![
                "--reuid", "nobody", "--regid", "nogroup", "--groups", "snigate", "snigate",
            ];
            all.extend(arguments);
            self.output("setpriv", &all)
        };
        let status = member(&["status"])?;
        ensure!(status.contains("active for"), "{status}");
        let refused = member(&["reload"]).expect_err("a change");
        ensure!(format!("{refused:#}").contains("only root"), "{refused:#}");
        Ok(())
    }

    /// After its removal.
    pub(crate) fn leaves_nothing(&self) -> Result<()> {
        for file in ["/usr/bin/snigate", "/sys/fs/bpf/snigate", "/run/snigate"] {
            ensure!(!self.has(file)?, "{file} is left");
        }
        // What the agent adds to the host's network: the mark's rule and table, an address, a listener, itself, programs.
        let looks: [(&str, &[&str], &str); 5] = [
            ("ip", &["rule"], "5061"),
            ("ip", &["address"], "198.51.100.30"),
            ("ss", &["-lnt"], "LISTEN"),
            ("ps", &["-e"], "snigate"),
            ("ip", &["-details", "link"], "prog/"),
        ];
        for (program, arguments, trace) in looks {
            let found = self.output(program, arguments)?;
            ensure!(!found.contains(trace), "{program} {arguments:?}: {found}");
        }
        for unit in [UNIT, DATAPATH] {
            let state = self.property(unit, "ActiveState")?;
            ensure!(state == "inactive", "{unit} is {state}");
        }
        Ok(())
    }
}

/// What `cargo xtask test` has packed: beside the programs of the same profile.
fn built() -> Result<PathBuf> {
    let this = env::current_exe()?;
    let profile = this.ancestors().nth(2).context("where is this program?")?;
    let name = profile.file_name().context("a profile has a name")?;
    let directory = profile.with_file_name("dist").join(name);
    let missing = || {
        format!(
            "there is no package in {}: run `cargo xtask dist --debug`",
            directory.display()
        )
    };
    let entries = fs::read_dir(&directory).with_context(missing)?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("snigate_") && name.ends_with(".deb")
        })
        .with_context(missing)
}

/// The same package with another revision.
fn revised(package: &Path, revision: &str, directory: &Path) -> Result<PathBuf> {
    let unpacked = directory.join(format!("package-{revision}"));
    let dpkg = |arguments: [&str; 2], paths: [&Path; 2]| {
        let mut command = Command::new("dpkg-deb");
        let output = output_within(command.args(arguments).args(paths), INSTALL)?;
        ensure!(
            output.status.success(),
            "dpkg-deb: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    };
    dpkg(["--raw-extract", "--"], [package, &unpacked])?;
    let control = unpacked.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.strip_prefix("Version:") {
            Some(version) => format!("Version:{version}-{revision}"),
            None => line.to_owned(),
        })
        .collect();
    fs::write(&control, lines.join("\n") + "\n")?;
    let revised = directory.join(format!("snigate-{revision}.deb"));
    // Compressing takes longer than anything else here.
    dpkg(["-Znone", "--build"], [&unpacked, &revised])?;
    fs::remove_dir_all(&unpacked)?;
    Ok(revised)
}
