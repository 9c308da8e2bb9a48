//! `snigate ca` and `snigate cert`, as they are run.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::Value;
use sni_user::cli::{Environment, run};
use tempfile::TempDir;

use crate::{
    pki::{Wanted, openssl},
    scene::{CRL_URL, Files},
};

fn snigate(directory: &Path, arguments: &str) -> (u8, String, String) {
    let config = directory.join("snigate.toml").display().to_string();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = arguments.split_whitespace().chain(["--config", &config]);
    let status = run(
        ["snigate"].into_iter().chain(words),
        &mut Environment {
            width: None,
            ..Environment::of_process(&mut out, &mut err)
        },
    );
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status, text(out), text(err))
}

fn configured(identity: &str) -> TempDir {
    let directory = TempDir::new().expect("a directory");
    let text = format!("[gateway]\ninterfaces = [\"wan0\"]\n{identity}");
    fs::write(directory.path().join("snigate.toml"), text).expect("a file");
    directory
}

#[test]
fn a_ca_is_made_once_with_keys_that_nobody_else_reads() {
    let directory = configured(&format!(
        "[identity]\nca = \"ca/mirror.pem\"\nkey = \"ca/private/mirror.key\"\ncrl_url = \"{CRL_URL}\"\n\
         gateway_certificate = \"gateway.pem\"\ngateway_key = \"gateway.key\"\n"
    ));
    let path = directory.path();
    let command = "ca init --name example --gateway-name gateway.hoster.example --days 100";
    let (status, out, err) = snigate(path, command);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(
        out.contains("import ") && out.contains("ca/mirror.pem") && out.contains(CRL_URL),
        "{out}"
    );
    for file in ["ca/private/mirror.key", "gateway.key"] {
        let mode = fs::metadata(path.join(file))
            .expect("a file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600, "{file}");
    }
    openssl(
        path,
        "verify -x509_strict -CAfile ca/mirror.pem -purpose sslclient gateway.pem",
    );
    let text = openssl(path, "x509 -in ca/mirror.pem -noout -text");
    for part in [
        "CN = example",
        "CA:TRUE, pathlen:0",
        "sha256WithRSAEncryption",
        "CRL Sign",
    ] {
        assert!(text.contains(part), "no {part}: {text}");
    }
    let text = openssl(path, "x509 -in gateway.pem -noout -text");
    for part in [
        "DNS:gateway.hoster.example",
        "TLS Web Client Authentication",
        CRL_URL,
    ] {
        assert!(text.contains(part), "no {part}: {text}");
    }

    // Not a second time, and not in part.
    let before = fs::read(path.join("ca/private/mirror.key")).expect("a file");
    fs::remove_file(path.join("ca/mirror.pem")).expect("removed");
    let (status, out, err) = snigate(path, command);
    assert_eq!((status, out.as_str()), (1, ""));
    assert!(err.contains("mirror.key is there already"), "{err}");
    assert_eq!(
        fs::read(path.join("ca/private/mirror.key")).expect("a file"),
        before
    );
    assert!(!path.join("ca/mirror.pem").exists());
}

#[test]
fn without_a_place_there_is_no_ca() {
    let directory = configured("");
    for command in ["ca init", "ca show"] {
        let (status, _, err) = snigate(directory.path(), command);
        assert!(status == 1 && err.contains("[identity]"), "{err}");
    }
    let directory = configured("[identity]\nca = \"blocked/mirror.pem\"\nkey = \"mirror.key\"\n");
    fs::write(directory.path().join("blocked"), "a file").expect("a file");
    let (status, _, err) = snigate(directory.path(), "ca init");
    assert!(status == 1 && err.contains("blocked"), "{err}");
    // The key that was written first is gone again.
    assert!(!directory.path().join("mirror.key").exists());
    let (status, _, err) = snigate(directory.path(), "ca init --days 0");
    assert!(status == 2 && err.contains("--days"), "{err}");
}

#[test]
fn a_ca_is_shown_with_what_identifies_it() {
    let directory = configured(&format!(
        "[identity]\nca = \"mirror.pem\"\nkey = \"mirror.key\"\ncrl_url = \"{CRL_URL}\"\n"
    ));
    let path = directory.path();
    let (status, out, _) = snigate(path, "ca show");
    assert!(status == 1 && out.contains("is not there"), "{out}");
    assert_eq!(snigate(path, "ca init").0, 0);
    let fingerprint = openssl(path, "x509 -in mirror.pem -noout -fingerprint -sha256");
    let fingerprint = fingerprint.trim().split('=').next_back().expect("one");
    let (status, out, err) = snigate(path, "ca show");
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains(fingerprint) && out.contains(CRL_URL), "{out}");
    let (_, out, _) = snigate(path, "ca show --json");
    let shown: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(shown["certificate"]["fingerprint"], fingerprint);
    assert_eq!(shown["certificate"]["state"], "valid");
    assert_eq!(shown["domains"], serde_json::json!([]));
}

#[test]
fn certificates_are_listed_and_the_unreadable_among_them() {
    let files = Files::new();
    let path = files.path();
    let toml = files.text("client_roots = \"public.pem\"");
    fs::write(path.join("snigate.toml"), toml).expect("a file");
    let (status, out, err) = snigate(path, "cert ls");
    assert_eq!((status, err.as_str()), (0, ""));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 5, "{out}");
    for part in [
        "contoso.example",
        "sip.contoso.example",
        "public",
        "P-256",
        "contoso.pem",
        "valid",
        " 90 ",
    ] {
        assert!(lines[1].contains(part), "no {part}: {out}");
    }
    for part in ["the gateway", "gateway.hoster.example", "RSA 2048"] {
        assert!(lines[3].contains(part), "no {part}: {out}");
    }
    for part in ["mirrored partners", "RSA 2048"] {
        assert!(lines[4].contains(part), "no {part}: {out}");
    }

    let wanted = Wanted {
        life: (-9, -1),
        ..Wanted::new(&["sip.contoso.example"])
    };
    files.public.issue("contoso", &wanted);
    fs::remove_file(path.join("fabrikam.pem")).expect("removed");
    fs::remove_file(path.join("gateway.key")).expect("removed");
    let (status, out, err) = snigate(path, "cert ls");
    assert_eq!((status, err.as_str()), (1, ""));
    let lines: Vec<_> = out.lines().collect();
    assert!(
        lines[1].contains("EXPIRED") && lines[1].contains(" -1 "),
        "{out}"
    );
    assert!(
        lines[2].contains("fabrikam.pem: the certificate is not there"),
        "{out}"
    );
    // What can be read is shown all the same.
    assert!(
        lines[3].contains("gateway.hoster.example")
            && lines[3].contains("gateway.key: the private key is not there"),
        "{out}"
    );
    let (status, out, _) = snigate(path, "cert ls --json");
    let listed: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((status, listed.as_array().expect("a list").len()), (1, 4));
    assert_eq!(listed[0]["domains"], serde_json::json!(["contoso.example"]));
    assert_eq!(listed[0]["state"], "expired");
    assert_eq!(listed[0]["days_left"], -1);
    assert_eq!(listed[1]["state"], "broken");
    assert!(
        listed[1]["names"].is_null() && listed[1]["problem"].is_string(),
        "{out}"
    );
}
