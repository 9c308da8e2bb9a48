//! One system with its domains, and what a reload of it is.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::observe::{Failures, LOOK};
use crate::Lab;
use crate::addresses::{EDGE_B, SIP_TLS, VIP_1, partner};
use crate::bench::config::{self, PASSED, edge_address};
use crate::bench::cpu::children;
use crate::bench::passed::memory::{Bytes, of_maps, of_processes};
use crate::bench::results::Role;
use crate::deadline::Deadline;
use crate::gateway::{Gateway, Tuning};
use crate::peers::{Make, NameTable, Opener, Proxy, Size, StreamEdge, Way};

/// That of the observers, the one that moves, and one that nobody asks for.
pub(super) const LEAST_DOMAINS: usize = 3;
/// The domain that a reload moves to another Edge.
const MOVING: &str = "moving.example";
/// How long a new connection of the domain that moves waits after the last one.
const PAUSE: Duration = Duration::from_millis(2);
/// A reload is over when there was nothing but new ways for so long. nginx lets its old processes go on beside the new ones for a tenth of a second.
const SETTLED: Duration = Duration::from_millis(250);
/// How long a reload may take, and old processes whose connections have ended.
const LONGEST: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
pub(super) enum System {
    Snigate,
    Proxy(Make),
}

impl System {
    pub(super) const ALL: [Self; 3] = [
        Self::Snigate,
        Self::Proxy(Make::Haproxy),
        Self::Proxy(Make::Nginx),
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Snigate => "snigate",
            Self::Proxy(make) => make.name(),
        }
    }

    pub(super) fn role(self) -> Role {
        match self {
            Self::Snigate => Role::Ours,
            Self::Proxy(_) => Role::Peer,
        }
    }
}

/// How long it took from the command until a domain went to its new Edge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moves {
    /// When the first connection began that went there.
    pub(super) first: Duration,
    /// When the first one began after which none went to the old Edge any more.
    pub(super) all: Duration,
    /// When the command was over, where there is one that waits.
    pub(super) command: Option<Duration>,
}

/// What is in use while connections stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// The proportional set sizes of all processes.
    pub(super) processes: Bytes,
    /// What the kernel charges for the datapath's maps; none where there is no datapath.
    pub(super) maps: Option<Bytes>,
}

enum Running<'lab> {
    Snigate(Gateway<'lab>),
    Proxy {
        proxy: Proxy,
        size: Size,
        /// Processes beside the first one, of one configuration.
        workers: usize,
    },
}

/// A system in its lab.
pub(super) struct Stand<'lab> {
    system: System,
    lab: &'lab Lab,
    domains: usize,
    running: Running<'lab>,
    /// Whether the domain that moves is at edge-b.
    moved: bool,
    _edge_a: StreamEdge,
    /// Has no other hellos than those of the domain that moves.
    edge_b: StreamEdge,
}

impl<'lab> Stand<'lab> {
    /// Starts it, and has it prove that it does what is measured.
    pub(super) fn start(
        lab: &'lab Lab,
        system: System,
        domains: usize,
        workers: usize,
    ) -> Result<Self> {
        for machine in [&lab.partner, &lab.gateway] {
            machine.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
            machine.sysctl("net/ipv4/ip_local_port_range", "10000 65000")?;
            machine.sysctl("net/ipv4/tcp_max_tw_buckets", "1000000")?;
        }
        let edge_a = StreamEdge::start(&lab.edge_a, SIP_TLS)?;
        let edge_b = StreamEdge::start(&lab.edge_b, SIP_TLS)?;
        let mut stand = Self {
            system,
            lab,
            domains,
            running: start(lab, system, domains, workers)?,
            moved: false,
            _edge_a: edge_a,
            edge_b,
        };
        stand
            .prove()
            .with_context(|| format!("{} does not do what is measured", system.name()))?;
        Ok(stand)
    }

    pub(super) fn system(&self) -> System {
        self.system
    }

