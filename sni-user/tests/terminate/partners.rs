//! What partners see: versions, certificates, resumption, alerts.

use std::slice;

use crate::{
    openssl::{Client, Server},
    pki::{Wanted, openssl},
    scene::{Edge, Files, Gateway},
};

const REQUIRED: &str = "client_certificate = \"required\"\nclient_roots = \"public.pem\"";
const SHOWN: &str = "-cert partner.pem -key partner.key";

fn verified(arguments: &str) -> String {
    format!(
        "-CAfile public.pem -verify_return_error -verify_hostname sip.contoso.example {arguments}"
    )
}

#[test]
fn a_partner_with_a_certificate_for_servers_talks_to_the_edge() {
    let files = Files::new();
    let edge = Edge::start(&files, None);
    let gateway = Gateway::start(files.load(REQUIRED).0, 0, edge.address);
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = verified(&format!("{version} {SHOWN}"));
        Client::echo(files.path(), gateway.port, &arguments);
        let relayed = gateway.outcome().expect("relayed");
        assert_eq!((relayed.to_edge, relayed.to_partner), (8, 8));
        assert!(edge.shown().is_empty());
    }
}

#[test]
fn rsa_as_federation_uses_it() {
    let files = Files::new();
    for name in ["contoso", "partner"] {
        let host = format!("sip.{name}.example");
        let names = [host.as_str()];
        let rsa = Wanted {
            rsa: true,
            ..Wanted::new(&names)
        };
        files.public.issue(name, &rsa);
    }
    let edge = Edge::start(&files, None);
    let gateway = Gateway::start(files.load(REQUIRED).0, 0, edge.address);
    for version in [
        "-tls1_3",
        "-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384 -sigalgs RSA+SHA256",
    ] {
        let arguments = verified(&format!("{version} {SHOWN}"));
        Client::echo(files.path(), gateway.port, &arguments);
    }
}

#[test]
fn partners_without_a_good_certificate_are_told_why() {
    let files = Files::new();
    let stranger = crate::pki::Authority::new(files.path(), "stranger");
    stranger.issue("unknown", &Wanted::new(&["sip.unknown.example"]));
    let with = |change: &dyn Fn(&mut Wanted<'_>), file: &str| {
        let mut wanted = Wanted::new(&["sip.partner.example"]);
        change(&mut wanted);
        files.public.issue(file, &wanted);
    };
    with(&|wanted| wanted.life = (-30, -1), "expired");
    with(&|wanted| wanted.life = (1, 30), "early");
    with(&|wanted| wanted.serial = 666, "revoked");
    with(
        &|wanted| wanted.usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning],
        "signer",
    );
    files.public.revoke("public.crl", &[666], 10);
    let edge = Edge::start(&files, None);
    let lines = format!("{REQUIRED}\nclient_crls = [\"public.crl\"]");
    let gateway = Gateway::start(files.load(&lines).0, 0, edge.address);
    // certificate_required, which rustls also sends in TLS 1.2, where it says more than the older handshake_failure.
    for version in ["-tls1_2", "-tls1_3"] {
        Client::refused(files.path(), gateway.port, version, 116);
        assert_eq!(gateway.failure(), "client-certificate-missing");
    }
    for (file, alert, name) in [
        ("unknown", 48, "client-certificate-unknown-issuer"),
        ("expired", 45, "client-certificate-expired"),
        ("early", 45, "client-certificate-refused"),
        ("revoked", 44, "client-certificate-revoked"),
        ("signer", 43, "client-certificate-refused"),
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            let arguments = format!("{version} -cert {file}.pem -key {file}.key");
            Client::refused(files.path(), gateway.port, &arguments, alert);
            assert_eq!(gateway.failure(), name, "{file}");
        }
    }
    // The list does not stand in the way of others.
    Client::echo(files.path(), gateway.port, SHOWN);
}

#[test]
fn a_list_that_nobody_renews_lets_nobody_in() {
    let files = Files::new();
    files.public.revoke("public.crl", &[], -1);
    let edge = Edge::start(&files, None);
    let lines = format!("{REQUIRED}\nclient_crls = [\"public.crl\"]");
    let gateway = Gateway::start(files.load(&lines).0, 0, edge.address);
    Client::refused(files.path(), gateway.port, SHOWN, 48);
    assert_eq!(gateway.failure(), "client-certificate-list-expired");
}

