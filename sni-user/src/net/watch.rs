//! When to ask the network again.

use std::time::Duration;

use futures_util::StreamExt as _;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::NetError;

/// A burst of notifications (a link that comes up, a routing daemon that restarts) is one change once it has been quiet this long.
const QUIET: Duration = Duration::from_millis(200);
/// A burst without end is reported this often.
const LONGEST: Duration = Duration::from_secs(2);

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// What may be different now. It only says what to look at again, so losing the count of notifications loses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// An interface came, went, or was changed.
    pub links: bool,
    /// An address of the host came or went.
    pub addresses: bool,
    /// A route or a rule came or went.
    pub routes: bool,
    /// An entry of the neighbour table went: [`super::Network::keep_neighbour`] brings it back.
    pub neighbours: bool,
}

impl Change {
    const EVERYTHING: Self = Self {
        links: true,
        addresses: true,
        routes: true,
        neighbours: true,
    };

    /// Whether there is anything to look at.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }

    fn merge(&mut self, message: &NetlinkMessage<RouteNetlinkMessage>) {
        use RouteNetlinkMessage::{
            DelAddress, DelLink, DelNeighbour, DelRoute, DelRule, NewAddress, NewLink, NewRoute,
            NewRule,
        };
        match &message.payload {
            // Notifications came faster than they were read.
            NetlinkPayload::Overrun(_) => *self = Self::EVERYTHING,
            NetlinkPayload::InnerMessage(message) => match message {
                NewLink(_) | DelLink(_) => self.links = true,
                NewAddress(_) | DelAddress(_) => self.addresses = true,
                NewRoute(_) | DelRoute(_) | NewRule(_) | DelRule(_) => self.routes = true,
                // The group also tells of the stations behind a bridge.
                DelNeighbour(entry) => {
                    self.neighbours |= matches!(
                        entry.header.family,
                        AddressFamily::Inet | AddressFamily::Inet6
                    );
                }
                _ => {}
            },
            _ => {}
        }
    }
}

/// Whether an interface has come. What it receives before the datapath is attached to it is the host's, which ends flows: that can't wait.
fn tells_new_interface(message: &NetlinkMessage<RouteNetlinkMessage>) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
            // All of it is new (rtnl_configure_link and register_netdevice of net/core): any other change names the flags that have changed.
            link.header.change_mask.bits() == u32::MAX
        }
        _ => false,
    }
}

/// The changes of one network namespace, coalesced. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Changes {
    coalesced: mpsc::Receiver<Change>,
    _tasks: JoinSet<()>,
}

impl Changes {
    /// Subscribes in the network namespace of the calling thread. Subscribe first and list afterwards, and nothing is missed.
    ///
    /// # Errors
    /// No netlink socket could be had.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new() -> Result<Self, NetError> {
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(NetError::Connect)?;
        let (sender, coalesced) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        tasks.spawn(coalesce(messages.map(|(message, _)| message), sender));
        Ok(Self {
            coalesced,
            _tasks: tasks,
        })
    }

    /// The next change; what happens between two calls is one change, however long that is. Cancel safe.
    ///
    /// # Errors
    /// [`NetError::Closed`]: the subscription has ended, and there will be no more.
    pub async fn next(&mut self) -> Result<Change, NetError> {
        self.coalesced.recv().await.ok_or(NetError::Closed)
    }
}

