//! The programs that the lab runs, and the guests of `cargo xtask kernels`, from Debian's packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;

/// What needs programs, and which.
pub(crate) struct Need {
    whose: &'static str,
    programs: &'static [Program],
}

/// The lab.
pub(crate) const LAB: Need = Need {
    whose: "the lab",
    programs: PROGRAMS,
};

/// Kernels under QEMU, beside what the lab needs, which runs there.
pub(crate) const KERNELS: Need = Need {
    whose: "`cargo xtask kernels`",
    programs: &[
        Program {
            name: "qemu-system-x86_64",
            package: "qemu-system-x86",
            purpose: "the guests",
        },
        Program {
            name: "depmod",
            package: "kmod",
            purpose: "their modules",
        },
        Program {
            name: "cpio",
            package: "cpio",
            purpose: "their files",
        },
        Program {
            name: "strip",
            package: "binutils",
            purpose: "smaller programs",
        },
    ],
};

/// `cargo xtask bench`, beside what the lab needs.
pub(crate) const BENCH: Need = Need {
    whose: "`cargo xtask bench`",
    programs: &[Program {
        name: "perf",
        package: "linux-perf",
        purpose: "where the time goes",
    }],
};

/// The Debian package.
pub(crate) const PACKAGE: Need = Need {
    whose: "`cargo xtask dist`",
    programs: &[
        Program {
            name: "dpkg-buildpackage",
            package: "dpkg-dev",
            purpose: "packing",
        },
        Program {
            name: "dh",
            package: "debhelper",
            purpose: "what is in a package",
        },
        Program {
            name: "objcopy",
            package: "binutils",
            purpose: "a binary without symbols",
        },
    ],
};

/// A program that is started, or a module that one of them loads.
struct Program {
    /// The file's name; a module's is below the directories of libraries.
    name: &'static str,
    package: &'static str,
    purpose: &'static str,
}

/// Those of the lab.
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
    Program {
        name: "tshark",
        package: "tshark",
        purpose: "the files of `snigate capture` judged",
    },
    Program {
        name: "gnutls-cli",
        package: "gnutls-bin",
        purpose: "another TLS client",
    },
    Program {
        name: "kamailio",
        package: "kamailio",
        purpose: "a SIP server as Edge and as partner",
    },
    Program {
        name: "kamailio/modules/tls.so",
        package: "kamailio-tls-modules",
        purpose: "its TLS",
    },
    Program {
        name: "sipp",
        package: "sip-tester",
        purpose: "SIP requests",
    },
    Program {
        name: "haproxy",
        package: "haproxy",
        purpose: "a proxy to compare with",
    },
    Program {
        name: "nginx",
        package: "nginx",
        purpose: "another one",
    },
    Program {
        name: "nginx/modules/ngx_stream_module.so",
        package: "libnginx-mod-stream",
        purpose: "its routing by server name",
    },
    Program {
        name: "nsd",
        package: "nsd",
        purpose: "a DNS server with right and wrong zones",
    },
    Program {
        name: "promtool",
        package: "prometheus",
        purpose: "the metrics, alert rules and dashboard judged",
    },
    Program {
        name: "faketime/libfaketime.so.1",
        package: "libfaketime",
        purpose: "a clock that jumps",
    },
    Program {
        name: "pebble",
        package: "pebble",
        purpose: "an authority that speaks ACME",
    },
    Program {
        name: "knotd",
        package: "knot",
        purpose: "a name server that takes updates",
    },
    Program {
        name: "nsupdate",
        package: "bind9-dnsutils",
        purpose: "updates of names",
    },
    Program {
        name: "systemctl",
        package: "systemd",
        purpose: "the gateway as a service",
    },
];

/// Those of the packages that bring a service of their own name, which nobody asked for who runs the lab.
const SERVICES: &[&str] = &["haproxy", "kamailio", "knot", "nginx", "nsd", "prometheus"];

/// One sentence about the programs that are missing, or `None`.
pub(crate) fn missing(need: &Need) -> Option<String> {
    need.describe(&need.absent())
}

