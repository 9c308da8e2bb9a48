//! Configurations in several files, and texts that nobody would write.

use std::{fs, path::Path};

use proptest::prelude::*;
use sni_user::config::{Config, Diagnostics};
use tempfile::TempDir;

/// Writes the files and loads the first.
fn load(files: &[(&str, &str)]) -> (TempDir, Result<sni_user::config::Loaded, Diagnostics>) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let result = Config::load(&directory.path().join(files[0].0));
    (directory, result)
}

/// File, line and column of each finding, in the order of the report.
fn places(directory: &TempDir, found: &Diagnostics) -> Vec<String> {
    let prefix = format!("{}/", directory.path().display());
    found
        .iter()
        .map(|found| found.location().to_string().replace(&prefix, ""))
        .collect()
}

const MAIN: &str = r#"[gateway]
interfaces = ["wan0"]
include = ["domains.d/*.toml", "edges.toml", "domains.d/a.toml", "*.toml"]
[[pool]]
name = "edges-a"
edges = ["edge-a"]
[[ip_set]]
name = "shared"
addresses = ["198.51.100.20"]
inspect = true
default = "edges-a"
"#;
const EDGES: &str = "[[edge]]\nname = \"edge-a\"\naddress = \"203.0.113.10:5061\"\n";
const DOMAIN_A: &str = "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\n";

#[test]
fn included_files_are_read_once_and_in_order() {
    let (directory, result) = load(&[
        ("snigate.toml", MAIN),
        ("edges.toml", EDGES),
        (
            "domains.d/b.toml",
            "[[domain]]\nsip_domain = \"b.example\"\npool = \"edges-a\"\ncertificate = \"b.pem\"\nkey = \"/keys/b\"\n",
        ),
        ("domains.d/a.toml", DOMAIN_A),
        ("domains.d/README", "not TOML"),
    ]);
    let loaded = result.unwrap();
    let files: Vec<_> = loaded
        .files
        .iter()
        .map(|path| path.strip_prefix(&directory).unwrap())
        .collect();
    let expected = [
        "snigate.toml",
        "domains.d/a.toml",
        "domains.d/b.toml",
        "edges.toml",
    ];
    assert_eq!(files, expected.map(Path::new));
    let domains: Vec<_> = loaded
        .config
        .domains
        .iter()
        .map(|it| it.sip_domain.as_str())
        .collect();
    assert_eq!(domains, ["a.example", "b.example"]);
    let termination = loaded.config.domains[1].terminate.as_ref().unwrap();
    assert_eq!(
        termination.certificate,
        directory.path().join("domains.d/b.pem")
    );
    assert_eq!(termination.key, Path::new("/keys/b"));
}

#[test]
fn mistakes_in_several_files_are_reported_at_once_and_in_order() {
    let (directory, result) = load(&[
        ("snigate.toml", &MAIN.replace("[\"wan0\"]", "[]")),
        (
            "edges.toml",
            &format!("{EDGES}sourec = \"preserve\"\n[limits]\nsyn_per_source = \"fast\"\n"),
        ),
        ("domains.d/a.toml", DOMAIN_A),
        (
            "domains.d/b.toml",
            "[[domain]]\nsip_domain = \"a.example\"\npool = \"edges-b\"\n  identity = \"mirror\"\n",
        ),
    ]);
    let found = result.unwrap_err();
    let expected = [
        "snigate.toml:2:14",     // no interface
        "domains.d/b.toml:2:14", // the same domain as in a.toml
        "domains.d/b.toml:3:8",  // no such pool
        "domains.d/b.toml:4:3",  // identity without a certificate
        "edges.toml:4:1",        // no such key
        "edges.toml:6:18",       // not a rate
    ];
    assert_eq!(places(&directory, &found), expected, "{found}");
    let duplicate = found.iter().nth(1).unwrap();
    let (first, _) = duplicate.related_locations().next().unwrap();
    assert_eq!(first.path(), directory.path().join("domains.d/a.toml"));
    assert_eq!(first.line(), Some(2));
    let text = found.to_string();
    assert!(text.contains("domains.d/a.toml:2:14"), "{text}");
    assert!(text.contains("3 | pool = \"edges-b\""), "{text}");
    assert!(text.ends_with("6 errors\n"), "{text}");
}

