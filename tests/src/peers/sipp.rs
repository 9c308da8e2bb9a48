//! sipp: SIP requests from a program that knows nothing of this project.
//!
//! Debian builds it without TLS, so it talks UDP to a SIP server of its own side, as a user's client does; see
//! [`KamailioPartner`](super::KamailioPartner).

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::sip::{self, Method};
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::process::output_within;

/// Sends one request from a user of `from_domain` to one of `to_domain` through the server at `proxy`, and returns the
/// status of the final answer.
///
/// # Errors
/// No answer comes in time.
pub fn sipp(
    lab: &Lab,
    namespace: &Namespace,
    proxy: SocketAddr,
    method: Method,
    (from_domain, to_domain): (&str, &str),
    timeout: Duration,
) -> Result<u16> {
    // Whatever the answer is, it ends the call and is in the log of messages.
    let scenario = scenario(method, from_domain, to_domain);
    let stem = format!("sipp-{}-{from_domain}-{to_domain}", method.name());
    let scenario = lab.write_file(&format!("{stem}.xml"), &scenario)?;
    let messages = lab.dir().join(format!("{stem}.messages"));
    let mut command = namespace.command("sipp");
    command
        .arg(proxy.to_string())
        // An answer other than the scenario's ends the call, without a BYE.
        .args(["-default_behaviors", "abortunexp"])
        .args(["-m", "1", "-nostdin", "-i", "127.0.0.1", "-sf"])
        .arg(scenario)
        .args(["-trace_msg", "-message_file"])
        .arg(&messages)
        .args(["-recv_timeout", &timeout.as_millis().to_string()])
        // Where it would write further files.
        .current_dir(lab.dir())
        .env("TERM", "dumb")
        .stdin(Stdio::null());
    let output = output_within(&mut command, timeout + Duration::from_secs(5))?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    let messages = fs::read_to_string(&messages)
        .with_context(|| format!("sipp wrote no messages and said {}", said()))?;
    let last = messages.lines().rfind(|line| line.starts_with("SIP/2.0 "));
    let last = last.with_context(|| format!("no answer to sipp, which said {}", said()))?;
    let status = sip::status(last)?;
    ensure!(status >= 200, "no final answer to sipp: {messages}");
    Ok(status)
}

fn scenario(method: Method, from: &str, to: &str) -> String {
    let (name, body) = (method.name(), method.body());
    let content = if body.is_empty() {
        ""
    } else {
        "Content-Type: text/plain\n"
    };
    format!(
        r#"<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="one request">
<send><![CDATA[
{name} sip:bob@{to} SIP/2.0
Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]
Max-Forwards: 70
From: <sip:alice@{from}>;tag=[call_number]
To: <sip:bob@{to}>
Call-ID: [call_id]
CSeq: 1 {name}
{content}Content-Length: [len]

{body}
]]></send>
<recv response="100" optional="true"></recv>
<recv response="200"></recv>
</scenario>
"#
    )
}
