//! GnuTLS's client: a partner of another make than OpenSSL.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::TlsVersion;
use super::presented::Presented;
use crate::deadline::Deadline;
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::pki::{Identity, Pki};

/// What the client sends; `s_server -rev` answers with it in reverse.
const PING: &str = "snigate";
const PONG: &str = "etagins";

/// `gnutls-cli`: a partner that presents its certificate and verifies the Edge's.
#[derive(Clone, Debug)]
pub struct GnutlsClient<'a> {
    /// Where it runs.
    pub namespace: &'a Namespace,
    /// The name that the certificate must carry.
    pub name: &'a str,
    /// Whether it asks for that name. GnuTLS verifies one in any case.
    pub sends_name: bool,
    /// The certificate it presents.
    pub identity: Option<&'a Identity>,
    /// The authority it trusts.
    pub roots: &'a Path,
    /// The version it insists on; `None` offers all.
    pub version: Option<TlsVersion>,
}

/// What the client learned from a connection that carried data both ways.
#[derive(Clone, Debug)]
pub struct GnutlsSession {
    /// The version spoken.
    pub version: TlsVersion,
    /// The subject of the server's certificate.
    pub subject: String,
    /// The DNS names of the server's certificate.
    pub names: Vec<String>,
    /// Everything the client printed.
    pub output: String,
}

impl<'a> GnutlsClient<'a> {
    /// A client in `namespace` with the identity of a partner, asking for `name`.
    #[must_use]
    pub fn new(
        namespace: &'a Namespace,
        name: &'a str,
        identity: &'a Identity,
        pki: &'a Pki,
    ) -> Self {
        Self {
            namespace,
            name,
            sends_name: true,
            identity: Some(identity),
            roots: pki.roots(),
            version: None,
        }
    }

    /// The same client, insisting on `version`.
    #[must_use]
    pub fn version(self, version: TlsVersion) -> Self {
        Self {
            version: Some(version),
            ..self
        }
    }

    /// Connects to a [`OpensslServer`](super::OpensslServer), has one line echoed in reverse, and disconnects.
    ///
    /// # Errors
    /// The server refuses, a certificate is not accepted on either side, or `timeout` passes; the message quotes what the
    /// client printed, with the name of an alert.
    pub fn connect(
        &self,
        lab: &Lab,
        address: SocketAddr,
        timeout: Duration,
    ) -> Result<GnutlsSession> {
        let mut command = self.namespace.command("gnutls-cli");
        command
            .arg(address.ip().to_string())
            .args(["--port", &address.port().to_string(), "--print-cert"])
            .args(["--verify-hostname", self.name, "--x509cafile"])
            .arg(self.roots);
        if self.sends_name {
            command.args(["--sni-hostname", self.name]);
        } else {
            command.arg("--disable-sni");
        }
        if let Some(identity) = self.identity {
            command.arg("--x509certfile").arg(&identity.chain);
            command.arg("--x509keyfile").arg(&identity.key);
        }
        if let Some(version) = self.version {
            command.arg(format!(
                "--priority=NORMAL:-VERS-ALL:+VERS-{}",
                name(version)
            ));
        }
        let deadline = Deadline::after(timeout);
        let mut client = lab.spawn("gnutls-cli", command)?;
        let mut stdin = client.stdin().context("gnutls-cli has no standard input")?;
        client.wait_for_line("- Handshake was completed", deadline.remaining())?;
        // In TLS 1.3 the client is done before the server has seen its certificate: only data shows acceptance. A client
        // that has ended by then takes no line; why is in its output, which the wait quotes.
        let sent = writeln!(stdin, "{PING}");
        client.wait_for_line(PONG, deadline.remaining())?;
        sent.context("sending a line")?;
        drop(stdin);
        let status = client.wait_for_exit(deadline.remaining())?;
        let output = client.stdout()? + &client.stderr()?;
        ensure!(
            status.success(),
            "gnutls-cli ended with {status}:\n{output}"
        );
        parse(&output)
    }
}

/// GnuTLS's name of it, without the punctuation of OpenSSL's.
fn name(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V12 => "TLS1.2",
        TlsVersion::V13 => "TLS1.3",
    }
}

fn parse(output: &str) -> Result<GnutlsSession> {
    // "- Description: (TLS1.3-X.509)-(ECDHE-SECP256R1)-(RSA-PSS-RSAE-SHA256)-(AES-256-GCM)"
    let summary = output
        .lines()
        .find_map(|line| line.strip_prefix("- Description: ("))
        .with_context(|| format!("no description from gnutls-cli:\n{output}"))?;
    let version = TlsVersion::BOTH
        .into_iter()
        .find(|&version| summary.starts_with(name(version)))
        .ok_or_else(|| anyhow!("another version than the two known: {summary}"))?;
    let presented = Presented::find(output)?;
    Ok(GnutlsSession {
        version,
        subject: presented.subject,
        names: presented.names,
        output: output.to_owned(),
    })
}
