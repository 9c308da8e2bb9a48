//! What must be so on the host before the datapath is of any use; every check says in one sentence how to mend it.
//!
//! Settings are those of the calling thread's network namespace.

mod error;
mod offload;
mod sysctl;

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd as _},
    path::Path,
};

use rustix::{
    fs::statfs,
    system::uname,
    thread::{CapabilitySet, capabilities as thread_capabilities},
};

pub use self::{
    error::HostError,
    offload::{
        ReceiveQueues, driver, generic_receive_offload, large_receive_offload, receive_queues,
        rx_vlan_offload, transmit_checksum_offload,
    },
    sysctl::{
        Family, forwarding, has_ipv6, is_settable, local_port_range, owned_ports,
        require_forwarding, reverse_path_note, set, setting, source_mark_note,
    },
};

/// The oldest kernel that the datapath is made for.
pub const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Major and minor version of the running kernel.
///
/// # Errors
/// It calls itself something else.
pub fn kernel_version() -> Result<(u32, u32), HostError> {
    let release = uname().release().to_string_lossy().into_owned();
    parse_release(&release).ok_or(HostError::StrangeKernel { release })
}

/// Checks that the kernel is at least this version.
///
/// # Errors
/// It is older, or does not say.
pub fn require_kernel(major: u32, minor: u32) -> Result<(), HostError> {
    let found = kernel_version()?;
    if found < (major, minor) {
        return Err(HostError::OldKernel {
            found,
            wanted: (major, minor),
        });
    }
    Ok(())
}

/// Such as `6.1.0-13-amd64`.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Checks that the calling thread may load and attach the datapath and change the neighbour table: CAP_BPF (or CAP_SYS_ADMIN, which
/// includes it) and CAP_NET_ADMIN in its effective set.
///
/// # Errors
/// The capabilities that are missing.
pub fn require_capabilities() -> Result<(), HostError> {
    let effective = thread_capabilities(None)
        .map_err(|errno| HostError::Capabilities {
            reason: errno.into(),
        })?
        .effective;
    let missing = missing_capabilities(effective);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(HostError::MissingCapabilities { missing })
    }
}

fn missing_capabilities(effective: CapabilitySet) -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !effective.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !effective.contains(CapabilitySet::NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    missing
}

/// Whether the path, or what exists of the way to it, is on a BPF filesystem.
///
/// # Errors
/// It can't be looked at.
pub fn is_bpffs(path: &Path) -> Result<bool, HostError> {
    // include/uapi/linux/magic.h
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    for ancestor in path.ancestors() {
        // The end of a relative path's ancestors.
        let here = if ancestor.as_os_str().is_empty() {
            Path::new(".")
        } else {
            ancestor
        };
        match statfs(here).map_err(io::Error::from) {
            // The kernel's field is a long in one place and an unsigned int in another.
            #[allow(clippy::unnecessary_cast)]
            Ok(found) => return Ok(found.f_type as i64 & 0xffff_ffff == BPF_FS_MAGIC),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(reason) => {
                return Err(HostError::Path {
                    path: here.to_owned(),
                    reason,
                });
            }
        }
    }
    Ok(false)
}

/// Checks that the path, or what exists of the way to it, is on a BPF filesystem.
///
/// # Errors
/// It is on another; or it can't be looked at.
pub fn require_bpffs(path: &Path) -> Result<(), HostError> {
    if is_bpffs(path)? {
        return Ok(());
    }
    Err(HostError::NoBpffs {
        path: path.to_owned(),
    })
}

/// The number of the calling thread's network namespace.
///
/// # Errors
/// The kernel's.
pub fn namespace() -> io::Result<u64> {
    namespace_of(&UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?)
}

/// The number of a socket's network namespace, which no other one ever gets (SO_NETNS_COOKIE, Linux 5.14).
///
/// # Errors
/// The kernel's.
pub fn namespace_of(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option's value is eight bytes long, and value and length outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CapabilitySets, set_capabilities};

    use super::*;

    #[test]
    fn kernel_releases() {
        assert_eq!(parse_release("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(parse_release("6.18.44"), Some((6, 18)));
        assert_eq!(parse_release("7.0-rc1"), Some((7, 0)));
        assert_eq!(parse_release("6"), None);
        assert_eq!(parse_release("six.one"), None);
    }

    #[test]
    fn an_older_kernel_is_refused() {
        let (major, minor) = kernel_version().expect("a version");
        require_kernel(major, minor).expect("this very kernel");
        let error = require_kernel(major, minor + 1).expect_err("too old");
        assert!(error.to_string().contains(&format!("{major}.{minor}")));
    }

    #[test]
    fn a_thread_without_capabilities_is_told_so() {
        // Capabilities are the thread's: those of the other tests stay.
        let refused = std::thread::spawn(|| {
            let none = CapabilitySet::empty();
            let sets = CapabilitySets {
                effective: none,
                permitted: none,
                inheritable: none,
            };
            set_capabilities(None, sets).expect("giving up is always allowed");
            require_capabilities()
        });
        let error = refused
            .join()
            .expect("no panic")
            .expect_err("no capabilities");
        let sentence = error.to_string();
        assert!(sentence.contains("CAP_BPF and CAP_NET_ADMIN"), "{sentence}");
    }

    #[test]
    fn cap_sys_admin_stands_for_cap_bpf() {
        let admin = CapabilitySet::SYS_ADMIN;
        assert_eq!(missing_capabilities(admin), ["CAP_NET_ADMIN"]);
        let exact = CapabilitySet::BPF | CapabilitySet::NET_ADMIN;
        assert!(missing_capabilities(exact).is_empty());
        let admins = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
        assert!(missing_capabilities(admins).is_empty());
    }

    #[test]
    fn an_ordinary_directory_is_no_bpf_filesystem() {
        let directory = tempfile::tempdir().expect("a directory");
        for path in [directory.path(), &directory.path().join("not/yet/made")] {
            assert!(!is_bpffs(path).expect("an existing ancestor"));
            let sentence = require_bpffs(path).expect_err("no bpffs").to_string();
            assert!(
                sentence.contains("mount -t bpf bpf /sys/fs/bpf"),
                "{sentence}"
            );
        }
        assert!(!is_bpffs(Path::new("not/yet/made")).expect("the working directory"));
    }
}
