use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream},
    thread,
};

use super::{pipe::PIPE, *};

const LONG: Duration = Duration::from_secs(3600);

/// A connection: its far end blocks, its near end is the relay's.
fn connection() -> (StdStream, TcpStream) {
    let listener = StdListener::bind("127.0.0.1:0").expect("a listener");
    let far = StdStream::connect(listener.local_addr().expect("its address")).expect("far");
    let (near, _) = listener.accept().expect("near");
    near.set_nonblocking(true).expect("a socket");
    (far, TcpStream::from_std(near).expect("a runtime"))
}

async fn to_the_end(client: TcpStream, edge: TcpStream, idle: Duration) -> Relayed {
    relay(
        &client,
        &edge,
        idle,
        std::future::pending(),
        &Progress::default(),
    )
    .await
}

fn bytes(count: usize, seed: u8) -> Vec<u8> {
    (0..count).map(|n| (n / 7) as u8 ^ n as u8 ^ seed).collect()
}

#[tokio::test]
async fn both_directions_at_once_and_a_late_answer() {
    let (client, near_client) = connection();
    let (edge, near_edge) = connection();
    let relay = tokio::spawn(to_the_end(near_client, near_edge, LONG));
    let (up, down) = (bytes(3_000_000, 1), bytes(2_000_000, 2));
    let (up_too, down_too) = (up.clone(), down.clone());
    let server = thread::spawn(move || {
        let mut edge = edge;
        let mut received = Vec::new();
        // To the end: the client has closed its direction, and the answer comes after that.
        edge.read_to_end(&mut received).expect("all that was sent");
        assert!(received == up_too);
        edge.write_all(&down_too).expect("a late answer");
    });
    let far = thread::spawn(move || {
        let mut client = client;
        client.write_all(&up).expect("the request");
        client.shutdown(Shutdown::Write).expect("half a close");
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("the answer");
        assert!(received == down);
    });
    let relayed = relay.await.expect("no panic");
    server.join().expect("the server");
    far.join().expect("the client");
    assert_eq!(
        (relayed.to_edge, relayed.to_client, relayed.end),
        (3_000_000, 2_000_000, End::Closed)
    );
}

#[tokio::test]
async fn messages_of_all_sizes_for_a_slow_reader() {
    let (mut client, near_client) = connection();
    let (mut edge, near_edge) = connection();
    let relay = tokio::spawn(to_the_end(near_client, near_edge, LONG));
    // Around what fits into the buffer, and what counts as bulk; more in all than the sockets hold.
    let sizes = [1, 900, MESSAGE - 1, MESSAGE, MESSAGE + 1, BULK, 2 * PIPE, 5];
    let sent = bytes(sizes.iter().sum::<usize>() * 20, 3);
    let expected = sent.clone();
    let far = thread::spawn(move || {
        let mut left = &sent[..];
        for size in sizes.iter().cycle().take(sizes.len() * 20) {
            let (message, rest) = left.split_at(*size);
            client.write_all(message).expect("a message");
            left = rest;
            // Some arrive alone, some together.
            if size % 2 == 1 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let reader = thread::spawn(move || {
        let mut received = Vec::new();
        let mut piece = vec![0; 200_000];
        loop {
            thread::sleep(Duration::from_millis(2));
            match edge.read(&mut piece).expect("bytes") {
                0 => break,
                length => received.extend_from_slice(&piece[..length]),
            }
        }
        assert!(received == expected);
    });
    let relayed = relay.await.expect("no panic");
    far.join().expect("the client");
    reader.join().expect("every byte in its order");
    assert_eq!(relayed.end, End::Closed);
}

#[tokio::test]
async fn a_reset_is_passed_on() {
    let (client, near_client) = connection();
    let (mut edge, near_edge) = connection();
    let relay = tokio::spawn(to_the_end(near_client, near_edge, LONG));
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket");
    drop(client);
    assert_eq!(relay.await.expect("no panic").end, End::Reset);
    let error = edge.read(&mut [0; 1]).expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_after_half_a_close_is_passed_on() {
    let (client, near_client) = connection();
    let (mut edge, near_edge) = connection();
    let relay = tokio::spawn(to_the_end(near_client, near_edge, LONG));
    client.shutdown(Shutdown::Write).expect("half a close");
    let edge = tokio::task::spawn_blocking(move || {
        assert_eq!(edge.read(&mut [0; 1]).expect("the end"), 0);
        edge
    });
    let mut edge = edge.await.expect("the Edge");
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket");
    drop(client);
    assert_eq!(relay.await.expect("no panic").end, End::Reset);
    // It has read the end already; that nobody listens any more shows when it speaks.
    let error = edge.write_all(b"late").expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn silence_ends_it_and_words_do_not() {
    let (mut client, near_client) = connection();
    let (mut edge, near_edge) = connection();
    let idle = Duration::from_secs(2);
    let relay = tokio::spawn(to_the_end(near_client, near_edge, idle));
    let talk = thread::spawn(move || {
        for _ in 0..8 {
            client.write_all(b"x").expect("a word");
            edge.read_exact(&mut [0]).expect("a word");
            thread::sleep(Duration::from_millis(100));
        }
        (client, edge)
    });
    let relayed = relay.await.expect("no panic");
    let (mut client, _edge) = talk.join().expect("they talk");
    assert_eq!((relayed.end, relayed.to_edge), (End::Idle, 8));
    assert!(client.read(&mut [0; 1]).is_err(), "a reset");
}
