//! What can be wrong with a domain in a partner's eyes: every kind of finding, with its stable name.

use serde::{Serialize, Serializer};

use crate::config::HostName;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Partners are refused, or come to the wrong place.
    Error,
    /// Some partners are, or soon all will be.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    /// As it is serialized.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

macro_rules! kinds {
    ($($kind:ident, $id:literal, $severity:ident, $meaning:literal, $mend:literal;)+) => {
        /// A kind of finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(missing_docs, reason = "`meaning` is what a comment would say")]
        pub enum Kind { $($kind,)+ }

        impl Kind {
            /// All of them, as they are documented.
            pub const ALL: &'static [Self] = &[$(Self::$kind),+];

            /// Its name, which never changes.
            pub const fn id(self) -> &'static str {
                match self { $(Self::$kind => $id,)+ }
            }

            /// How bad it is.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$kind => Severity::$severity,)+ }
            }

            /// What it means, for the documentation.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$kind => $meaning,)+ }
            }

            /// What to do; `DOMAIN` and `TARGET` stand for the SIP domain and the host that its SRV record names.
            pub const fn mend(self) -> &'static str {
                match self { $(Self::$kind => $mend,)+ }
            }
        }
    };
}

kinds! {
    NotChecked, "not-checked", Error,
        "The time for the whole check, or for this domain, was over before everything was looked at.",
        "check fewer domains at once (`--domain`), or give it more time (`--deadline`, `--timeout`)";
    DnsSilent, "dns-silent", Error,
        "The DNS server does not answer. Nothing is known of the domain.",
        "see that the resolver runs and can be reached from here, or name another one with `--resolver`";
    DnsFailed, "dns-failed", Error,
        "The DNS server answers with a failure (SERVFAIL, REFUSED, …): a broken delegation or DNSSEC chain, or a server that does not know the zone.",
        "look the name up at the domain's own name servers, and mend the zone, its delegation or its signatures";
    SrvMissing, "srv-missing", Error,
        "There is no `_sipfederationtls._tcp` record: partners with open federation do not find the domain.",
        "add `_sipfederationtls._tcp.DOMAIN. IN SRV 0 0 5061 sip.DOMAIN.`; `snigate check --dns --ignore srv-missing` where partners have entered the Edge by hand";
    SrvRefused, "srv-refused", Error,
        "The SRV record's target is the root: the domain says that it does not federate (RFC 2782).",
        "name a target: `_sipfederationtls._tcp.DOMAIN. IN SRV 0 0 5061 sip.DOMAIN.`";
    SrvAlias, "srv-alias", Warning,
        "The service's name is a CNAME. Resolvers follow it, and not every partner's check does.",
        "put the SRV record itself at `_sipfederationtls._tcp.DOMAIN`";
    SrvSeveral, "srv-several", Warning,
        "There are several SRV records. Edges take one and do not go on to the next: priorities make nothing redundant.",
        "leave one SRV record, and give its target several addresses";
    SrvPort, "srv-port", Warning,
        "The SRV record names another port than 5061, which many partners' firewalls do not let out.",
        "use port 5061 in the SRV record and the IP set";
    TargetForeign, "target-foreign", Error,
        "The SRV record's target is not in the SIP domain: partners refuse it.",
        "let the SRV record name `sip.DOMAIN`, with address records of its own";
    TargetDeep, "target-deep", Error,
        "The SRV record's target is not exactly in the SIP domain but in a subdomain of it, or the domain itself: partners refuse it.",
        "let the SRV record name `sip.DOMAIN`, with address records of its own";
    TargetAlias, "target-alias", Error,
        "The target is a CNAME, which Lync refuses, and RFC 2782 forbids.",
        "replace the CNAME by A and AAAA records with the gateway's addresses";
    TargetMissing, "target-missing", Error,
        "The target has no address.",
        "add A records for TARGET with the gateway's addresses; `snigate service ls` shows them";
    AddressForeign, "address-foreign", Error,
        "An A record is no address of any IP set: partners that take it come to somebody else.",
        "point TARGET at addresses of the domain's IP set only";
    AaaaStray, "aaaa-stray", Warning,
        "An AAAA record is no address of any IP set: partners with IPv6 come to somebody else, all others notice nothing.",
        "remove the AAAA record, or put its address into the IP set";
    AddressPort, "address-port", Error,
        "The address is ours, but its IP set does not serve the port of the SRV record.",
        "correct the port in the SRV record, or add it to `ports` of the IP set";
    AddressSet, "address-set", Error,
        "The address belongs to an IP set from which connections for this name do not come to the domain's Edges, or not to its certificate.",
        "point TARGET at an address of the right IP set, or correct `pool`, `steer` or `default` in the configuration";
    TargetUnrouted, "target-unrouted", Error,
        "The configuration knows no such server name, and the IP set has no default: the gateway refuses it.",
        "add the name to `names` of the domain, or let the SRV record name one that is there";
    AddressesMany, "addresses-many", Note,
        "There are so many addresses that only the first were looked at.",
        "as many addresses as there are gateways are enough";
    CaaForbids, "caa-forbids", Warning,
        "CAA records do not allow the authority that has issued the certificate: it will not renew it.",
        "add the authority to the CAA records (`IN CAA 0 issue \"ca.example\"`), or change the authority before the certificate ends";
    CaaUnknown, "caa-unknown", Note,
        "There are CAA records, and it is not known which of their names stands for the authority that has issued the certificate.",
        "name it with `--caa`, such as `--caa letsencrypt.org`; the authority's documentation has it";
    CaaFailed, "caa-failed", Warning,
        "CAA records can't be looked up, and then authorities do not issue certificates (RFC 8659 section 3).",
        "mend the zone: its name servers must answer also for record types that they do not have";
    ConnectFailed, "connect-failed", Error,
        "No TCP connection: refused, unreachable, or no answer in time.",
        "see that the gateway runs (`snigate status`), that an Edge is up (`snigate edge ls`), and that no firewall is in between; from one source the gateway takes `syn_per_source` connections";
    NoRoute, "no-route", Note,
        "This host has no route to the address, for want of IPv6 most likely: what partners would see there is not known.",
        "check from a host that has both IPv4 and IPv6";
    TlsFailed, "tls-failed", Error,
        "The connection ends or falls silent before a certificate is shown.",
        "look at the same connection with `snigate watch`, and at the Edge's log";
    NameRefused, "name-refused", Error,
        "The server name is refused with a TLS alert (`unrecognized_name`): no route, or no certificate for it.",
        "add the domain to the configuration (`snigate domain add DOMAIN`), or let the SRV record name what is there";
    TlsOnlyOld, "tls-only-old", Error,
        "Neither TLS 1.2 nor 1.3 is offered, only older versions: current partners refuse them.",
        "switch TLS 1.2 on at the Edge (Lync Server 2013 needs its updates for it), or terminate the domain at the gateway";
    Tls12Missing, "tls-12-missing", Warning,
        "TLS 1.3 is offered and 1.2 is not: Lync Server 2013 and Skype for Business Server 2015 do not connect.",
        "switch TLS 1.2 on as well";
    TlsCiphersOld, "tls-ciphers-old", Warning,
        "TLS 1.2 is offered, with CBC ciphers or RSA key exchange only: partners that ask for ECDHE and AEAD do not connect. Windows Server 2012 R2 has no others for RSA certificates.",
        "switch ECDHE with AES-GCM on, or terminate the domain at the gateway";
    TlsOld, "tls-old", Note,
        "TLS 1.0 or 1.1 is still accepted. Only partners without updates need it.",
        "switch TLS 1.0 and 1.1 off at the Edge, once no partner needs them";
    KeyMismatch, "key-mismatch", Error,
        "The handshake is not signed with the key of the certificate that is shown.",
        "let the server have the private key that belongs to its certificate";
    CertificatesDiffer, "certificates-differ", Note,
        "Addresses of the target show different certificates or chains.",
        "install the same certificate everywhere, or finish the renewal";
    CertificateUnreadable, "certificate-unreadable", Error,
        "What is shown can't be read as an X.509 certificate.",
        "replace the certificate";
    CertificateName, "certificate-name", Error,
        "The certificate names the target neither in its subject alternative names nor as common name: partners refuse it.",
        "request a certificate with TARGET in it, or point TARGET at the IP set whose certificate has it";
    CertificateWildcard, "certificate-wildcard", Warning,
        "The certificate names the target by a wildcard only, which Lync does not take in federation.",
        "request a certificate with TARGET itself in it";
    CertificateCommonName, "certificate-common-name", Warning,
        "The certificate names the target as common name only. Lync takes that, others look at the subject alternative names alone.",
        "request a certificate with TARGET among its subject alternative names";
    CommonNameLong, "common-name-long", Warning,
        "The common name has more than 64 characters (X.520), which some peers refuse to read.",
        "request a certificate with a shorter name as common name, and the long ones as subject alternative names";
    CommonNameMissing, "common-name-missing", Note,
        "The certificate has no common name. Partners look at the subject alternative names; an Edge of Lync 2013 itself wants one.",
        "request a certificate with a common name of up to 64 characters, if it is also an Edge's own";
    CertificateExpired, "certificate-expired", Error,
        "The certificate has expired.",
        "renew it";
    CertificateNotYet, "certificate-not-yet", Error,
        "The certificate is not valid yet.",
        "wait, or correct the clock of this host if it is wrong";
    CertificateExpiring, "certificate-expiring", Warning,
        "The certificate expires soon (`--soon`).",
        "renew it";
    ChainIncomplete, "chain-incomplete", Error,
        "The chain ends before it comes to a trusted root: an intermediate is not sent, or the root is one that this host does not trust.",
        "install the authority's intermediate certificates beside the certificate, or name the authority's root with `--roots` if partners trust it";
    ChainUntrusted, "chain-untrusted", Error,
        "The chain is complete, and its root is none that is trusted: a private authority, or a self-signed certificate.",
        "use a public authority; if partners trust this one, name its root with `--roots`";
    ChainOrder, "chain-order", Warning,
        "The certificates of the chain come in the wrong order, or others are among them; old peers do not sort them.",
        "send the own certificate first, then each one's issuer, and nothing else";
    ChainExpired, "chain-expired", Error,
        "An intermediate certificate has expired.",
        "install the authority's current intermediate certificates";
    ChainInvalid, "chain-invalid", Error,
        "The chain comes to a trusted root, and does not hold: a signature or a constraint is wrong.",
        "install the certificate and its intermediates again as the authority has issued them";
    SignaturePss, "signature-pss", Warning,
        "A certificate of the chain is signed with RSASSA-PSS, which Lync Server 2013 does not understand.",
        "let the authority sign with RSA PKCS#1 v1.5";
    SignatureWeak, "signature-weak", Error,
        "A certificate of the chain is signed with SHA-1 or MD5: current partners refuse it.",
        "let the authority issue it anew with SHA-256";
    KeySmall, "key-small", Error,
        "An RSA key of the chain has less than 2048 bits: current partners refuse it.",
        "request a certificate for a new RSA key of 2048 bits";
    KeyNotRsa, "key-not-rsa", Warning,
        "A key of the chain is not RSA. Old peers, and cipher lists of their time, know RSA only.",
        "request a certificate for an RSA key of 2048 bits, from an authority that signs with RSA";
    UsageServer, "usage-server", Error,
        "The certificate's extended key usages leave out serverAuth: partners refuse it as a server's.",
        "request a certificate for server authentication";
    UsageClient, "usage-client", Note,
        "The certificate lacks the extended key usage clientAuth, as all of public authorities since 2026. It serves for what comes in. Where the same certificate goes out, partners that check clientAuth (Cisco Expressway by default) refuse it.",
        "nothing, for what comes in; ask such partners to switch their check off";
    CrlMissing, "crl-missing", Warning,
        "The certificate has no CRL distribution point; Lync Edges want one that they can reach.",
        "take an authority that publishes revocation lists";
    CrlUnreachable, "crl-unreachable", Warning,
        "The revocation list can't be fetched by HTTP: Lync Edges refuse the certificate, or wait for it.",
        "see that the address answers from the outside; the authority runs it";
    CrlInvalid, "crl-invalid", Warning,
        "What is fetched is no revocation list of the certificate's issuer.",
        "tell the authority";
    CrlStale, "crl-stale", Warning,
        "The revocation list should have been renewed by now: peers that look at it take it for none.",
        "tell the authority";
    Revoked, "revoked", Error,
        "A certificate of the chain is on its authority's revocation list.",
        "replace the certificate";
}

