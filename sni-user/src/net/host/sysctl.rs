//! Settings under `/proc/sys/net`.

use std::{fmt, fs, io, net::IpAddr};

use super::HostError;

/// An address family, as settings are split by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(super) fn forwarding_key(self, interface: &str) -> String {
        let family = match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        };
        interface_key(family, interface, "forwarding")
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Whether packets of this family that arrive by the interface are forwarded; bpf_fib_lookup goes by the same setting.
///
/// # Errors
/// The setting can't be read.
pub fn forwarding(interface: &str, family: Family) -> Result<bool, HostError> {
    Ok(number(&family.forwarding_key(interface))? != 0)
}

/// Checks that packets of this family that arrive by the interface are forwarded.
///
/// # Errors
/// They are not; or the setting can't be read.
pub fn require_forwarding(interface: &str, family: Family) -> Result<(), HostError> {
    if forwarding(interface, family)? {
        return Ok(());
    }
    Err(HostError::ForwardingOff {
        interface: interface.to_owned(),
        family,
    })
}

/// The first and the last port that the host takes for its own connections.
///
/// # Errors
/// The setting can't be read.
pub fn local_port_range() -> Result<(u16, u16), HostError> {
    let value = read(PORT_RANGE)?;
    parse_range(&value).ok_or_else(|| HostError::SettingValue {
        key: PORT_RANGE.to_owned(),
        value,
        wanted: "two ports",
    })
}

/// The ports that the gateway may take for Edge legs with its own address, as the first and how many: the larger of the ranges below
/// and above those of the host's own connections, privileged ports left out.
///
/// # Errors
/// Fewer than 1024 are left; or the setting can't be read.
pub fn owned_ports() -> Result<(u16, u16), HostError> {
    ports_beside(local_port_range()?)
}

/// A sentence for the log if the interface drops IPv4 packets whose source it would not route back the same way (RFC 3704, 2.2).
///
/// The datapath does not ask; packets that it leaves to the host are checked.
///
/// # Errors
/// A setting can't be read.
pub fn reverse_path_note(interface: &str) -> Result<Option<String>, HostError> {
    const STRICT: i64 = 1;
    let key = interface_key("ipv4", interface, "rp_filter");
    // The kernel takes the larger one (ip-sysctl.rst).
    let filter = number(&key)?.max(number("net.ipv4.conf.all.rp_filter")?);
    Ok((filter == STRICT).then(|| {
        format!(
            "{interface} drops IPv4 packets to the host whose answer would leave by another interface: if clients of an IP set may \
             come in that way, loosen it with `{}`",
            command(&key, "2")
        )
    }))
}

/// A sentence for the log if the kernel asks for the way back of packets that carry a mark by that mark.
///
/// It would find that packets of an Edge with the mark for transparent sockets ([`super::super::ReturnRoute`]) come from the host
/// itself, and drop them as martians, whatever rp_filter says (`__fib_validate_source` in net/ipv4/fib_frontend.c). IPv6 has no such check.
///
/// # Errors
/// A setting can't be read.
pub fn source_mark_note(interface: &str) -> Result<Option<String>, HostError> {
    let everywhere = "net.ipv4.conf.all.src_valid_mark";
    let own = interface_key("ipv4", interface, "src_valid_mark");
    // Either of them switches it on.
    for key in [everywhere, &own] {
        if number(key)? != 0 {
            return Ok(Some(format!(
                "{interface} drops the IPv4 answers of Edges to connections that keep the client's address: switch that off with \
                 `{}` (wg-quick switches it on for its default route), or give those Edges `source = \"gateway\"`",
                command(key, "0")
            )));
        }
    }
    Ok(None)
}