/// Installs what is missing; only root may.
pub(crate) fn provide(need: &Need) -> Result<()> {
    let absent = need.absent();
    let Some(sentence) = need.describe(&absent) else {
        return Ok(());
    };
    if process::find_program("apt-get").is_none() {
        bail!("{sentence}; there is no apt-get here to do it");
    }
    let packages: Vec<&str> = absent.iter().map(|program| program.package).collect();
    process::step(&format!("installing {}", packages.join(" ")), || {
        // The package lists may be missing or too old to name files that still exist; they usually are neither.
        apt_install(&packages).or_else(|_| {
            apt_update()?;
            apt_install(&packages)
        })
    })
    .context(sentence)
}

fn is_present(name: &str) -> bool {
    let architecture = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    process::find_program(name).is_some()
        || ["/usr/lib", &architecture]
            .iter()
            .any(|libraries| Path::new(libraries).join(name).is_file())
}

impl Need {
    fn absent(&self) -> Vec<&'static Program> {
        self.programs
            .iter()
            .filter(|program| !is_present(program.name))
            .collect()
    }

    fn describe(&self, absent: &[&Program]) -> Option<String> {
        if absent.is_empty() {
            return None;
        }
        let join = |word: fn(&Program) -> String, separator| {
            let words: Vec<_> = absent.iter().map(|program| word(program)).collect();
            words.join(separator)
        };
        Some(format!(
            "{} needs {}: run `apt-get install {}`",
            self.whose,
            join(|p| format!("{} ({})", p.name, p.purpose), ", "),
            join(|p| p.package.to_owned(), " "),
        ))
    }
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let mut command = without_services(Path::new("/usr/sbin/policy-rc.d"));
    command
        .arg("apt-get")
        .args(APT_OPTIONS)
        .args(["install", "-qq", "--no-install-recommends"])
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive");
    process::output(&mut command)?;
    // Not at the next boot either. What had been installed before is not in the list, and stays as it is.
    for service in SERVICES.iter().filter(|name| packages.contains(name)) {
        process::output(Command::new("update-rc.d").args([service, "disable"]))?;
    }
    Ok(())
}

/// What the installed packages' scripts ask `policy` for, they may not start.
fn without_services(policy: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("xtask/src/without-services.sh")
        .arg(policy)
        .current_dir(process::workspace());
    command
}

fn apt_update() -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(APT_OPTIONS).args(["update", "-qq"]);
    process::output(&mut command).map(drop)
}

/// Another apt may be running, as on a machine that has just booted.
const APT_OPTIONS: [&str; 3] = ["-y", "-o", "DPkg::Lock::Timeout=120"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_names_programs_and_command() {
        let some: Vec<_> = PROGRAMS
            .iter()
            .filter(|program| ["nft", "tcpdump"].contains(&program.name))
            .collect();
        assert_eq!(
            LAB.describe(&some).as_deref(),
            Some(
                "the lab needs nft (packet loss), tcpdump (the capture kept of a failed test): \
                 run `apt-get install nftables tcpdump`"
            )
        );
        assert_eq!(LAB.describe(&[]), None);
    }

    #[test]
    fn a_service_is_a_package_of_the_list() {
        for service in SERVICES {
            let found = PROGRAMS.iter().any(|program| program.package == *service);
            assert!(found, "{service}");
        }
    }

    #[test]
    fn services_are_held_back_while_a_command_runs() {
        let policy = std::env::temp_dir().join(format!("snigate-policy-{}", std::process::id()));
        let run = |script: &str| {
            without_services(&policy)
                .args(["sh", "-c", script])
                .env("POLICY", &policy)
                .status()
                .expect("a shell")
                .code()
        };
        // It says no, to everything, and is gone afterwards, whatever became of the command.
        assert_eq!(run("$POLICY nginx start"), Some(101));
        assert!(!policy.exists());
        assert_eq!(run("kill -INT $PPID; true"), Some(130));
        assert!(!policy.exists());
        // One that was left behind by a SIGKILL counts as none.
        assert_eq!(run("cp -p $POLICY $POLICY.kept"), Some(0));
        let kept = policy.with_file_name(format!("snigate-policy-{}.kept", std::process::id()));
        std::fs::rename(kept, &policy).expect("a file");
        assert_eq!(run("exit 7"), Some(7));
        assert!(!policy.exists());

        std::fs::write(&policy, "#!/bin/sh\nexit 0\n").expect("a file");
        assert_eq!(run("true"), Some(0));
        let own = std::fs::read_to_string(&policy).expect("an administrator's policy stays");
        std::fs::remove_file(&policy).expect("a file");
        assert_eq!(own, "#!/bin/sh\nexit 0\n");
    }
}
