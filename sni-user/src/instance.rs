//! One agent per datapath.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    path::Path,
};

/// Held while an agent runs on a pin path.
///
/// An abstract Unix socket: it vanishes with the process, however that ends, where a lock file would stay behind, and a BPF filesystem
/// takes no locks. Its name belongs to the network namespace, as the interfaces do.
pub(crate) struct Instance {
    _socket: UnixListener,
}

impl Instance {
    /// Claims a pin path; `None` when another agent has it.
    pub(crate) fn claim(pin_path: &Path) -> io::Result<Option<Self>> {
        let address =
            SocketAddr::from_abstract_name(format!("snigate-agent:{}", pin_path.display()))?;
        match UnixListener::bind_addr(&address) {
            Ok(socket) => Ok(Some(Self { _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}
