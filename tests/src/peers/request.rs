//! What a partner asks of an Edge: the first bytes of each connection between the two Rust peers.

use std::io::{self, ErrorKind};
use std::time::Duration;

/// The length of an encoded request.
pub(crate) const REQUEST_LENGTH: usize = 32;

/// What an Edge answers at once to a request behind another program's hello, unless that asks for a reset: a client of TLS waits for
/// the server's hello before it says more.
pub type Greeting = [u8; 5];

/// That of an Edge that need not be told from another one.
pub(crate) const GREETING: Greeting = *b"hello";

/// How long an end that receives late does not receive: some probes of a zero window, which come after 0.2, 0.4 and 0.8 s.
pub const PAUSE: Duration = Duration::from_millis(2500);

/// What the Edge shall do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send and receive at once, then answer with the hash of what came.
    Exchange,
    /// The same, but nothing is received for [`PAUSE`]: the partner meets a window of zero.
    ExchangeLate,
    /// Send back whatever comes.
    Echo,
    /// Receive until the partner half-closes, then answer late.
    AnswerAfterEnd,
    /// Send, half-close, and go on receiving until the partner ends.
    EndThenReceive,
    /// Reset the connection.
    Reset,
    /// Say which address and port the connection comes from.
    WhoAmI,
    /// Receive zeros up to a byte that is none, then say how many bytes it were: 8 bytes, big-endian. Not up to the partner's half-close, which
    /// not every proxy keeps.
    Count,
}

/// An action with its amounts, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub action: Action,
    /// How much the Edge sends.
    pub send: u64,
    /// How much the Edge receives, where the action does not go on to the end.
    pub receive: u64,
    /// Seed of the Edge's bytes; the partner's have the next one.
    pub seed: u64,
}

const ACTIONS: [Action; 8] = [
    Action::Exchange,
    Action::Echo,
    Action::AnswerAfterEnd,
    Action::EndThenReceive,
    Action::Reset,
    Action::WhoAmI,
    Action::Count,
    Action::ExchangeLate,
];

impl Request {
    /// Action and three amounts, 8 bytes each, big-endian.
    pub(crate) fn encode(&self) -> [u8; REQUEST_LENGTH] {
        let action = ACTIONS.iter().position(|action| *action == self.action);
        let action = action.expect("every action is in the table") as u64;
        let mut bytes = [0; REQUEST_LENGTH];
        for (field, value) in
            bytes
                .chunks_exact_mut(8)
                .zip([action, self.send, self.receive, self.seed])
        {
            field.copy_from_slice(&value.to_be_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; REQUEST_LENGTH]) -> io::Result<Self> {
        let field = |n: usize| {
            let bytes = bytes[n * 8..][..8].try_into().expect("eight bytes");
            u64::from_be_bytes(bytes)
        };
        let action = usize::try_from(field(0)).ok().and_then(|n| ACTIONS.get(n));
        Ok(Self {
            action: *action.ok_or_else(|| {
                io::Error::new(ErrorKind::InvalidData, format!("no request: {bytes:02x?}"))
            })?,
            send: field(1),
            receive: field(2),
            seed: field(3),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        for action in ACTIONS {
            let request = Request {
                action,
                send: 1 << 40,
                receive: 2,
                seed: 3,
            };
            assert_eq!(
                Request::decode(&request.encode()).expect("a request"),
                request
            );
        }
        assert!(Request::decode(&[0xff; REQUEST_LENGTH]).is_err());
    }
}
