//! The command line's side of the control socket.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
};

use super::{
    lines::{self, NoReply},
    protocol::{
        AgentStatus, Call, Connections, DomainChanged, DomainTable, EdgeChanged, EdgeEnded,
        MAX_ANSWER, Noted, Notice, Refusal, Reloaded, Request, RouteAdded, RouteRemoved, VERSION,
        WatchingNow,
    },
    seen::WatchFilter,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no agent answers at {path}: start one with `snigate run`, or name its socket with --control", path = path.display()
    )]
    NoAgent {
        /// The socket.
        path: PathBuf,
    },
    /// The socket may not be opened.
    #[error(
        "the control socket {path} may not be opened by this user: run it with sudo, or become a member of the group snigate", path = path.display()
    )]
    NotAllowed {
        /// The socket.
        path: PathBuf,
    },
    /// The agent speaks another version.
    #[error(
        "the agent at {path} speaks version {version} of the control protocol and this client version {VERSION}: use the `snigate` of the version that runs", path = path.display()
    )]
    Version {
        /// The socket.
        path: PathBuf,
        /// The agent's version.
        version: u32,
    },
    /// The agent says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The agent ended, or is no agent.
    #[error("the agent at {path} gave no answer: {reason}", path = path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What came instead.
        reason: String,
    },
}

/// A connection to an agent, good for one request.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to an agent's socket.
    ///
    /// # Errors
    /// When nobody listens there, or this user may not connect.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let failed = |error: io::Error| {
            let path = path.to_owned();
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NoAgent { path }
                }
                io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path },
                _ => ClientError::NoAnswer {
                    path,
                    reason: error.to_string(),
                },
            }
        };
        let stream = UnixStream::connect(path).await.map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            stream: BufReader::new(stream),
        })
    }

    /// Asks for the agent's facts.
    ///
    /// # Errors
    /// When the agent refuses or does not answer; so it is with everything else that can be asked.
    pub async fn status(mut self) -> Result<AgentStatus, ClientError> {
        self.ask(Request::Status).await
    }

    /// Asks for the connections that the agent carries itself, all or those of one client.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn connections(mut self, client: Option<IpAddr>) -> Result<Connections, ClientError> {
        self.ask(Request::Connections { client }).await
    }

    /// Asks to load everything anew.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn reload(mut self) -> Result<Reloaded, ClientError> {
        self.ask(Request::Reload).await
    }

    /// Asks to route a name to a pool.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn add_route(mut self, name: &str, pool: &str) -> Result<RouteAdded, ClientError> {
        let (name, pool) = (name.to_owned(), pool.to_owned());
        self.ask(Request::RouteAdd { name, pool }).await
    }

    /// Asks to forget such a route.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn remove_route(mut self, name: &str) -> Result<RouteRemoved, ClientError> {
        let name = name.to_owned();
        self.ask(Request::RouteRm { name }).await
    }

    /// Asks to give an Edge no new connections.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn drain_edge(mut self, name: &str) -> Result<EdgeChanged, ClientError> {
        let name = name.to_owned();
        self.ask(Request::EdgeDrain { name }).await
    }

    /// Asks to let the checks of an Edge decide again.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn enable_edge(mut self, name: &str) -> Result<EdgeChanged, ClientError> {
        let name = name.to_owned();
        self.ask(Request::EdgeEnable { name }).await
    }

    /// Asks to end the connections to an Edge that the agent carries itself.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn end_edge(mut self, name: &str) -> Result<EdgeEnded, ClientError> {
        let name = name.to_owned();
        self.ask(Request::EdgeEnd { name }).await
    }

    /// Asks to define a domain.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn add_domain(mut self, domain: DomainTable) -> Result<DomainChanged, ClientError> {
        self.ask(Request::DomainAdd { domain }).await
    }

    /// Asks to remove a domain.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn remove_domain(mut self, sip_domain: &str) -> Result<DomainChanged, ClientError> {
        let sip_domain = sip_domain.to_owned();
        self.ask(Request::DomainRm { sip_domain }).await
    }

    /// Asks to have in the log what a command has done without the agent.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn note(mut self, command: &str, outcome: &str) -> Result<(), ClientError> {
        let (command, outcome) = (command.to_owned(), outcome.to_owned());
        let _: Noted = self.ask(Request::Note { command, outcome }).await?;
        Ok(())
    }

    /// Asks for every ClientHello from now on.
    ///
    /// # Errors
    /// As for [`Self::status`].
    pub async fn watch(mut self, filter: WatchFilter) -> Result<Watching, ClientError> {
        let _: WatchingNow = self.ask(Request::Watch { filter }).await?;
        Ok(Watching { client: self })
    }

    async fn ask<T: DeserializeOwned>(&mut self, request: Request) -> Result<T, ClientError> {
        let call = Call {
            version: VERSION,
            login: login(),
            request,
        };
        let mut line = serde_json::to_vec(&call).map_err(|error| self.no_answer(error))?;
        line.push(b'\n');
        // An agent that turns a client away has answered before it was asked, and may have closed.
        let sent = self.stream.get_mut().write_all(&line).await;
        let Some(line) = self.line().await? else {
            return Err(self.no_answer(match sent {
                Ok(()) => "it has closed the connection".to_owned(),
                Err(error) => error.to_string(),
            }));
        };
        lines::reply(&line).map_err(|error| match error {
            NoReply::Version(version) => ClientError::Version {
                path: self.path.clone(),
                version,
            },
            NoReply::Refused(refusal) => refusal.into(),
            NoReply::Malformed(error) => self.no_answer(error),
        })
    }

    /// The next line; nothing when the agent has closed.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(MAX_ANSWER as u64);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(_) if line.ends_with(b"\n") => Ok(Some(line)),
            Ok(MAX_ANSWER) => Err(self.no_answer("its line is too long")),
            Ok(_) => Ok(None),
            // An agent that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(self.no_answer(error)),
        }
    }

    fn no_answer(&self, reason: impl ToString) -> ClientError {
        ClientError::NoAnswer {
            path: self.path.clone(),
            reason: reason.to_string(),
        }
    }
}

/// Whose session this is (proc_pid_loginuid(5)); `None` where the kernel does not keep that, or nobody has logged in. The agent can't look: its unit hides
/// other processes from it.
fn login() -> Option<u32> {
    const NOBODY: u32 = u32::MAX;
    let text = fs::read_to_string("/proc/self/loginuid").ok()?;
    text.trim().parse().ok().filter(|uid| *uid != NOBODY)
}

/// A stream of what an agent sees.
#[derive(Debug)]
pub struct Watching {
    client: Client,
}

impl Watching {
    /// The next notice; nothing when the agent has ended.
    ///
    /// # Errors
    /// When what comes is none.
    pub async fn next(&mut self) -> Result<Option<Notice>, ClientError> {
        let Some(line) = self.client.line().await? else {
            return Ok(None);
        };
        let notice = serde_json::from_slice(&line).map_err(|error| self.client.no_answer(error))?;
        Ok(Some(notice))
    }
}
