//! One system under measurement, with its partners and its Edge.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{
    Certificate, Kind, Options, Sample, Subject, Way,
    config::{self, PASSED, edge_address},
    cpu,
    load::{self, Clients},
    machine,
    results::Role,
};
use crate::Lab;
use crate::addresses::{SIP_TLS, VIP_1};
use crate::gateway::{Gateway, Tuning};
use crate::peers::{
    self, Edge, EdgeTls, Limit, Make, Partner, PartnerTls, Proxy, Size, Storm, TlsVersion, Upstream,
};
use crate::pki::{Identity, Pki};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Domains that are terminated, one with each certificate, and the Edge's own name.
const TERMINATED: &str = "sip.fabrikam.example";
const TERMINATED_ECDSA: &str = "sip.litware.example";
const EDGE: &str = "edge-a.hoster.example";

/// Where HAProxy and nginx terminate; the usual port is for what they pass through. nginx can't choose a certificate by name before 1.25.5.
const TERMINATING: u16 = SIP_TLS + 1;
const TERMINATING_ECDSA: u16 = SIP_TLS + 2;

impl Certificate {
    fn name(self) -> &'static str {
        match self {
            Self::Rsa2048 => TERMINATED,
            Self::P256 => TERMINATED_ECDSA,
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Plain routing: what the network, the partner and the Edge take by themselves.
    Direct,
    /// snigate, with its own address toward the Edge, as the others have.
    Snigate,
    /// snigate, with the partner's address toward the Edge.
    SnigatePreserve,
    /// Another build of snigate, with its own address toward the Edge.
    SnigateBeside,
    /// HAProxy.
    Haproxy,
    /// nginx.
    Nginx,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Direct,
        Self::Snigate,
        Self::SnigateBeside,
        Self::SnigatePreserve,
        Self::Haproxy,
        Self::Nginx,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "no proxy",
            Self::Snigate => "snigate",
            Self::SnigatePreserve => "snigate, preserve",
            Self::SnigateBeside => "the other snigate",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    pub(super) fn role(self) -> Role {
        match self {
            Self::Direct => Role::Baseline,
            Self::Snigate | Self::SnigatePreserve | Self::SnigateBeside => Role::Ours,
            Self::Haproxy | Self::Nginx => Role::Peer,
        }
    }

    /// Whether a subject makes sense for it.
    pub(super) fn does(self, subject: &Subject) -> bool {
        match self {
            Self::Direct => subject.way == Way::Pass,
            // Once the connections are there, `preserve` is no different.
            Self::SnigatePreserve => {
                subject.way == Way::Pass && matches!(subject.kind, Kind::Connections { .. })
            }
            _ => true,
        }
    }
}

/// A system in its lab.
pub(super) struct Stand<'lab> {
    lab: &'lab Lab,
    system: System,
    _server: Edge,
    /// What the Edge presents.
    edge: Identity,
    proxies: Proxies<'lab>,
    pki: Pki,
    partner: Identity,
    served: Served,
}

/// What is presented where TLS ends at the proxy.
struct Served {
    rsa: Identity,
    ecdsa: Identity,
}

impl Served {
    fn of(&self, certificate: Certificate) -> &Identity {
        match certificate {
            Certificate::Rsa2048 => &self.rsa,
            Certificate::P256 => &self.ecdsa,
        }
    }
}

enum Proxies<'lab> {
    None,
    Snigate(Gateway<'lab>),
    /// One that passes through, and one that terminates with each certificate.
    Others([Proxy; 3]),
}

