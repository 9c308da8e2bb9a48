//! What is not as it must be on the host.

use std::{io, path::PathBuf};

use super::sysctl::{Family, command};

/// A failed check of the host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel is too old.
    #[error("this kernel is Linux {}.{}, and the datapath needs {}.{} or newer: boot a newer one (Debian 12 and later have it)", .found.0, .found.1, .wanted.0, .wanted.1)]
    OldKernel {
        /// Its version.
        found: (u32, u32),
        /// The version needed.
        wanted: (u32, u32),
    },
    /// The kernel does not say its version.
    #[error(
        "the kernel calls itself `{release}`, which names no version: boot one that does (`uname -r`)"
    )]
    StrangeKernel {
        /// What it calls itself.
        release: String,
    },
    /// The thread's capabilities can't be read.
    #[error(
        "the capabilities of this process can't be read ({reason}): allow the capget system call in the sandbox around it"
    )]
    Capabilities {
        /// The kernel's reason.
        reason: io::Error,
    },
    /// Capabilities are missing.
    #[error("this process lacks {}: run it as root, or give its service CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (AmbientCapabilities= in its unit)", .missing.join(" and "))]
    MissingCapabilities {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// A setting can't be read.
    #[error(
        "the setting {key} can't be read ({reason}): see that the interface exists, that its address family is not switched off in the kernel, and that /proc is mounted"
    )]
    Setting {
        /// Its name, as sysctl(8) has it.
        key: String,
        /// The kernel's reason.
        reason: io::Error,
    },
    /// A setting can't be changed.
    #[error("the setting {key} can't be set to {value} ({reason}): run `{}` where that is allowed, and for the next boot in /etc/sysctl.d", command(.key, &.value.to_string()))]
    SettingFixed {
        /// Its name, as sysctl(8) has it.
        key: String,
        /// What it should be.
        value: i64,
        /// The kernel's reason.
        reason: io::Error,
    },
    /// A setting has a value that makes no sense.
    #[error("the setting {key} is `{value}`, which is not {wanted}: set it with `sysctl -w`")]
    SettingValue {
        /// Its name, as sysctl(8) has it.
        key: String,
        /// Its value.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// Packets that arrive by an interface are not forwarded.
    #[error("{interface} does not forward {family}: switch it on with `{}`, and for the next boot in /etc/sysctl.d", command(&.family.forwarding_key(.interface), "1"))]
    ForwardingOff {
        /// The interface.
        interface: String,
        /// The address family.
        family: Family,
    },
    /// The host's own connections leave too few ports.
    #[error("the host's own connections use ports {} to {} (net.ipv4.ip_local_port_range), which leaves the gateway fewer than {least} in a row: `{}` frees some", .range.0, .range.1, command("net.ipv4.ip_local_port_range", "\"32768 60999\""))]
    TooFewPorts {
        /// The host's range, first and last.
        range: (u16, u16),
        /// How many are needed.
        least: u16,
    },
    /// A path can't be looked at.
    #[error("{} can't be looked at ({reason}): choose another `gateway.pin_path`, or let this process see it", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// The kernel's reason.
        reason: io::Error,
    },
    /// A path is not on a BPF filesystem.
    #[error("{} is not on a BPF filesystem: mount one with `mount -t bpf bpf /sys/fs/bpf`, or set `gateway.pin_path` to a place on one", .path.display())]
    NoBpffs {
        /// The path.
        path: PathBuf,
    },
    /// The driver does not tell its offloads.
    #[error(
        "the offloads of {interface} can't be read ({reason}): see that it exists, and compare `ethtool -k {interface}`"
    )]
    Offloads {
        /// The interface.
        interface: String,
        /// The kernel's reason.
        reason: io::Error,
    },
}
