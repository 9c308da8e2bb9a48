//! The web server for the mirror CA's revocation list.

use std::{sync::Arc, time::Duration};

use sni_user::tls::crl;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer as _, revocation_list::CertificateRevocationList,
};

use crate::scene::{Files, runtime};

const LINES: &str = "client_roots = \"public.pem\"";

async fn ask(port: u16, request: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("connected");
    let request = format!("{request} HTTP/1.1\r\nHost: 192.0.2.1\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let end = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .expect("headers");
    let head = String::from_utf8(answer[..end].to_vec()).expect("text");
    (head, answer[end + 4..].to_vec())
}

#[test]
fn edges_fetch_the_list_and_nothing_else() {
    let files = Files::new();
    let store = Arc::new(files.load(LINES).0);
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let served = store.clone();
        tokio::spawn(crl::serve(listener, move || served.mirror().cloned()));

        let (head, body) = ask(port, "GET /mirror.crl").await;
        assert!(
            head.starts_with("HTTP/1.1 200") && head.contains("content-type: application/pkix-crl"),
            "{head}"
        );
        let (_, list) = CertificateRevocationList::from_der(&body).expect("a list");
        let pem = std::fs::read(files.path().join("mirror.pem")).expect("a file");
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
        let (_, ca) = X509Certificate::from_der(&pem.contents).expect("a certificate");
        assert_eq!(list.issuer().as_raw(), ca.subject().as_raw());
        list.verify_signature(ca.public_key())
            .expect("signed by the CA");
        assert_eq!(list.iter_revoked_certificates().count(), 0);
        assert!(list.crl_number().is_some());
        let life = list.next_update().expect("an end").timestamp() - list.last_update().timestamp();
        assert!(life > 6 * 86_400, "{life}");

        let (head, body) = ask(port, "HEAD /mirror.crl").await;
        assert!(
            head.starts_with("HTTP/1.1 200") && body.is_empty(),
            "{head}"
        );
        let (head, _) = ask(port, "POST /mirror.crl").await;
        assert!(
            head.starts_with("HTTP/1.1 405") && head.contains("allow: GET, HEAD"),
            "{head}"
        );
        for other in ["GET /", "GET /mirror.crl/", "GET /../mirror.key"] {
            let (head, _) = ask(port, other).await;
            assert!(head.starts_with("HTTP/1.1 404"), "{other}: {head}");
        }

        // Those who keep silent are told to go, and take nobody's place meanwhile.
        let mut silent = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("connected");
        let (head, _) = ask(port, "GET /mirror.crl").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(30), silent.read_to_end(&mut rest)).await;
        ended.expect("closed").expect("closed");
    });
}

#[test]
fn it_listens_where_the_url_points() {
    runtime().block_on(async {
        let bound = async |url: &str| {
            let listener = crl::listen(url).await.expect("a port");
            listener.local_addr().expect("an address")
        };
        assert!(bound("http://127.0.0.1:0/x").await.ip().is_loopback());
        assert!(bound("http://[::1]:0/x").await.ip().is_loopback());
        // An address that this host does not have, and a name.
        assert!(bound("http://192.0.2.1:0/x").await.ip().is_unspecified());
        assert!(
            bound("http://crl.hoster.example:0/x")
                .await
                .ip()
                .is_unspecified()
        );
        let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = taken.local_addr().expect("an address").port();
        crl::listen(&format!("http://127.0.0.1:{port}/x"))
            .await
            .expect_err("taken");
    });
}