impl<'lab> Stand<'lab> {
    pub(super) fn start(lab: &'lab Lab, system: System, options: &Options) -> Result<Self> {
        let pki = Pki::new("federation", &lab.dir())?;
        // The Edge's handshakes are the cheap ones, so that the proxy's weigh.
        let edge = pki
            .certificate("edge")
            .names(&[EDGE, PASSED])
            .ecdsa()
            .issue()?;
        let served = Served {
            rsa: pki.server("served", &[TERMINATED])?,
            ecdsa: pki
                .certificate("served-ecdsa")
                .names(&[TERMINATED_ECDSA])
                .ecdsa()
                .issue()?,
        };
        let partner = pki.server("partner", &["sip.partner.example"])?;
        // A proxy leaves its connections to the Edge in TIME_WAIT, for a minute each.
        lab.gateway.sysctl("net/ipv4/tcp_tw_reuse", "1")?;
        let workers = options.workers;
        let tuning = |binary| Tuning {
            binary,
            quiet: true,
            workers: Some(workers),
            ..Tuning::default()
        };
        let proxies = match system {
            System::Direct => Proxies::None,
            System::Snigate => snigate(lab, "gateway", tuning(None), &served, &pki)?,
            System::SnigateBeside => {
                let other = options.beside.clone();
                snigate(lab, "gateway", tuning(other), &served, &pki)?
            }
            System::SnigatePreserve => snigate(lab, "preserve", tuning(None), &served, &pki)?,
            System::Haproxy => others(lab, Make::Haproxy, workers, &served, &pki, &edge)?,
            System::Nginx => others(lab, Make::Nginx, workers, &served, &pki, &edge)?,
        };
        Ok(Self {
            lab,
            system,
            _server: Edge::start(&lab.edge_a, SIP_TLS, Some(&EdgeTls::for_anybody(&edge)?))?,
            edge,
            proxies,
            pki,
            partner,
            served,
        })
    }

    pub(super) fn system(&self) -> System {
        self.system
    }

    /// Some connections of each kind: what is measured afterwards is what it is said to be.
    pub(super) fn prove(&self) -> Result<()> {
        for (way, version) in [
            (Way::Pass, TlsVersion::V13),
            (Way::Terminate(Certificate::Rsa2048), TlsVersion::V12),
            (Way::Terminate(Certificate::Rsa2048), TlsVersion::V13),
            (Way::Terminate(Certificate::P256), TlsVersion::V13),
        ] {
            if matches!((self.system, way), (System::Direct, Way::Terminate(_))) {
                continue;
            }
            let tls = self.tls(way, version)?;
            let partner = self.partner(&tls);
            let report =
                Storm::start(&partner, self.address(way), 2, Limit::Connections(20))?.finish()?;
            report.ensure_no_failure()?;
            let expected = match way {
                Way::Pass => &self.edge,
                Way::Terminate(certificate) => self.served.of(certificate),
            };
            ensure!(
                report.certificates().contains_key(&expected.fingerprint()?),
                "the certificate of {way:?} is not the one that it should be"
            );
        }
        Ok(())
    }

