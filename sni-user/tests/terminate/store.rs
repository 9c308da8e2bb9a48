//! What is said about a configuration's files.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};

use sni_user::tls::{Finding, Store};

use crate::{
    pki::{Authority, Wanted, openssl, write},
    scene::Files,
};

const LINES: &str = "client_roots = \"public.pem\"";

/// The errors for the configuration.
fn errors(files: &Files, lines: &str) -> Vec<String> {
    let found = Store::load(&files.config(lines), None).expect_err("errors");
    let errors = found.iter().filter(|finding| finding.is_error());
    errors.map(ToString::to_string).collect()
}

fn warnings(files: &Files, lines: &str) -> Vec<String> {
    let (_, found) = files.load(lines);
    found.iter().map(Finding::to_string).collect()
}

#[track_caller]
fn only(found: &[String], parts: &[&str]) {
    assert_eq!(found.len(), 1, "{found:#?}");
    for part in parts {
        assert!(found[0].contains(part), "no {part:?} in {found:#?}");
    }
}

#[test]
fn good_files_are_not_talked_about() {
    let files = Files::new();
    assert_eq!(warnings(&files, LINES), Vec::<String>::new());
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let files = Files::new();
    let path = files.path();
    fs::remove_file(path.join("contoso.pem")).expect("removed");
    fs::write(path.join("contoso.key"), "").expect("a file");
    fs::rename(path.join("fabrikam.key"), path.join("x")).expect("moved");
    fs::copy(path.join("partner.key"), path.join("fabrikam.key")).expect("copied");
    fs::remove_file(path.join("mirror.key")).expect("removed");
    fs::write(path.join("private.pem"), "nothing").expect("a file");
    let found = errors(
        &files,
        "client_roots = \"none.pem\"\nclient_crls = [\"none.crl\"]",
    );
    for parts in [
        [
            "contoso.pem: error: domain contoso.example:",
            "is not there",
        ],
        [
            "contoso.key: error: domain contoso.example:",
            "no private key",
        ],
        ["none.pem: error: domain contoso.example:", "is not there"],
        ["none.crl: error: domain contoso.example:", "is not there"],
        [
            "fabrikam.pem: error: domain fabrikam.example:",
            "belongs to none",
        ],
        ["mirror.key: error: the mirror CA:", "is not there"],
        [
            "private.pem: error: Edge edge-a:",
            "no certificate in the file",
        ],
    ] {
        let all = |line: &&String| parts.iter().all(|part| line.contains(part));
        assert_eq!(found.iter().filter(all).count(), 1, "{parts:?}: {found:#?}");
    }
    assert_eq!(found.len(), 7, "{found:#?}");
}

#[test]
fn a_chain_is_put_in_order_or_refused() {
    let files = Files::new();
    let upper = files.public.intermediate("upper");
    let lower = upper.intermediate("lower");
    let leaf = lower.issue("contoso", &Wanted::new(&["sip.contoso.example"]));
    let root = files.public.pem();
    let sent = |certificates: &[&str]| {
        write(files.path(), "contoso.pem", &certificates.concat());
        warnings(&files, LINES)
    };
    let right = [&leaf, lower.pem(), upper.pem(), root];
    assert_eq!(sent(&right), Vec::<String>::new());
    assert_eq!(sent(&right[..3]), Vec::<String>::new());
    only(
        &sent(&[root, upper.pem(), lower.pem(), &leaf]),
        &["wrong order"],
    );
    only(&sent(&[&leaf, upper.pem(), lower.pem()]), &["wrong order"]);
    only(
        &sent(&[&leaf, lower.pem(), upper.pem(), &leaf]),
        &["does not need", "sip.contoso.example"],
    );

    write(files.path(), "contoso.pem", &[&leaf, upper.pem()].concat());
    only(
        &errors(&files, LINES),
        &[
            "can't be put in order",
            "CN=upper",
            "issued by CN=lower",
            "missing certificate",
        ],
    );
    // In the right order is also how it is sent.
    write(
        files.path(),
        "contoso.pem",
        &[upper.pem(), &leaf, lower.pem()].concat(),
    );
    let (store, _) = files.load(LINES);
    let edge = crate::scene::Edge::start(&files, None);
    let gateway = crate::scene::Gateway::start(store, 0, edge.address);
    crate::openssl::Client::echo(
        files.path(),
        gateway.port,
        "-CAfile public.pem -verify_return_error",
    );
}

#[test]
fn the_time_of_a_certificate() {
    let files = Files::new();
    let with = |life: (i64, i64)| {
        let wanted = Wanted {
            life,
            ..Wanted::new(&["sip.contoso.example"])
        };
        files.public.issue("contoso", &wanted);
        warnings(&files, LINES)
    };
    only(
        &with((-100, -1)),
        &["contoso.pem: warning", "HAS EXPIRED", "renew"],
    );
    only(&with((2, 90)), &["is not valid before"]);
    only(&with((-60, 29)), &["expires on", "in 2"]);
    assert_eq!(with((-60, 31)), Vec::<String>::new());
    // Served all the same.
    with((-100, -1));
    assert!(files.load(LINES).0.domain(0).is_some());
}