#[test]
fn optional_and_unwanted_certificates() {
    let files = Files::new();
    let stranger = crate::pki::Authority::new(files.path(), "stranger");
    stranger.issue("unknown", &Wanted::new(&["sip.unknown.example"]));
    let edge = Edge::start(&files, None);
    let unknown = "-cert unknown.pem -key unknown.key";

    let optional = files.load("client_roots = \"public.pem\"").0;
    let gateway = Gateway::start(optional, 0, edge.address);
    for arguments in ["-tls1_2", "-tls1_3"] {
        Client::echo(files.path(), gateway.port, arguments);
        Client::echo(files.path(), gateway.port, &format!("{arguments} {SHOWN}"));
        Client::refused(
            files.path(),
            gateway.port,
            &format!("{arguments} {unknown}"),
            48,
        );
    }

    let none = files.load("client_certificate = \"none\"").0;
    let gateway = Gateway::start(none, 0, edge.address);
    let client = Client::echo(files.path(), gateway.port, unknown);
    assert!(
        client
            .output
            .contains("No client certificate CA names sent"),
        "{}",
        client.output
    );
}

#[test]
fn what_is_too_old_is_told_so() {
    let files = Files::new();
    let edge = Edge::start(&files, None);
    let gateway = Gateway::start(files.load(REQUIRED).0, 0, edge.address);
    let old = "-tls1_1 -cipher ALL:@SECLEVEL=0";
    Client::refused(files.path(), gateway.port, old, 70);
    assert_eq!(gateway.failure(), "no-common-version");
    let cbc = "-tls1_2 -cipher ECDHE-ECDSA-AES256-SHA384";
    Client::refused(files.path(), gateway.port, cbc, 40);
    assert_eq!(gateway.failure(), "no-common-cipher");
}

#[test]
fn sessions_are_resumed_with_their_certificates_and_nowhere_else() {
    let files = Files::new();
    let edge = Edge::start(&files, Some("mirror.pem"));
    let lines = format!("{REQUIRED}\nidentity = \"mirror\"");
    let gateway = Gateway::start(files.load(&lines).0, 0, edge.address);
    for version in ["-tls1_2", "-tls1_2 -no_ticket", "-tls1_3"] {
        let first = format!("{version} {SHOWN} -sess_out session.pem");
        let client = Client::echo(files.path(), gateway.port, &first);
        assert!(client.output.contains("\nNew, TLS"), "{}", client.output);
        assert_eq!(edge.shown().len(), 2);
        // Without the certificate: what is mirrored now comes from the session.
        let again = format!("{version} -sess_in session.pem");
        let client = Client::echo(files.path(), gateway.port, &again);
        assert!(
            client.output.contains("\nReused, TLS"),
            "{version}: {}",
            client.output
        );
        assert_eq!(edge.shown().len(), 2, "{version}");

        // Another domain, and the same one with other demands.
        let resumed_at = |gateway: &Gateway| {
            let again = format!("{version} {SHOWN} -sess_in session.pem");
            let client = Client::echo(files.path(), gateway.port, &again);
            assert_eq!(
                client.output.contains("\nNew, TLS"),
                !client.output.contains("\nReused, TLS")
            );
            client.output.contains("\nReused, TLS")
        };
        let store = gateway.store();
        let same = Gateway::start(files.reload(&lines, Some(&store)).0, 0, edge.address);
        assert!(resumed_at(&same), "{version}");
        let other = Gateway::start(files.reload(&lines, Some(&store)).0, 1, edge.address);
        let looser = lines.replace("required", "optional");
        let changed = Gateway::start(files.reload(&looser, Some(&store)).0, 0, edge.address);
        // The other domain's Edge connection is refused: it mirrors nobody. The session is what matters.
        let again = format!("{version} {SHOWN} -sess_in session.pem");
        let client = Client::run(files.path(), other.port, &again);
        assert!(
            client.output.contains("\nNew, TLS"),
            "{version}: {}",
            client.output
        );
        assert!(!resumed_at(&changed), "{version}");
    }
}

#[test]
fn a_resumed_partner_is_verified_again() {
    use rustls::pki_types::{CertificateDer, UnixTime, pem::PemObject as _};
    let files = Files::new();
    let store = files.load(REQUIRED).0;
    let domain = store.domain(0).expect("terminated");
    let partner = CertificateDer::from_pem_file(files.path().join("partner.pem")).expect("PEM");
    let in_days = |days: u64| {
        let now = UnixTime::now().as_secs();
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(now + days * 86_400))
    };
    domain
        .check_again(slice::from_ref(&partner), in_days(0))
        .expect("valid");
    assert!(
        domain
            .check_again(slice::from_ref(&partner), in_days(91))
            .is_err()
    );
    domain
        .check_again(&[], in_days(0))
        .expect("nothing was shown");
    files.public.revoke("public.crl", &[0x1234], 10);
    let lines = format!("{REQUIRED}\nclient_crls = [\"public.crl\"]");
    let store = files.reload(&lines, Some(&store)).0;
    let domain = store.domain(0).expect("terminated");
    assert!(domain.check_again(&[partner], in_days(0)).is_err());
}

