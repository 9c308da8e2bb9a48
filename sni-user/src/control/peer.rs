//! A client's end of the conversation: its request in, lines out.

use std::{io, time::Duration};

use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::protocol::{
    Call, MAX_ANSWER, MAX_REQUEST, Outcome, Refusal, RefusalKind, Reply, VERSION, Versioned,
};

/// How long a client may take to send its request, and to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connected client.
pub(super) struct Peer {
    requests: Requests,
    lines: Lines,
}

/// What comes from it.
pub(super) struct Requests(BufReader<OwnedReadHalf>);

/// What goes to it.
pub(super) struct Lines(OwnedWriteHalf);

/// What came instead of a request that can be carried out.
pub(super) enum NoRequest {
    /// Nothing: the client has closed, or has been too slow.
    Gone,
    /// Something that is answered with this.
    Refused(Refusal),
}

impl Peer {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            requests: Requests(BufReader::new(reader)),
            lines: Lines(writer),
        }
    }

    /// Waits for the request.
    pub(super) async fn request(&mut self) -> Result<Call, NoRequest> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.requests.0).take(MAX_REQUEST as u64);
        match timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(_)) if line.ends_with(b"\n") => parse(&line).map_err(NoRequest::Refused),
            Ok(Ok(MAX_REQUEST)) => Err(NoRequest::Refused(Refusal::new(
                RefusalKind::Malformed,
                format!("a request is one line of at most {MAX_REQUEST} bytes"),
            ))),
            Ok(Ok(_) | Err(_)) | Err(_) => Err(NoRequest::Gone),
        }
    }

    /// Answers the request.
    pub(super) async fn answer<T: Serialize>(
        &mut self,
        outcome: Result<T, Refusal>,
    ) -> io::Result<()> {
        let reply = Reply {
            version: VERSION,
            outcome: match outcome {
                Ok(answer) => Outcome::Answer(answer),
                Err(refusal) => Outcome::Error(refusal),
            },
        };
        timeout(PATIENCE, self.lines.send(&reply)).await?
    }

    /// Both directions, to be waited for at once.
    pub(super) fn split(&mut self) -> (&mut Requests, &mut Lines) {
        (&mut self.requests, &mut self.lines)
    }
}

impl Requests {
    /// Waits until the client has closed. What it sends after its request has no meaning.
    pub(super) async fn closed(&mut self) {
        loop {
            match self.0.fill_buf().await {
                Ok([]) | Err(_) => return,
                Ok(read) => {
                    let length = read.len();
                    self.0.consume(length);
                }
            }
        }
    }
}

impl Lines {
    /// Sends a line, for as long as it takes.
    pub(super) async fn send(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        if bytes.len() > MAX_ANSWER {
            return Err(io::Error::other("the line is too long for the protocol"));
        }
        self.0.write_all(&bytes).await
    }
}

/// The version first: what a request looks like is another version's own affair.
fn parse(line: &[u8]) -> Result<Call, Refusal> {
    let malformed = |error: serde_json::Error| {
        let message = format!("the request can't be understood: {error}");
        Refusal::new(RefusalKind::Malformed, message)
    };
    let Versioned { version } = serde_json::from_slice(line).map_err(malformed)?;
    if version != VERSION {
        return Err(Refusal::version(version));
    }
    serde_json::from_slice(line).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::{super::protocol::Request, *};
    use serde_json::json;

    fn parsed(line: serde_json::Value) -> Result<Request, Refusal> {
        parse(line.to_string().as_bytes()).map(|call| call.request)
    }

    #[test]
    fn requests_are_what_the_documentation_says() {
        let cases = [
            (json!({"version": 1, "request": "status"}), Request::Status),
            (
                json!({"version": 1, "request": "route-add", "name": "sip.fabrikam.example", "pool": "edges-a"}),
                Request::RouteAdd {
                    name: "sip.fabrikam.example".into(),
                    pool: "edges-a".into(),
                },
            ),
            (
                json!({"version": 1, "request": "watch"}),
                Request::Watch {
                    filter: Default::default(),
                },
            ),
        ];
        for (line, request) in cases {
            assert_eq!(parsed(line).expect("a request"), request);
        }
    }

    #[test]
    fn another_version_is_told_so_whatever_it_asks() {
        let refused = parsed(json!({"version": 2, "ask": {"for": "the moon"}})).unwrap_err();
        assert_eq!(refused.kind, RefusalKind::Version);
        assert!(
            refused.message.contains("speaks version 1")
                && refused.message.contains("client version 2"),
            "{refused}"
        );
    }

    #[test]
    fn nonsense_is_malformed() {
        for line in [
            "",
            "{",
            "[]",
            "{\"version\":1}",
            "{\"version\":1,\"request\":\"dance\"}",
        ] {
            let refused = parse(line.as_bytes()).unwrap_err();
            assert_eq!(refused.kind, RefusalKind::Malformed, "{line}");
        }
    }
}
