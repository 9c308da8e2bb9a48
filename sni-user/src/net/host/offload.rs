//! What an interface is, and what it does to frames before XDP sees them.

use std::{io, os::unix::net::UnixDatagram};

use rustix::ioctl::{Opcode, Updater, ioctl};

use super::HostError;

/// Whether the interface takes VLAN tags out of the frames it receives: XDP then sees them untagged, and the gateway on a tagged link
/// needs `ethtool -K INTERFACE rxvlan off`.
///
/// # Errors
/// There is no such interface, or its driver does not say.
pub fn rx_vlan_offload(interface: &str) -> Result<bool, HostError> {
    Ok(value(interface, ETHTOOL_GFLAGS)? & ETH_FLAG_RXVLAN != 0)
}

/// Whether the interface merges the segments that it receives (LRO), in a way that can't be undone when they are forwarded.
///
/// # Errors
/// There is no such interface, or its driver does not say.
pub fn large_receive_offload(interface: &str) -> Result<bool, HostError> {
    Ok(value(interface, ETHTOOL_GFLAGS)? & ETH_FLAG_LRO != 0)
}

/// Whether the interface leaves the checksums of what it sends to be finished by a device.
///
/// # Errors
/// There is no such interface, or its driver does not say.
pub fn transmit_checksum_offload(interface: &str) -> Result<bool, HostError> {
    Ok(value(interface, ETHTOOL_GTXCSUM)? != 0)
}

/// Whether the kernel merges the segments that the interface receives (GRO).
///
/// # Errors
/// There is no such interface, or its driver does not say.
pub fn generic_receive_offload(interface: &str) -> Result<bool, HostError> {
    Ok(value(interface, ETHTOOL_GGRO)? != 0)
}

/// The receive queues of an interface, each of which keeps one processor at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveQueues {
    /// How many are in use.
    pub used: u32,
    /// How many there can be.
    pub most: u32,
    /// Whether they send as well: `combined` rather than `rx`, in the words of ethtool(8).
    pub combined: bool,
}

/// The receive queues of an interface; `None` where its driver knows of none.
///
/// # Errors
/// There is no such interface.
pub fn receive_queues(interface: &str) -> Result<Option<ReceiveQueues>, HostError> {
    let mut channels = Channels {
        command: ETHTOOL_GCHANNELS,
        ..Channels::default()
    };
    match ethtool(interface, &mut channels) {
        Ok(()) => Ok(channels.receiving()),
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(reason) => Err(unreadable(interface, reason)),
    }
}

/// The name of the interface's driver; of a virtual one its kind, such as `veth`.
///
/// # Errors
/// There is no such interface, or it has no driver, as the loopback.
pub fn driver(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        rest: [0; 160],
    };
    ethtool(interface, &mut info)?;
    let end = info.driver.iter().position(|byte| *byte == 0);
    let name = &info.driver[..end.unwrap_or(info.driver.len())];
    Ok(String::from_utf8_lossy(name).into_owned())
}

// include/uapi/linux/ethtool.h
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    /// Versions, addresses and sizes.
    rest: [u8; 160],
}

/// `struct ethtool_channels`.
#[derive(Default)]
#[repr(C)]
struct Channels {
    command: u32,
    max_receive: u32,
    max_transmit: u32,
    max_other: u32,
    max_combined: u32,
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

impl Channels {
    fn receiving(&self) -> Option<ReceiveQueues> {
        let used = self.receive + self.combined;
        let combined = self.max_combined > 0;
        let most = if combined {
            self.max_combined
        } else {
            self.max_receive
        };
        (used > 0).then(|| ReceiveQueues {
            used,
            most: most.max(used),
            combined,
        })
    }
}

fn value(interface: &str, command: u32) -> Result<u32, HostError> {
    let mut value = EthtoolValue { command, data: 0 };
    let read = ethtool(interface, &mut value);
    read.map_err(|reason| unreadable(interface, reason))?;
    Ok(value.data)
}

fn unreadable(interface: &str, reason: io::Error) -> HostError {
    HostError::Offloads {
        interface: interface.to_owned(),
        reason,
    }
}

/// Has the kernel carry out the command that `value` begins with; `T` is the command's structure.
fn ethtool<T>(interface: &str, value: &mut T) -> io::Result<()> {
    // SAFETY: all zeros are a valid value of this C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: the kernel wants the name terminated.
    let room = request.ifr_name.len() - 1;
    if interface.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = std::ptr::from_mut(value).cast();
    // Any socket will do; this kind needs neither an address nor a privilege.
    let socket = UnixDatagram::unbound()?;
    // SAFETY: SIOCETHTOOL takes an ifreq whose data points to the structure of its command, both alive until the call returns.
    unsafe {
        let request = Updater::<{ libc::SIOCETHTOOL as Opcode }, _>::new(&mut request);
        ioctl(&socket, request)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_does_not_exist_has_no_driver() {
        assert!(driver("no-such-link").is_err());
        assert!(receive_queues("no-such-link").is_err());
        assert!(large_receive_offload("no-such-link").is_err());
    }

    #[test]
    fn queues_are_of_one_kind_or_the_other() {
        let queues = |max_combined, combined, max_receive, receive| {
            let channels = Channels {
                max_combined,
                combined,
                max_receive,
                receive,
                ..Channels::default()
            };
            channels
                .receiving()
                .map(|found| (found.used, found.most, found.combined))
        };
        assert_eq!(queues(16, 4, 0, 0), Some((4, 16, true)));
        assert_eq!(queues(0, 0, 8, 2), Some((2, 8, false)));
        // Some drivers tell both, of which one is in use.
        assert_eq!(queues(16, 16, 16, 0), Some((16, 16, true)));
        assert_eq!(queues(0, 0, 0, 0), None);
    }
}