    /// Connections of the domain that no reload changes.
    pub(super) fn passed(&self) -> Result<Opener<'lab>> {
        self.opener(PASSED)
    }

    fn opener(&self, name: &str) -> Result<Opener<'lab>> {
        let opener = Opener::new(&self.lab.partner, address(), name)?;
        let partners = (0..super::PARTNERS).map(|n| partner(n).v4.into());
        Ok(opener.from_each_of(partners.collect()))
    }

    /// The domain that moves goes there and back, which warms it as well: the Edges' hardware addresses are known. The last domain in the list is known, too.
    fn prove(&mut self) -> Result<()> {
        self.opener(&server_name(&customer(self.domains - LEAST_DOMAINS)))?
            .setups(1, LOOK)?;
        ensure!(self.edge_b.hellos() == 0, "it went to the wrong Edge");
        let failures = Failures::of(self.system);
        for _ in 0..2 {
            self.move_domain(&failures)?;
        }
        self.rest()
    }

    /// Has it load a configuration in which the domain that moves belongs to the other Edge, and makes connections of that domain one after the other until
    /// they go there.
    pub(super) fn move_domain(&mut self, failures: &Failures) -> Result<Moves> {
        self.moved = !self.moved;
        self.configure()?;
        let opener = self.opener(&server_name(MOVING))?;
        let this = &*self;
        let start = Instant::now();
        thread::scope(|scope| {
            let mut command = Some(scope.spawn(|| this.reload(start)));
            let mut commanded = None;
            let (mut first, mut since) = (None, None);
            loop {
                let begun = Instant::now();
                if failures.bear(this.probe(&opener))? {
                    first.get_or_insert(begun);
                    since.get_or_insert(begun);
                } else {
                    since = None;
                }
                if let Some(ended) = command.take_if(|command| command.is_finished()) {
                    let panicked = |_| Err(anyhow!("the thread of the command panicked"));
                    commanded = Some(ended.join().unwrap_or_else(panicked)?);
                }
                if let (Some(first), Some(since), Some(command)) = (first, since, commanded)
                    && since.elapsed() >= SETTLED
                {
                    return Ok(Moves {
                        first: first - start,
                        all: since - start,
                        command,
                    });
                }
                ensure!(
                    start.elapsed() < LONGEST,
                    "{} has not loaded its configuration after {LONGEST:?}",
                    this.system.name()
                );
                thread::sleep(PAUSE);
            }
        })
    }

    /// Whether a new connection of the domain that moves goes where it should.
    fn probe(&self, opener: &Opener<'_>) -> Result<bool> {
        let before = self.edge_b.hellos();
        opener.setups(1, Duration::ZERO)?;
        let at_b = self.edge_b.hellos() > before;
        Ok(at_b == self.moved)
    }

    fn configure(&mut self) -> Result<()> {
        let (domains, moved) = (self.domains, self.moved);
        match &mut self.running {
            Running::Snigate(gateway) => gateway.configure("", &tables(domains, moved)),
            Running::Proxy { proxy, size, .. } => with_names(domains, moved, |way| {
                proxy.configure(self.lab, address(), *size, way)
            }),
        }
    }

    /// The command, and how long after `start` it was over if it waits.
    fn reload(&self, start: Instant) -> Result<Option<Duration>> {
        match &self.running {
            Running::Snigate(gateway) => {
                gateway.output(&["reload"])?;
                Ok(Some(start.elapsed()))
            }
            Running::Proxy { proxy, .. } => proxy.reload().map(|()| None),
        }
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        Ok(match &self.running {
            Running::Snigate(gateway) => Memory {
                processes: of_processes(gateway.pid()?)?,
                maps: Some(of_maps(gateway.pin_path())?),
            },
            Running::Proxy { proxy, .. } => Memory {
                processes: of_processes(proxy.process.pid())?,
                maps: None,
            },
        })
    }

    /// Waits until the processes of old configurations have ended.
    pub(super) fn rest(&self) -> Result<()> {
        let Running::Proxy { proxy, workers, .. } = &self.running else {
            return Ok(());
        };
        let what = format!("old processes of {} to end", self.system.name());
        Deadline::after(LONGEST).poll(&what, || {
            let children = children(proxy.process.pid())?.len();
            Ok((children == *workers).then_some(()))
        })
    }
}

