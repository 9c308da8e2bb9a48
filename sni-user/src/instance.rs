//! One agent per datapath.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    path::Path,
};

use crate::agent::AgentError;

/// Held while an agent runs on a pin path.
///
/// An abstract Unix socket: it vanishes with the process, however that ends, where a lock file would stay behind, and a BPF filesystem
/// takes no locks. Its name belongs to the network namespace, as the interfaces do.
pub(crate) struct Instance {
    _socket: UnixListener,
}

impl Instance {
    /// Claims a pin path.
    ///
    /// # Errors
    /// Another agent has it.
    pub(crate) fn claim(pin_path: &Path) -> Result<Self, AgentError> {
        let name = format!("snigate-agent:{}", pin_path.display());
        let claimed = SocketAddr::from_abstract_name(name)
            .and_then(|address| UnixListener::bind_addr(&address));
        match claimed {
            Ok(socket) => Ok(Self { _socket: socket }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(AgentError::AlreadyRunning {
                    pin_path: pin_path.display().to_string(),
                })
            }
            Err(source) => Err(AgentError::Io {
                what: "claiming the pin path for this agent",
                source,
            }),
        }
    }
}