#[test]
fn a_file_that_is_not_toml_does_not_hide_the_others() {
    let broken = MAIN.replace("[[pool]]", "[[pool]");
    let (directory, result) = load(&[
        ("snigate.toml", &broken),
        (
            "edges.toml",
            &EDGES.replace("203.0.113.10:5061", "203.0.113.10"),
        ),
        (
            "domains.d/a.toml",
            "[[domain]]\nsip_domain = a.example\npool = \"edges-a\"\n",
        ),
    ]);
    let found = result.unwrap_err();
    // What only seems to be missing, such as the pool, is not complained about.
    assert_eq!(
        places(&directory, &found),
        [
            "snigate.toml:4:8",
            "domains.d/a.toml:2:14",
            "edges.toml:3:11"
        ],
        "{found}"
    );
}

#[test]
fn files_that_cannot_be_read() {
    let missing = Config::load(Path::new("/nonexistent/snigate.toml")).unwrap_err();
    let only = missing.iter().next().unwrap();
    assert_eq!(
        (missing.len(), only.location().line()),
        (1, None),
        "{missing}"
    );
    assert!(only.message().contains("No such file"), "{missing}");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("latin.toml");
    fs::write(&path, b"[gateway]\nseed = \"M\xfcnchen\"\n").unwrap();
    let latin = Config::load(&path).unwrap_err();
    assert_eq!(places(&directory, &latin), ["latin.toml:2:10"], "{latin}");

    let (directory, result) = load(&[
        (
            "snigate.toml",
            "[gateway]\ninterfaces = [\"wan0\"]\ninclude = [\"domains.d\"]\n",
        ),
        ("domains.d/a.toml", DOMAIN_A),
    ]);
    let found = result.unwrap_err();
    assert_eq!(places(&directory, &found), ["domains.d"], "{found}");
    assert!(found.to_string().contains("snigate.toml:3:12"), "{found}");
}

#[test]
fn tables_that_belong_elsewhere() {
    let (directory, result) = load(&[
        (
            "snigate.toml",
            &format!("{MAIN}[identity]\ngateway_certificate = \"g\"\ngateway_key = \"k\"\n"),
        ),
        (
            "edges.toml",
            &format!("{EDGES}[gateway]\ninterfaces = [\"lan0\"]\n"),
        ),
        (
            "domains.d/a.toml",
            "[identity]\ngateway_certificate = \"g\"\ngateway_key = \"k\"\n",
        ),
    ]);
    let found = result.unwrap_err();
    assert_eq!(
        places(&directory, &found),
        ["domains.d/a.toml:1:1", "edges.toml:4:1"],
        "{found}"
    );
    assert!(found.to_string().contains("two files"), "{found}");
}

#[test]
fn a_directory_whose_name_looks_like_a_pattern() {
    let (_directory, result) = load(&[
        ("gate[way]*/snigate.toml", &MAIN.replace(", \"*.toml\"", "")),
        ("gate[way]*/edges.toml", EDGES),
        ("gate[way]*/domains.d/a.toml", DOMAIN_A),
    ]);
    assert_eq!(result.unwrap().files.len(), 3);
}

#[test]
fn diagnostics_as_json() {
    let (_directory, result) = load(&[("snigate.toml", "[gateway]\ninterfaces = []\n[[edge]]\n")]);
    let json = serde_json::to_value(result.unwrap_err()).unwrap();
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["line"], 2);
    assert_eq!(json[0]["column"], 14);
    assert!(json[0]["file"].as_str().unwrap().ends_with("snigate.toml"));
    assert!(
        json[0]["help"]
            .as_str()
            .unwrap()
            .contains("write `interfaces")
    );
}

