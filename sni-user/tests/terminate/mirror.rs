//! What Edges are shown.

use std::{fs, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
use sni_user::tls::{Mirror, Store};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME,
    prelude::FromDer as _,
};

use crate::{
    openssl::{Client, Server},
    pki::{Wanted, openssl, write},
    scene::{CRL_URL, Edge, Files, Gateway},
};

const MIRROR: &str =
    "client_certificate = \"required\"\nclient_roots = \"public.pem\"\nidentity = \"mirror\"";

fn parse<'a>(der: &'a CertificateDer<'static>) -> X509Certificate<'a> {
    X509Certificate::from_der(der).expect("a certificate").1
}

fn read(files: &Files, file: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(files.path().join(file)).expect("PEM")
}

fn in_hours(hours: i64) -> UnixTime {
    let now = UnixTime::now().as_secs();
    UnixTime::since_unix_epoch(Duration::from_secs(now.strict_add_signed(hours * 3600)))
}

fn mirror(store: &Store) -> &Arc<Mirror> {
    store.mirror().expect("a mirror CA")
}

/// A partner's certificate with every kind of name that a library might write differently.
fn strange_partner(files: &Files) {
    write(
        files.path(),
        "strange.cnf",
        "[req]\nprompt = no\nstring_mask = default\ndistinguished_name = dn\n\
         [dn]\n1.DC = example\n2.DC = partner\nC = DE\nO = Partner & Söhne\n1.OU = Betrieb\n2.OU = Sprache\n\
         CN = sip.partner.example\n+serialNumber = 4711\n\
         [ext]\nextendedKeyUsage = serverAuth\n\
         subjectAltName = critical, DNS:sip.partner.example, DNS:SIP.Second.example, email:a@partner.example, \
         URI:sip:partner.example, IP:192.0.2.7, IP:2001:db8::7, RID:1.2.3.4, dirName:dn, \
         otherName:1.3.6.1.4.1.311.20.2.3;UTF8:user@partner.example\n",
    );
    openssl(
        files.path(),
        "req -new -utf8 -newkey rsa:2048 -nodes -keyout strange.key -config strange.cnf -out strange.csr",
    );
    openssl(
        files.path(),
        "x509 -req -in strange.csr -CA public.pem -CAkey public.key -set_serial 99 -days 30 \
         -extfile strange.cnf -extensions ext -out strange.pem",
    );
}

#[test]
fn a_mirrored_certificate_has_the_partners_names_byte_for_byte() {
    let files = Files::new();
    strange_partner(&files);
    let edge = Edge::start(&files, Some("mirror.pem"));
    let gateway = Gateway::start(files.load(MIRROR).0, 0, edge.address);
    let arguments = "-cert strange.pem -key strange.key";
    Client::echo(files.path(), gateway.port, arguments);
    let shown = edge.shown();
    let ca = read(&files, "mirror.pem");
    assert_eq!((shown.len(), &shown[1]), (2, &ca));

    let strange = read(&files, "strange.pem");
    let (theirs, ours, ca) = (parse(&strange), parse(&shown[0]), parse(&ca));
    let names = |certificate: &X509Certificate<'_>| {
        let found = certificate
            .extensions()
            .iter()
            .find(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME)
            .expect("names");
        (found.value.to_vec(), found.critical)
    };
    assert_eq!(theirs.subject().as_raw(), ours.subject().as_raw());
    assert_eq!(names(&theirs), names(&ours));
    // The test is worth something only if the certificate is as strange as it should be.
    let ParsedExtension::SubjectAlternativeName(parsed) = theirs
        .get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME)
        .expect("one")
        .expect("one")
        .parsed_extension()
    else {
        panic!("names can't be parsed");
    };
    assert_eq!(parsed.general_names.len(), 9);
    assert!(theirs.subject().iter().any(|rdn| rdn.iter().count() == 2));
    assert_eq!(theirs.subject().iter_organizational_unit().count(), 2);

    assert_eq!(ours.issuer().as_raw(), ca.subject().as_raw());
    ours.verify_signature(Some(ca.public_key()))
        .expect("signed by the CA");
    assert!(!ours.is_ca() && ours.validity().is_valid());
    let usages = ours.extended_key_usage().expect("one").expect("one").value;
    assert!(usages.client_auth && usages.server_auth);
    let mut points = Vec::new();
    let (mut own, mut issuer) = (None, None);
    for extension in ours.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::CRLDistributionPoints(found) => points.extend(found.points.iter()),
            ParsedExtension::SubjectKeyIdentifier(id) => own = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                issuer = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::UnsupportedExtension { oid } => panic!("{oid}"),
            ParsedExtension::ParseError { error } => panic!("{error}"),
            _ => {}
        }
    }
    let Some(x509_parser::extensions::DistributionPointName::FullName(urls)) =
        &points[0].distribution_point
    else {
        panic!("{points:?}");
    };
    assert_eq!(urls[..], [GeneralName::URI(CRL_URL)]);
    assert!(own.is_some());
    let of_ca = ca
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
    assert_eq!((issuer.is_some(), issuer), (true, of_ca));
}