/// Whether the interface speaks IPv6 at all.
///
/// # Errors
/// The setting is there and can't be read.
pub fn has_ipv6(interface: &str) -> Result<bool, HostError> {
    match number(&interface_key("ipv6", interface, "disable_ipv6")) {
        Ok(disabled) => Ok(disabled == 0),
        // A kernel without IPv6 has no settings for it either.
        Err(HostError::Setting { reason, .. }) if reason.kind() == io::ErrorKind::NotFound => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The command that makes a setting so.
pub(super) fn command(key: &str, value: &str) -> String {
    format!("sysctl -w {key}={value}")
}

const PORT_RANGE: &str = "net.ipv4.ip_local_port_range";

/// The name of an interface's setting. As sysctl(8) wants it, dots of the interface's name (`wan0.100`) are written as slashes.
fn interface_key(family: &str, interface: &str, setting: &str) -> String {
    let interface = interface.replace('.', "/");
    format!("net.{family}.conf.{interface}.{setting}")
}

/// A setting that is a number.
///
/// # Errors
/// It can't be read, or is none.
pub fn setting(key: &str) -> Result<i64, HostError> {
    number(key)
}

/// Changes a setting that is a number.
///
/// # Errors
/// The kernel's.
pub fn set(key: &str, value: i64) -> Result<(), HostError> {
    fs::write(path(key), value.to_string()).map_err(|reason| HostError::SettingFixed {
        key: key.to_owned(),
        value,
        reason,
    })
}

/// Whether this process may change a setting.
pub fn is_settable(key: &str) -> bool {
    rustix::fs::access(path(key), rustix::fs::Access::WRITE_OK).is_ok()
}

fn number(key: &str) -> Result<i64, HostError> {
    let value = read(key)?;
    value.parse().map_err(|_| HostError::SettingValue {
        key: key.to_owned(),
        value,
        wanted: "a number",
    })
}

fn path(key: &str) -> String {
    let swapped: String = key
        .chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    format!("/proc/sys/{swapped}")
}

fn read(key: &str) -> Result<String, HostError> {
    match fs::read_to_string(path(key)) {
        Ok(value) => Ok(value.trim().to_owned()),
        Err(reason) => Err(HostError::Setting {
            key: key.to_owned(),
            reason,
        }),
    }
}

fn parse_range(value: &str) -> Option<(u16, u16)> {
    let mut ports = value.split_whitespace().map(str::parse);
    match (ports.next()?, ports.next()?, ports.next()) {
        (Ok(first), Ok(last), None) if first <= last => Some((first, last)),
        _ => None,
    }
}

fn ports_beside((first, last): (u16, u16)) -> Result<(u16, u16), HostError> {
    const FIRST_UNPRIVILEGED: u16 = 1024;
    const LEAST: u16 = 1024;
    let below = (FIRST_UNPRIVILEGED, first.saturating_sub(FIRST_UNPRIVILEGED));
    let after = last.saturating_add(1).max(FIRST_UNPRIVILEGED);
    let above = (
        after,
        if last < after {
            u16::MAX - after + 1
        } else {
            0
        },
    );
    let larger = if below.1 >= above.1 { below } else { above };
    if larger.1 < LEAST {
        return Err(HostError::TooFewPorts {
            range: (first, last),
            least: LEAST,
        });
    }
    Ok(larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_side_is_the_gateways() {
        // Linux's default.
        assert_eq!(
            ports_beside((32768, 60999)).expect("room below"),
            (1024, 31744)
        );
        assert_eq!(
            ports_beside((1024, 20000)).expect("room above"),
            (20001, 45535)
        );
        assert_eq!(
            ports_beside((2048, 65535)).expect("just enough"),
            (1024, 1024)
        );
        assert_eq!(
            ports_beside((1024, 64511)).expect("just enough"),
            (64512, 1024)
        );
        // All of them below the first that the gateway may take.
        assert_eq!(
            ports_beside((1, 1000)).expect("everything unprivileged"),
            (1024, 64512)
        );
    }

    #[test]
    fn too_few_ports_are_refused() {
        for range in [(1024, 65535), (2047, 64512), (1, 65535)] {
            let sentence = ports_beside(range).expect_err("too few").to_string();
            assert!(
                sentence.contains(r#"sysctl -w net.ipv4.ip_local_port_range="32768 60999""#),
                "{sentence}"
            );
        }
    }

    #[test]
    fn ranges_are_two_ports_in_order() {
        assert_eq!(parse_range("32768\t60999"), Some((32768, 60999)));
        for wrong in ["", "1024", "2 1", "1 2 3", "a b", "1 65536"] {
            assert_eq!(parse_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_dotted_interface_is_named_as_sysctl_wants_it() {
        let error = HostError::ForwardingOff {
            interface: "wan0.100".to_owned(),
            family: Family::V6,
        };
        assert!(
            error
                .to_string()
                .contains("`sysctl -w net.ipv6.conf.wan0/100.forwarding=1`"),
            "{error}"
        );
    }

    #[test]
    fn an_interface_that_does_not_exist_has_no_settings() {
        let error = forwarding("no-such-link", Family::V4).expect_err("no setting");
        let sentence = error.to_string();
        assert!(
            sentence.contains("net.ipv4.conf.no-such-link.forwarding"),
            "{sentence}"
        );
    }
}
