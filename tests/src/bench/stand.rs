//! One system under measurement, with its partners and its Edge.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{
    Kind, Options, Sample, Subject, Way,
    config::{self, PASSED, edge_address},
    cpu, load,
};
use crate::Lab;
use crate::addresses::{SIP_TLS, VIP_1};
use crate::gateway::{Gateway, Tuning};
use crate::peers::{
    self, Edge, EdgeTls, Limit, Make, Partner, PartnerTls, Proxy, Size, Storm, TlsVersion, Upstream,
};
use crate::pki::{Identity, Pki};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A domain that is terminated, and the Edge's own name.
const TERMINATED: &str = "sip.fabrikam.example";
const EDGE: &str = "edge-a.hoster.example";

/// Where HAProxy and nginx terminate; the usual port is for what they pass through.
const TERMINATING: u16 = SIP_TLS + 1;

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
    _edge: Edge,
    proxies: Proxies<'lab>,
    pki: Pki,
    partner: Identity,
    served: Identity,
}

enum Proxies<'lab> {
    None,
    Snigate(Gateway<'lab>),
    /// One that passes through, and one that terminates.
    Others([Proxy; 2]),
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
        let served = pki.server("served", &[TERMINATED])?;
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
            _edge: Edge::start(&lab.edge_a, SIP_TLS, Some(&EdgeTls::for_anybody(&edge)?))?,
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
            (Way::Terminate, TlsVersion::V12),
            (Way::Terminate, TlsVersion::V13),
        ] {
            if matches!((self.system, way), (System::Direct, Way::Terminate)) {
                continue;
            }
            let tls = self.tls(way, version)?;
            let partner = self.partner(&tls);
            let report =
                Storm::start(&partner, self.address(way), 2, Limit::Connections(20))?.finish()?;
            report.ensure_no_failure()?;
            let ours = report
                .certificates()
                .contains_key(&self.served.fingerprint()?);
            ensure!(
                ours == (way == Way::Terminate),
                "the certificate of {way:?} is not the one that it should be"
            );
        }
        Ok(())
    }

    pub(super) fn measure(&self, subject: &Subject) -> Result<Sample> {
        let version = match subject.kind {
            Kind::Connections { version, .. } => version,
            Kind::Bulk { .. } | Kind::Pings => TlsVersion::V13,
        };
        let tls = self.tls(subject.way, version)?;
        let (partner, address) = (self.partner(&tls), self.address(subject.way));
        let before = self.cpu(subject.way)?;
        let mut sample = match subject.kind {
            Kind::Connections { clients, .. } => load::connect(&partner, address, clients),
            Kind::Bulk { connections } => load::pour(&partner, address, connections),
            Kind::Pings => load::ping(&partner, address),
        }?;
        let after = self.cpu(subject.way)?;
        sample.cpu = after.zip(before).map(|(after, before)| after - before);
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
            Way::Terminate => TERMINATED,
        };
        PartnerTls::new(name, &self.partner, &self.pki, Some(version))
    }

    fn address(&self, way: Way) -> SocketAddr {
        match (&self.proxies, way) {
            (Proxies::None, _) => edge_address(),
            (Proxies::Others(_), Way::Terminate) => (VIP_1.v4, TERMINATING).into(),
            _ => (VIP_1.v4, SIP_TLS).into(),
        }
    }

    fn cpu(&self, way: Way) -> Result<Option<Duration>> {
        let pid = match &self.proxies {
            Proxies::None => return Ok(None),
            Proxies::Snigate(gateway) => gateway.pid()?,
            Proxies::Others([passing, terminating]) => match way {
                Way::Pass => passing.process.pid(),
                Way::Terminate => terminating.process.pid(),
            },
        };
        cpu::used(pid).map(Some)
    }
}

fn snigate<'lab>(
    lab: &'lab Lab,
    source: &str,
    tuning: Tuning,
    served: &Identity,
    pki: &Pki,
) -> Result<Proxies<'lab>> {
    let edge = format!(
        "source = \"{source}\"\ntls = {{ name = \"{EDGE}\", roots = {:?} }}",
        pki.roots()
    );
    let terminated = format!(
        r#"
[[domain]]
sip_domain = "fabrikam.example"
pool = "edges"
certificate = {:?}
key = {:?}
client_certificate = "none"
"#,
        served.chain, served.key
    );
    let tables = config::tables(&edge, "bind = false", &terminated);
    let gateway = Gateway::start_tuned(lab, tuning, "", &tables)?;
    Ok(Proxies::Snigate(gateway))
}

fn others(
    lab: &Lab,
    make: Make,
    workers: usize,
    served: &Identity,
    pki: &Pki,
    edge: &Identity,
) -> Result<Proxies<'static>> {
    let start = |port: u16, way: &peers::Way<'_>| {
        let address = (VIP_1.v4, port).into();
        Proxy::start(lab, make, &lab.gateway, address, Size::of(workers), way)
            .with_context(|| format!("{} at {address}", make.name()))
    };
    let routes = [(PASSED, edge_address())];
    Ok(Proxies::Others([
        start(SIP_TLS, &peers::Way::PassThrough(&routes))?,
        start(
            TERMINATING,
            &peers::Way::Terminate {
                identity: served,
                clients: None,
                edge: edge_address(),
                upstream: Some(Upstream {
                    server_name: EDGE,
                    roots: pki.roots(),
                    // Nobody asks for it.
                    identity: edge,
                }),
            },
        )?,
    ]))
}
