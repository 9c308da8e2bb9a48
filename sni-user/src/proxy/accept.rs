//! Taking connections from the kernel, one permit each.

use std::{io, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{net::TcpListener, task::JoinSet};

use super::{Proxy, connection, stamp::is_stamp};
use crate::descriptors;

/// How long to wait when the kernel refuses: connections end, and there will be file descriptors and memory again.
const REFUSED: Duration = Duration::from_millis(100);

/// Accepts connections until the proxy is stopped, and ends those that are open then.
///
/// The permit comes first: what is above `max_connections` waits in the kernel's queue, and costs this process nothing.
pub(super) async fn connections(proxy: Arc<Proxy>, listener: TcpListener) {
    let mut open = JoinSet::new();
    tokio::select! {
        () = accept(&proxy, &listener, &mut open) => {}
        () = follow_segment_size(&proxy, &listener) => {}
        () = proxy.stopped() => {}
    }
    drop(listener);
    open.shutdown().await;
    proxy.has_stopped();
}

/// Keeps what clients are told true. Does not end.
async fn follow_segment_size(proxy: &Proxy, listener: &TcpListener) {
    let mut size = proxy.segment_size();
    loop {
        let bytes = *size.borrow_and_update();
        if let Err(error) = SockRef::from(listener).set_tcp_mss(bytes) {
            tracing::warn!(%error, bytes, "clients can't be told how large their segments may be; path MTU discovery finds out");
        }
        // The sender is the proxy's, which is borrowed.
        let _ = size.changed().await;
    }
}

async fn accept(proxy: &Arc<Proxy>, listener: &TcpListener, open: &mut JoinSet<()>) {
    // Bound, so it has one.
    let own_port = listener.local_addr().map_or(0, |address| address.port());
    let mut scarce = false;
    loop {
        let permit = proxy.permit().await;
        if scarce {
            wait_for_descriptors(proxy, listener).await;
        }
        // Those that have ended.
        while open.try_join_next().is_some() {}
        let accepted = listener.accept().await;
        scarce = match &accepted {
            Ok((stream, _)) => descriptors::is_of_reserve(stream),
            Err(error) => descriptors::is_want(error),
        };
        match accepted {
            // The agent's own, which has done its work with its SYN.
            Ok((stream, source))
                if stream
                    .local_addr()
                    .is_ok_and(|address| is_stamp(source, address, own_port)) => {}
            Ok((stream, source)) => {
                let proxy = Arc::clone(proxy);
                open.spawn(async move {
                    connection::serve(&proxy, stream, source).await;
                    drop(permit);
                });
            }
            // accept(2): the network's errors are already pending ones of the connection, which is gone.
            Err(error) if is_of_the_connection(&error) => {
                tracing::debug!(%error, "a connection was gone before it was accepted");
            }
            Err(error) => {
                proxy.refused_by_the_kernel(&error);
                tokio::time::sleep(REFUSED).await;
            }
        }
    }
}

/// Waits until there are descriptors for one more connection. It waits as well, in the kernel's queue.
async fn wait_for_descriptors(proxy: &Proxy, listener: &TcpListener) {
    if !descriptors::are_scarce(listener) {
        return;
    }
    proxy.refused_by_the_kernel(&io::Error::from_raw_os_error(libc::EMFILE));
    while descriptors::are_scarce(listener) {
        tokio::time::sleep(REFUSED).await;
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENOPROTOOPT
                | libc::ENONET
                | libc::EOPNOTSUPP
        )
    )
}
