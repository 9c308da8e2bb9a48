//! OpenSSL's own server and client: peers that know nothing of this project.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::TlsVersion;
use super::presented::Presented;
use crate::deadline::Deadline;
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::pki::{Identity, Pki};
use crate::process::Process;

const SERVER_START: Duration = Duration::from_secs(10);
/// What the client sends; `s_server -rev` answers with it in reverse.
const PING: &str = "snigate";
const PONG: &str = "etagins";

/// `openssl s_server`: an Edge that demands a client certificate of its authority and answers every line reversed.
///
/// It serves one connection after the other; what needs many at once takes the Rust peer.
#[derive(Debug)]
pub struct OpensslServer {
    /// The running server; its output names every connection.
    pub process: Process,
}

impl OpensslServer {
    /// Starts it as `name` on `port` of every address of `namespace` and waits until it listens.
    ///
    /// # Errors
    /// It does not come up; the message quotes its output.
    pub fn start(
        lab: &Lab,
        name: &str,
        namespace: &Namespace,
        port: u16,
        identity: &Identity,
        pki: &Pki,
    ) -> Result<Self> {
        Self::start_trusting(lab, name, namespace, port, identity, pki.roots())
    }

    /// Likewise, with the file of an authority that clients must be of.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn start_trusting(
        lab: &Lab,
        name: &str,
        namespace: &Namespace,
        port: u16,
        identity: &Identity,
        clients: &Path,
    ) -> Result<Self> {
        let mut command = namespace.command("openssl");
        command
            .args(["s_server", "-rev", "-accept", &port.to_string()])
            .arg("-cert")
            .arg(&identity.chain)
            .arg("-key")
            .arg(&identity.key)
            .arg("-CAfile")
            .arg(clients)
            .args(["-Verify", "3", "-verify_return_error"]);
        let mut process = lab.spawn(name, command)?;
        process.wait_for_listener(namespace, port, SERVER_START)?;
        Ok(Self { process })
    }
}

/// `openssl s_client`: a partner that presents its certificate and verifies the Edge's.
#[derive(Clone, Debug)]
pub struct OpensslClient<'a> {
    /// Where it runs.
    pub namespace: &'a Namespace,
    /// The name it asks for, and that the certificate must carry; `None` sends no server name.
    pub server_name: Option<&'a str>,
    /// The certificate it presents.
    pub identity: Option<&'a Identity>,
    /// The authority it trusts.
    pub roots: &'a Path,
    /// The version it insists on; `None` offers all.
    pub version: Option<TlsVersion>,
    /// The address it connects from; `None` leaves it to the kernel.
    pub source: Option<IpAddr>,
    /// Further arguments of `s_client`.
    pub options: Vec<&'a str>,
}

/// What a client learned from a connection that carried data both ways.
#[derive(Clone, Debug)]
pub struct Session {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: String,
    /// The cipher suite in OpenSSL's words.
    pub cipher: String,
    /// The subject of the server's certificate.
    pub subject: String,
    /// The DNS names of the server's certificate.
    pub names: Vec<String>,
    /// From the start of the program to the end of the handshake. Some milliseconds of it are the program's start.
    pub setup: Duration,
    /// Everything the client printed.
    pub output: String,
}

impl<'a> OpensslClient<'a> {
    /// A client in `namespace` with the identity of a partner, asking for `server_name`.
    #[must_use]
    pub fn new(
        namespace: &'a Namespace,
        server_name: &'a str,
        identity: &'a Identity,
        pki: &'a Pki,
    ) -> Self {
        Self {
            namespace,
            server_name: Some(server_name),
            identity: Some(identity),
            roots: pki.roots(),
            version: None,
            source: None,
            options: Vec::new(),
        }
    }

