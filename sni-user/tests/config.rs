//! What a good configuration means, and that the whole of a bad one is reported.

use std::{net::SocketAddr, path::Path, time::Duration};

use sni_user::config::{
    Balance, Challenge, ClientCertificate, Config, Hook, IdentityMode, IpNet, KeyType, Loaded,
    Location, Mode, Roots, SourceMode,
};

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/config")
        .join(name)
}

fn load(path: &Path) -> Loaded {
    Config::load(path).unwrap_or_else(|found| panic!("{found}"))
}

fn parse(text: &str) -> Loaded {
    Config::parse(Path::new("/etc/snigate/test.toml"), text)
        .unwrap_or_else(|found| panic!("{found}"))
}

#[test]
fn certificates_by_acme() {
    let text = format!(
        "{SMALLEST}\n[acme]\ndirectory = \"https://ca.example/dir\"\nstate = \"acme\"\ndns_hook = \"/bin/hook\"\n\
         [[domain]]\nsip_domain = \"a.example\"\npool = \"edges-a\"\nacme = true\n\
         [[domain]]\nsip_domain = \"b.example\"\npool = \"edges-a\"\nacme = {{ challenge = \"dns-01\", key_type = \"ecdsa-p256\" }}\n\
         [[domain]]\nsip_domain = \"c.example\"\npool = \"edges-a\"\nacme = false\n"
    );
    let config = parse(&text).config;
    let acme = config.acme.as_ref().expect("[acme]");
    assert_eq!(acme.account_key, Path::new("/etc/snigate/acme/account.key"));
    assert_eq!(acme.tokens, Path::new("/etc/snigate/acme/tokens"));
    assert_eq!(
        (acme.roots.clone(), acme.renew_before),
        (Roots::System, None)
    );
    let [a, b, c] = &config.domains[..] else {
        panic!("{:?}", config.domains);
    };
    let termination = a.terminate.as_ref().expect("TLS ends");
    let file = Path::new("/etc/snigate/acme/certs/a.example.pem");
    assert_eq!((&*termination.certificate, &*termination.key), (file, file));
    let wish = termination.acme.as_ref().expect("ACME");
    assert_eq!(wish.challenge, Challenge::Http01);
    assert_eq!(wish.key_type, KeyType::Rsa2048);
    let wish = b.terminate.as_ref().and_then(|it| it.acme.as_ref());
    let wish = wish.expect("ACME");
    assert_eq!(wish.challenge, Challenge::Dns01);
    assert_eq!(wish.key_type, KeyType::EcdsaP256);
    assert!(c.terminate.is_none());
}

const SMALLEST: &str = r#"
[gateway]
interfaces = ["wan0"]
[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"
[[pool]]
name = "edges-a"
edges = ["edge-a"]
[[ip_set]]
name = "one"
addresses = ["198.51.100.10"]
steer = "edges-a"
"#;

#[test]
fn the_example_of_the_design() {
    let path = fixture("design.toml");
    let Loaded {
        config,
        warnings,
        files,
        directories,
        domains_at,
    } = load(&path);
    assert_eq!(directories, [fixture("domains.d")]);
    assert_eq!(files, [path.clone(), fixture("domains.d/edge-b.toml")]);
    let places: Vec<_> = domains_at.iter().map(Location::line).collect();
    assert_eq!(places, [Some(36), Some(40)]);

    let gateway = &config.gateway;
    assert_eq!(gateway.interfaces, ["wan0", "lan0"]);
    assert_eq!(gateway.hook, Hook::Auto);
    assert_eq!(gateway.seed, "any text, the same on every gateway");
    assert_eq!(gateway.pin_path, Path::new("/sys/fs/bpf/snigate"));
    assert_eq!(gateway.control, Path::new("/run/snigate/control.sock"));
    assert_eq!(gateway.metrics, SocketAddr::from(([127, 0, 0, 1], 9461)));
    assert_eq!(gateway.idle_timeout, Duration::from_secs(7200));
    assert_eq!(gateway.hello_timeout, Duration::from_secs(5));
    assert_eq!(gateway.max_flows, 1_000_000);

    let edge = &config.edges[0];
    assert_eq!(edge.name.as_str(), "edge-a");
    assert_eq!(edge.address, "203.0.113.10:5061".parse().unwrap());
    assert_eq!(edge.source, SourceMode::Preserve);
    let tls = edge.tls.as_ref().unwrap();
    assert_eq!(tls.name.as_str(), "edge-a.hoster.example");
    assert_eq!(tls.roots, Roots::File(fixture("certs/edge-ca.pem")));
    let health = edge.health.as_ref().unwrap();
    assert_eq!(
        (health.tls, health.interval),
        (true, Duration::from_secs(5))
    );
    assert_eq!((health.fall, health.rise), (3, 2));
    assert!(!health.options);
    assert_eq!(config.edges[1].tls.as_ref().unwrap().roots, Roots::System);

    let members: Vec<_> = config
        .members(&config.pools[0])
        .map(|(edge, weight)| (edge.name.as_str(), weight))
        .collect();
    assert_eq!(members, [("edge-a", 1), ("edge-b", 2)]);

    let [steered, shared] = config.ip_sets.as_slice() else {
        panic!("{:?}", config.ip_sets)
    };
    assert_eq!(steered.addresses.len(), 2);
    assert_eq!(steered.ports, [5061]);
    let Mode::Steer { pool } = &steered.mode else {
        panic!("{:?}", steered.mode)
    };
    assert_eq!(config.pool(pool).name.as_str(), "edges-a");
    let Mode::Inspect {
        default: Some(pool),
        bind: true,
        hand_off: true,
        ..
    } = &shared.mode
    else {
        panic!("{:?}", shared.mode)
    };
    assert_eq!(pool.name().as_str(), "edges-a");

    let [fabrikam, contoso] = config.domains.as_slice() else {
        panic!("{:?}", config.domains)
    };
    assert_eq!(fabrikam.names[0].to_string(), "sip.fabrikam.example");
    assert!(fabrikam.terminate.is_none());
    let names: Vec<_> = contoso.names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["sip.contoso.example", "*.voip.contoso.example"]);
    assert!(contoso.names[1].is_wildcard());
    let termination = contoso.terminate.as_ref().unwrap();
    assert_eq!(termination.certificate, fixture("certs/contoso.pem"));
    assert_eq!(termination.key, fixture("certs/contoso.key"));
    assert_eq!(termination.client_certificate, ClientCertificate::Required);
    assert_eq!(termination.client_roots, Roots::System);
    assert_eq!(termination.identity, IdentityMode::Mirror);

    let mirror = config.identity.mirror.as_ref().unwrap();
    assert_eq!(mirror.certificate, fixture("ca/mirror.pem"));
    assert_eq!(
        mirror.crl_url.as_deref(),
        Some("http://192.0.2.1/mirror.crl")
    );
    assert_eq!(
        config.identity.gateway.as_ref().unwrap().key,
        fixture("certs/gateway.key")
    );
    assert_eq!(config.limits.syn_per_source.to_string(), "200/s");
    assert_eq!(
        config.limits.deny,
        ["192.0.2.0/24".parse::<IpNet>().unwrap()]
    );
    assert!(warnings.is_empty(), "{warnings}");
}

