//! Domains on disk, with a reload that loads the configuration as the agent does.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

const MAIN: &str = r#"# Written by hand.
[gateway]
interfaces = ["wan0"]
include = ["domains.d/*.toml"]

[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"

[[pool]]
name = "edges-a"
edges = ["edge-a"]

[[ip_set]]
name = "shared"
addresses = ["198.51.100.20"]
inspect = true

[[domain]]
sip_domain = "northwind.example"
pool = "edges-a"
"#;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new(main: &str) -> Self {
        let place = Self {
            directory: tempfile::tempdir().expect("a directory"),
        };
        fs::write(place.main(), main).expect("a file");
        place
    }

    fn main(&self) -> PathBuf {
        self.directory.path().join("snigate.toml")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("domains.d").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.file("")).expect("a directory");
        fs::write(self.file(name), text).expect("a file");
    }

    /// Every file, with its content.
    fn snapshot(&self) -> Vec<(PathBuf, String)> {
        let mut files = vec![self.main()];
        if let Ok(entries) = fs::read_dir(self.file("")) {
            files.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        files.sort();
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).expect("a text");
            (path, text)
        };
        files.into_iter().map(read).collect()
    }

    /// As the agent's: names of the domains that became active are what counts.
    async fn reload(&self) -> Result<Reloaded, Refusal> {
        let main = self.main();
        let loaded = Config::load(&main).map_err(|found| Refusal::configuration(&main, &found))?;
        Ok(Reloaded {
            generation: 2,
            took_us: 1,
            files: loaded.files.len(),
            ip_sets: loaded.config.ip_sets.len(),
            edges: loaded.config.edges.len(),
            pools: loaded.config.pools.len(),
            domains: loaded.config.domains.len(),
            names: 0,
            terminated: 0,
            warnings: Vec::new(),
        })
    }

    async fn add(&self, domain: &DomainTable) -> Result<DomainChanged, DomainError> {
        add(&self.main(), domain, || self.reload()).await
    }

    async fn remove(&self, sip_domain: &str) -> Result<DomainChanged, DomainError> {
        remove(&self.main(), sip_domain, || self.reload()).await
    }
}

fn domain(sip_domain: &str, pool: &str) -> DomainTable {
    DomainTable {
        sip_domain: sip_domain.into(),
        pool: pool.into(),
        ..DomainTable::default()
    }
}

#[tokio::test]
async fn a_domain_gets_a_file_of_its_own_and_loses_it_again() {
    let place = Place::new(MAIN);
    let before = place.snapshot();
    let mut contoso = domain("contoso.example", "edges-a");
    contoso.names = vec![
        "sip.contoso.example".into(),
        "*.voip.contoso.example".into(),
    ];
    contoso.certificate = Some("/etc/certs/contoso.pem".into());
    contoso.key = Some("/etc/certs/contoso.key".into());
    contoso.more = toml::from_str("identity = \"none\"\n").expect("TOML");
    let changed = place.add(&contoso).await.expect("a change");
    assert_eq!(changed.file, place.file("contoso.example.toml"));
    assert_eq!(changed.reloaded.domains, 2, "it is active");
    let text = fs::read_to_string(&changed.file).expect("a file");
    assert_eq!(
        text,
        "[[domain]]\n\
         sip_domain = \"contoso.example\"\n\
         names = [\"sip.contoso.example\", \"*.voip.contoso.example\"]\n\
         pool = \"edges-a\"\n\
         certificate = \"/etc/certs/contoso.pem\"\n\
         key = \"/etc/certs/contoso.key\"\n\
         identity = \"none\"\n"
    );
    let mode = fs::metadata(&changed.file).expect("a file").mode();
    assert_eq!(mode & 0o7777, 0o644, "{mode:o}");

    let changed = place.remove("contoso.example").await.expect("a change");
    assert_eq!(changed.reloaded.domains, 1);
    assert_eq!(place.snapshot(), before);
}

#[tokio::test]
async fn a_refused_domain_leaves_nothing_behind() {
    let place = Place::new(MAIN);
    let before = place.snapshot();
    let error = place.add(&domain("contoso.example", "edges-z")).await;
    let refusal = Refusal::from(error.expect_err("a refusal"));
    assert_eq!(refusal.kind, RefusalKind::Configuration);
    let findings = refusal.findings.expect("findings");
    assert!(
        findings.rendered.contains("contoso.example.toml:3")
            && findings.rendered.contains("edges-z"),
        "{}",
        findings.rendered
    );
    assert_eq!(place.snapshot(), before);
    assert!(!place.file("").exists(), "the directory goes too");
}

