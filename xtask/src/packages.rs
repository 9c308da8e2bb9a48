//! The programs that the lab runs, from Debian's packages.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// A program that the lab starts.
struct Program {
    name: &'static str,
    package: &'static str,
    purpose: &'static str,
}

/// The one list of them.
const PROGRAMS: &[Program] = &[
    Program {
        name: "openssl",
        package: "openssl",
        purpose: "TLS clients and servers, certificates",
    },
    Program {
        name: "ip",
        package: "iproute2",
        purpose: "network namespaces, links and routes",
    },
    Program {
        name: "ethtool",
        package: "ethtool",
        purpose: "offloads of the lab's links",
    },
    Program {
        name: "nft",
        package: "nftables",
        purpose: "packet loss",
    },
    Program {
        name: "tcpdump",
        package: "tcpdump",
        purpose: "the capture kept of a failed test",
    },
];

/// One sentence about the programs that are missing, or `None`.
pub(crate) fn missing() -> Option<String> {
    describe(&absent())
}

/// Installs what is missing; only root may.
pub(crate) fn provide() -> Result<()> {
    let absent = absent();
    let Some(sentence) = describe(&absent) else {
        return Ok(());
    };
    if process::find_program("apt-get").is_none() {
        bail!("{sentence}; there is no apt-get here to do it");
    }
    let packages: Vec<&str> = absent.iter().map(|program| program.package).collect();
    process::step(&format!("installing {}", packages.join(" ")), || {
        // The package lists may be missing or too old to name files that still exist; they usually are neither.
        apt_install(&packages).or_else(|_| {
            process::output(apt_get().args(["update", "-qq"]))?;
            apt_install(&packages)
        })
    })
    .context(sentence)
}

fn absent() -> Vec<&'static Program> {
    PROGRAMS
        .iter()
        .filter(|program| process::find_program(program.name).is_none())
        .collect()
}

fn describe(absent: &[&Program]) -> Option<String> {
    if absent.is_empty() {
        return None;
    }
    let join = |word: fn(&Program) -> String, separator| {
        let words: Vec<_> = absent.iter().map(|program| word(program)).collect();
        words.join(separator)
    };
    Some(format!(
        "the lab needs {}: run `apt-get install {}`",
        join(|p| format!("{} ({})", p.name, p.purpose), ", "),
        join(|p| p.package.to_owned(), " "),
    ))
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let mut command = apt_get();
    command
        .args(["install", "-qq", "--no-install-recommends"])
        .args(packages);
    process::output(&mut command).map(drop)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Another apt may be running, as on a machine that has just booted.
        .args(["-y", "-o", "DPkg::Lock::Timeout=120"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_names_programs_and_command() {
        let some: Vec<_> = PROGRAMS.iter().skip(3).collect();
        assert_eq!(
            describe(&some).as_deref(),
            Some(
                "the lab needs nft (packet loss), tcpdump (the capture kept of a failed test): \
                 run `apt-get install nftables tcpdump`"
            )
        );
        assert_eq!(describe(&[]), None);
    }
}
