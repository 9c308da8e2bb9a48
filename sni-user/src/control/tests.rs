//! The socket from both sides, with an agent that only remembers what it was asked.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{
    fake::{FakeAgent, hello, reloaded},
    *,
};

struct Running {
    agent: Arc<FakeAgent>,
    path: PathBuf,
    task: JoinHandle<std::convert::Infallible>,
    _directory: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control.sock");
        let agent = Arc::new(FakeAgent::default());
        let server = Server::bind(&path).await.expect("a socket");
        let task = tokio::spawn(server.serve(Arc::clone(&agent)));
        Self {
            agent,
            path,
            task,
            _directory: directory,
        }
    }

    async fn client(&self) -> Client {
        Client::connect(&self.path).await.expect("a connection")
    }

    /// Sends a line as it is, and reads one.
    async fn raw(&self, line: impl Into<Vec<u8>>) -> Value {
        let (path, line) = (self.path.clone(), line.into());
        tokio::task::spawn_blocking(move || exchange(&path, &line))
            .await
            .expect("an answer")
    }

    /// Waits until so many watchers listen.
    async fn watchers(&self, number: usize) {
        while self.agent.seen.receiver_count() != number {
            tokio::task::yield_now().await;
        }
    }
}

fn exchange(path: &Path, line: &[u8]) -> Value {
    let stream = UnixStream::connect(path).expect("a connection");
    // The agent may answer before it has read everything.
    let _ = (&stream).write_all(line);
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .expect("an answer");
    serde_json::from_str(&answer).expect("JSON")
}