    /// The same client, with further arguments of `s_client`.
    #[must_use]
    pub fn options(self, options: &[&'a str]) -> Self {
        Self {
            options: options.to_vec(),
            ..self
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

    /// Connects, has one line echoed in reverse, and disconnects.
    ///
    /// # Errors
    /// The server refuses, a certificate is not accepted on either side, or `timeout` passes; the message quotes
    /// what the client printed.
    pub fn connect(&self, address: SocketAddr, timeout: Duration) -> Result<Session> {
        self.open(address, timeout)?.finish()
    }

    /// Connects and has one line echoed, and leaves the connection open until [`OpenSession::finish`].
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn open(&self, address: SocketAddr, timeout: Duration) -> Result<OpenSession> {
        let mut command = self.namespace.command("openssl");
        command
            .args(["s_client", "-connect", &address.to_string(), "-CAfile"])
            .arg(self.roots)
            // Verified names only where one is asked for: without it, as a partner with a fixed address would do.
            .args(["-verify", "3", "-verify_return_error"]);
        match self.server_name {
            Some(name) => command.args(["-servername", name, "-verify_hostname", name]),
            None => command.arg("-noservername"),
        };
        if let Some(identity) = self.identity {
            command.arg("-cert").arg(&identity.chain);
            command.arg("-key").arg(&identity.key);
        }
        command.args(self.version.map(option)).args(&self.options);
        if let Some(source) = self.source {
            let bind = SocketAddr::new(source, 0).to_string();
            command.args(["-bind", &bind]);
        }
        let start = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting openssl; if it is missing, `apt-get install openssl`")?;
        let stdin = child
            .stdin
            .take()
            .context("s_client has no standard input")?;
        let lines = lines_of(&mut child)?;
        let mut session = OpenSession {
            child,
            stdin: Some(stdin),
            lines,
            deadline: Deadline::after(timeout),
            start,
            setup: None,
            output: String::new(),
            reports: String::new(),
        };
        session.converse().with_context(|| {
            format!(
                "openssl s_client from {} to {address}",
                self.namespace.name()
            )
        })?;
        Ok(session)
    }
}

/// A connection of [`OpensslClient`] that is still open; dropping it kills the client.
#[derive(Debug)]
pub struct OpenSession {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Line>,
    deadline: Deadline,
    start: Instant,
    setup: Option<Duration>,
    output: String,
    /// The part of it that stood in standard output: the certificate, without what standard error says meanwhile.
    reports: String,
}

impl OpenSession {
    /// Sends a line and waits for it in reverse, within the connection's deadline.
    ///
    /// # Errors
    /// The connection is gone, or the answer does not come.
    pub fn echo(&mut self) -> Result<()> {
        let stdin = self
            .stdin
            .as_mut()
            .context("the connection is being closed")?;
        // A client that has ended takes no line; why it has is in its output, read below.
        let sent = writeln!(stdin, "{PING}");
        // Contained, not equal: s_client prints it through another buffer than its reports and into their midst.
        self.read_until(|line| line.contains(PONG))
            .context("waiting for the echo")?;
        sent.context("sending a line")
    }

    /// Closes the connection and returns what was learned from it.
    ///
    /// # Errors
    /// The client reports a failure or does not end in time.
    pub fn finish(mut self) -> Result<Session> {
        self.stdin = None;
        let status = self
            .deadline
            .poll("openssl s_client to end", || Ok(self.child.try_wait()?))
            .map_err(|error| anyhow!("{error:#}\n{}", self.output))?;
        while let Ok(line) = self.lines.recv_timeout(self.deadline.remaining()) {
            self.note(line);
        }
        if !status.success() {
            bail!("openssl s_client ended with {status}:\n{}", self.output);
        }
        parse(&self.output, &self.reports, self.setup)
    }

    fn converse(&mut self) -> Result<()> {
        // Printed when the handshake is complete; `(NONE)` when it is not.
        self.read_until(|line| line.contains(", Cipher is ") && !line.contains("(NONE)"))
            .context("waiting for the handshake")?;
        self.setup = Some(self.start.elapsed());
        // In TLS 1.3 the client is done before the server has seen its certificate: only data shows acceptance.
        self.echo()
    }

    fn read_until(&mut self, wanted: impl Fn(&str) -> bool) -> Result<()> {
        loop {
            match self.lines.recv_timeout(self.deadline.remaining()) {
                Ok(line) => {
                    let found = wanted(&line.text);
                    self.note(line);
                    if found {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("it did not come in time:\n{}", self.output)
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the client ended:\n{}", self.output),
            }
        }
    }

    fn note(&mut self, line: Line) {
        self.output.push_str(&line.text);
        self.output.push('\n');
        if line.is_report {
            self.reports.push_str(&line.text);
            self.reports.push('\n');
        }
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("openssl s_client could not be ended: {error}");
        }
    }
}

/// A line of the client's.
struct Line {
    /// Whether it stood in standard output.
    is_report: bool,
    text: String,
}

/// Both output streams line by line, so that a wait can have a deadline.
fn lines_of(child: &mut Child) -> Result<Receiver<Line>> {
    let (sender, lines) = channel();
    let stdout: ChildStdout = child
        .stdout
        .take()
        .context("s_client has no standard output")?;
    let stderr = child
        .stderr
        .take()
        .context("s_client has no standard error")?;
    let readers: [Box<dyn std::io::Read + Send>; 2] = [Box::new(stdout), Box::new(stderr)];
    for (reader, is_report) in readers.into_iter().zip([true, false]) {
        let sender = sender.clone();
        thread::spawn(move || {
            for text in BufReader::new(reader).lines().map_while(Result::ok) {
                if sender.send(Line { is_report, text }).is_err() {
                    return;
                }
            }
        });
    }
    Ok(lines)
}

fn option(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V12 => "-tls1_2",
        TlsVersion::V13 => "-tls1_3",
    }
}

fn parse(output: &str, reports: &str, setup: Option<Duration>) -> Result<Session> {
    // "New, TLSv1.3, Cipher is TLS_AES_256_GCM_SHA384"
    let summary = output
        .lines()
        .find(|line| line.contains(", Cipher is "))
        .context("no summary line from s_client")?;
    let mut parts = summary.split(", ").skip(1);
    let version = parts.next().context("no version in the summary line")?;
    let cipher = parts
        .next()
        .and_then(|part| part.strip_prefix("Cipher is "))
        .context("no cipher in the summary line")?;
    let presented = Presented::find(reports)?;
    Ok(Session {
        version: version.to_owned(),
        cipher: cipher.to_owned(),
        subject: presented.subject,
        names: presented.names,
        setup: setup.context("the handshake was not seen")?,
        output: output.to_owned(),
    })
}
