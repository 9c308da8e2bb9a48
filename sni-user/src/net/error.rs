//! Why the network could not be asked, or what it said no to.

use std::{io, net::IpAddr};

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
    /// The kernel refused something else.
    #[error("{doing} failed ({reason}){}", hint(.reason))]
    Refused {
        /// What was to be done, such as "listing the interfaces".
        doing: String,
        /// The kernel's reason.
        reason: io::Error,
    },
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
        _ => "",
    }
}
