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
    let flags = flags(interface).map_err(|reason| HostError::Offloads {
        interface: interface.to_owned(),
        reason,
    })?;
    Ok(flags & ETH_FLAG_RXVLAN != 0)
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
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

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

fn flags(interface: &str) -> io::Result<u32> {
    let mut value = EthtoolValue {
        command: ETHTOOL_GFLAGS,
        data: 0,
    };
    ethtool(interface, &mut value)?;
    Ok(value.data)
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
    }
}
