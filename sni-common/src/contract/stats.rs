//! STATS: every counter, and every drop reason, by number.

use super::{wire_enum, wire_struct};

wire_enum! {
    /// Counters that are no drop reasons; index in STATS.
    pub enum Counter: u32 {
        /// Packets of no service and no flow, handed to the host untouched.
        Passed = 0, "passed";
        /// Packets translated and forwarded.
        Forwarded = 1, "forwarded";
        /// Bytes of those, IP headers included.
        ForwardedBytes = 2, "forwarded-bytes";
        /// Packets dropped, for whatever reason.
        Dropped = 3, "dropped";
        /// Packets answered by the datapath itself (RST or ICMP error).
        Answered = 4, "answered";
        /// SYNs for which an Edge was chosen.
        Steered = 5, "steered";
        /// Flows whose handshake was completed.
        Opened = 6, "opened";
        /// Flows found in mid-stream and confirmed by their Edge.
        Recovered = 7, "recovered";
        /// ICMP errors about a flow, translated and forwarded.
        IcmpTranslated = 8, "icmp-translated";
        /// IP fragments of a VIP, handed to the host.
        Fragments = 9, "fragments";
        /// Packets that could not be parsed (too many extension headers, cut off before the ports), handed to the host.
        Unparsed = 10, "unparsed";
        /// Packets of an inspected service, admitted and handed to the host.
        Inspected = 11, "inspected";
        /// RSTs that their receiver would not take; forwarded without closing the flow.
        StrayResets = 12, "stray-resets";
        /// Packets sent to a next hop whose neighbour entry was gone, by the addresses used before.
        StaleNextHops = 13, "stale-next-hops";
        /// Ports tried in vain for the Edge leg because another flow had them.
        PortCollisions = 14, "port-collisions";
        /// Events lost because the ring was full.
        EventsLost = 15, "events-lost";
        /// Packets to an inspected service that begin a connection, handed to the agent's listener.
        Dispatched = 16, "dispatched";
        /// Packets of handed-off flows, translated and forwarded.
        HandedOff = 17, "handed-off";
        /// Acknowledgements of what the agent's sockets have sent, handed to them while a flow is being handed off.
        SocketAcks = 18, "socket-acks";
        /// SYNs to an inspected service, answered by the datapath with a SYN cookie.
        Cookies = 19, "cookies";
        /// Acknowledgements without data that carry a valid cookie; kept back, because the ClientHello carries it as well.
        CookieAcks = 20, "cookie-acks";
        /// Segments with an acknowledgement that is no valid cookie and belongs to nobody, handed to the host, which answers with an RST.
        BadCookies = 21, "bad-cookies";
        /// Segments with a part of a ClientHello, kept until the rest of it comes.
        HelloParts = 22, "hello-parts";
        /// ClientHellos whose connection was bound to an Edge: a SYN went there.
        Bound = 23, "bound";
        /// SYNs to an Edge that were repeated, or sent to the next Edge of the pool, because a ClientHello came again.
        BindRetries = 24, "bind-retries";
        /// SYN-ACKs of Edges that a kept ClientHello was sent for.
        HellosDelivered = 25, "hellos-delivered";
        /// Packets of bound flows, translated and forwarded.
        BoundForwarded = 26, "bound-forwarded";
        /// ClientHellos left to the agent because it decides about their name: it is not in the maps, or not by itself enough.
        LeftName = 27, "left-name";
        /// ClientHellos left to the agent because the datapath does not read them: not TLS, of several records or more than two segments, or wrong.
        LeftHello = 28, "left-hello";
        /// ClientHellos left to the agent because there is no way to the Edge at the moment: no next hop, no port, or no Edge that is up.
        LeftWay = 29, "left-way";
        /// Answers of Edges to bound flows, handed to the program behind, which can make packets longer.
        EdgeAnswers = 30, "edge-answers";
        /// Packets that a capture wanted and did not get: more than its rate, or faster than it reads.
        CaptureLost = 31, "capture-lost";
    }
}

/// First index of drop reasons in STATS; a reason's index is this plus its number.
pub const DROPS: u32 = 32;

/// Counters and drop reasons together.
pub const ENTRIES: usize = 64;

/// Value of STATS, one per CPU: a single map lookup serves all the counting of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats(pub [u64; ENTRIES]);
wire_struct!(Stats, 512);

impl Default for Stats {
    fn default() -> Self {
        Self([0; ENTRIES])
    }
}