/// Reads on while nobody takes what has been gathered, so that memory stays bounded and the kernel's buffer empty.
async fn coalesce(
    messages: impl futures_util::Stream<Item = NetlinkMessage<RouteNetlinkMessage>>,
    sender: mpsc::Sender<Change>,
) {
    tokio::pin!(messages);
    let mut pending = Change::default();
    let mut urgent = false;
    let mut first = Instant::now();
    let mut due = first;
    loop {
        let waiting = pending.any();
        let ripe = async {
            sleep_until(due).await;
            sender.reserve().await
        };
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return };
                pending.merge(&message);
                urgent |= tells_new_interface(&message);
                let now = Instant::now();
                if !waiting {
                    first = now;
                }
                due = if urgent { now } else { (now + QUIET).min(first + LONGEST) };
            }
            permit = ripe, if waiting => {
                let Ok(permit) = permit else { return };
                permit.send(std::mem::take(&mut pending));
                urgent = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use rtnetlink::packet_core::NetlinkHeader;
    use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
    use rtnetlink::packet_route::neighbour::NeighbourMessage;
    use rtnetlink::packet_route::route::RouteMessage;

    use super::*;

    fn told(message: RouteNetlinkMessage) -> NetlinkMessage<RouteNetlinkMessage> {
        NetlinkMessage::from(message)
    }

    fn merged(messages: impl IntoIterator<Item = RouteNetlinkMessage>) -> Change {
        let mut change = Change::default();
        for message in messages {
            change.merge(&told(message));
        }
        change
    }

    #[test]
    fn only_entries_of_hosts_that_went_are_told() {
        let entry = |family| {
            let mut message = NeighbourMessage::default();
            message.header.family = family;
            message
        };
        let bridge = RouteNetlinkMessage::DelNeighbour(entry(AddressFamily::Bridge));
        let learned = RouteNetlinkMessage::NewNeighbour(entry(AddressFamily::Inet6));
        assert!(!merged([bridge, learned]).any());
        let gone = RouteNetlinkMessage::DelNeighbour(entry(AddressFamily::Inet6));
        assert!(merged([gone]).neighbours);
    }

    #[test]
    fn lost_notifications_may_have_been_any() {
        let mut change = Change::default();
        let lost = NetlinkPayload::Overrun(Vec::new());
        change.merge(&NetlinkMessage::new(NetlinkHeader::default(), lost));
        assert_eq!(change, Change::EVERYTHING);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_change() {
        let burst = [
            RouteNetlinkMessage::NewLink(LinkMessage::default()),
            RouteNetlinkMessage::NewRoute(RouteMessage::default()),
            RouteNetlinkMessage::DelRoute(RouteMessage::default()),
        ];
        let messages = stream::iter(burst.map(told)).chain(stream::pending());
        let (sender, mut coalesced) = mpsc::channel(1);
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        tasks.spawn(coalesce(messages, sender));
        let change = coalesced.recv().await.expect("a change");
        assert_eq!((change.links, change.routes), (true, true));
        assert!(!change.addresses && !change.neighbours);
        assert!((QUIET..LONGEST).contains(&start.elapsed()));
        assert!(coalesced.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_interface_that_comes_is_told_at_once() {
        let mut came = LinkMessage::default();
        came.header.change_mask = LinkFlags::from_bits_retain(u32::MAX);
        let mut went_up = LinkMessage::default();
        went_up.header.change_mask = LinkFlags::Up;
        let messages = [came, went_up].map(|link| told(RouteNetlinkMessage::NewLink(link)));
        let messages = stream::iter(messages).chain(stream::pending());
        let (sender, mut coalesced) = mpsc::channel(1);
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        tasks.spawn(coalesce(messages, sender));
        assert!(coalesced.recv().await.expect("a change").links);
        assert!(start.elapsed() < QUIET, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_without_end_is_told_all_the_same() {
        let messages = stream::unfold((), async |()| {
            tokio::time::sleep(QUIET / 2).await;
            let route = RouteNetlinkMessage::NewRoute(RouteMessage::default());
            Some((told(route), ()))
        });
        let (sender, mut coalesced) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(coalesce(messages, sender));
        for _ in 0..3 {
            let start = Instant::now();
            let change = coalesced.recv().await.expect("a change");
            assert!(change.routes);
            assert!(start.elapsed() <= LONGEST + QUIET, "{:?}", start.elapsed());
        }
    }
}
