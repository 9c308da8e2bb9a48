//! What can go wrong between userspace and the datapath.

use std::path::PathBuf;

/// An error of the datapath; every sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The pin path is not on a BPF filesystem.
    #[error("{path} is not on a BPF filesystem: mount one with `mount -t bpf bpf /sys/fs/bpf`, or set `gateway.pin_path` to a place on one", path = path.display())]
    NoBpffs {
        /// The pin path.
        path: PathBuf,
    },
    /// Nothing is pinned there.
    #[error("no snigate datapath is pinned at {path}: start one with `snigate run`, or name another place with --pin-path", path = path.display())]
    NotPinned {
        /// The pin path.
        path: PathBuf,
    },
    /// What is pinned was made by a version that this one can't read.
    #[error(
        "the datapath pinned at {path} was made by another version of snigate: it has ABI {found}, and this version reads and writes ABI {ours}. \
         Nothing was changed: it goes on with its flows and steers new ones. To replace it: lead new connections elsewhere (another gateway, DNS), \
         wait until few flows are left (`snigate flow ls` of the version that made it), then run `snigate run --fresh` of this version, which \
         removes it with the flows that are left. To keep it: run the version that made it",
        path = path.display()
    )]
    OtherAbi {
        /// The pin path.
        path: PathBuf,
        /// ABI version of the pinned state.
        found: u64,
        /// ABI version of this program.
        ours: u64,
    },
    /// The kernel refused for want of privileges.
    #[error(
        "{what} needs root, or CAP_BPF and CAP_NET_ADMIN: run it with sudo, or as a service with these capabilities"
    )]
    Privileges {
        /// What was tried.
        what: String,
    },
    /// The kernel is built or set up without something that the datapath can't do without.
    #[error("this kernel can't run the datapath, because it lacks {what}")]
    KernelLacks {
        /// What it lacks, and how to get it.
        what: &'static str,
    },
    /// The kernel's verifier refused the program.
    #[error("the kernel refused the datapath ({reason}); its verifier's last words were:\n{log}")]
    Verifier {
        /// The error.
        reason: String,
        /// The end of the verifier's log.
        log: String,
    },
    /// The interface already carries another program.
    #[error(
        "another XDP program is attached to {interface}: remove it (`ip link set dev {interface} xdp off`, or stop the program that owns it)"
    )]
    InterfaceBusy {
        /// The interface.
        interface: String,
    },
    /// The driver has no native XDP, and `hook = "xdp"` asks for it.
    #[error(
        "the driver of {interface} can't run XDP natively ({reason}): set `gateway.hook` to \"auto\", \"tcx\" or \"xdp-generic\""
    )]
    NoNativeXdp {
        /// The interface.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// The interface has no place for the program in traffic control.
    #[error(
        "the ingress of {interface} takes no program of traffic control ({reason}): set `gateway.hook` to \"xdp\" or \"xdp-generic\""
    )]
    NoTrafficControl {
        /// The interface.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// The configuration does not fit into the maps.
    #[error("{what} does not fit into the datapath's tables ({limit} at most): {advice}")]
    TooMany {
        /// What does not fit.
        what: &'static str,
        /// The limit.
        limit: u32,
        /// What to do.
        advice: &'static str,
    },
    /// A domain has a name that no host can have.
    #[error("the server name \"{name}\" of the domain {domain} can't be routed: {source}")]
    Name {
        /// The name.
        name: String,
        /// The domain.
        domain: String,
        /// Why not.
        source: sni_common::contract::InvalidSniName,
    },
    /// An Edge has no route, or no address of the gateway's own leads to it.
    #[error("Edge {edge} ({address}) can't be used: {reason}")]
    Edge {
        /// The Edge.
        edge: String,
        /// Where it is.
        address: String,
        /// Why not.
        reason: String,
    },
    /// A map is full.
    #[error("{what}: there is no room left, `snigate status` shows how full the tables are")]
    Full {
        /// What was tried, and on what.
        what: String,
        /// The kernel's word for it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is one ring of captured packets.
    #[error(
        "another `snigate capture` runs on this datapath, which shows packets to one at a time: end that one first"
    )]
    Capturing,
    /// Some other refusal of the kernel or the filesystem.
    #[error("{what}: {source}")]
    Kernel {
        /// What was tried, and on what.
        what: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DatapathError {
    /// A map that can't be written.
    pub(crate) fn map(name: &str, source: aya::maps::MapError) -> Self {
        Self::kernel(format!("writing the map {name}"), source)
    }

    /// Wraps a cause; a lack of privileges becomes [`DatapathError::Privileges`], and of room in a map [`DatapathError::Full`].
    pub(super) fn kernel(
        what: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let what = what.into();
        if is_permission(&source) {
            return Self::Privileges { what };
        }
        // bpf(2) has "argument list too long" for a full map, and for a program that is too complex.
        let is_full = what.starts_with("writing") && errno(&source) == Some(E2BIG);
        let source = Box::new(source);
        if is_full {
            Self::Full { what, source }
        } else {
            Self::Kernel { what, source }
        }
    }
}

/// Whether an I/O error for want of privileges is the root of an error.
fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    errno(error).is_some_and(|errno| errno == EPERM || errno == EACCES)
}

const EPERM: i32 = 1;
const EACCES: i32 = 13;
const E2BIG: i32 = 7;

/// The errno at the root of an error.
pub(super) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && let Some(errno) = io.raw_os_error()
        {
            return Some(errno);
        }
        cause = error.source();
    }
    None
}