impl Stats {
    /// A counter's value.
    pub const fn counter(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    /// How many packets were dropped for a reason.
    pub const fn drops(&self, reason: DropReason) -> u64 {
        self.0[reason.index() as usize]
    }

    /// Adds the counts of another CPU.
    pub fn add(&mut self, other: &Self) {
        for (sum, value) in self.0.iter_mut().zip(other.0) {
            *sum = sum.wrapping_add(value);
        }
    }
}

macro_rules! drop_reasons {
    ($( $variant:ident = $value:literal, $name:literal, $sentence:literal; )*) => {
        wire_enum! {
            /// Why a packet of a service or flow was dropped. Numbers are stable: they are never given to another reason.
            pub enum DropReason: u32 {
                $( #[doc = $sentence] $variant = $value, $name; )*
            }
        }

        impl DropReason {
            /// What happened, in a sentence for people.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

drop_reasons! {
    Truncated = 1, "truncated", "The packet ends before its IP or TCP header does, or before the length that its IP header gives.";
    BadDataOffset = 2, "bad-data-offset", "The TCP data offset is below 20 bytes or points beyond the packet.";
    BadFlags = 3, "bad-flags", "The TCP flags make no segment that could open or continue a connection.";
    Denied = 4, "denied", "The source address lies in a prefix of `limits.deny`.";
    SynBudget = 5, "syn-budget", "The source sends more SYNs than `limits.syn_per_source` allows.";
    NoEdge = 6, "no-edge", "No Edge of the service's pool is up; the client was answered with a reset.";
    FlowTableFull = 7, "flow-table-full", "There is no room for another flow (`max_flows`); a client was answered with a reset.";
    NoPort = 8, "no-port", "No port of the gateway toward the Edge was free; the client was answered with a reset.";
    NoFlow = 9, "no-flow", "The segment belongs to no known flow and its Edge can't be found again.";
    TtlExpired = 10, "ttl-expired", "The TTL or hop limit ran out at the gateway; the sender was told by ICMP.";
    TooBig = 11, "too-big", "The packet does not fit the next hop's MTU; the sender was told by ICMP.";
    NoRoute = 12, "no-route", "The host has no route to the destination of the translated packet.";
    NoNeighbour = 13, "no-neighbour", "The next hop's link-layer address is not known; the agent was asked to resolve it.";
    ForwardingOff = 14, "forwarding-off", "IP forwarding is off on the interface that the packet arrived on.";
    NoRoom = 15, "no-room", "The driver left no room to change the packet's length.";
    Incoherent = 16, "incoherent", "A map entry refers to another one that is not there; reload the configuration.";
    BadIcmp = 17, "bad-icmp", "An ICMP error about a flow ends before the header that it quotes does.";
    Segmented = 18, "segmented", "The packet lies in more than one buffer, and its headers are not all in the first.";
    Unrecoverable = 19, "unrecoverable", "The segment belongs to a lost flow whose port toward the Edge can't be found again (`source = \"gateway\"`); the client was answered with a reset.";
    Unanswerable = 20, "unanswerable", "The packet has IP options or extension headers and can't be answered by ICMP, or ICMP errors exceed their rate.";
    WrongSide = 21, "wrong-side", "A packet with an Edge's address came in by the interface that leads to the client.";
    NoListener = 22, "no-listener", "The connection goes to an inspected service and no agent listens; it was refused.";
    GivenUp = 23, "given-up", "The packet of a handed-off flow was on its way to the agent's socket when that was given up; its sender repeats what it carried.";
    HelloBudget = 24, "hello-budget", "The source begins more connections than `limits.hello_per_source` allows and completes none.";
    BadChecksum = 25, "bad-checksum", "The TCP checksum of a SYN that the datapath would answer, of a segment that brings a cookie back or a ClientHello, or of an Edge's answer to a bound connection, is wrong; its sender repeats it.";
    EarlyData = 26, "early-data", "The segment came before the Edge had answered, behind the ClientHello; its sender repeats it.";
    EdgeSilent = 27, "edge-silent", "No Edge of the pool that the server name belongs to has answered; the client was answered with a reset.";
    StaleEdge = 28, "stale-edge", "The Edge answered a SYN for an earlier connection with the same port, which was reset.";
    LateAnswer = 29, "late-answer", "An Edge repeated its SYN-ACK when the ClientHello was no longer kept; the client repeats what the Edge lacks.";
    EdgeRefused = 30, "edge-refused", "The Edge that the server name belongs to refused the connection; another one is tried, or the client was answered with a reset.";
    NoTimestamps = 31, "no-timestamps", "The Edge has no timestamps and the client, which has, may drop what it sends; the connection is left to the agent.";
}

impl DropReason {
    /// Index in STATS.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        DROPS + self as u32
    }
}

const _: () = assert!((Counter::CaptureLost as u32) < DROPS);
const _: () = assert!(DropReason::NoTimestamps.index() < ENTRIES as u32);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_number_has_one_name_and_a_sentence() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for reason in DropReason::ALL {
            assert!(
                reason.sentence().ends_with('.') && reason.sentence().len() > 30,
                "{reason}"
            );
            assert_eq!(DropReason::try_from(*reason as u32), Ok(*reason));
        }
        assert!(
            DropReason::try_from(0).is_err(),
            "0 is no reason: a forgotten one must not look like one"
        );
        for counter in Counter::ALL {
            assert_eq!(Counter::try_from(*counter as u32), Ok(*counter));
        }
    }
}