/// Whatever is in the file: an answer, that can be printed and has its place inside of the file.
fn survives(text: &str) {
    match Config::parse(Path::new("/etc/snigate/test.toml"), text) {
        Ok(loaded) => drop(serde_json::to_string(&loaded.config).unwrap()),
        Err(found) => {
            assert!(found.errors().next().is_some());
            assert!(found.render(true).len() > found.len());
            serde_json::to_string(&found).unwrap();
            for place in found.iter().filter_map(|found| found.location().line()) {
                assert!(place <= text.split('\n').count());
            }
        }
    }
}

/// Values of every kind, right and wrong, for every key of every table.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,20}",
        "\"[a-z0-9.:/\\[\\]*-]{0,20}\"",
        any::<i64>().prop_map(|number| number.to_string()),
        prop::sample::select(vec![
            "true",
            "[]",
            "{}",
            "[\"edge-a\"]",
            "\"edge-a\"",
            "\"203.0.113.10:5061\"",
            "[\"198.51.100.10\", \"::\"]",
            "\"2h\"",
            "\"200/s\"",
            "\"sip.a.example\"",
            "\"system\"",
            "\"\"",
            "1979-05-27",
            "[{ name = \"edge-a\" }]",
            "{ name = \"a.example\" }",
            "{ tls = true, interval = \"1s\" }",
            "[1, [2], 65535]",
            "\"\\u0000\"",
            "[\"/dev/null\"]",
            "\"\"\"a\nb\"\"\"",
            "1e400",
            "0xff",
        ])
        .prop_map(Into::into),
    ]
}

fn document() -> impl Strategy<Value = String> {
    let header = prop::sample::select(vec![
        "",
        "[gateway]",
        "[[edge]]",
        "[[pool]]",
        "[[ip_set]]",
        "[[domain]]",
        "[identity]",
        "[limits]",
        "[edge]",
        "[other]",
    ]);
    let key = prop::sample::select(vec![
        "interfaces",
        "hook",
        "seed",
        "pin_path",
        "control",
        "metrics",
        "datapath_time",
        "idle_timeout",
        "hello_timeout",
        "max_flows",
        "name",
        "address",
        "source",
        "tls",
        "health",
        "edges",
        "addresses",
        "ports",
        "steer",
        "inspect",
        "default",
        "bind",
        "hand_off",
        "sip_domain",
        "names",
        "pool",
        "certificate",
        "key",
        "client_certificate",
        "client_roots",
        "client_crls",
        "alpn",
        "balance",
        "proxy_protocol",
        "proxy_protocol_from",
        "max_connections",
        "identity",
        "ca",
        "crl_url",
        "gateway_certificate",
        "gateway_key",
        "syn_per_source",
        "hello_per_source",
        "syn_per_prefix",
        "hello_per_prefix",
        "deny",
        "allow",
        "wrong",
    ]);
    let line = (key, value()).prop_map(|(key, value)| format!("{key} = {value}\n"));
    let table = (header, prop::collection::vec(line, 0..6))
        .prop_map(|(header, lines)| format!("{header}\n{}", lines.concat()));
    prop::collection::vec(table, 0..8).prop_map(|tables| tables.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gets_an_answer(text in "\\PC*") {
        survives(&text);
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_tables_get_an_answer(text in document()) {
        survives(&text);
    }

    /// One byte of the sample replaced, or the rest of it missing: what happens to a file in an editor.
    #[test]
    fn a_damaged_sample_gets_an_answer(at in 0..100_000_usize, byte in any::<u8>(), cut in any::<bool>()) {
        let sample = include_str!("../../packaging/snigate.toml").replace("domains.d", "/nonexistent");
        let mut bytes = sample.into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        survives(&String::from_utf8_lossy(&bytes));
    }
}
