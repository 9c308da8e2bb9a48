//! The HTTP client that the authority is asked with: bounded in time and size, and with an ear for `Retry-After`.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use http_body_util::{BodyExt as _, Limited};
use hyper::{
    Request,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HyperClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::ClientConfig;
use tokio::time::timeout;

/// For one request and its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// A chain has some kilobytes.
const LARGEST: usize = 1 << 20;
const CONNECTIONS_KEPT: usize = 4;

/// The client of an account.
pub(super) struct Client {
    client: HyperClient<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    advice: Arc<Advice>,
}

/// When the authority has asked to come again, with a refusal.
#[derive(Debug, Default)]
pub(super) struct Advice(Mutex<Option<SystemTime>>);

impl Advice {
    /// How long from now, if it has; and forgets it.
    pub(super) fn take(&self) -> Option<Duration> {
        let mut advice = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        advice.take()?.duration_since(SystemTime::now()).ok()
    }

    fn hear(&self, headers: &HeaderMap) {
        if let Some(until) = retry_after(headers, SystemTime::now()) {
            let mut advice = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *advice = (*advice).max(Some(until));
        }
    }
}

impl Client {
    pub(super) fn new(tls: ClientConfig, advice: Arc<Advice>) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .build();
        let client = HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(PATIENCE)
            .pool_max_idle_per_host(CONNECTIONS_KEPT)
            .build(connector);
        Self { client, advice }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Client {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let sent = self.client.request(request);
        let advice = Arc::clone(&self.advice);
        Box::pin(async move {
            let answered = timeout(PATIENCE, async {
                let (parts, body) = sent.await.map_err(|e| Error::Other(e.into()))?.into_parts();
                let body = Limited::new(body, LARGEST).collect().await;
                Ok((parts, body.map_err(Error::Other)?.to_bytes()))
            });
            let (parts, body) = answered.await.unwrap_or_else(|_| {
                Err(other(format!("{host} has not answered in {PATIENCE:?}")))
            })?;
            if !parts.status.is_success() {
                advice.hear(&parts.headers);
                // A load balancer's page, in front of an authority that is down.
                if !is_problem(&parts.headers) {
                    return Err(other(format!("{host} answers {}", parts.status)));
                }
            }
            Ok(BytesResponse {
                parts,
                body: Box::new(body),
            })
        })
    }
}

fn other(text: String) -> Error {
    Error::Other(text.into())
}

fn is_problem(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    kind.is_some_and(|kind| kind.contains("json"))
}

/// RFC 9110 section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<SystemTime> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => now.checked_add(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &'static str) -> Option<u64> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, hyper::header::HeaderValue::from_static(text));
        let until = retry_after(&headers, now)?;
        Some(until.duration_since(now).map_or(0, |left| left.as_secs()))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(after("120"), Some(120));
        assert_eq!(after(" 7 "), Some(7));
        assert_eq!(after("Sun, 09 Sep 2001 02:46:40 GMT"), Some(3600));
        assert_eq!(after("soon"), None);
        assert_eq!(after("-5"), None);
        assert_eq!(after("99999999999999999999999"), None);
    }

    #[test]
    fn the_longest_advice_counts() {
        let advice = Advice::default();
        assert_eq!(advice.take(), None);
        let hear = |seconds| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, hyper::header::HeaderValue::from(seconds));
            advice.hear(&headers);
        };
        hear(100);
        hear(1000);
        hear(10);
        assert!(advice.take().is_some_and(|left| left.as_secs() > 900));
        assert_eq!(advice.take(), None);
    }
}
