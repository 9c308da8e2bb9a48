//! What holds for whatever becomes of a packet.

use std::collections::HashSet;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use sni_common::contract::{Counter, DropReason};
use snigate_tests::addresses::{EDGE_A, EDGE_B, Host, VIP_1, VIP_2, partner};
use snigate_tests::packets::{Action, Outcome, Port};

use super::frames::{addresses, length, quoted, sums};
use super::sender::CONTOSO;
use super::{By, Table};

/// The rules, and what they have to know.
pub(super) struct Rules {
    table: Table,
    /// Whoever a packet to a service came from; an address gone wrong is a client's like any other.
    clients: HashSet<IpAddr>,
}

/// Fates that count as one of these and nothing else; those that are forwarded, answered or dropped have counters that stand for all of them.
const PASSED: [Counter; 10] = [
    Counter::Passed,
    Counter::Fragments,
    Counter::Unparsed,
    Counter::Inspected,
    Counter::SocketAcks,
    Counter::BadCookies,
    Counter::LeftName,
    Counter::LeftHello,
    Counter::LeftWay,
    Counter::EdgeAnswers,
];
const KEPT: [Counter; 2] = [Counter::CookieAcks, Counter::HelloParts];
const SENT: [Counter; 3] = [Counter::Forwarded, Counter::Answered, Counter::Cookies];

impl Rules {
    pub(super) fn new(table: Table) -> Self {
        Self {
            table,
            clients: HashSet::new(),
        }
    }

    /// Learns of a client by other ways than its packets.
    pub(super) fn meet(&mut self, client: IpAddr) {
        self.clients.insert(client);
    }

    /// Judges what became of a frame, at the first program or at the one behind.
    pub(super) fn check(&mut self, frame: &[u8], outcome: &Outcome, behind: bool) -> Result<()> {
        // A packet to a service may make a flow even if it is answered, or dropped for want of a way.
        if let Some((source, destination)) = addresses(frame)
            && (is(destination, VIP_1) || is(destination, VIP_2))
        {
            self.clients.insert(source);
        }
        check_verdict(outcome, behind)?;
        match outcome.action {
            Action::Drop => Ok(()),
            Action::Pass => {
                ensure!(outcome.frame == frame, "passed, and changed");
                Ok(())
            }
            Action::Redirect => {
                self.check_way(frame, outcome)?;
                check_length(frame, outcome)?;
                if sums(frame) == Some(true) {
                    ensure!(sums(&outcome.frame) == Some(true), "a wrong checksum");
                }
                Ok(())
            }
        }
    }

    /// Judges a frame that was sent besides, by an interface.
    pub(super) fn check_aside(&self, frame: &[u8], port: Port) -> Result<()> {
        let (source, destination) = addresses(frame).context("sent as no IP")?;
        let edge = if port == Port::Lan0 { EDGE_A } else { EDGE_B };
        ensure!(is(destination, edge), "not to the Edge of {}", port.name());
        if self.table.source == "preserve" {
            ensure!(
                self.edge_of(source, source).is_some_and(|it| it == edge),
                "{source} has nothing to do with this Edge"
            );
        }
        ensure!(
            length(frame) == Some(frame.len()),
            "of another length than it says"
        );
        ensure!(sums(frame) == Some(true), "a wrong checksum");
        Ok(())
    }

    fn check_way(&self, frame: &[u8], outcome: &Outcome) -> Result<()> {
        let (source, destination) = addresses(frame).context("sent on, and no IP packet")?;
        let (out_source, out_destination) = addresses(&outcome.frame).context("sent as no IP")?;
        if count(outcome, Counter::Answered) + count(outcome, Counter::Cookies) > 0 {
            ensure!(
                out_destination == source && out_source == destination,
                "an answer to somebody else"
            );
            return Ok(());
        }
        // The Edge's answer becomes the client's hello.
        let delivered = count(outcome, Counter::HellosDelivered) > 0;
        if delivered {
            ensure!(
                out_destination == source && out_source == destination,
                "a hello to another Edge, or of another client"
            );
            return Ok(());
        }
        // An ICMP error comes from any router, and an Edge may be one; it belongs to the flow whose packet it quotes.
        let error = count(outcome, Counter::IcmpTranslated) > 0;
        if let Some(edge) = edge_at(out_destination) {
            let (client, service) = if error {
                let (service, client) = quoted(frame).context("an error about nothing")?;
                (client, service)
            } else {
                (source, destination)
            };
            ensure!(
                self.edge_of(client, service) == Some(edge),
                "to another customer's Edge"
            );
            return Ok(());
        }
        ensure!(
            self.clients.contains(&out_destination),
            "to {out_destination}, who is nobody's client"
        );
        let service = is(out_source, VIP_1) || is(out_source, VIP_2);
        let fits = edge_at(source)
            .is_some_and(|edge| service && self.edge_of(out_destination, out_source) == Some(edge));
        ensure!(
            fits || (error && out_source == source),
            "from {out_source}, who is not its service"
        );
        Ok(())
    }

    /// The Edge for what a client sends to a service.
    fn edge_of(&self, client: IpAddr, service: IpAddr) -> Option<Host> {
        match self.table.by {
            By::Address if is(service, VIP_1) => Some(EDGE_A),
            By::Address if is(service, VIP_2) => Some(EDGE_B),
            By::Address => None,
            // Nobody else has ever said a name.
            By::Name if is(client, partner(CONTOSO)) => Some(EDGE_B),
            By::Name => (0..CONTOSO)
                .any(|number| is(client, partner(number)))
                .then_some(EDGE_A),
        }
    }
}

fn is(address: IpAddr, host: Host) -> bool {
    address == host.v4 || address == host.v6
}

fn edge_at(address: IpAddr) -> Option<Host> {
    [EDGE_A, EDGE_B].into_iter().find(|edge| is(address, *edge))
}

fn count(outcome: &Outcome, counter: Counter) -> u64 {
    outcome.counts.get(counter.name()).copied().unwrap_or(0)
}

/// Every packet has one verdict, and one that fits what the program returned.
fn check_verdict(outcome: &Outcome, behind: bool) -> Result<()> {
    let sum = |counters: &[Counter]| -> u64 { counters.iter().map(|it| count(outcome, *it)).sum() };
    let reasons: u64 = DropReason::ALL
        .iter()
        .filter_map(|reason| outcome.counts.get(reason.name()))
        .sum();
    let [passed, kept, sent] = [sum(&PASSED), sum(&KEPT), sum(&SENT)];
    let dropped = count(outcome, Counter::Dropped);
    let expected = match outcome.action {
        // The first one has counted it.
        Action::Pass if behind => (0, 0, 0),
        Action::Pass => (1, 0, 0),
        Action::Redirect => (0, 0, 1),
        Action::Drop => (0, 1, 0),
    };
    ensure!(
        (passed, kept + dropped, sent) == expected,
        "{passed} times passed, {kept} kept, {dropped} dropped, {sent} sent"
    );
    let told = dropped + count(outcome, Counter::Answered);
    ensure!(reasons == told, "{reasons} reasons for {told} refusals");
    Ok(())
}

/// A frame is as long as its IP header says. What was behind the packet that came in may follow, and nothing else.
fn check_length(frame: &[u8], outcome: &Outcome) -> Result<()> {
    let out = &outcome.frame;
    let length = length(out).context("sent as no IP")?;
    let behind = out
        .get(length..)
        .with_context(|| format!("sent {} bytes of {length}", out.len()))?;
    ensure!(
        behind.is_empty() || frame.ends_with(behind),
        "{} foreign bytes behind the packet",
        behind.len()
    );
    Ok(())
}
