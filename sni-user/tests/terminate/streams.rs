//! What becomes of streams: each direction ends by itself, cut ones stay cut, silent ones end.

use std::{fs, io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use sni_user::proxy::terminate::End;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::scene::{Files, Gateway, IDLE, edge_config, runtime};

const LINES: &str = "client_certificate = \"none\"";

struct Ends {
    partner: client::TlsStream<TcpStream>,
    edge: server::TlsStream<TcpStream>,
}

/// Runs a conversation between both ends of a relayed connection.
fn converse(idle: Duration, story: impl AsyncFnOnce(Ends)) -> Gateway {
    let files = Files::new();
    let runtime = runtime();
    let listener = runtime
        .block_on(TcpListener::bind("127.0.0.1:0"))
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let gateway = Gateway::start_with(files.load(LINES).0, 0, address, idle);
    let connector = connector(&files);
    let acceptor = TlsAcceptor::from(Arc::new(edge_config(&files, None)));
    runtime.block_on(async {
        let to = SocketAddr::from(([127, 0, 0, 1], gateway.port));
        let tcp = TcpStream::connect(to).await.expect("connected");
        let name = "sip.contoso.example".try_into().expect("a name");
        let (partner, edge) = tokio::join!(connector.connect(name, tcp), async {
            let (tcp, _) = listener.accept().await.expect("accepted");
            acceptor.accept(tcp).await
        });
        let (partner, edge) = (partner.expect("a handshake"), edge.expect("a handshake"));
        story(Ends { partner, edge }).await;
    });
    gateway
}

fn connector(files: &Files) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let pem = fs::read(files.path().join("public.pem")).expect("a file");
    roots
        .add(CertificateDer::from_pem_slice(&pem).expect("PEM"))
        .expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[test]
fn a_late_answer_arrives_after_the_partner_has_ended_its_side() {
    const MUCH: usize = 5_000_000;
    let gateway = converse(IDLE, async |mut ends: Ends| {
        ends.partner.write_all(b"question").await.expect("sent");
        ends.partner.shutdown().await.expect("ended");
        let mut question = Vec::new();
        // To its end: the Edge sees close_notify.
        ends.edge
            .read_to_end(&mut question)
            .await
            .expect("complete");
        assert_eq!(question, b"question");
        let answer: Vec<u8> = (0..MUCH).map(|n| (n % 251) as u8).collect();
        let (sent, received) = tokio::join!(
            async {
                ends.edge.write_all(&answer).await?;
                ends.edge.shutdown().await
            },
            async {
                let mut received = Vec::new();
                ends.partner
                    .read_to_end(&mut received)
                    .await
                    .map(|_| received)
            }
        );
        sent.expect("sent");
        assert!(received.expect("complete") == answer);
    });
    let relayed = gateway.outcome().expect("relayed");
    assert!(matches!(relayed.end, End::Complete), "{relayed:?}");
    assert_eq!((relayed.to_edge, relayed.to_partner), (8, MUCH as u64));
}

#[test]
fn much_goes_both_ways_at_once() {
    const MUCH: usize = 3_000_000;
    let gateway = converse(IDLE, async |ends: Ends| {
        let (from_partner, to_partner) = tokio::io::split(ends.partner);
        let (from_edge, to_edge) = tokio::io::split(ends.edge);
        let (_, _, there, back) = tokio::join!(
            send(to_partner, vec![b'p'; MUCH]),
            send(to_edge, vec![b'e'; MUCH]),
            received(from_edge),
            received(from_partner)
        );
        assert!(there == vec![b'p'; MUCH] && back == vec![b'e'; MUCH]);
    });
    let relayed = gateway.outcome().expect("relayed");
    assert!(matches!(relayed.end, End::Complete), "{relayed:?}");
}

async fn send(mut to: impl AsyncWrite + Unpin, bytes: Vec<u8>) {
    to.write_all(&bytes).await.expect("sent");
    to.shutdown().await.expect("ended");
}

async fn received(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).await.expect("complete");
    bytes
}

#[test]
fn an_edge_that_reads_nothing_holds_the_partner_back() {
    // What sockets and TLS buffer on loopback, with room to spare; the relay adds a record or two.
    const BUFFERS: u64 = 64 << 20;
    converse(IDLE, async |mut ends: Ends| {
        let chunk = vec![0; 1 << 20];
        let mut sent = 0;
        while let Ok(written) =
            tokio::time::timeout(Duration::from_secs(2), ends.partner.write(&chunk)).await
        {
            sent += written.expect("written") as u64;
            assert!(sent < BUFFERS, "nothing holds the partner back");
        }
    });
}

