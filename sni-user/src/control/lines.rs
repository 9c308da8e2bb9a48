//! What a line of the control socket says: a request to the agent, and its answer to the client.

use serde::de::DeserializeOwned;

use super::protocol::{Call, Outcome, Refusal, RefusalKind, Reply, VERSION, Versioned};

/// What the agent reads in a client's line. The version first: what a request looks like is another version's own affair.
///
/// # Errors
/// What the client is told instead.
pub(super) fn call(line: &[u8]) -> Result<Call, Refusal> {
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

/// Why a line of the agent's is no answer.
#[derive(Debug)]
pub(super) enum NoReply {
    /// It is of this other version.
    Version(u32),
    /// It says why the request is not carried out.
    Refused(Refusal),
    /// It is nothing that an agent writes.
    Malformed(serde_json::Error),
}

/// What a client reads in the agent's first line.
///
/// # Errors
/// The agent refuses, speaks another version, or is no agent.
pub(super) fn reply<T: DeserializeOwned>(line: &[u8]) -> Result<T, NoReply> {
    let Versioned { version } = serde_json::from_slice(line).map_err(NoReply::Malformed)?;
    if version != VERSION {
        return Err(NoReply::Version(version));
    }
    let reply: Reply<T> = serde_json::from_slice(line).map_err(NoReply::Malformed)?;
    match reply.outcome {
        Outcome::Answer(answer) => Ok(answer),
        Outcome::Error(refusal) => Err(NoReply::Refused(refusal)),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::protocol::Request, *};
    use serde_json::json;

    fn parsed(line: serde_json::Value) -> Result<Request, Refusal> {
        call(line.to_string().as_bytes()).map(|call| call.request)
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
            let refused = call(line.as_bytes()).unwrap_err();
            assert_eq!(refused.kind, RefusalKind::Malformed, "{line}");
        }
    }
}