fn name_of(notice: Option<Notice>) -> String {
    match notice {
        Some(Notice::Hello(hello)) => hello.server_name.expect("a name"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_request_arrives_and_is_answered() {
    let running = Running::start().await;
    let status = running.client().await.status().await.expect("an answer");
    assert_eq!((status.pid, status.counters["hellos"]), (42, 12));
    let refused = status.configuration.refused.expect("a refusal");
    assert_eq!(
        refused.at,
        SystemTime::UNIX_EPOCH + Duration::from_millis(86_400_250)
    );

    let carried = running.client().await.connections(None).await;
    let expected = Connections {
        connections: vec![fake::connection()],
        of: 1,
    };
    assert_eq!(carried.expect("an answer"), expected);

    running.agent.go_on.notify_one();
    let answer = running.client().await.reload().await.expect("an answer");
    assert_eq!(answer, reloaded());

    let client = running.client().await;
    let added = client.add_route("*.Voip.Contoso.example", "edges-a").await;
    assert_eq!(added.expect("an answer").name, "*.voip.contoso.example");
    let refused = running.client().await.remove_route("a.example").await;
    match refused.expect_err("a refusal") {
        ClientError::Refused(refusal) => {
            assert_eq!(refusal.kind, RefusalKind::NotFound);
            assert_eq!(refusal.message, "a.example has no live route");
        }
        other => panic!("{other}"),
    }

    let client = running.client().await;
    let drained = client.drain_edge("edge-a").await.expect("an answer");
    assert_eq!(
        (&*drained.state, &drained.without[..]),
        ("draining", &["edges-a".to_owned()][..])
    );
    let client = running.client().await;
    let enabled = client.enable_edge("edge-a").await.expect("an answer");
    assert_eq!((&*enabled.state, enabled.changed), ("up", true));
    let client = running.client().await;
    let ended = client.end_edge("edge-a").await.expect("an answer");
    assert_eq!(ended.connections, 1);

    let client = running.client().await;
    let noted = client.note("flow kill --all", "2 flows ended").await;
    noted.expect("an answer");

    let domain = DomainTable {
        sip_domain: "contoso.example".into(),
        names: vec!["sip.contoso.example".into()],
        pool: "edges-a".into(),
        certificate: Some("certs/contoso.pem".into()),
        key: None,
        more: toml::from_str("identity = \"mirror\"\nports = [1, 2]\n").expect("TOML"),
    };
    let client = running.client().await;
    let changed = client.add_domain(domain.clone()).await.expect("an answer");
    assert_eq!(changed.sip_domain, "contoso.example");
    assert_eq!(
        running.agent.asked().last(),
        Some(&format!("{domain:?}")),
        "the table arrives with all its keys"
    );
}

#[tokio::test]
async fn diagnostics_come_as_text_and_as_data() {
    let running = Running::start().await;
    let refused = running.client().await.remove_domain("a.example").await;
    let ClientError::Refused(refusal) = refused.expect_err("a refusal") else {
        panic!("no refusal");
    };
    assert_eq!(refusal.kind, RefusalKind::Configuration);
    assert!(
        refusal.message.contains("what was active stays active"),
        "{refusal}"
    );
    let findings = refusal.findings.expect("findings");
    assert!(
        findings.rendered.contains("/etc/snigate.toml:1"),
        "{}",
        findings.rendered
    );
    assert_eq!(findings.list[0]["line"], 1);
}

#[tokio::test]
async fn the_wire_is_as_documented() {
    let running = Running::start().await;
    let answer = running
        .raw("{\"version\":1,\"request\":\"status\"}\n")
        .await;
    assert_eq!(
        (&answer["version"], &answer["answer"]["pid"]),
        (&json!(1), &json!(42))
    );
    let at = &answer["answer"]["configuration"]["refused"]["at"];
    assert_eq!(at, "1970-01-02T00:00:00.250Z");

    let answer = running.raw("{\"version\":9,\"what\":1}\n").await;
    assert_eq!(
        (&answer["version"], &answer["error"]["kind"]),
        (&json!(1), &json!("version"))
    );
    let answer = running.raw("hello\n").await;
    assert_eq!(answer["error"]["kind"], "malformed");
    let wrong = json!({"version": 1, "request": "route-add", "name": "a*.example", "pool": "p"});
    let answer = running.raw(format!("{wrong}\n")).await;
    assert_eq!(answer["error"]["kind"], "malformed");
    let sentence = answer["error"]["message"].as_str().expect("a sentence");
    assert!(
        sentence.contains("wildcard in the wrong place"),
        "{sentence}"
    );
}

#[tokio::test]
async fn requests_are_bounded() {
    let running = Running::start().await;
    let filled = |length: usize| {
        let line = "{\"version\":1,\"request\":\"status\"}";
        format!("{line}{}\n", " ".repeat(length - line.len() - 1))
    };
    let answer = running.raw(filled(MAX_REQUEST)).await;
    assert_eq!(answer["answer"]["pid"], 42);
    let answer = running.raw(filled(MAX_REQUEST + 1)).await;
    assert_eq!(answer["error"]["kind"], "malformed");
    let sentence = answer["error"]["message"].as_str().expect("a sentence");
    assert!(sentence.contains("at most 65536 bytes"), "{sentence}");
}

#[tokio::test]
async fn an_agent_of_another_version_is_recognised() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let agent = tokio::task::spawn_blocking(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut line = String::new();
        BufReader::new(&stream)
            .read_line(&mut line)
            .expect("a line");
        (&stream)
            .write_all(b"{\"version\":4,\"reply\":[]}\n")
            .expect("an answer");
    });
    let client = Client::connect(&path).await.expect("a connection");
    let error = client.status().await.expect_err("another version");
    assert!(
        error.to_string().contains("speaks version 4") && error.to_string().contains("version 1"),
        "{error}"
    );
    agent.await.expect("no panic");
}

#[tokio::test]
async fn without_an_agent_it_says_what_to_do() {
    let path = Path::new("/nonexistent/control.sock");
    let error = Client::connect(path).await.expect_err("nobody");
    assert!(error.to_string().contains("snigate run"), "{error}");
}

#[tokio::test]
async fn watchers_see_what_they_asked_for() {
    let running = Running::start().await;
    let filter = WatchFilter {
        name: Some("*.Fabrikam.example".into()),
        source: Some("192.0.2.0/24".parse().expect("a prefix")),
    };
    let client = running.client().await;
    let mut watching = client.watch(filter).await.expect("an answer");
    for (name, source) in [
        ("sip.contoso.example", "192.0.2.1:1000"),
        ("sip.fabrikam.example", "203.0.113.1:1000"),
        ("sip.fabrikam.example", "[::ffff:192.0.2.1]:1000"),
    ] {
        running
            .agent
            .seen
            .send(hello(name, source))
            .expect("a watcher");
    }
    match watching.next().await.expect("a notice") {
        Some(Notice::Hello(seen)) => {
            assert_eq!(
                seen,
                *hello("sip.fabrikam.example", "[::ffff:192.0.2.1]:1000")
            );
        }
        other => panic!("{other:?}"),
    }
    let client = running.client().await;
    let filter = WatchFilter {
        name: Some("[".into()),
        source: None,
    };
    let error = client.watch(filter).await.expect_err("no pattern");
    assert!(error.to_string().contains("pattern of names"), "{error}");
}

#[tokio::test]
async fn a_slow_watcher_is_told_what_it_lost_and_stops_nobody() {
    let running = Running::start().await;
    let client = running.client().await;
    let mut watching = client
        .watch(WatchFilter::default())
        .await
        .expect("an answer");
    // More than the socket's buffer and the channel hold, without a pause for the server's task.
    const SENT: usize = 50_000;
    for number in 0..SENT {
        let name = format!("n{number}.example");
        running
            .agent
            .seen
            .send(hello(&name, "192.0.2.1:1000"))
            .expect("a watcher");
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let (mut shown, mut lost) = (0, 0);
    loop {
        match watching.next().await.expect("a notice").expect("an agent") {
            Notice::Lost(number) => lost += number,
            Notice::Hello(seen) => {
                shown += 1;
                if seen.server_name.as_deref() == Some(&format!("n{}.example", SENT - 1)) {
                    break;
                }
            }
        }
    }
    assert!(lost > 0);
    assert_eq!(shown + lost, SENT as u64);
}

#[tokio::test]
async fn watchers_end_with_either_side() {
    let running = Running::start().await;
    let client = running.client().await;
    let watching = client
        .watch(WatchFilter::default())
        .await
        .expect("an answer");
    running.watchers(1).await;
    drop(watching);
    running.watchers(0).await;

    let client = running.client().await;
    let mut watching = client
        .watch(WatchFilter::default())
        .await
        .expect("an answer");
    running
        .agent
        .seen
        .send(hello("a.example", "192.0.2.1:1"))
        .expect("a watcher");
    assert_eq!(
        name_of(watching.next().await.expect("a notice")),
        "a.example"
    );
    running.task.abort();
    assert_eq!(watching.next().await.expect("an end"), None);
    running.watchers(0).await;
    assert!(!running.path.exists(), "the socket goes with the server");
}

#[tokio::test]
async fn a_change_is_carried_out_to_its_end_without_its_client() {
    let running = Running::start().await;
    let path = running.path.clone();
    tokio::task::spawn_blocking(move || {
        let mut stream = UnixStream::connect(path).expect("a connection");
        stream
            .write_all(b"{\"version\":1,\"request\":\"reload\"}\n")
            .expect("a request");
    })
    .await
    .expect("no panic");
    while running.agent.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    running.agent.go_on.notify_one();
    running.agent.reloaded.notified().await;
    assert_eq!(*running.agent.asked(), ["reload", "reloaded"]);
}

#[tokio::test]
async fn changes_come_one_at_a_time_and_reads_beside_them() {
    let running = Running::start().await;
    let reloading = tokio::spawn(running.client().await.reload());
    while running.agent.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    let client = running.client().await;
    let adding = tokio::spawn(async move { client.add_route("a.example", "p").await });
    running.client().await.status().await.expect("an answer");
    running.agent.go_on.notify_one();
    reloading.await.expect("no panic").expect("an answer");
    adding.await.expect("no panic").expect("an answer");
    assert_eq!(
        *running.agent.asked(),
        ["reload", "status", "reloaded", "a.example to p"]
    );
}

#[tokio::test]
async fn too_many_clients_are_told_so_and_make_room() {
    let running = Running::start().await;
    let mut watching = Vec::new();
    let refused = loop {
        match running.client().await.watch(WatchFilter::default()).await {
            Ok(another) => watching.push(another),
            Err(refused) => break refused,
        }
    };
    assert_eq!(watching.len(), 32);
    match refused {
        ClientError::Refused(refusal) => assert_eq!(refusal.kind, RefusalKind::Busy),
        other => panic!("{other}"),
    }
    watching.pop();
    running.watchers(31).await;
    loop {
        // The slot is free a moment after the watcher has gone.
        if running.client().await.status().await.is_ok() {
            break;
        }
    }
}

#[tokio::test]
async fn others_may_read_and_not_change() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let running = Running::start().await;
    let directory = running.path.parent().expect("a directory").to_owned();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
    };
    open(&directory, 0o755);
    // The group's part: as if nobody were a member.
    open(&running.path, 0o666);
    let path = running.path.clone();
    // Of this thread alone; it ends with what it has become.
    let as_nobody = move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        // SAFETY: the thread shares nothing that relies on its user.
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("another user");
        let ask = |request: &str| {
            let line = json!({"version": 1, "request": request, "sip_domain": "a.example"});
            exchange(&path, format!("{line}\n").as_bytes())
        };
        [ask("reload"), ask("domain-rm"), ask("status")]
    };
    let answers =
        tokio::task::spawn_blocking(move || std::thread::spawn(as_nobody).join().expect("answers"));
    let [reload, domain_rm, status] = answers.await.expect("answers");
    assert_eq!(reload["error"]["kind"], "not-allowed", "{reload}");
    assert_eq!(domain_rm["error"]["kind"], "not-allowed", "{domain_rm}");
    let sentence = reload["error"]["message"].as_str().expect("a sentence");
    assert!(sentence.contains("you are user 65534"), "{sentence}");
    assert_eq!(status["answer"]["pid"], 42);
    assert_eq!(*running.agent.asked(), ["status"]);
}
