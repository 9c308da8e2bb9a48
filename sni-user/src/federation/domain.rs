//! The check of one domain, step by step as a partner goes.

use std::net::{IpAddr, SocketAddr};

use rustls::{AlertDescription, RootCertStore, pki_types::CertificateDer};

use super::{
    Examined, Options, caa,
    certificate::{self, Said},
    chain::Chain,
    connection::{Connections, Failure, Offer},
    expected::{Astray, Expected, Place},
    finding::Kind,
    lookups::{Lookups, NoAnswer, Service},
    revocation::Revocation,
};
use crate::{
    config::HostName,
    plan::{FEDERATION_PORT, SERVICE, SipDomain},
    tls::{Facts, Record},
};

/// Addresses of a target that are looked at.
const ADDRESSES: usize = 8;

/// What the checks of all domains have in common.
pub(super) struct View<'a> {
    pub(super) expected: Expected<'a>,
    pub(super) options: &'a Options,
    pub(super) roots: RootCertStore,
    pub(super) lookups: Lookups,
    pub(super) connections: Connections,
    pub(super) revocation: Revocation,
    /// Seconds since 1970.
    pub(super) now: i64,
}

impl View<'_> {
    /// Goes as far as a partner comes. What is found on the way is in `seen` also where this is dropped halfway.
    pub(super) async fn examine(&self, domain: &HostName, seen: &mut Examined) {
        if self.lookups.given_up() {
            let sentence = format!(
                "{} has not answered anything so far, and was not asked again",
                self.lookups.asked
            );
            return seen.add(Kind::DnsSilent, sentence);
        }
        let Some(service) = self.discover(domain, seen).await else {
            return;
        };
        seen.target = Some(service.target.clone());
        seen.port = Some(service.port);
        self.judge_target(domain, &service.target, seen);
        let addresses = self.resolve(&service, seen).await;
        let shown = self.visit(domain, &service, &addresses, seen).await;
        if shown.len() > 1 {
            let target = &service.target;
            let sentence = format!("the addresses of {target} show different certificates");
            seen.add(Kind::CertificatesDiffer, sentence);
        }
        for one in &shown {
            let at = (shown.len() > 1).then_some(one.address);
            self.judge_certificate(&service.target, &one.chain, at, seen)
                .await;
        }
    }

    /// The service that partners take.
    async fn discover(&self, domain: &HostName, seen: &mut Examined) -> Option<Service> {
        let owner = format!("{SERVICE}.{domain}");
        if let Err(reason) = SipDomain::try_from(domain.clone()) {
            seen.add(Kind::SrvMissing, reason.message);
            return None;
        }
        let mut found = match self.lookups.services(&owner).await {
            Ok(found) if !found.values.is_empty() => found,
            Ok(_) | Err(NoAnswer::Nothing) => {
                seen.add(Kind::SrvMissing, format!("{owner} has no SRV record"));
                return None;
            }
            Err(reason) => {
                seen.unanswered(&owner, "SRV", &reason, &self.lookups.asked);
                return None;
            }
        };
        if let Some(alias) = &found.alias {
            seen.add(Kind::SrvAlias, format!("{owner} is a CNAME for {alias}"));
        }
        let several = found.values.len();
        let service = found.values.swap_remove(0);
        let Service { target, port, .. } = &service;
        if several > 1 {
            let sentence = format!("{owner} has {several} SRV records; {target} was looked at");
            seen.add(Kind::SrvSeveral, sentence);
        }
        if target.is_empty() {
            let sentence = format!("the SRV record of {owner} names the root");
            seen.add(Kind::SrvRefused, sentence);
            return None;
        }
        if *port != FEDERATION_PORT {
            seen.add(Kind::SrvPort, format!("the SRV record names port {port}"));
        }
        Some(service)
    }

    fn judge_target(&self, domain: &HostName, target: &str, seen: &mut Examined) {
        let host = target.strip_suffix(domain.as_str());
        let host = host.and_then(|host| {
            if host.is_empty() {
                Some("")
            } else {
                host.strip_suffix('.')
            }
        });
        match host {
            None => seen.add(
                Kind::TargetForeign,
                format!("the SRV record names {target}, which is not in {domain}"),
            ),
            Some(host) if host.is_empty() || host.contains('.') => {
                seen.add(
                    Kind::TargetDeep,
                    format!("the SRV record names {target}, which is not exactly in {domain}"),
                );
            }
            Some(_) => {}
        }
    }

    /// The target's addresses, those of IPv4 first.
    async fn resolve(&self, service: &Service, seen: &mut Examined) -> Vec<IpAddr> {
        let target = &service.target;
        let mut addresses = Vec::new();
        let mut alias = None;
        let mut is_known = true;
        for (v6, kind) in [(false, "A"), (true, "AAAA")] {
            match self.lookups.addresses(target, v6).await {
                Ok(found) => {
                    addresses.extend(found.values);
                    alias = alias.or(found.alias);
                }
                Err(reason) => {
                    is_known = false;
                    seen.unanswered(target, kind, &reason, &self.lookups.asked);
                }
            }
        }
        if is_known && addresses.is_empty() {
            seen.add(
                Kind::TargetMissing,
                format!("{target} has neither A nor AAAA records"),
            );
            // One that leads nowhere comes with no answer.
            alias = self.lookups.alias(target).await;
        }
        if let Some(alias) = alias {
            seen.add(
                Kind::TargetAlias,
                format!("{target} is a CNAME for {alias}"),
            );
        }
        if addresses.len() > ADDRESSES {
            let sentence = format!(
                "{target} has {} addresses; the first {ADDRESSES} were looked at",
                addresses.len()
            );
            seen.add(Kind::AddressesMany, sentence);
            addresses.truncate(ADDRESSES);
        }
        seen.addresses.clone_from(&addresses);
        addresses
    }

    /// Connects to every address as a partner does. The different chains that were shown.
    async fn visit(
        &self,
        domain: &HostName,
        service: &Service,
        addresses: &[IpAddr],
        seen: &mut Examined,
    ) -> Vec<Presented> {
        let mut shown = Vec::new();
        for address in addresses {
            let address = SocketAddr::new(*address, service.port);
            if !self.judge_address(domain, &service.target, address, seen) {
                continue;
            }
            match self.connections.look(address, &service.target).await {
                Ok(offer) => {
                    judge_offer(&offer, address, seen);
                    seen.offers(&offer.versions);
                    let chain = offer.record.chain;
                    if !chain.is_empty() && shown.iter().all(|it: &Presented| it.chain != chain) {
                        shown.push(Presented { address, chain });
                    }
                }
                Err(failure) => judge_failure(&failure, &service.target, address, seen),
            }
        }
        shown
    }

    /// Whether a look at the address tells anything about us.
    fn judge_address(
        &self,
        domain: &HostName,
        target: &str,
        address: SocketAddr,
        seen: &mut Examined,
    ) -> bool {
        let ip = address.ip();
        let set = match self.expected.place(address) {
            Place::Served(set) => set,
            Place::OtherPort => {
                let sentence = format!(
                    "{target} is at {ip}, where no IP set serves port {}",
                    address.port()
                );
                seen.add(Kind::AddressPort, sentence);
                return false;
            }
            Place::Foreign => {
                let kind = if ip.is_ipv6() {
                    Kind::AaaaStray
                } else {
                    Kind::AddressForeign
                };
                seen.add(kind, format!("{target} is at {ip}, which no IP set has"));
                return false;
            }
        };
        match self.expected.reaches(set, domain, target) {
            Ok(()) => {}
            Err(Astray::Elsewhere(why)) => {
                seen.add(Kind::AddressSet, format!("{target} is at {ip}, and {why}"));
            }
            Err(Astray::Refused) => {
                let sentence = format!(
                    "{target} is at {ip}, and the IP set {} knows no such server name",
                    set.name
                );
                seen.add(Kind::TargetUnrouted, sentence);
            }
        }
        true
    }

    /// Judges a chain; `at` is where it was shown, if that makes a difference.
    async fn judge_certificate(
        &self,
        target: &str,
        shown: &[CertificateDer<'static>],
        at: Option<SocketAddr>,
        seen: &mut Examined,
    ) {
        let add = |seen: &mut Examined, said: Vec<Said>| {
            seen.extend(said.into_iter().map(|(kind, sentence)| match at {
                Some(address) => (kind, format!("{address}: {sentence}")),
                None => (kind, sentence),
            }));
        };
        let chain = match Chain::read(shown) {
            Ok(chain) => chain,
            Err(said) => return add(seen, vec![said]),
        };
        let own = chain.own();
        if seen.certificate.is_none() {
            seen.certificate = Facts::of(&shown[0]).ok().map(Into::into);
        }
        let soon = self.options.soon;
        add(seen, certificate::judge(own, target, self.now, soon));
        add(seen, chain.judge(&self.roots, self.now));
        let lists = self.revocation.judge(&self.lookups, &chain, self.now).await;
        add(seen, lists);
        let allowed = caa::judge(&self.lookups, target, own, &self.options.caa).await;
        add(seen, allowed.into_iter().collect());
    }
}

