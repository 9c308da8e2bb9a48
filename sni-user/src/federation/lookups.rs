//! Questions to the DNS, as a partner asks them: no hosts file, no search list.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
    system_conf::read_system_conf,
};

use super::gauge::Gauge;

/// How often a server is asked again.
const ATTEMPTS: usize = 2;
/// Answers that are kept: domains have theirs to themselves, and share what is above them, and hosts of revocation lists.
const CACHE: u64 = 1024;
/// Aliases in a row that are followed, as many as resolvers follow.
const ALIASES: usize = 8;
/// Domains that a server may leave unanswered, before it has answered any, until it counts as silent for all.
const PATIENCE: usize = 16;

/// Who is asked.
pub(super) struct Lookups {
    resolver: TokioResolver,
    /// In words, for people.
    pub(super) asked: String,
    pub(super) queries: Gauge,
    answered: AtomicBool,
    unanswered: AtomicUsize,
}

/// Why there is nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// No such name, or nothing of this type at it.
    Nothing,
    /// No server has answered.
    Silent(String),
    /// A server has answered that it fails.
    Failed(String),
}

/// Where a service is (RFC 2782); names without the trailing dot, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// Empty for the root.
    pub(super) target: String,
}

/// What is found at a name, and where the name is an alias for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found<T> {
    pub(super) values: Vec<T>,
    pub(super) alias: Option<String>,
}

impl<T> Found<T> {
    fn none() -> Self {
        Self {
            values: Vec::new(),
            alias: None,
        }
    }
}

/// A property of a CAA record (RFC 8659 section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Property {
    pub(super) critical: bool,
    pub(super) tag: String,
    pub(super) value: String,
}

impl Lookups {
    /// By this server, or by the system's.
    pub(super) fn new(server: Option<SocketAddr>, timeout: Duration) -> Result<Self, String> {
        let (config, mut options) = match server {
            Some(server) => (only(server), ResolverOpts::default()),
            None => read_system_conf().map_err(|error| format!("/etc/resolv.conf: {error}"))?,
        };
        options.timeout = timeout;
        options.attempts = ATTEMPTS;
        options.cache_size = CACHE;
        options.use_hosts_file = ResolveHosts::Never;
        // Answers that don't fit a datagram share a TCP connection, and there is no reason to turn any away.
        options.max_active_requests = usize::from(u16::MAX);
        let servers: Vec<_> = config
            .name_servers
            .iter()
            .flat_map(|server| {
                server
                    .connections
                    .iter()
                    .map(|it| SocketAddr::new(server.ip, it.port))
            })
            .collect();
        let mut asked: Vec<_> = servers.iter().map(ToString::to_string).collect();
        asked.dedup();
        let resolver = Resolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            resolver,
            asked: asked.join(", "),
            queries: Gauge::default(),
            answered: AtomicBool::new(false),
            unanswered: AtomicUsize::new(0),
        })
    }

    /// Whether it is of no use to go on asking.
    pub(super) fn given_up(&self) -> bool {
        !self.answered.load(Relaxed) && self.unanswered.load(Relaxed) >= PATIENCE
    }

    /// The services of a name, the first to be tried first, with what the name is an alias for.
    pub(super) async fn services(&self, name: &str) -> Result<Found<Service>, NoAnswer> {
        let mut owner = name.to_owned();
        let mut alias = None;
        for _ in 0..ALIASES {
            match self.ask(&owner, RecordType::SRV).await {
                Ok(answer) => return Ok(services_of(&answer, name, alias)),
                // The resolver goes from an alias to the target, and looks for a service there.
                Err(NoAnswer::Nothing) => {}
                Err(reason) => return Err(reason),
            }
            owner = self.alias(&owner).await.ok_or(NoAnswer::Nothing)?;
            alias.get_or_insert_with(|| owner.clone());
        }
        Err(NoAnswer::Failed("aliases lead too far".to_owned()))
    }

    /// The addresses of a host of one family; none is no failure.
    pub(super) async fn addresses(&self, host: &str, v6: bool) -> Result<Found<IpAddr>, NoAnswer> {
        let kind = if v6 { RecordType::AAAA } else { RecordType::A };
        let answer = match self.ask(host, kind).await {
            Err(NoAnswer::Nothing) => return Ok(Found::none()),
            answer => answer?,
        };
        let mut found = gather(&answer, host, RData::ip_addr);
        found.values.sort();
        found.values.dedup();
        Ok(found)
    }

    /// What a name is an alias for.
    pub(super) async fn alias(&self, name: &str) -> Option<String> {
        let answer = self.ask(name, RecordType::CNAME).await.ok()?;
        gather::<()>(&answer, name, |_| None).alias
    }

    /// The CAA properties at a name itself.
    pub(super) async fn caa(&self, name: &str) -> Result<Vec<Property>, NoAnswer> {
        let answer = match self.ask(name, RecordType::CAA).await {
            Err(NoAnswer::Nothing) => return Ok(Vec::new()),
            answer => answer?,
        };
        let found = gather(&answer, name, |data| match data {
            RData::CAA(it) => Some(Property {
                critical: it.issuer_critical,
                tag: it.tag.to_ascii_lowercase(),
                value: String::from_utf8_lossy(&it.value).into_owned(),
            }),
            _ => None,
        });
        Ok(found.values)
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Result<Lookup, NoAnswer> {
        let name = Name::from_ascii(format!("{}.", name.trim_end_matches('.')))
            .map_err(|error| NoAnswer::Failed(format!("{name:?} can't be asked for: {error}")))?;
        let counted = self.queries.enter();
        let answer = self.resolver.lookup(name, kind).await;
        drop(counted);
        let answer = answer.map_err(|error| explain(&error));
        if let Err(NoAnswer::Silent(_)) = answer {
            self.unanswered.fetch_add(1, Relaxed);
        } else {
            self.answered.store(true, Relaxed);
        }
        answer
    }
}

fn services_of(answer: &Lookup, name: &str, alias: Option<String>) -> Found<Service> {
    let mut found = gather(answer, name, |data| match data {
        RData::SRV(it) => Some(Service {
            priority: it.priority,
            weight: it.weight,
            port: it.port,
            target: text(&it.target),
        }),
        _ => None,
    });
    found.values.sort();
    found.alias = alias.or(found.alias);
    found
}

fn only(server: SocketAddr) -> ResolverConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.into());
    ResolverConfig::from_name_servers(vec![server])
}

fn explain(error: &NetError) -> NoAnswer {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => NoAnswer::Nothing,
            code => NoAnswer::Failed(code.to_string()),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => NoAnswer::Failed(code.to_string()),
        NetError::Dns(_) | NetError::Proto(_) | NetError::Truncated => {
            NoAnswer::Failed(error.to_string())
        }
        NetError::Timeout => NoAnswer::Silent("no answer in time".to_owned()),
        other => NoAnswer::Silent(other.to_string()),
    }
}

/// What is wanted of an answer, wherever aliases have led.
fn gather<T>(answer: &Lookup, name: &str, wanted: impl Fn(&RData) -> Option<T>) -> Found<T> {
    let alias = answer
        .answers()
        .iter()
        .find_map(|record| match &record.data {
            RData::CNAME(it) if text(&record.name) == name => Some(text(&it.0)),
            _ => None,
        });
    let values = answer
        .answers()
        .iter()
        .filter_map(|it| wanted(&it.data))
        .collect();
    Found { values, alias }
}

fn text(name: &Name) -> String {
    let text = name.to_ascii().to_ascii_lowercase();
    text.trim_end_matches('.').to_owned()
}
