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

use super::{
    lines,
    protocol::{Call, MAX_ANSWER, MAX_REQUEST, Outcome, Refusal, RefusalKind, Reply, VERSION},
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
            Ok(Ok(_)) if line.ends_with(b"\n") => lines::call(&line).map_err(NoRequest::Refused),
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