#[test]
fn names_permissions_and_signatures() {
    let files = Files::new();
    let path = files.path();
    let names =
        "names = [\"sip.contoso.example\", \"*.voip.contoso.example\", \"a.voip.contoso.example\"]";
    let lines = format!("{names}\n{LINES}");
    only(
        &warnings(&files, &lines),
        &[
            "is not for *.voip.contoso.example, a.voip.contoso.example, only for sip.contoso.example",
        ],
    );
    files.public.issue(
        "contoso",
        &Wanted::new(&["SIP.contoso.example", "*.voip.contoso.example"]),
    );
    assert_eq!(warnings(&files, &lines), Vec::<String>::new());

    fs::set_permissions(path.join("contoso.key"), fs::Permissions::from_mode(0o640)).expect("mode");
    only(
        &warnings(&files, &lines),
        &["contoso.key: warning", "mode 0640", "chmod 600"],
    );
    fs::set_permissions(path.join("contoso.key"), fs::Permissions::from_mode(0o600)).expect("mode");

    openssl(
        path,
        "req -x509 -newkey rsa:2048 -nodes -keyout rsa.key -out rsa.pem -subj /CN=rsa -days 9",
    );
    openssl(
        path,
        "req -new -newkey rsa:2048 -nodes -keyout contoso.key -out csr -subj /CN=sip.contoso.example",
    );
    write(
        path,
        "names.cnf",
        "subjectAltName = DNS:sip.contoso.example",
    );
    let sign =
        "x509 -req -in csr -CA rsa.pem -CAkey rsa.key -days 90 -set_serial 5 -out contoso.pem";
    openssl(path, sign);
    only(
        &errors(&files, LINES),
        &["X.509 version 1", "subject alternative names"],
    );
    openssl(
        path,
        &format!("{sign} -extfile names.cnf -sigopt rsa_padding_mode:pss"),
    );
    only(
        &warnings(&files, LINES),
        &["RSASSA-PSS", "Lync Server 2013"],
    );

    openssl(
        path,
        "pkey -in contoso.key -aes128 -passout pass:secret -out locked.key",
    );
    fs::rename(path.join("locked.key"), path.join("contoso.key")).expect("moved");
    only(
        &errors(&files, LINES),
        &["the key is encrypted", "openssl pkey"],
    );
}

#[test]
fn a_mirror_ca_must_be_one() {
    let files = Files::new();
    for end in ["pem", "key"] {
        let (from, to) = (format!("partner.{end}"), format!("mirror.{end}"));
        fs::copy(files.path().join(from), files.path().join(to)).expect("copied");
    }
    only(
        &errors(&files, LINES),
        &[
            "the mirror CA",
            "not one of an authority",
            "snigate ca init",
        ],
    );
}

#[test]
fn a_file_that_domains_share_is_reported_once() {
    let files = Files::new();
    let wanted = Wanted {
        life: (-9, 9),
        ..Wanted::new(&["sip.contoso.example", "sip.fabrikam.example"])
    };
    files.public.issue("contoso", &wanted);
    for end in ["pem", "key"] {
        let path = files.path().join(format!("fabrikam.{end}"));
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink(format!("contoso.{end}"), path).expect("a link");
    }
    // Two names of one file are two files.
    assert_eq!(warnings(&files, LINES).len(), 2);
    let lines = format!(
        "{LINES}\nnames = [\"sip.contoso.example\"]\n[[domain]]\nsip_domain = \"third.example\"\nnames = [\"sip.third.example\"]\npool = \"edges-a\"\ncertificate = \"contoso.pem\"\nkey = \"contoso.key\"\n{LINES}"
    );
    let found = warnings(&files, &lines);
    let expiring = found
        .iter()
        .filter(|line| line.contains("contoso.pem") && line.contains("expires"));
    assert_eq!(expiring.count(), 1, "{found:#?}");
}

#[test]
fn a_reload_changes_what_has_changed() {
    let files = Files::new();
    let (store, _) = files.load(LINES);
    let domain = |store: &Store, index: usize| Arc::clone(store.domain(index).expect("terminated"));
    let same = files.reload(LINES, Some(&store)).0;
    assert!(Arc::ptr_eq(&domain(&store, 0), &domain(&same, 0)));

    files
        .public
        .issue("contoso", &Wanted::new(&["sip.contoso.example"]));
    let renewed = files.reload(LINES, Some(&store)).0;
    assert!(!Arc::ptr_eq(&domain(&store, 0), &domain(&renewed, 0)));
    assert!(Arc::ptr_eq(&domain(&store, 1), &domain(&renewed, 1)));

    Authority::new(files.path(), "public");
    let distrusted = files.reload(LINES, Some(&renewed)).0;
    assert!(!Arc::ptr_eq(&domain(&renewed, 1), &domain(&distrusted, 1)));
}

#[test]
fn the_files_to_watch() {
    let files = Files::new();
    files.public.revoke("public.crl", &[], 9);
    let (store, _) = files.load("client_roots = \"public.pem\"\nclient_crls = [\"public.crl\"]");
    let mut names: Vec<_> = store
        .files()
        .iter()
        .map(|path| {
            path.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "contoso.key",
            "contoso.pem",
            "contoso.pem.ocsp",
            "fabrikam.key",
            "fabrikam.pem",
            "fabrikam.pem.ocsp",
            "gateway.key",
            "gateway.pem",
            "mirror.key",
            "mirror.pem",
            "private.pem",
            "public.crl",
            "public.pem",
        ]
    );
}
