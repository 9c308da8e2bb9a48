//! One agent per network namespace.

use std::{
    fs, io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

/// Held while an agent runs in a network namespace: what it adds to the host's network is known by a mark that says only that it is an agent's.
///
/// An abstract Unix socket: it vanishes with the process, however that ends, where a lock file would stay behind. Its name belongs to the network
/// namespace, as the interfaces do. Anybody on the host can take the name, and keep an agent from starting; the error says how to see who.
pub(crate) struct Instance {
    _socket: UnixListener,
}

/// The socket's name, as the kernel's lists of sockets show it with an `@` before it.
const NAME: &str = "snigate-agent";

/// Whether an agent runs in the network namespace of this process.
pub(crate) fn is_claimed() -> io::Result<bool> {
    let sockets = fs::read_to_string("/proc/self/net/unix")?;
    let mut names = sockets.lines().filter_map(|line| line.rsplit_once(" @"));
    Ok(names.any(|(_, name)| name == NAME))
}

impl Instance {
    /// Claims the namespace of the calling thread; `None` when another agent has it.
    pub(crate) fn claim() -> io::Result<Option<Self>> {
        let address = SocketAddr::from_abstract_name(NAME)?;
        match UnixListener::bind_addr(&address) {
            Ok(socket) => Ok(Some(Self { _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}
