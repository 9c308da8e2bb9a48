//! Ending a connection that is not carried.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{hello::MAX_HELLO, refusal::Farewell, socket};

/// How long a client may take to read its alert.
const PATIENCE: Duration = Duration::from_secs(1);

/// Ends it, in the way that the client deserves.
pub(super) async fn say(stream: TcpStream, farewell: Farewell) {
    match farewell {
        Farewell::Reset => socket::reset_on_close(&stream),
        // Whether the client hears it is the client's affair.
        Farewell::Close => drop(timeout(PATIENCE, close(stream, None)).await),
        Farewell::Alert(description) => {
            drop(timeout(PATIENCE, close(stream, Some(description))).await);
        }
    }
}

/// Says what there is to say, and waits until the client has closed, too.
///
/// A socket that is closed with unread bytes sends a RST (RFC 2525 section 2.17), which makes the other side forget what it has received and not
/// read yet. The ClientHello was only peeked at: it is still there, and there may be more.
async fn close(mut stream: TcpStream, alert: Option<u8>) -> io::Result<()> {
    if let Some(description) = alert {
        stream.write_all(&fatal_alert(description)).await?;
    }
    stream.shutdown().await?;
    let mut rest = stream.take(2 * MAX_HELLO as u64);
    let mut discarded = [0; 4096];
    while rest.read(&mut discarded).await? > 0 {}
    Ok(())
}

/// A TLS record with a fatal alert, as it is sent before there are keys (RFC 8446 sections 5.1 and 6).
fn fatal_alert(description: u8) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    // The version of a record before versions are negotiated: every client takes it.
    [ALERT, 3, 1, 0, 2, FATAL, description]
}
