//! A file by HTTP, as a peer fetches a revocation list: plain, bounded, with few redirects.

use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::handshake,
    header::{HOST, LOCATION},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use url::{Host, Url};

use super::lookups::Lookups;

/// The largest lists of public authorities have some megabytes.
const LARGEST: usize = 10 << 20;
const REDIRECTS: usize = 3;

/// What is behind a URL. An error is the end of a sentence.
pub(super) async fn fetch(lookups: &Lookups, url: &str, within: Duration) -> Result<Bytes, String> {
    let mut url = Url::parse(url).map_err(|error| format!("is no URL: {error}"))?;
    // A transfer of ten megabytes may take longer than a look at a server.
    let patience = within.saturating_mul(4);
    let all = async {
        for _ in 0..=REDIRECTS {
            let answer = get(lookups, &url, within).await?;
            let Some(next) = redirected(&url, &answer)? else {
                return body(answer).await;
            };
            url = next;
        }
        Err(format!("leads to more than {REDIRECTS} other addresses"))
    };
    match timeout(patience, all).await {
        Ok(fetched) => fetched,
        Err(_) => Err(format!("is not there after {} s", patience.as_secs_f32())),
    }
}

fn redirected(url: &Url, answer: &Response<Incoming>) -> Result<Option<Url>, String> {
    if !answer.status().is_redirection() {
        return Ok(None);
    }
    let next = answer
        .headers()
        .get(LOCATION)
        .and_then(|it| it.to_str().ok());
    let next = next.and_then(|next| url.join(next).ok());
    next.map(Some)
        .ok_or_else(|| format!("leads nowhere ({})", answer.status()))
}

async fn body(answer: Response<Incoming>) -> Result<Bytes, String> {
    if answer.status() != StatusCode::OK {
        return Err(format!("is answered with {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| format!("breaks off: {error}"))?;
    Ok(body.to_bytes())
}

async fn get(lookups: &Lookups, url: &Url, within: Duration) -> Result<Response<Incoming>, String> {
    if url.scheme() != "http" {
        return Err(format!(
            "leads to {}, which is not plain HTTP",
            url.scheme()
        ));
    }
    let tcp = timeout(within, connect(lookups, url))
        .await
        .map_err(|_| format!("does not answer within {} s", within.as_secs_f32()))??;
    let broken = |error: hyper::Error| format!("is not answered: {error}");
    let (mut sender, connection) = handshake(TokioIo::new(tcp)).await.map_err(broken)?;
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let request = Request::get(path)
        .header(HOST, host)
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("can't be asked for: {error}"))?;
    // Ends with the answer's body, or with this set, which the caller's timeout drops.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let answer = sender.send_request(request).await.map_err(broken)?;
    driving.detach_all();
    Ok(answer)
}

async fn connect(lookups: &Lookups, url: &Url) -> Result<TcpStream, String> {
    let port = url.port_or_known_default().unwrap_or(80);
    let addresses = match url.host() {
        Some(Host::Ipv4(address)) => vec![address.into()],
        Some(Host::Ipv6(address)) => vec![address.into()],
        Some(Host::Domain(host)) => {
            let mut found = Vec::new();
            for v6 in [false, true] {
                if let Ok(of_family) = lookups.addresses(host, v6).await {
                    found.extend(of_family.values);
                }
            }
            found
        }
        None => Vec::new(),
    };
    let mut failure = "has no address".to_owned();
    for address in addresses {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => failure = format!("can't be connected to: {error}"),
        }
    }
    Err(failure)
}
