//! The web server that Edges fetch the mirror CA's revocation list from.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use hyper::{
    Request, StatusCode,
    body::Incoming,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use rustls::pki_types::UnixTime;
use tokio::net::TcpListener;
use url::{Host, Url};

use super::mirror::Mirror;
use crate::{
    acme::responder::Tokens,
    http::{self, Answer},
};

/// Connections at once: an Edge fetches the list once a day.
const CONNECTIONS: usize = 64;

/// Listens where a `crl_url` points: at its address if this host has it, otherwise (a name, or an address that comes to this host by
/// translation) at its port on every address.
///
/// # Errors
/// The port is taken, or not allowed.
pub async fn listen(crl_url: &str) -> io::Result<TcpListener> {
    let url =
        Url::parse(crl_url).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let port = url.port_or_known_default().unwrap_or(80);
    let address: Option<IpAddr> = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        Some(Host::Domain(_)) | None => None,
    };
    if let Some(address) = address {
        match TcpListener::bind(SocketAddr::new(address, port)).await {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            bound => return bound,
        }
    }
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        // A kernel without IPv6.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
            ) =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        bound => bound,
    }
}

/// Serves the list of the CA that `mirror` returns, at the path of its `crl_url`, until it is dropped.
///
/// `mirror` is asked for each request, so that a reload needs no new server unless the URL's port has changed.
pub async fn serve<F>(listener: TcpListener, mirror: F)
where
    F: Fn() -> Option<Arc<Mirror>> + Clone + Send + Sync + 'static,
{
    serve_with(listener, mirror, None).await;
}

/// Likewise, with the tokens of ACME, which an authority asks for at the same port.
pub(crate) async fn serve_with<F>(listener: TcpListener, mirror: F, tokens: Option<Arc<Tokens>>)
where
    F: Fn() -> Option<Arc<Mirror>> + Clone + Send + Sync + 'static,
{
    http::serve(
        listener,
        "the revocation list",
        CONNECTIONS,
        move |request| {
            let (mirror, tokens) = (mirror(), tokens.clone());
            async move {
                match tokens.filter(|tokens| tokens.is_asked_for(&request)) {
                    Some(tokens) => tokens.answer(&request).await,
                    None => answer(&request, mirror.as_deref()),
                }
            }
        },
    )
    .await;
}

fn answer(request: &Request<Incoming>, mirror: Option<&Mirror>) -> Answer {
    let url = mirror.and_then(Mirror::crl_url).map(Url::parse);
    let (Some(mirror), Some(Ok(url))) = (mirror, url) else {
        return http::plain(StatusCode::NOT_FOUND, "not found\n");
    };
    if let Some(refusal) = http::refusal(request, url.path()) {
        return refusal;
    }
    match mirror.revocation_list(UnixTime::now()) {
        Ok(list) => {
            // RFC 5280 section 4.2.1.13.
            let headers = [
                (CONTENT_TYPE, "application/pkix-crl"),
                (CACHE_CONTROL, "max-age=3600"),
            ];
            http::page(list, &headers)
        }
        Err(error) => {
            tracing::error!(%error, "the revocation list could not be made");
            http::plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the list could not be made\n",
            )
        }
    }
}
