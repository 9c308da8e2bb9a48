//! The web server that Edges fetch the mirror CA's revocation list from.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::UnixTime;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use url::{Host, Url};

use super::mirror::Mirror;

/// Connections at once: an Edge fetches the list once a day, and whoever keeps a connection open is told to go before long.
const CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

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
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Closed by nobody.
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for the revocation list could not be accepted");
                // Out of descriptors, most likely: some time for others to end.
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let mirror = mirror.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, mirror().as_deref());
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
                tracing::debug!(%error, "a request for the revocation list");
            }
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, mirror: Option<&Mirror>) -> Response<Full<Bytes>> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response
    };
    let url = mirror.and_then(Mirror::crl_url).map(Url::parse);
    let (Some(mirror), Some(Ok(url))) = (mirror, url) else {
        return plain(StatusCode::NOT_FOUND, "not found\n");
    };
    if request.uri().path() != url.path() {
        return plain(StatusCode::NOT_FOUND, "not found\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let methods = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, methods);
        return response;
    }
    match mirror.revocation_list(UnixTime::now()) {
        Ok(list) => {
            let mut response = Response::new(Full::new(list));
            let headers = response.headers_mut();
            // RFC 5280 section 4.2.1.13; hyper leaves the body of an answer to HEAD out.
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static("application/pkix-crl"),
            );
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
            response
        }
        Err(error) => {
            tracing::error!(%error, "the revocation list could not be made");
            plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the list could not be made\n",
            )
        }
    }
}