#[test]
fn the_packaged_sample() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/snigate.toml");
    let Loaded {
        config, warnings, ..
    } = load(&sample);
    assert_eq!(config.limits.allow.len(), 2);
    assert!(warnings.is_empty(), "{warnings}");
}

#[test]
fn the_defaults() {
    let Loaded {
        config,
        warnings,
        files,
        directories,
        domains_at,
    } = parse(SMALLEST);
    assert!(directories.is_empty());
    assert!(domains_at.is_empty());
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(files, [Path::new("/etc/snigate/test.toml")]);
    let gateway = &config.gateway;
    assert_eq!(gateway.hook, Hook::Auto);
    assert_eq!(gateway.seed, "snigate");
    assert_eq!(gateway.pin_path, Path::new("/sys/fs/bpf/snigate"));
    assert_eq!(gateway.control, Path::new("/run/snigate/control.sock"));
    assert_eq!(gateway.metrics, "127.0.0.1:9461".parse().unwrap());
    assert!(!gateway.datapath_time);
    assert_eq!(gateway.idle_timeout, Duration::from_secs(7200));
    assert_eq!(gateway.hello_timeout, Duration::from_secs(5));
    assert_eq!(gateway.max_flows, 1_000_000);
    assert_eq!(gateway.max_connections, 20_000);
    assert_eq!(config.edges[0].source, SourceMode::Preserve);
    assert!(!config.edges[0].proxy_protocol);
    assert_eq!(config.pools[0].balance, Balance::Maglev);
    assert_eq!(config.edges[0].health, None);
    assert_eq!(config.pools[0].members[0].weight, 1);
    assert_eq!(config.ip_sets[0].ports, [5061]);
    assert_eq!(config.limits.syn_per_source.to_string(), "200/s");
    assert_eq!(config.limits.hello_per_source.to_string(), "50/s");
    assert_eq!(config.limits.syn_per_prefix.to_string(), "2000/s");
    assert_eq!(config.limits.hello_per_prefix.to_string(), "500/s");
    assert_eq!(
        config.limits.hello_per_source.period(),
        Duration::from_secs(1)
    );
    assert!(config.limits.deny.is_empty() && config.limits.allow.is_empty());
}

#[test]
fn roots_are_the_systems_or_a_file() {
    let with = |roots: &str| {
        let tls = format!("tls = {{ name = \"a.example\", roots = \"{roots}\" }}\n[[pool]]");
        let config = parse(&SMALLEST.replace("[[pool]]", &tls)).config;
        config.edges[0].tls.as_ref().unwrap().roots.clone()
    };
    assert_eq!(with("system"), Roots::System);
    assert_eq!(with("./system"), Roots::File("/etc/snigate/system".into()));
    assert_eq!(with("ca.pem"), Roots::File("/etc/snigate/ca.pem".into()));
    assert_eq!(with("/pki/ca.pem"), Roots::File("/pki/ca.pem".into()));
}