    /// Samples of connections take `time`, others less.
    pub(super) fn measure(&self, subject: &Subject, time: Duration) -> Result<Sample> {
        let version = match subject.kind {
            Kind::Connections { version, .. } => version,
            Kind::Bulk { .. } | Kind::Pings => TlsVersion::V13,
        };
        let tls = self.tls(subject.way, version)?;
        let (partner, address) = (self.partner(&tls), self.address(subject.way));
        let clients = match subject.kind {
            Kind::Connections {
                clients, resumes, ..
            } => Clients {
                count: clients,
                resume: resumes,
            },
            Kind::Bulk { .. } | Kind::Pings => Clients {
                count: 1,
                resume: false,
            },
        };
        load::prepare(&partner, address, clients)?;
        let work = |time: Duration| match subject.kind {
            Kind::Connections { .. } => load::connect(&partner, address, clients, time),
            Kind::Bulk { connections } => load::pour(&partner, address, connections, time * 3 / 4),
            Kind::Pings => load::ping(&partner, address, time / 2),
        };
        // Caches, and the scheduler's idea of who belongs where.
        work(time / 8)?;
        let (before, machine) = (self.cpu(subject.way)?, machine::busy()?);
        let mut sample = work(time)?;
        sample.machine = machine::busy()?.saturating_sub(machine);
        let after = self.cpu(subject.way)?;
        sample.cpu = after
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before));
        Ok(sample)
    }

    fn partner<'a>(&'a self, tls: &'a PartnerTls) -> Partner<'a> {
        Partner {
            namespace: &self.lab.partner,
            source: None,
            tls: Some(tls),
            timeout: TIMEOUT,
        }
    }

    fn tls(&self, way: Way, version: TlsVersion) -> Result<PartnerTls> {
        let name = match way {
            Way::Pass => PASSED,
            Way::Terminate(certificate) => certificate.name(),
        };
        PartnerTls::new(name, &self.partner, &self.pki, Some(version))
    }

    fn address(&self, way: Way) -> SocketAddr {
        match (&self.proxies, way) {
            (Proxies::None, _) => edge_address(),
            (Proxies::Others(_), Way::Terminate(Certificate::Rsa2048)) => {
                (VIP_1.v4, TERMINATING).into()
            }
            (Proxies::Others(_), Way::Terminate(Certificate::P256)) => {
                (VIP_1.v4, TERMINATING_ECDSA).into()
            }
            _ => (VIP_1.v4, SIP_TLS).into(),
        }
    }

    fn cpu(&self, way: Way) -> Result<Option<Duration>> {
        let pid = match &self.proxies {
            Proxies::None => return Ok(None),
            Proxies::Snigate(gateway) => gateway.pid()?,
            Proxies::Others([passing, rsa, ecdsa]) => match way {
                Way::Pass => passing.process.pid(),
                Way::Terminate(Certificate::Rsa2048) => rsa.process.pid(),
                Way::Terminate(Certificate::P256) => ecdsa.process.pid(),
            },
        };
        cpu::used(pid).map(Some)
    }
}

fn snigate<'lab>(
    lab: &'lab Lab,
    source: &str,
    tuning: Tuning,
    served: &Served,
    pki: &Pki,
) -> Result<Proxies<'lab>> {
    let edge = format!(
        "source = \"{source}\"\ntls = {{ name = \"{EDGE}\", roots = {:?} }}",
        pki.roots()
    );
    let terminated = [Certificate::Rsa2048, Certificate::P256].map(|certificate| {
        let Identity { chain, key, .. } = served.of(certificate);
        format!(
            r#"
[[domain]]
sip_domain = "{}"
pool = "edges"
certificate = {chain:?}
key = {key:?}
client_certificate = "none"
"#,
            certificate.name().trim_start_matches("sip."),
        )
    });
    let terminated = terminated.concat();
    let tables = config::tables(&edge, "bind = false", &terminated);
    let gateway = Gateway::start_tuned(lab, tuning, "", &tables)?;
    Ok(Proxies::Snigate(gateway))
}

fn others(
    lab: &Lab,
    make: Make,
    workers: usize,
    served: &Served,
    pki: &Pki,
    edge: &Identity,
) -> Result<Proxies<'static>> {
    let start = |port: u16, way: &peers::Way<'_>| {
        let address = (VIP_1.v4, port).into();
        Proxy::start(lab, make, &lab.gateway, address, Size::of(workers), way)
            .with_context(|| format!("{} at {address}", make.name()))
    };
    let routes = [(PASSED, edge_address())];
    let terminate = |port, identity| {
        let way = peers::Way::Terminate {
            identity,
            clients: None,
            edge: edge_address(),
            upstream: Some(Upstream {
                server_name: EDGE,
                roots: pki.roots(),
                // Nobody asks for it.
                identity: edge,
            }),
        };
        start(port, &way)
    };
    Ok(Proxies::Others([
        start(SIP_TLS, &peers::Way::PassThrough(&routes))?,
        terminate(TERMINATING, &served.rsa)?,
        terminate(TERMINATING_ECDSA, &served.ecdsa)?,
    ]))
}
