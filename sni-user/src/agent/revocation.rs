//! The web server for the mirror CA's revocation list.

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::{config::Config, proxy::Proxy, tls::crl};

/// Serves the list for as long as it lives, where the configuration says.
#[derive(Default)]
pub(super) struct Revocation {
    url: Option<String>,
    server: Option<JoinHandle<()>>,
}

impl Revocation {
    /// Goes by the configuration from now on.
    pub(super) async fn follow(&mut self, config: &Config, proxy: &Arc<Proxy>) {
        let mirror = config.identity.mirror.as_ref();
        let url = mirror.and_then(|mirror| mirror.crl_url.clone());
        if url == self.url && self.server.is_some() == url.is_some() {
            return;
        }
        if let Some(server) = self.server.take() {
            server.abort();
            // The port is free when the task is gone.
            let _ = server.await;
        }
        self.url.clone_from(&url);
        let Some(url) = url else { return };
        match crl::listen(&url).await {
            Ok(listener) => {
                let proxy = Arc::clone(proxy);
                let mirror = move || proxy.active().tls.mirror().cloned();
                self.server = Some(tokio::spawn(crl::serve(listener, mirror)));
                tracing::info!(url, "serving the revocation list of the mirror CA");
            }
            Err(error) => {
                tracing::error!(url, %error, "the revocation list of the mirror CA can't be served: Edges that check it will refuse mirrored certificates");
            }
        }
    }
}

impl Drop for Revocation {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}
