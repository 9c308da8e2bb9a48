//! Which events the datapath tells of that nothing but people's curiosity needs: each wakes the agent, which costs more than the packet that it is about.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sni_common::contract::{TELL_FLOWS, TELL_HELLOS};
use tokio::sync::{Notify, broadcast};

use crate::{
    control::HelloSeen,
    datapath::{DatapathError, Maps},
    proxy::Proxy,
};

/// Has the datapath tell of connections that it binds while somebody watches, or the log shows them.
pub(super) struct Watching {
    proxy: Arc<Proxy>,
    maps: Mutex<Maps>,
    /// What the log wants all the time.
    always: u64,
    begun: Notify,
}

impl Watching {
    /// # Errors
    /// The map can't be written.
    pub(super) fn new(proxy: Arc<Proxy>, mut maps: Maps) -> Result<Arc<Self>, DatapathError> {
        let always = if tracing::enabled!(tracing::Level::DEBUG) {
            TELL_FLOWS | TELL_HELLOS
        } else {
            0
        };
        // An agent that was killed may have left something else.
        maps.tell(always)?;
        Ok(Arc::new(Self {
            proxy,
            maps: Mutex::new(maps),
            always,
            begun: Notify::new(),
        }))
    }

    /// Every ClientHello from now on.
    pub(super) fn begin(&self) -> broadcast::Receiver<Arc<HelloSeen>> {
        let mut maps = self.maps();
        let seen = self.proxy.watch();
        tell(&mut maps, self.always | TELL_HELLOS);
        self.begun.notify_one();
        seen
    }

    /// Notices when the last watcher has gone. Never ends.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            self.begun.notified().await;
            self.proxy.unwatched().await;
            let mut maps = self.maps();
            // Another may have come meanwhile, and will have said so.
            if !self.proxy.is_watched() {
                tell(&mut maps, self.always);
            }
        }
    }

    /// At an orderly end: nobody reads any more.
    pub(super) fn end(&self) {
        tell(&mut self.maps(), 0);
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(maps: &mut Maps, wanted: u64) {
    if let Err(error) = maps.tell(wanted) {
        tracing::warn!(%error, "what the datapath tells of can't be changed");
    }
}