/// What a server has shown.
struct Presented {
    address: SocketAddr,
    /// At least one certificate.
    chain: Vec<CertificateDer<'static>>,
}

fn judge_offer(offer: &Offer, address: SocketAddr, seen: &mut Examined) {
    let versions = offer.versions.join(", ");
    let has = |version: &str| offer.versions.contains(&version);
    if !has("1.2") && !has("1.3") {
        seen.add(
            Kind::TlsOnlyOld,
            format!("{address} offers TLS {versions} only"),
        );
    } else if has("1.0") || has("1.1") {
        seen.add(Kind::TlsOld, format!("{address} offers TLS {versions}"));
    }
    if has("1.3") && !has("1.2") {
        seen.add(
            Kind::Tls12Missing,
            format!("{address} offers TLS 1.3 and not 1.2"),
        );
    }
    if offer.old_ciphers {
        seen.add(
            Kind::TlsCiphersOld,
            format!("{address} offers TLS 1.2 with old ciphers only"),
        );
    }
    if let Some(reason) = wrong_key(&offer.record) {
        seen.add(
            Kind::KeyMismatch,
            format!("{address} has not the key of its certificate ({reason})"),
        );
    }
}

/// Why the handshake is not signed with the certificate's key. One that is too short is a finding of its own, and its signatures count as
/// wrong, whatever they are.
fn wrong_key(record: &Record) -> Option<&rustls::Error> {
    use rustls::{CertificateError, Error};
    let is_wrong = |reason: &&Error| {
        matches!(
            reason,
            Error::InvalidCertificate(CertificateError::BadSignature)
        )
    };
    let reason = record.signature.as_ref().filter(is_wrong)?;
    let chain = Chain::read(&record.chain).ok()?;
    let said = certificate::algorithms(chain.own(), false);
    (!said.iter().any(|(kind, _)| *kind == Kind::KeySmall)).then_some(reason)
}

fn judge_failure(failure: &Failure, target: &str, address: SocketAddr, seen: &mut Examined) {
    match failure {
        Failure::Connect(reason) => {
            seen.add(
                Kind::ConnectFailed,
                format!("{address} can't be connected to: {reason}"),
            );
        }
        Failure::NoRoute => {
            let sentence = format!("this host has no route to {address}");
            seen.add(Kind::NoRoute, sentence);
        }
        Failure::Alert(AlertDescription::UnrecognisedName) => {
            seen.add(
                Kind::NameRefused,
                format!("{address} refuses the server name {target}"),
            );
        }
        Failure::Alert(alert) => {
            seen.add(
                Kind::TlsFailed,
                format!("{address} shows no certificate: fatal alert {alert:?}"),
            );
        }
        Failure::Silent(reason) | Failure::Other(reason) => {
            seen.add(
                Kind::TlsFailed,
                format!("{address} shows no certificate: {reason}"),
            );
        }
    }
}