#[test]
fn openssl_accepts_a_mirrored_partner_and_checks_its_revocation() {
    let files = Files::new();
    strange_partner(&files);
    let store = files.load(MIRROR).0;
    let list = mirror(&store)
        .revocation_list(UnixTime::now())
        .expect("a list");
    fs::write(files.path().join("mirror.crl"), list).expect("a file");
    openssl(
        files.path(),
        "crl -inform DER -in mirror.crl -out mirror.crl.pem -CAfile mirror.pem",
    );
    let mirrored = mirror(&store)
        .sign(&read(&files, "strange.pem"), UnixTime::now())
        .expect("signed");
    fs::write(files.path().join("mirrored.der"), &mirrored.chain()[0]).expect("a file");
    for purpose in ["sslclient", "sslserver"] {
        let verify = format!(
            "verify -x509_strict -crl_check -CRLfile mirror.crl.pem -CAfile mirror.pem -purpose {purpose} mirrored.der"
        );
        openssl(files.path(), &verify);
    }
    for version in ["-tls1_2", "-tls1_3"] {
        let edge = Server::start(
            files.path(),
            &format!(
                "{version} -cert edge.pem -key edge.key -CAfile mirror.pem -Verify 3 -verify_return_error"
            ),
        );
        let gateway = Gateway::start(files.reload(MIRROR, Some(&store)).0, 0, edge.address);
        let arguments = "-cert strange.pem -key strange.key";
        Client::echo(files.path(), gateway.port, arguments);
    }
}

#[test]
fn mirrored_certificates_are_kept_and_renewed_in_time() {
    let files = Files::new();
    let store = files.load(MIRROR).0;
    let mirror = mirror(&store);
    let partner = read(&files, "partner.pem");
    let ends = |hours: i64| {
        let identity = mirror.identity(&partner, in_hours(hours)).expect("signed");
        parse(&identity.chain()[0]).validity().not_after.timestamp()
    };
    let serial = |hours: i64| {
        let identity = mirror.identity(&partner, in_hours(hours)).expect("signed");
        parse(&identity.chain()[0]).raw_serial().to_vec()
    };
    let first = serial(0);
    assert_eq!(serial(11), first);
    let second = serial(13);
    assert_ne!(second, first);
    assert_eq!(serial(24), second);
    // The clock was wrong, and is set right: what was signed meanwhile is not valid yet.
    let back = serial(2);
    assert_ne!(back, second);
    assert_eq!(serial(13), back);
    // The partner's own ends in 90 days: no later than that, and not signed anew for every connection of its last day.
    let end = parse(&partner).validity().not_after.timestamp();
    assert_eq!(ends(90 * 24 - 2), end);
    let last = serial(90 * 24 - 2);
    assert_eq!(serial(90 * 24 - 1), last);

    // A reload that changes nothing about it keeps them.
    let again = files.reload(MIRROR, Some(&store)).0;
    assert!(Arc::ptr_eq(mirror, again.mirror().expect("one")));
    let error = mirror
        .identity(&partner, in_hours(366 * 24))
        .expect_err("no CA");
    assert!(error.to_string().contains("ca init"), "{error}");
}

#[test]
fn partners_are_not_taken_for_each_other() {
    let files = Files::new();
    files
        .public
        .issue("second", &Wanted::new(&["sip.second.example"]));
    let edge = Edge::start(&files, Some("mirror.pem"));
    let gateway = Gateway::start(files.load(MIRROR).0, 0, edge.address);
    for name in ["partner", "second", "partner", "second"] {
        let arguments = format!("-cert {name}.pem -key {name}.key");
        Client::echo(files.path(), gateway.port, &arguments);
        let shown = edge.shown();
        let subject = parse(&shown[0]).subject().to_string();
        assert_eq!(subject, format!("CN=sip.{name}.example"));
    }
}

#[test]
fn without_a_mirror_the_edge_sees_the_gateway_or_nobody() {
    let files = Files::new();
    let edge = Edge::start(&files, Some("mirror.pem"));
    let gateway = Gateway::start(
        files
            .load("client_certificate = \"none\"\nidentity = \"gateway\"")
            .0,
        0,
        edge.address,
    );
    Client::echo(files.path(), gateway.port, "");
    assert_eq!(edge.shown()[0], read(&files, "gateway.pem"));

    // Optional, and not shown: nobody is mirrored, and an Edge that wants somebody refuses.
    let open = Edge::start(&files, None);
    let optional = MIRROR.replace("required", "optional");
    let gateway = Gateway::start(files.load(&optional).0, 0, open.address);
    Client::echo(files.path(), gateway.port, "");
    assert!(open.shown().is_empty());
}

#[test]
fn an_international_url_is_encoded() {
    let files = Files::new();
    let text = files.text("client_roots = \"public.pem\"");
    let text = text.replace(CRL_URL, "http://crl.münchen.example/spiegel-ä.crl");
    let loaded = sni_user::config::Config::parse(&files.path().join("snigate.toml"), &text);
    let config = loaded.expect("a configuration").config;
    let store = Store::load(&config, None).expect("a store").0;
    let url = "http://crl.xn--mnchen-3ya.example/spiegel-%C3%A4.crl";
    assert_eq!(mirror(&store).crl_url(), Some(url));
    let partner = read(&files, "partner.pem");
    let mirrored = mirror(&store)
        .sign(&partner, UnixTime::now())
        .expect("signed");
    fs::write(files.path().join("mirrored.der"), &mirrored.chain()[0]).expect("a file");
    let text = openssl(
        files.path(),
        "x509 -inform DER -in mirrored.der -noout -text",
    );
    assert!(text.contains(url), "{text}");
}