fn start<'lab>(
    lab: &'lab Lab,
    system: System,
    domains: usize,
    workers: usize,
) -> Result<Running<'lab>> {
    match system {
        System::Snigate => {
            let tuning = Tuning {
                quiet: true,
                hook: Some("tcx"),
                workers: Some(workers),
                ..Tuning::default()
            };
            let gateway = Gateway::start_tuned(lab, tuning, "", &tables(domains, false))?;
            Ok(Running::Snigate(gateway))
        }
        System::Proxy(make) => {
            let size = Size::of(workers);
            let proxy = with_names(domains, false, |way| {
                Proxy::start(lab, make, &lab.gateway, address(), size, way)
            })?;
            // HAProxy's has threads.
            let workers = if make == Make::Nginx { workers } else { 1 };
            Ok(Running::Proxy {
                proxy,
                size,
                workers,
            })
        }
    }
}

/// The name of the pool, and in a proxy of the Edge, of the domain that moves.
fn place(moved: bool) -> &'static str {
    if moved { "others" } else { "edges" }
}

/// Where partners connect to.
fn address() -> SocketAddr {
    (VIP_1.v4, SIP_TLS).into()
}

fn other_address() -> SocketAddr {
    (EDGE_B.v4, SIP_TLS).into()
}

/// One that nobody asks for.
fn customer(number: usize) -> String {
    format!("customer-{number}.example")
}

/// What a SIP domain's partners ask for.
fn server_name(domain: &str) -> String {
    format!("sip.{domain}")
}

/// All but the observers'.
fn further(domains: usize, moved: bool) -> impl Iterator<Item = (String, &'static str)> {
    let customers = (0..=domains - LEAST_DOMAINS).map(|number| (customer(number), place(false)));
    std::iter::once((MOVING.to_owned(), place(moved))).chain(customers)
}

/// snigate's.
fn tables(domains: usize, moved: bool) -> String {
    let mut more = format!(
        "[[edge]]\nname = \"edge-b\"\naddress = \"{}\"\nsource = \"preserve\"\n\n\
         [[pool]]\nname = \"{}\"\nedges = [\"edge-b\"]\n",
        other_address(),
        place(true)
    );
    for (domain, pool) in further(domains, moved) {
        more += &format!("\n[[domain]]\nsip_domain = \"{domain}\"\npool = \"{pool}\"\n");
    }
    config::tables("source = \"preserve\"", "bind = true", &more)
}

/// The proxies'.
fn with_names<T>(
    domains: usize,
    moved: bool,
    body: impl FnOnce(&Way<'_>) -> Result<T>,
) -> Result<T> {
    let further = further(domains, moved).map(|(domain, edge)| (server_name(&domain), edge));
    let names: Vec<_> = std::iter::once((PASSED.to_owned(), place(false)))
        .chain(further)
        .collect();
    body(&Way::ByTable(&NameTable {
        edges: &[
            (place(false), edge_address()),
            (place(true), other_address()),
        ],
        names: &names,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_as_many_domains_and_a_reload_moves_one_of_them() -> Result<()> {
        let names = |moved| {
            with_names(10, moved, |way| match way {
                Way::ByTable(table) => {
                    let names = table.names.iter();
                    let owned = names.map(|(name, edge)| (name.clone(), (*edge).to_owned()));
                    Ok(owned.collect::<Vec<_>>())
                }
                _ => Err(anyhow!("{way:?}")),
            })
        };
        let (before, after) = (names(false)?, names(true)?);
        assert_eq!(before.len(), 10);
        let changed = before.iter().zip(&after).filter(|(was, is)| was != is);
        assert_eq!(changed.count(), 1);
        let tables = [tables(10, false), tables(10, true)];
        let domains = |text: &str| text.matches("[[domain]]").count();
        assert_eq!(tables.each_ref().map(|text| domains(text)), [10, 10]);
        let lines = tables[0].lines().zip(tables[1].lines());
        assert_eq!(lines.filter(|(was, is)| was != is).count(), 1);
        Ok(())
    }
}