#[tokio::test]
async fn a_refused_removal_puts_the_file_back() {
    let place = Place::new(MAIN);
    let text =
        "# bought in May\n[[domain]]\nsip_domain = \"contoso.example\"\npool = \"edges-a\"\n";
    place.write("contoso.example.toml", text);
    let file = place.file("contoso.example.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("permissions");
    let before = place.snapshot();
    let refuse = || async { Err(Refusal::new(RefusalKind::Failed, "not now")) };
    let error = remove(&place.main(), "contoso.example", refuse).await;
    assert_eq!(error.expect_err("a refusal").to_string(), "not now");
    assert_eq!(place.snapshot(), before);
    let mode = fs::metadata(&file).expect("a file").mode();
    assert_eq!(mode & 0o7777, 0o640, "{mode:o}");
}

#[tokio::test]
async fn an_agent_that_ends_in_the_middle_has_changed_nothing() {
    let place = Place::new(MAIN);
    let before = place.snapshot();
    let (began, begins) = tokio::sync::oneshot::channel();
    let main = place.main();
    let adding = tokio::spawn(async move {
        let for_ever = || async {
            began.send(()).expect("somebody waits");
            std::future::pending().await
        };
        add(&main, &domain("contoso.example", "edges-a"), for_ever).await
    });
    begins.await.expect("a reload");
    assert!(place.file("contoso.example.toml").exists());
    adding.abort();
    assert!(adding.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(place.snapshot(), before);
}

#[tokio::test]
async fn what_the_main_file_does_not_include_is_not_written() {
    let include = "include = [\"domains.d/*.toml\"]\n";
    for (instead, line) in [
        ("", "include = [\"domains.d/*.toml\"]"),
        (
            "include = [\"*.conf\"]\n",
            "include = [\"*.conf\", \"domains.d/*.toml\"]",
        ),
    ] {
        let place = Place::new(&MAIN.replace(include, instead));
        let before = place.snapshot();
        let error = place.add(&domain("contoso.example", "edges-a")).await;
        let sentence = error.expect_err("an error").to_string();
        assert!(
            sentence.contains("snigate.toml does not include")
                && sentence.contains(&format!("`{line}`")),
            "{sentence}"
        );
        assert_eq!(place.snapshot(), before);
    }
    // However the pattern is written.
    for include in [
        "include = [\"./domains.d/*\"]\n",
        "include = [\"**/*.example.toml\"]\n",
    ] {
        let place = Place::new(&MAIN.replace("include = [\"domains.d/*.toml\"]\n", include));
        let changed = place.add(&domain("contoso.example", "edges-a")).await;
        assert_eq!(changed.expect("a change").reloaded.domains, 2, "{include}");
        // It is only set aside while the configuration is loaded without it.
        let changed = place.remove("contoso.example").await;
        assert_eq!(changed.expect("a change").reloaded.domains, 1, "{include}");
        let left = fs::read_dir(place.file("")).expect("a directory").count();
        assert_eq!(left, 0);
    }
}

#[tokio::test]
async fn what_people_wrote_is_theirs() {
    let place = Place::new(MAIN);
    let two = "[[domain]]\nsip_domain = \"contoso.example\"\npool = \"edges-a\"\n\n\
               [[domain]]\nsip_domain = \"fabrikam.example\"\npool = \"edges-a\"\n";
    place.write("contoso.example.toml", two);
    let before = place.snapshot();
    for (sip_domain, at) in [
        ("northwind.example", "snigate.toml:19:1"),
        ("contoso.example", "contoso.example.toml:1:1"),
        ("fabrikam.example", "contoso.example.toml:5:1"),
    ] {
        let error = place.remove(sip_domain).await.expect_err("an error");
        assert!(matches!(error, DomainError::Elsewhere { .. }), "{error}");
        assert!(error.to_string().contains(at), "{error}");
    }
    let error = place.add(&domain("contoso.example", "edges-a")).await;
    let error = error.expect_err("an error");
    assert!(matches!(error, DomainError::Exists { .. }), "{error}");
    // Defined in the main file: the reload sees it twice.
    let error = place.add(&domain("northwind.example", "edges-a")).await;
    let error = error.expect_err("an error");
    assert!(matches!(error, DomainError::Refused(_)), "{error}");
    let error = place.remove("nobody.example").await.expect_err("an error");
    assert!(matches!(error, DomainError::Unknown { .. }), "{error}");
    assert_eq!(place.snapshot(), before);
}

#[tokio::test]
async fn a_name_can_lead_nowhere_else() {
    let place = Place::new(MAIN);
    let before = place.snapshot();
    for sip_domain in ["../snigate", "a/b.example", "", "*.example", "a\0.example"] {
        let error = place.add(&domain(sip_domain, "edges-a")).await;
        let error = error.expect_err("an error");
        assert!(matches!(error, DomainError::Invalid(_)), "{error}");
        let error = place.remove(sip_domain).await.expect_err("an error");
        assert!(matches!(error, DomainError::Invalid(_)), "{error}");
    }
    assert_eq!(place.snapshot(), before);
}
