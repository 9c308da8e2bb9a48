//! The web server for the mirror CA's revocation list.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::task::JoinHandle;

use crate::{acme::responder::Tokens, config::Config, proxy::Proxy, tls::crl};

/// Serves the list for as long as it lives, where the configuration says.
#[derive(Default)]
pub(super) struct Revocation {
    url: Option<String>,
    address: Option<SocketAddr>,
    server: Option<JoinHandle<()>>,
}

impl Revocation {
    /// Whether the configuration wants it elsewhere.
    pub(super) fn is_to_change(&self, config: &Config) -> bool {
        let url = url(config);
        url != self.url.as_deref() || self.server.is_some() != url.is_some()
    }

    /// Whether it has this port of an address, so that no other server can.
    pub(super) fn has_port(&self, address: IpAddr, port: u16) -> bool {
        self.address.is_some_and(|own| {
            own.port() == port && (own.ip() == address || own.ip().is_unspecified())
        })
    }

    /// Goes by the configuration from now on. Where its port is that of ACME's tokens, it answers those as well.
    pub(super) async fn follow(
        &mut self,
        config: &Config,
        proxy: &Arc<Proxy>,
        tokens: &Arc<Tokens>,
    ) {
        if !self.is_to_change(config) {
            return;
        }
        self.address = None;
        let url = url(config).map(str::to_owned);
        if let Some(server) = self.server.take() {
            server.abort();
            // The port is free when the task is gone.
            let _ = server.await;
        }
        self.url.clone_from(&url);
        let Some(url) = url else { return };
        match crl::listen(&url).await {
            Ok(listener) => {
                self.address = listener.local_addr().ok();
                let proxy = Arc::clone(proxy);
                let mirror = move || proxy.active().tls.mirror().cloned();
                let tokens = Arc::clone(tokens);
                self.server = Some(tokio::spawn(crl::serve_with(
                    listener,
                    mirror,
                    Some(tokens),
                )));
                tracing::info!(url, "serving the revocation list of the mirror CA");
            }
            Err(error) => {
                tracing::error!(url, %error, "the revocation list of the mirror CA can't be served: Edges that check it will refuse mirrored certificates");
            }
        }
    }
}

fn url(config: &Config) -> Option<&str> {
    config.identity.mirror.as_ref()?.crl_url.as_deref()
}

impl Drop for Revocation {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}