impl Kind {
    /// The kind of this name.
    pub fn of(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.id() == id)
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// Something that is wrong with a domain, or good to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What kind it is of.
    #[serde(rename = "id")]
    pub kind: Kind,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do.
    pub mend: String,
}

impl Finding {
    pub(super) fn new(
        kind: Kind,
        message: impl Into<String>,
        domain: &HostName,
        target: Option<&str>,
    ) -> Self {
        let expected = format!("sip.{domain}");
        let mend = kind.mend().replace("DOMAIN", domain.as_str());
        Self {
            severity: kind.severity(),
            kind,
            message: message.into(),
            mend: mend.replace("TARGET", target.unwrap_or(&expected)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_stable_words() {
        let ids: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.id()).collect();
        assert_eq!(ids.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.id()), Some(*kind));
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(kind.id().bytes().all(plain), "{}", kind.id());
            assert!(kind.meaning().ends_with('.') && !kind.mend().ends_with('.'));
        }
    }

    #[test]
    fn a_mend_names_what_it_is_about() {
        let domain = "fabrikam.example".parse().unwrap();
        let found = Finding::new(Kind::TargetMissing, "", &domain, None);
        assert!(
            found
                .mend
                .starts_with("add A records for sip.fabrikam.example"),
            "{found:?}"
        );
        let found = Finding::new(Kind::SrvMissing, "", &domain, None);
        let record =
            "_sipfederationtls._tcp.fabrikam.example. IN SRV 0 0 5061 sip.fabrikam.example.";
        assert!(found.mend.contains(record), "{found:?}");
    }
}
