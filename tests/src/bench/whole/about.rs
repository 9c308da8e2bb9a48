//! What a run was made with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::bench::results::Machine;
use crate::flood::kilobytes;
use crate::gateway;
use crate::output_within;

const PROMPT: Duration = Duration::from_secs(30);

pub(super) fn machine() -> Result<Machine> {
    let processors = fs::read_to_string("/proc/cpuinfo").context("reading /proc/cpuinfo")?;
    let name = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let name = name.map_or("of a name that it does not tell", |name| {
        name.trim_start_matches([' ', '\t', ':'])
    });
    let kernel = nix::sys::utsname::uname()?;
    let kibibytes = kilobytes("/proc/meminfo", "MemTotal")?;
    Ok(Machine {
        processor: name.to_owned(),
        cpus: available_parallelism()?.get(),
        memory_gib: kibibytes as f64 / 1024.0 / 1024.0,
        kernel: kernel.release().to_string_lossy().into_owned(),
    })
}

pub(super) fn versions() -> Result<BTreeMap<String, String>> {
    let snigate = gateway::binary()?;
    let programs = [
        ("snigate", snigate.as_path(), "--version"),
        ("HAProxy", Path::new("haproxy"), "-v"),
        ("nginx", Path::new("nginx"), "-v"),
        ("nftables", Path::new("nft"), "--version"),
        ("OpenSSL", Path::new("openssl"), "version"),
    ];
    programs
        .into_iter()
        .map(|(name, program, argument)| {
            let output = output_within(Command::new(program).arg(argument), PROMPT)?;
            // nginx tells it to standard error.
            let said = [output.stdout, output.stderr].concat();
            let version = version(&String::from_utf8_lossy(&said));
            Ok((name.to_owned(), version.context(name)?))
        })
        .collect()
}

/// The first word that begins as a number does: `nginx version: nginx/1.22.1`, `nftables v1.0.6 (Lester Gooch #5)`.
fn version(said: &str) -> Option<String> {
    let mut words = said.split([' ', '\n', '/']);
    let number = |word: &str| word.starts_with(|first: char| first.is_ascii_digit());
    let word = words.find_map(|word| {
        let word = word.strip_prefix('v').unwrap_or(word);
        number(word).then_some(word)
    });
    Some(word?.to_owned())
}

pub(super) fn today() -> String {
    time::OffsetDateTime::now_utc().date().to_string()
}

/// The commit of the sources, and whether they have changed since; outside of a repository there is none to tell.
pub(super) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(env!("CARGO_MANIFEST_DIR"))
            .args(arguments);
        let output = output_within(&mut command, PROMPT).ok()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(said)
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "sources without a repository".to_owned();
    };
    // The document itself is what a run changes.
    let changed = git(&["status", "--porcelain", "--", ":/", ":!/docs/benchmarks*"]);
    let mark = if changed.is_some_and(|it| it.is_empty()) {
        ""
    } else {
        " with changes"
    };
    format!("commit {commit}{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_programs_tell_them() {
        for (said, told) in [
            ("nginx version: nginx/1.22.1\n", Some("1.22.1")),
            ("nftables v1.0.6 (Lester Gooch #5)\n", Some("1.0.6")),
            (
                "HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/\n",
                Some("2.6.12-1+deb12u3"),
            ),
            ("no such option\n", None),
        ] {
            assert_eq!(version(said).as_deref(), told);
        }
    }
}
