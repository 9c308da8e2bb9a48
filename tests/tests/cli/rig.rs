//! A datapath that nobody looks after, and `snigate` on its pins.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sni_user::{
    config::Config,
    datapath::{AttachMode, Datapath, Tables},
};
use snigate_tests::{Lab, Topology, addresses::GATEWAY_LAN_B, gateway::binary, output_within};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) const CONFIG: &str = r#"
[gateway]
interfaces = ["wan0"]

[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"

[[edge]]
name = "edge-b"
address = "203.0.113.140:5061"
source = "gateway"

[[edge]]
name = "edge-six"
address = "[2001:db8:a::10]:5061"

[[pool]]
name = "edges"
edges = ["edge-a", { name = "edge-b", weight = 3 }, "edge-six"]

[[ip_set]]
name = "san-group-1"
addresses = ["198.51.100.10", "2001:db8:1::10"]
steer = "edges"

[[ip_set]]
name = "shared"
addresses = ["198.51.100.20"]
ports = [5061, 443]
inspect = true

[limits]
deny = ["192.0.2.0/24", "2001:db8:dead::/48"]
allow = ["192.0.2.7/32"]
"#;

pub(crate) fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

/// The commands of `snigate` on one pin path.
pub(crate) struct Commands<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) pins: PathBuf,
}

impl Commands<'_> {
    pub(crate) fn run(&self, command: &str) -> Result<Output> {
        let mut process = self.lab.gateway.command(binary()?);
        process
            .env("SNIGATE_PIN_PATH", &self.pins)
            .env_remove("COLUMNS");
        process.args(command.split_whitespace());
        output_within(&mut process, TIMEOUT)
    }

    pub(crate) fn text(&self, command: &str) -> Result<String> {
        let output = self.run(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`{command}`: {}, {said}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Checks that the table has these lines, whatever the space between the cells.
    pub(crate) fn shows(&self, command: &str, lines: &[&str]) -> Result<()> {
        let text = self.text(command)?;
        let shown: Vec<String> = text.lines().map(words).collect();
        for line in lines {
            ensure!(
                shown.contains(&words(line)),
                "`{command}` shows no line {line:?} but:\n{text}"
            );
        }
        Ok(())
    }

    pub(crate) fn json(&self, command: &str) -> Result<Value> {
        let text = self.text(&format!("{command} --json"))?;
        serde_json::from_str(&text).with_context(|| format!("`{command} --json`: {text}"))
    }

    pub(crate) fn fails(&self, command: &str, status: i32, sentence: &str) -> Result<()> {
        let output = self.run(command)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(status) && said.contains(sentence),
            "`{command}`: {}, {said}",
            output.status
        );
        Ok(())
    }
}

/// A line's words, with `…s` for every number of seconds: it differs with the load of the machine.
pub(crate) fn words(line: &str) -> String {
    let is_seconds = |word: &&str| {
        let number = word.strip_suffix('s').unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let word = |word| if is_seconds(&word) { "…s" } else { word };
    line.split_whitespace()
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A datapath with a configuration, pinned in the lab and attached to wan0; nobody looks after it.
pub(crate) fn datapath(lab: &Lab) -> Result<(Datapath, Commands<'_>)> {
    let pins = lab.bpffs()?.join("snigate");
    let mut datapath = Datapath::load(&pins, 1000)?;
    let config = Config::parse(Path::new("/snigate.toml"), CONFIG)?.config;
    let gateway: IpAddr = GATEWAY_LAN_B.v4.into();
    let tables = Tables::new(&config, (20_000, 1_000), |_| Ok(gateway))?;
    tables.activate(&mut datapath.maps)?;
    lab.gateway.run(|| {
        let index = nix::net::if_::if_nametoindex("wan0")?;
        datapath.attach(&[("wan0".to_owned(), index)], AttachMode::Xdp)?;
        Ok(())
    })?;
    Ok((datapath, Commands { lab, pins }))
}

pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes into a timespec that lives on.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * SECOND + now.tv_nsec as u64
}
