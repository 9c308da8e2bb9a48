//! Ending a connection that is not carried.

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::{refusal::Farewell, socket};
use crate::tls::{linger, plaintext_alert};

/// Ends it, in the way that the client deserves. The ClientHello was only peeked at: it is read now, and what comes after it.
pub(super) async fn say(mut stream: TcpStream, farewell: Farewell) {
    match farewell {
        Farewell::Reset => socket::reset_on_close(&stream),
        Farewell::Close => linger(stream).await,
        Farewell::Alert(description) => {
            // Seven bytes find room in an empty buffer, and whether the client hears them is the client's affair.
            if stream
                .write_all(&plaintext_alert(description))
                .await
                .is_ok()
            {
                linger(stream).await;
            }
        }
    }
}
