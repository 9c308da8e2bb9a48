//! TLS alerts that rustls can't be made to send: before a handshake, and for a reason of the gateway's own after one.

use std::{io, time::Duration};

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{AlertDescription, ConnectionTrafficSecrets, ProtocolVersion, ServerConnection};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tokio_rustls::server::TlsStream;

/// Content types (RFC 8446 section 5.1) and the alert level (section 6).
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
const FATAL: u8 = 2;
/// How long and how much a peer's last words are waited for.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 1 << 20;

/// A fatal alert as the first record of a connection, not encrypted, of the version that every client reads.
pub fn plaintext_alert(description: AlertDescription) -> [u8; 7] {
    [ALERT, 3, 1, 0, 2, FATAL, description.into()]
}

/// Ends a connection whose handshake is complete with a fatal alert.
///
/// rustls sends alerts for its own reasons only, so that the record is sealed here with the connection's own keys; see
/// `enable_secret_extraction` of its configuration.
///
/// # Errors
/// The peer is gone or reads nothing, or the keys can't be had.
pub async fn fatal_alert<S>(
    mut stream: TlsStream<S>,
    description: AlertDescription,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Records that are waiting have their numbers already.
    timeout(LINGER, stream.flush()).await??;
    let (mut transport, connection) = stream.into_inner();
    let record = sealed(connection, description)?;
    timeout(LINGER, transport.write_all(&record)).await??;
    linger(transport).await;
    Ok(())
}

/// Closes a connection so that what was written last arrives: closing a socket with unread data in it resets the connection, and the peer's
/// kernel then throws away what it had not read yet (RFC 9293 section 3.10.4; RFC 2525 section 2.17).
pub(crate) async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut transport: S) {
    if transport.shutdown().await.is_ok() {
        let mut sink = tokio::io::sink();
        let mut rest = transport.take(LINGER_BYTES);
        // Whatever comes of it, the connection ends here.
        let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut sink)).await;
    }
}

fn sealed(connection: ServerConnection, description: AlertDescription) -> io::Result<Vec<u8>> {
    let version = connection.protocol_version();
    let secrets = connection
        .dangerous_extract_secrets()
        .map_err(io::Error::other)?;
    let (sequence, secrets) = secrets.tx;
    let (algorithm, key, iv) = match &secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
        _ => return Err(io::Error::other("a cipher that alerts can't be sealed for")),
    };
    let alert = [FATAL, description.into()];
    let record = match version {
        Some(ProtocolVersion::TLSv1_3) => {
            seal_1_3(algorithm, key.as_ref(), iv.as_ref(), sequence, alert)
        }
        _ => seal_1_2(algorithm, key.as_ref(), iv.as_ref(), sequence, alert),
    };
    record.map_err(|_| io::Error::other("the alert could not be sealed"))
}

/// The sequence number, padded on the left, over the IV (RFC 8446 section 5.3, RFC 7905 section 2). GCM of TLS 1.2 only needs a number
/// that never comes twice (RFC 5288 section 3), and rustls makes it the same way.
fn nonce(iv: &[u8], sequence: u64) -> Result<[u8; 12], aws_lc_rs::error::Unspecified> {
    let mut nonce: [u8; 12] = iv.try_into().map_err(|_| aws_lc_rs::error::Unspecified)?;
    for (byte, number) in nonce[4..].iter_mut().zip(sequence.to_be_bytes()) {
        *byte ^= number;
    }
    Ok(nonce)
}

fn seal_1_3(
    algorithm: &'static Algorithm,
    key: &[u8],
    iv: &[u8],
    sequence: u64,
    alert: [u8; 2],
) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key)?);
    // RFC 8446 section 5.2: the true content type follows the content.
    let mut body = vec![alert[0], alert[1], ALERT];
    let length = body.len() + algorithm.tag_len();
    let mut record = vec![APPLICATION_DATA, 3, 3, 0, length as u8];
    let nonce = Nonce::assume_unique_for_key(nonce(iv, sequence)?);
    key.seal_in_place_append_tag(nonce, Aad::from(&record[..]), &mut body)?;
    record.extend(body);
    Ok(record)
}

fn seal_1_2(
    algorithm: &'static Algorithm,
    key: &[u8],
    iv: &[u8],
    sequence: u64,
    alert: [u8; 2],
) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key)?);
    let nonce = nonce(iv, sequence)?;
    // RFC 5246 section 6.2.3.3: sequence number, type, version, and the length before sealing.
    let mut additional = sequence.to_be_bytes().to_vec();
    additional.extend([ALERT, 3, 3, 0, alert.len() as u8]);
    let mut body = alert.to_vec();
    key.seal_in_place_append_tag(
        Nonce::assume_unique_for_key(nonce),
        Aad::from(additional),
        &mut body,
    )?;
    // RFC 5288 section 3: the second part of the nonce comes with the record; ChaCha20 has none (RFC 7905 section 2).
    let explicit = if *algorithm == CHACHA20_POLY1305 {
        &[][..]
    } else {
        &nonce[4..]
    };
    let length = explicit.len() + body.len();
    let mut record = vec![ALERT, 3, 3, 0, length as u8];
    record.extend(explicit);
    record.extend(body);
    Ok(record)
}
