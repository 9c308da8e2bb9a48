//! Why the network could not be asked, or what it said no to.

use std::{io, net::IpAddr};

use rustix::io::Errno;

use super::host::HostError;

/// A failed request to the host's network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// No netlink socket.
    #[error(
        "no netlink socket could be opened ({0}): allow AF_NETLINK in the sandbox around this process (RestrictAddressFamilies= in its unit)"
    )]
    Connect(io::Error),
    /// The task that drives the connection has ended.
    #[error(
        "the netlink connection has ended: restart the agent, the datapath keeps running meanwhile"
    )]
    Closed,
    /// No interface has this name.
    #[error("there is no interface `{name}`: {}the interfaces here are {}", suggestion(.nearest), listed(.known))]
    UnknownInterface {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
        /// The one that was probably meant.
        nearest: Option<String>,
    },
    /// The routing table knows no way.
    #[error(
        "there is no way to {way} ({reason}): add a route, and see what the kernel makes of it with `ip route get {way}`",
        way = way(*.to, *.from)
    )]
    Unreachable {
        /// The destination.
        to: IpAddr,
        /// The source address that was asked for.
        from: Option<IpAddr>,
        /// The kernel's reason.
        reason: io::Error,
    },
    /// An IPv6 address is wanted where there is no IPv6.
    #[error(
        "{address} cannot be made an address of this host: IPv6 is switched off on `{interface}`: switch it on with \
         `sysctl -w net.ipv6.conf.{setting}.disable_ipv6=0` (and without `ipv6.disable=1` on the kernel's command line), or take the \
         IPv6 addresses out of the configuration",
        setting = .interface.replace('.', "/")
    )]
    Ipv6Off {
        /// The address.
        address: IpAddr,
        /// Name of the interface that it belongs on.
        interface: String,
    },
    /// Somebody else uses the routing table that is to lead to the host's own sockets.
    #[error(
        "routing table {table} is in use by another: {by}; remove that, or have it use another table, since everything that is \
         looked up in this one goes to the host itself"
    )]
    TableTaken {
        /// The table's number.
        table: u32,
        /// What was found, and the command that shows it.
        by: String,
    },
    /// Somebody else's rule looks for the mark of packets to transparent sockets.
    #[error(
        "the packet mark {mark:#x} is in use by another: {by}; remove that, or have it use other bits"
    )]
    MarkTaken {
        /// The mark, one bit.
        mark: u32,
        /// What was found, and the command that shows it.
        by: String,
    },
    /// A setting of the host could not be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The kernel refused something else.
    #[error("{doing} failed ({reason}){}", hint(.reason))]
    Refused {
        /// What was to be done, such as "listing the interfaces".
        doing: String,
        /// The kernel's reason.
        reason: io::Error,
    },
}

/// Whether the kernel's reason is this one.
pub(super) fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}

fn suggestion(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map(|name| format!("did you mean `{name}`? "))
        .unwrap_or_default()
}

fn listed(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn way(to: IpAddr, from: Option<IpAddr>) -> String {
    from.map_or_else(|| to.to_string(), |from| format!("{to} from {from}"))
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": run this as root, or with CAP_NET_ADMIN",
        io::ErrorKind::NetworkDown => {
            ": switch the interface on with `ip link set … up`; `lo` too must be up"
        }
        _ => "",
    }
}
