//! What holds for any line of the control socket, read by either side. The fuzz target `control` runs this very file.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    lines::{self, NoReply},
    protocol::{
        AgentStatus, Connections, DomainChanged, MAX_ANSWER, MAX_REQUEST, Noted, Notice, Outcome,
        RefusalKind, Reloaded, Reply, Request, VERSION, WatchingNow,
    },
};

/// Panics if a line is read as something that is not the same when it is written again, or if the answer to it can't be read.
pub(crate) fn check(line: &[u8]) {
    if line.len() <= MAX_REQUEST {
        check_call(line);
    }
    check_reply::<AgentStatus>(line);
    check_reply::<Connections>(line);
    check_reply::<DomainChanged>(line);
    check_reply::<Reloaded>(line);
    check_reply::<WatchingNow>(line);
    check_reply::<Noted>(line);
    if let Ok(notice) = serde_json::from_slice::<Notice>(line) {
        assert_eq!(again(&notice), notice);
    }
}

/// As the agent reads it, and what it answers.
fn check_call(line: &[u8]) {
    match lines::call(line) {
        Ok(call) => {
            assert_eq!(again(&call), call);
            assert!(
                !call.request.command().is_empty() || matches!(call.request, Request::Note { .. })
            );
            if let Request::Watch { filter } = &call.request {
                // A pattern that is none is refused; it must not be the agent's end.
                let _ = filter.compile();
            }
        }
        Err(refusal) => {
            let kinds = [RefusalKind::Malformed, RefusalKind::Version];
            assert!(kinds.contains(&refusal.kind) && !refusal.message.is_empty());
            let answer = written(&Reply::<()> {
                version: VERSION,
                outcome: Outcome::Error(refusal.clone()),
            });
            assert!(answer.len() < MAX_ANSWER, "{} bytes", answer.len());
            assert!(
                !answer.contains(&b'\n'),
                "a line that ends before its newline"
            );
            match lines::reply::<AgentStatus>(&answer) {
                Err(NoReply::Refused(read)) => assert_eq!(read, refusal),
                other => panic!("{other:?} of {refusal:?}"),
            }
        }
    }
}

/// As a client reads it that waits for this answer.
fn check_reply<T: Debug + PartialEq + Serialize + DeserializeOwned>(line: &[u8]) {
    let outcome = match lines::reply::<T>(line) {
        Ok(answer) => Outcome::Answer(answer),
        Err(NoReply::Refused(refusal)) => Outcome::Error(refusal),
        Err(NoReply::Version(version)) => return assert_ne!(version, VERSION),
        Err(NoReply::Malformed(error)) => return assert!(!error.to_string().is_empty()),
    };
    let reply = Reply {
        version: VERSION,
        outcome,
    };
    assert_eq!(again(&reply), reply);
}

fn written(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("what can be read can be written")
}

fn again<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_slice(&written(value)).expect("what is written can be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpus() {
        crate::corpus::each("control", check);
    }
}