#[test]
fn the_edge_may_end_first() {
    let gateway = converse(IDLE, async |mut ends: Ends| {
        ends.edge.write_all(b"bye").await.expect("sent");
        ends.edge.shutdown().await.expect("ended");
        let mut bytes = Vec::new();
        ends.partner
            .read_to_end(&mut bytes)
            .await
            .expect("complete");
        assert_eq!(bytes, b"bye");
        ends.partner.write_all(b"late").await.expect("sent");
        ends.partner.shutdown().await.expect("ended");
        let mut bytes = Vec::new();
        ends.edge.read_to_end(&mut bytes).await.expect("complete");
        assert_eq!(bytes, b"late");
    });
    let relayed = gateway.outcome().expect("relayed");
    assert!(matches!(relayed.end, End::Complete), "{relayed:?}");
}

#[test]
fn what_was_cut_off_does_not_pass_for_whole() {
    let gateway = converse(IDLE, async |mut ends: Ends| {
        ends.partner.write_all(b"half").await.expect("sent");
        ends.partner.flush().await.expect("sent");
        // The connection's end, without TLS's.
        let (mut tcp, _connection) = ends.partner.into_inner();
        tcp.shutdown().await.expect("ended");
        let mut bytes = Vec::new();
        let error = ends
            .edge
            .read_to_end(&mut bytes)
            .await
            .expect_err("cut off");
        assert_eq!(
            (error.kind(), &bytes[..]),
            (io::ErrorKind::UnexpectedEof, &b"half"[..])
        );
        ends.edge.shutdown().await.expect("ended");
    });
    let relayed = gateway.outcome().expect("relayed");
    assert!(matches!(relayed.end, End::Complete), "{relayed:?}");
}

#[test]
fn a_silent_connection_ends_and_both_are_told() {
    let idle = Duration::from_millis(300);
    let gateway = converse(idle, async |mut ends: Ends| {
        ends.partner.write_all(b"x").await.expect("sent");
        let mut bytes = Vec::new();
        ends.partner.read_to_end(&mut bytes).await.expect("told");
        ends.edge.read_to_end(&mut bytes).await.expect("told");
        assert_eq!(bytes, b"x");
    });
    let relayed = gateway.outcome().expect("relayed");
    assert!(matches!(relayed.end, End::Idle), "{relayed:?}");
}

#[test]
fn an_edge_that_breaks_off_is_an_alert_to_the_partner() {
    let gateway = converse(IDLE, async |mut ends: Ends| {
        ends.partner.write_all(b"x").await.expect("sent");
        ends.edge.read_u8().await.expect("received");
        let (tcp, _connection) = ends.edge.into_inner();
        tcp.set_zero_linger().expect("a reset");
        drop(tcp);
        let error = ends.partner.read_u8().await.expect_err("told");
        assert!(error.to_string().contains("InternalError"), "{error}");
    });
    assert_eq!(gateway.failure(), "edge-gone");
}

#[test]
fn a_partner_that_never_begins_is_not_waited_for() {
    use sni_user::proxy::terminate::{TerminateError, establish};

    use crate::scene::Direct;

    let files = Files::new();
    let store = files.load(LINES).0;
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let _silent = TcpStream::connect(address).await.expect("connected");
        let (client, _) = listener.accept().await.expect("accepted");
        let patience = Duration::from_millis(200);
        let domain = store.domain(0).expect("terminated");
        let mut edges = Direct {
            edge: address,
            tls: store.edge(0).expect("verified").clone(),
        };
        let outcome = establish(client, domain, None, patience, &mut edges).await;
        assert!(
            matches!(outcome, Err(TerminateError::PartnerTimeout)),
            "{outcome:?}"
        );
    });
}

#[test]
fn an_edge_that_never_answers_is_an_alert_to_the_partner() {
    use rustls::AlertDescription;
    use sni_user::proxy::terminate::{TerminateError, accept_partner, connect_edge};
    use tokio::time::Instant;

    let files = Files::new();
    let store = files.load(LINES).0;
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let tcp = TcpStream::connect(address).await.expect("connected");
        let name = "sip.contoso.example".try_into().expect("a name");
        let domain = store.domain(0).expect("terminated");
        let later = Instant::now() + IDLE;
        let (partner, accepted) = tokio::join!(connector(&files).connect(name, tcp), async {
            let (tcp, _) = listener.accept().await.expect("accepted");
            accept_partner(tcp, domain, later).await
        });
        let mut partner = partner.expect("a handshake");
        let accepted = accepted.expect("a handshake");
        let to_edge = silent.local_addr().expect("an address");
        let to_edge = TcpStream::connect(to_edge).await.expect("connected");
        let edge = store.edge(0).expect("verified");
        let soon = Instant::now() + Duration::from_millis(100);
        let outcome = connect_edge(to_edge, edge, domain, None, &accepted, soon).await;
        assert!(
            matches!(outcome, Err(TerminateError::EdgeTimeout)),
            "{outcome:?}"
        );
        let (told, ()) = tokio::join!(
            partner.read_u8(),
            accepted.refuse(AlertDescription::InternalError)
        );
        let told = told.expect_err("told");
        assert!(told.to_string().contains("InternalError"), "{told}");
    });
}
