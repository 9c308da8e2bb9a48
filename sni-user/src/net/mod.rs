//! What the agent needs to know of the host's network, and the little that it changes there.
//!
//! Everything goes over netlink and `/proc/sys/net`, both of which answer for the caller's network namespace; `/sys/class/net`
//! answers for the one it was mounted in.
//!
//! [`Network`] lists interfaces and VLANs (`link`), asks the routing table (`route`) and has the kernel keep neighbours
//! resolved (`neighbour`); [`LocalAddresses`] makes the addresses of IP sets the host's own (`address`), [`ReturnRoute`] leads the
//! packets of transparent sockets to them (`rule`); [`Changes`] says when to ask again (`watch`); [`host`] checks what must be so
//! before the datapath is of any use.

mod address;
mod error;
pub mod host;
mod link;
mod neighbour;
mod route;
mod rule;
mod watch;

use std::{io, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

pub use self::{
    address::{Kept, LocalAddresses, Placed},
    error::NetError,
    link::{Interface, Mac, Vlan, vlan_links},
    neighbour::{Neighbour, NeighbourState},
    route::{Route, RouteKind},
    rule::{Installed, Piece, PieceKind, ReturnRoute},
    watch::{Change, Changes},
};

/// How long the kernel may take for the next message of an answer. It needs microseconds; an answer that the library could not
/// decode never comes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to leave a busy socket alone.
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// By this number the agent knows its own addresses (IFA_PROTO), routes (rtm_protocol) and rules (FRA_PROTOCOL) again, also those that
/// a killed one has left. All three are for the program that made the entry, and to the kernel mere labels. 61, after port 5061, is taken
/// neither in include/uapi/linux/rtnetlink.h nor in the lists of iproute2 and FRR.
const PROTOCOL: u8 = 61;
/// The loopback interface; the kernel gives it this index in every namespace (LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;

/// A netlink connection to one network namespace. Clones share it; it is closed with the last of them.
#[derive(Clone, Debug)]
pub struct Network {
    handle: rtnetlink::Handle,
    /// Held by whoever is listing: the kernel allows one listing at a time on a socket.
    listing: Arc<Mutex<()>>,
}

impl Network {
    /// Connects to the network namespace of the calling thread; the connection is driven by a task on the current runtime.
    ///
    /// # Errors
    /// No netlink socket could be had.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new() -> Result<Self, NetError> {
        // Strict, so that the kernel lists only what is asked for: the routes of one table, not those of every table.
        let (mut connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(NetError::Connect)?;
        // Without these, the end of an answer could not be told from the end of the connection.
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        tokio::spawn(connection);
        Ok(Self {
            handle,
            listing: Arc::default(),
        })
    }

    /// Asks for all of something; otherwise as [`Network::exchange`].
    async fn list(
        &self,
        message: RouteNetlinkMessage,
        doing: impl Fn() -> String,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), NetError> {
        let _turn = self.listing.lock().await;
        let patience = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let listed = self
                .exchange(message.clone(), NLM_F_DUMP, &doing, &mut each)
                .await;
            match listed {
                // A caller has dropped its listing half-way, and the rest of it is still on its way.
                Err(NetError::Refused { reason, .. })
                    if reason.kind() == io::ErrorKind::ResourceBusy
                        && Instant::now() < patience =>
                {
                    sleep(BUSY_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Sends a request and hands each message of the answer to `each`; `doing` begins the sentence if it fails.
    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        doing: impl Fn() -> String,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), NetError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let refused = |reason| NetError::Refused {
            doing: doing(),
            reason,
        };
        let mut answer = self
            .handle
            .clone()
            .request(request)
            .map_err(|_| NetError::Closed)?;
        let mut complete = false;
        loop {
            let message = timeout(ANSWER_TIMEOUT, answer.next())
                .await
                .map_err(|_| refused(io::ErrorKind::TimedOut.into()))?;
            match message.map(|message| message.payload) {
                None if complete => return Ok(()),
                None => return Err(NetError::Closed),
                Some(NetlinkPayload::InnerMessage(message)) => {
                    complete = flags & NLM_F_DUMP == 0;
                    each(message);
                }
                Some(NetlinkPayload::Done(_)) => complete = true,
                Some(NetlinkPayload::Error(error)) => match error.code {
                    None => complete = true,
                    Some(_) => return Err(refused(error.to_io())),
                },
                // The kernel had no room for the rest of the answer.
                Some(NetlinkPayload::Overrun(_)) => {
                    return Err(refused(io::ErrorKind::OutOfMemory.into()));
                }
                Some(_) => {}
            }
        }
    }
}