#[test]
fn one_name_goes_to_several_places_by_application_protocol() {
    let domain = |alpn: &str| {
        format!("[[domain]]\nsip_domain = \"a.example\"\n{alpn}\npool = \"edges-a\"\n")
    };
    let text = format!(
        "{SMALLEST}balance = \"x\"\n{}{}{}",
        domain(""),
        domain("alpn = [\"sip\", \"x\"]"),
        domain("alpn = [\"h2\"]")
    )
    .replace("steer = \"edges-a\"\nbalance = \"x\"", "inspect = true");
    let loaded = parse(&text);
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let alpn: Vec<Vec<&str>> = loaded
        .config
        .domains
        .iter()
        .map(|domain| domain.alpn.iter().map(AsRef::as_ref).collect())
        .collect();
    assert_eq!(alpn, [vec![], vec!["sip", "x"], vec!["h2"]]);
}

#[test]
fn what_only_inspected_connections_have() {
    let text = SMALLEST
        .replace(
            "steer = \"edges-a\"",
            "inspect = true\ndefault = \"edges-a\"\nproxy_protocol_from = [\"192.0.2.0/28\"]",
        )
        .replace(
            "edges = [\"edge-a\"]",
            "edges = [\"edge-a\"]\nbalance = \"least-connections\"",
        )
        .replace(":5061\"", ":5061\"\nproxy_protocol = true");
    let Loaded {
        config, warnings, ..
    } = parse(&text);
    assert!(warnings.is_empty(), "{warnings}");
    assert_eq!(config.pools[0].balance, Balance::LeastConnections);
    assert!(config.edges[0].proxy_protocol);
    let Mode::Inspect {
        proxy_protocol_from,
        ..
    } = &config.ip_sets[0].mode
    else {
        panic!("{:?}", config.ip_sets[0].mode)
    };
    assert_eq!(
        *proxy_protocol_from,
        ["192.0.2.0/28".parse::<IpNet>().unwrap()]
    );
}

#[test]
fn the_rate_of_a_prefix_follows_that_of_a_source_unless_it_is_given() {
    let limits = |text: &str| {
        parse(&format!("{SMALLEST}[limits]\n{text}\n"))
            .config
            .limits
    };
    let following = limits("syn_per_source = \"30/m\"\nhello_per_source = \"2/h\"");
    assert_eq!(following.syn_per_prefix.to_string(), "300/m");
    assert_eq!(following.hello_per_prefix.to_string(), "20/h");
    let given = limits("syn_per_prefix = \"7/s\"\nhello_per_prefix = \"8/m\"");
    assert_eq!(given.syn_per_source.to_string(), "200/s");
    assert_eq!(given.syn_per_prefix.to_string(), "7/s");
    assert_eq!(given.hello_per_prefix.to_string(), "8/m");
}

#[test]
fn what_stays_with_the_agent_is_not_bound() {
    let binds = |keys: &str| {
        let text = format!(
            "{SMALLEST}[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\ninspect = true\n\
             default = \"edges-a\"\n{keys}\n"
        );
        let config = parse(&text).config;
        let Mode::Inspect { bind, .. } = config.ip_sets[1].mode else {
            panic!("{:?}", config.ip_sets[1].mode)
        };
        bind
    };
    assert!(binds(""));
    assert!(binds(
        "bind = true\nhand_off = true\nproxy_protocol_from = []"
    ));
    assert!(!binds("bind = false"));
    assert!(!binds("hand_off = false"));
    assert!(!binds("hand_off = false\nbind = false"));
    assert!(!binds("proxy_protocol_from = [\"192.0.2.0/28\"]"));
}

#[test]
fn it_prints_as_json() {
    let config = parse(&format!(
        "{SMALLEST}\n[[ip_set]]\nname = \"two\"\naddresses = [\"198.51.100.20\"]\ninspect = true\n\
         [[domain]]\nsip_domain = \"Bücher.Example\"\npool = \"edges-a\"\n"
    ))
    .config;
    let json = serde_json::to_value(&config).unwrap();
    assert_eq!(json["gateway"]["idle_timeout"], "2h");
    assert_eq!(json["gateway"]["hook"], "auto");
    assert_eq!(json["edges"][0]["address"], "203.0.113.10:5061");
    assert_eq!(json["pools"][0]["members"][0]["edge"], "edge-a");
    assert_eq!(json["ip_sets"][0]["mode"], "steer");
    assert_eq!(json["ip_sets"][0]["pool"], "edges-a");
    assert_eq!(json["ip_sets"][1]["mode"], "inspect");
    assert_eq!(json["ip_sets"][1]["bind"], true);
    assert_eq!(json["domains"][0]["names"][0], "sip.xn--bcher-kva.example");
    assert_eq!(json["limits"]["syn_per_source"], "200/s");
    assert_eq!(json["limits"]["syn_per_prefix"], "2000/s");
}
