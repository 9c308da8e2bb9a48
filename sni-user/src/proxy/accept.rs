//! Taking connections from the kernel, one permit each.

use std::{io, sync::Arc, time::Duration};

use tokio::net::TcpListener;

use super::{Proxy, connection};

/// How long to wait when the kernel has no more file descriptors or memory: connections end, and it will have.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Accepts connections for as long as it is polled.
///
/// The permit comes first: what is above `max_connections` waits in the kernel's queue, and costs this process nothing.
pub(super) async fn connections(proxy: Arc<Proxy>, listener: TcpListener) {
    loop {
        let permit = proxy.permit().await;
        match listener.accept().await {
            Ok((stream, source)) => {
                let proxy = Arc::clone(&proxy);
                tokio::spawn(async move {
                    connection::serve(&proxy, stream, source).await;
                    drop(permit);
                });
            }
            // accept(2): the network's errors are already pending ones of the connection, which is gone.
            Err(error) if is_exhaustion(&error) => {
                proxy.refused_by_the_kernel(&error);
                tokio::time::sleep(EXHAUSTED).await;
            }
            Err(error) => tracing::debug!(%error, "a connection was gone before it was accepted"),
        }
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
