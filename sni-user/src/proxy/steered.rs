//! Connections that the datapath steers past the agent.

use std::{fmt, net::SocketAddr};

/// Tells whether the datapath has a flow whose packets go from the first address to the second: an Edge would take another connection of the same
/// addresses and ports for that one.
pub struct Steered(Box<dyn Fn(SocketAddr, SocketAddr) -> bool + Send + Sync>);

impl Steered {
    /// Asks `find` every time.
    pub fn new(find: impl Fn(SocketAddr, SocketAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Box::new(find))
    }

    pub(super) fn has(&self, client: SocketAddr, edge: SocketAddr) -> bool {
        (self.0)(client, edge)
    }
}

impl fmt::Debug for Steered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Steered")
    }
}
