//! What can be wrong, one domain for each: its zone, what is shown, and what is to be found. Whatever else is found is a mistake.

use anyhow::Result;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

use crate::{
    pki::{LISTS, Made, Pki, Sent, Wanted},
    rustls_server::Fault,
};

/// A domain.
pub(crate) struct Case {
    pub(crate) domain: &'static str,
    /// Behind `$ORIGIN domain.`
    pub(crate) zone: &'static str,
    /// Of the configuration, if not `sip.domain`.
    pub(crate) names: &'static [&'static str],
    pub(crate) shown: Shown,
    pub(crate) found: &'static [&'static str],
}

/// What is at the domain's address.
pub(crate) enum Shown {
    /// nginx, which refuses the name.
    Nothing,
    /// nginx with the right certificate.
    Right,
    /// nginx with another.
    Made(fn(&Pki, &str) -> Result<Made>),
    /// OpenSSL's server with the right certificate, at an address of its own, with these options.
    Openssl(&'static str, &'static [&'static str]),
    /// A rustls server, likewise.
    Rustls(&'static str, Fault),
    /// A listener that says nothing, likewise.
    Silent(&'static str),
}

/// As it should be: at an address of nginx.
const RIGHT: &str = "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A 198.51.100.10\n";

macro_rules! case {
    ($domain:literal, $zone:expr, $shown:expr, [$($found:literal),*]) => {
        case!($domain, $zone, [], $shown, [$($found),*])
    };
    ($domain:literal, $zone:expr, [$($name:literal),*], $shown:expr, [$($found:literal),*]) => {
        Case { domain: $domain, zone: $zone, names: &[$($name),*], shown: $shown, found: &[$($found),*] }
    };
}

/// The case of a certificate, whose zone is right.
macro_rules! certificate {
    ($domain:literal, [$($found:literal),*], $make:expr) => {
        case!($domain, RIGHT, Shown::Made($make), [$($found),*])
    };
}

/// A zone whose host is at another address.
macro_rules! at {
    ($address:literal) => {
        concat!(
            "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A ",
            $address,
            "\n"
        )
    };
}

fn right(pki: &Pki, domain: &str, change: fn(Wanted) -> Wanted) -> Result<Made> {
    let wanted = change(Wanted::right(&format!("sip.{domain}")));
    pki.make(domain, &wanted, Sent::Right)
}

fn sent(pki: &Pki, domain: &str, how: Sent) -> Result<Made> {
    pki.make(domain, &Wanted::right(&format!("sip.{domain}")), how)
}

pub(crate) const CASES: &[Case] = &[
    // Nothing is wrong.
    case!("right.example", RIGHT, Shown::Right, []),
    case!(
        "both.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A 198.51.100.10\nsip AAAA 2001:db8:1::10\n",
        Shown::Right,
        []
    ),
    case!(
        "caa-right.example",
        "@ CAA 0 issue \"ca.example\"\n_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A 198.51.100.10\n",
        Shown::Right,
        []
    ),
    certificate!("moved-list.example", [], |pki, domain| {
        right(pki, domain, |it| {
            it.list(Some("http://crl.hoster.example/moved/good.crl"))
        })
    }),
    // The DNS.
    case!(
        "srv-missing.example",
        "sip A 198.51.100.10\n",
        Shown::Nothing,
        ["srv-missing"]
    ),
    case!(
        "srv-refused.example",
        "_sipfederationtls._tcp SRV 0 0 5061 .\n",
        Shown::Nothing,
        ["srv-refused"]
    ),
    case!(
        "srv-alias.example",
        "_sipfederationtls._tcp CNAME srv\nsrv SRV 0 0 5061 sip\nsip A 198.51.100.10\n",
        Shown::Right,
        ["srv-alias"]
    ),
    case!(
        "srv-several.example",
        "_sipfederationtls._tcp SRV 10 0 5061 other\n_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A 198.51.100.10\n",
        Shown::Right,
        ["srv-several"]
    ),
    case!(
        "port.example",
        "_sipfederationtls._tcp SRV 0 0 5062 sip\nsip A 198.51.100.10\n",
        Shown::Nothing,
        ["srv-port", "address-port"]
    ),
    case!(
        "foreign.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip.right.example.\n",
        Shown::Nothing,
        ["target-foreign", "address-set"]
    ),
    case!(
        "deep.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip.eu\nsip.eu A 198.51.100.10\n",
        ["sip.eu.deep.example"],
        Shown::Made(|pki, domain| right(pki, domain, |it| {
            it.named(&["sip.eu.deep.example"], Some("sip.eu.deep.example"))
        })),
        ["target-deep"]
    ),
    case!(
        "apex.example",
        "_sipfederationtls._tcp SRV 0 0 5061 @\n@ A 198.51.100.10\n",
        ["apex.example"],
        Shown::Made(|pki, domain| right(pki, domain, |it| {
            it.named(&["apex.example"], Some("apex.example"))
        })),
        ["target-deep"]
    ),
    case!(
        "alias.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip CNAME sip.right.example.\n",
        Shown::Right,
        ["target-alias"]
    ),
    case!(
        "dangling.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip CNAME nobody.right.example.\n",
        Shown::Nothing,
        ["target-alias", "target-missing"]
    ),
    case!(
        "no-address.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip TXT none\n",
        Shown::Nothing,
        ["target-missing"]
    ),
    case!(
        "elsewhere.example",
        at!("203.0.113.77"),
        Shown::Nothing,
        ["address-foreign"]
    ),
    case!(
        "half.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A 198.51.100.10\nsip A 203.0.113.77\n",
        Shown::Right,
        ["address-foreign"]
    ),
    case!(
        "stray.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A 198.51.100.10\nsip AAAA 2001:db8:77::1\n",
        Shown::Right,
        ["aaaa-stray"]
    ),
    case!(
        "wrong-set.example",
        at!("198.51.100.20"),
        Shown::Right,
        ["address-set"]
    ),
    case!(
        "unrouted.example",
        "_sipfederationtls._tcp SRV 0 0 5061 edge\nedge A 198.51.100.10\n",
        Shown::Nothing,
        ["name-refused", "target-unrouted"]
    ),
    case!(
        "many.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A 198.51.100.10\nsip A 198.51.100.51\nsip A 198.51.100.52\nsip A 198.51.100.53\n\
         sip A 198.51.100.54\nsip A 198.51.100.55\nsip A 198.51.100.56\nsip A 198.51.100.57\nsip A 198.51.100.58\n",
        Shown::Right,
        ["addresses-many"]
    ),
    case!(
        "caa-other.example",
        "@ CAA 0 issue \"other.example\"\n_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A 198.51.100.10\n",
        Shown::Right,
        ["caa-forbids"]
    ),
    case!(
        "caa-nobody.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A 198.51.100.10\nsip CAA 0 issue \";\"\n",
        Shown::Right,
        ["caa-forbids"]
    ),
    // Its own zone is served by nobody, those of the service and the host are.
    case!("caa-failed.test", "", Shown::Right, ["caa-failed"]),
    case!("dns-failed.test", "", Shown::Nothing, ["dns-failed"]),
    // Connections.
    case!(
        "closed.example",
        at!("198.51.100.30"),
        Shown::Nothing,
        ["connect-failed"]
    ),
    case!(
        "no-route.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A 198.51.100.10\nsip AAAA 2001:db8:99::1\n",
        Shown::Right,
        ["no-route"]
    ),
    case!(
        "silent.example",
        at!("198.51.100.31"),
        Shown::Silent("198.51.100.31"),
        ["tls-failed"]
    ),
    case!("unknown.example", RIGHT, Shown::Nothing, ["name-refused"]),
    case!(
        "tls-11.example",
        at!("198.51.100.32"),
        Shown::Openssl("198.51.100.32", &["-tls1_1"]),
        ["tls-only-old"]
    ),
    case!(
        "tls-13.example",
        at!("198.51.100.33"),
        Shown::Openssl("198.51.100.33", &["-tls1_3"]),
        ["tls-12-missing"]
    ),
    case!(
        "tls-cbc.example",
        at!("198.51.100.34"),
        Shown::Openssl(
            "198.51.100.34",
            &["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"]
        ),
        ["tls-ciphers-old"]
    ),
    case!(
        "tls-all.example",
        at!("198.51.100.35"),
        Shown::Openssl("198.51.100.35", &[]),
        ["tls-old"]
    ),
    case!(
        "tls-client.example",
        at!("198.51.100.39"),
        Shown::Openssl(
            "198.51.100.39",
            &["-Verify", "3", "-verify_return_error", "-tls1_2"]
        ),
        []
    ),
    case!(
        "key.example",
        at!("198.51.100.36"),
        Shown::Rustls("198.51.100.36", Fault::Key),
        ["key-mismatch"]
    ),
    case!(
        "garbage.example",
        at!("198.51.100.37"),
        Shown::Rustls("198.51.100.37", Fault::Garbage),
        ["certificate-unreadable"]
    ),
    // The first address is nginx's.
    case!(
        "differ.example",
        "_sipfederationtls._tcp SRV 0 0 5061 sip\nsip A 198.51.100.10\nsip A 198.51.100.38\n",
        Shown::Openssl("198.51.100.38", &["-tls1_2"]),
        ["certificates-differ"]
    ),
    // Certificates.
    certificate!("name.example", ["certificate-name"], |pki, domain| right(
        pki,
        domain,
        |it| {
            it.named(
                &["sip.other.example", "a.example", "b.example", "c.example"],
                Some("sip.other.example"),
            )
        }
    )),
    certificate!(
        "wildcard.example",
        ["certificate-wildcard"],
        |pki, domain| right(pki, domain, |it| {
            it.named(&["*.wildcard.example"], Some("*.wildcard.example"))
        })
    ),
    certificate!(
        "cn-only.example",
        ["certificate-common-name"],
        |pki, domain| right(pki, domain, |it| {
            it.named(&["other.cn-only.example"], Some("sip.cn-only.example"))
        })
    ),
    certificate!("cn-none.example", ["common-name-missing"], |pki, domain| {
        right(pki, domain, |it| it.named(&["sip.cn-none.example"], None))
    }),
    certificate!(
        "cn-long-because-the-domain-has-a-name-of-so-many-characters.example",
        ["common-name-long"],
        |pki, domain| right(pki, domain, |it| it)
    ),
    certificate!("expired.example", ["certificate-expired"], |pki, domain| {
        right(pki, domain, |it| it.days(-30..-1))
    }),
    certificate!("early.example", ["certificate-not-yet"], |pki, domain| {
        right(pki, domain, |it| it.days(1..90))
    }),
    certificate!("soon.example", ["certificate-expiring"], |pki, domain| {
        right(pki, domain, |it| it.days(-30..10))
    }),
    certificate!("alone.example", ["chain-incomplete"], |pki, domain| sent(
        pki,
        domain,
        Sent::Alone
    )),
    certificate!(
        "stranger.example",
        ["chain-untrusted", "crl-invalid"],
        |pki, domain| sent(pki, domain, Sent::Stranger)
    ),
    certificate!("order.example", ["chain-order"], |pki, domain| sent(
        pki,
        domain,
        Sent::Strange
    )),
    certificate!(
        "former.example",
        ["chain-expired", "crl-invalid"],
        |pki, domain| sent(pki, domain, Sent::Former)
    ),
    certificate!(
        "impostor.example",
        ["chain-invalid", "crl-invalid"],
        |pki, domain| sent(pki, domain, Sent::Impostor)
    ),
    certificate!("pss.example", ["signature-pss"], |pki, _| {
        let pss = [
            "-sha256",
            "-sigopt",
            "rsa_padding_mode:pss",
            "-sigopt",
            "rsa_pss_saltlen:digest",
        ];
        pki.make_by_openssl("sip.pss.example", None, &pss)
    }),
    certificate!("sha1.example", ["signature-weak"], |pki, _| pki
        .make_by_openssl("sip.sha1.example", None, &["-sha1"])),
    certificate!("small.example", ["key-small"], |pki, _| pki
        .make_by_openssl("sip.small.example", Some(1024), &["-sha256"])),
    certificate!("ecdsa.example", ["key-not-rsa"], |pki, domain| pki
        .make_ecdsa(domain, &Wanted::right("sip.ecdsa.example"))),
    certificate!("client.example", ["usage-server"], |pki, domain| right(
        pki,
        domain,
        |it| it.usages(&[ClientAuth])
    )),
    certificate!("server.example", ["usage-client"], |pki, domain| right(
        pki,
        domain,
        |it| it.usages(&[ServerAuth])
    )),
    certificate!("no-list.example", ["crl-missing"], |pki, domain| right(
        pki,
        domain,
        |it| it.list(None)
    )),
    certificate!("lost-list.example", ["crl-unreachable"], |pki, domain| {
        right(pki, domain, |it| {
            it.list(Some(&format!("{LISTS}/lost.crl")))
        })
    }),
    certificate!("ldap-list.example", ["crl-unreachable"], |pki, domain| {
        right(pki, domain, |it| {
            it.list(Some("ldap://crl.hoster.example/cn=list"))
        })
    }),
    certificate!(
        "nowhere-list.example",
        ["crl-unreachable"],
        |pki, domain| {
            right(pki, domain, |it| {
                it.list(Some("http://nobody.hoster.example/good.crl"))
            })
        }
    ),
    certificate!("garbage-list.example", ["crl-invalid"], |pki, domain| {
        right(pki, domain, |it| {
            it.list(Some(&format!("{LISTS}/garbage.crl")))
        })
    }),
    certificate!("foreign-list.example", ["crl-invalid"], |pki, domain| {
        right(pki, domain, |it| {
            it.list(Some(&format!("{LISTS}/foreign.crl")))
        })
    }),
    certificate!("stale-list.example", ["crl-stale"], |pki, domain| {
        right(pki, domain, |it| {
            it.list(Some(&format!("{LISTS}/stale.crl")))
        })
    }),
    certificate!("revoked.example", ["revoked"], |pki, domain| right(
        pki,
        domain,
        Wanted::revoked
    )),
];

/// Findings that other tests are about, by the function that has them.
pub(crate) const ELSEWHERE: [&str; 3] = ["not-checked", "dns-silent", "caa-unknown"];
