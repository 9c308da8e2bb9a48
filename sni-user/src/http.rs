//! The web server of the little that the agent serves by HTTP: plain, read only, one page.

use std::{convert::Infallible, mem, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait when the kernel refuses: out of descriptors, most likely, and others will end.
const REFUSED: Duration = Duration::from_millis(100);

/// What is sent back.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Answers requests, one on each connection, until it is dropped. `what` is served, in words for the log; to so many `connections` at once, and
/// further ones wait.
pub(crate) async fn serve<F, A>(
    listener: TcpListener,
    what: &'static str,
    connections: usize,
    answer: F,
) where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(connections));
    let mut open = JoinSet::new();
    let mut failing = false;
    loop {
        // Closed by nobody.
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Once, however long it lasts.
                if !mem::replace(&mut failing, true) {
                    tracing::warn!(%error, what, "a connection could not be accepted");
                }
                sleep(REFUSED).await;
                continue;
            }
        };
        failing = false;
        while open.try_join_next().is_some() {}
        let answer = answer.clone();
        open.spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
                tracing::debug!(%error, what, "a request");
            }
            drop(permit);
        });
    }
}

/// What a request is answered with that does not ask for this path, or does not only read.
pub(crate) fn refusal(request: &Request<Incoming>, path: &str) -> Option<Answer> {
    if request.uri().path() != path {
        return Some(plain(StatusCode::NOT_FOUND, "not found\n"));
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    let methods = HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(ALLOW, methods);
    Some(response)
}

/// A sentence.
pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

/// A page. hyper leaves the body of an answer to HEAD out.
pub(crate) fn page(body: Bytes, headers: &[(hyper::header::HeaderName, &'static str)]) -> Answer {
    let mut response = Response::new(Full::new(body));
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