#[test]
fn an_ocsp_response_beside_the_certificate_is_stapled_while_it_is_current() {
    let files = Files::new();
    let edge = Edge::start(&files, None);
    let path = files.path();
    // The authority's index: valid, no revocation, serial 0x1234.
    std::fs::write(
        path.join("index"),
        "V\t491231235959Z\t\t1234\tunknown\t/CN=sip.contoso.example\n",
    )
    .expect("a file");
    openssl(
        path,
        "ocsp -index index -CA public.pem -rsigner public.pem -rkey public.key -issuer public.pem \
         -cert contoso.pem -respout contoso.pem.ocsp -ndays 2",
    );
    let (store, findings) = files.load(REQUIRED);
    assert!(findings.is_empty(), "{findings:#?}");
    let gateway = Gateway::start(store, 0, edge.address);
    for version in ["-tls1_2", "-tls1_3"] {
        let arguments = format!("{version} {SHOWN} -status");
        let client = Client::echo(path, gateway.port, &arguments);
        assert!(
            client.output.contains("OCSP Response Status: successful")
                && client.output.contains("Cert Status: good"),
            "{}",
            client.output
        );
    }
    // All its dates ten years earlier; the signature is looked at by clients only.
    let mut response = std::fs::read(path.join("contoso.pem.ocsp")).expect("a file");
    for at in 0..response.len() - 4 {
        if response[at..].starts_with(b"\x18\x0f20") {
            response[at + 4] -= 1;
        }
    }
    std::fs::write(path.join("contoso.pem.ocsp"), response).expect("a file");
    let (store, findings) = files.load(REQUIRED);
    assert!(
        findings.len() == 1 && findings[0].to_string().contains("no longer, current"),
        "{findings:#?}"
    );
    gateway.replace(store);
    let client = Client::echo(path, gateway.port, &format!("{SHOWN} -status"));
    assert!(
        client.output.contains("OCSP response: no response sent"),
        "{}",
        client.output
    );

    std::fs::write(path.join("contoso.pem.ocsp"), b"no DER").expect("a file");
    let (_, findings) = files.load(REQUIRED);
    assert!(findings[0].to_string().contains("damaged"), "{findings:#?}");
}

#[test]
fn whatever_the_edge_does_wrong_the_partner_gets_an_alert() {
    let files = Files::new();
    let names = ["edge-b.hoster.example"];
    files.private.issue("wrong", &Wanted::new(&names));
    let path = files.path();
    let lines = format!("{REQUIRED}\nidentity = \"mirror\"");
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    };
    let gateway = Gateway::start(files.load(&lines).0, 0, gone);
    Client::refused(path, gateway.port, SHOWN, 80);
    assert_eq!(gateway.failure(), "no-edge");

    let wrong = Server::start(path, "-cert wrong.pem -key wrong.key");
    let gateway = Gateway::start(files.load(&lines).0, 0, wrong.address);
    for arguments in [
        "-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256",
        "-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384",
        "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256",
        "-tls1_2 -cipher ECDHE-ECDSA-AES128-GCM-SHA256",
        "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384",
        "-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305",
    ] {
        Client::refused(path, gateway.port, &format!("{arguments} {SHOWN}"), 80);
        assert_eq!(gateway.failure(), "edge-certificate");
    }

    for version in ["-tls1_2", "-tls1_3"] {
        // It trusts another authority than the gateway's.
        let arguments = format!(
            "{version} -cert edge.pem -key edge.key -CAfile public.pem -Verify 3 -verify_return_error"
        );
        let strict = Server::start(path, &arguments);
        let gateway = Gateway::start(files.load(&lines).0, 0, strict.address);
        Client::refused(path, gateway.port, SHOWN, 80);
        assert_eq!(gateway.failure(), "edge-alert", "{version}");
    }
}

#[test]
fn an_application_protocol_that_is_routed_by_is_agreed_on() {
    let files = Files::new();
    let edge = Edge::start(&files, None);
    let lines = format!("{REQUIRED}\nalpn = [\"sip\"]");
    let gateway = Gateway::start(files.load(&lines).0, 0, edge.address);
    let client = Client::echo(files.path(), gateway.port, &format!("{SHOWN} -alpn h2,sip"));
    assert!(
        client.output.contains("ALPN protocol: sip"),
        "{}",
        client.output
    );
}
