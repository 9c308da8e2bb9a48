//! What new flows may not do: denied prefixes, the SYN budget, a full table.

use std::time::Duration;

use anyhow::Result;
use sni_common::contract::{Counter, DropReason, EventKind};
use snigate_tests::addresses::{PARTNER, partner};
use snigate_tests::packets::frame::{RST, reset_of};
use snigate_tests::packets::plan::{CLIENT_ISN, Family, Path, configuration};
use snigate_tests::packets::{FAR_PARTNER, Port, Row, Scene, Step, packet_table};

use crate::checks::{counted, no_flows};

#[test]
fn denied_and_allowed_prefixes() {
    let rows = Family::BOTH.into_iter().flat_map(|family| {
        let path = Path::usual(family);
        [
            denied(path, "deny = [\"198.51.100.0/30\", \"2001:db8:1::/126\"]\n", true),
            denied(path, "deny = [\"198.51.100.1/32\", \"2001:db8:1::1/128\"]\n", true),
            denied(path, "deny = [\"0.0.0.0/0\", \"::/0\"]\n", true),
            denied(path, "deny = [\"198.51.100.2/32\", \"2001:db8:1::2/128\"]\n", false),
            denied(
                path,
                "deny = [\"0.0.0.0/0\", \"::/0\"]\nallow = [\"198.51.100.1/32\", \"2001:db8:1::1/128\"]\n",
                false,
            ),
            denied(
                path,
                "deny = [\"198.51.100.1/32\", \"2001:db8:1::1/128\"]\nallow = [\"0.0.0.0/0\", \"::/0\"]\n",
                true,
            ),
            denied_in_mid_flow(path),
            denied_mid_stream(path),
        ]
        .map(|row| row.named_for(family))
    });
    packet_table("ACL", rows.collect());
}

fn denied(path: Path, limits: &str, denied: bool) -> Row {
    let syn = path.syn();
    let step = if denied {
        Step::dropped(Port::Wan0, &syn, DropReason::Denied)
            .tells(&[EventKind::Dropped])
            .leaves(no_flows)
    } else {
        path.up(&syn).counts(Counter::Steered).leaves(counted(0, 1))
    };
    Row::new(
        format!("limits {limits:?}"),
        configuration(&format!("[limits]\n{limits}")),
    )
    .step(step)
}

const DENY_ALL: &str = "[limits]\ndeny = [\"0.0.0.0/0\", \"::/0\"]\n";

fn denied_in_mid_flow(path: Path) -> Row {
    Row::new(
        "a prefix denied later refuses new flows only",
        configuration(""),
    )
    .steps(path.handshake())
    .step(
        path.up(&path.client_data(0, b"on and on"))
            .after_change(|scene| scene.configure(&configuration(DENY_ALL))),
    )
    .step(path.down(&path.edge_data(0, 9, b"and on")))
    .step(Step::dropped(
        Port::Wan0,
        &path.from(with_port(path, 40_001)).syn(),
        DropReason::Denied,
    ))
}

fn denied_mid_stream(path: Path) -> Row {
    Row::new(
        "nor is a lost flow recovered for a denied source",
        configuration(DENY_ALL),
    )
    .step(
        Step::dropped(Port::Wan0, &path.client_data(0, b"x"), DropReason::Denied).leaves(no_flows),
    )
}

fn with_port(path: Path, port: u16) -> std::net::SocketAddr {
    std::net::SocketAddr::new(path.client.ip(), port)
}

#[test]
fn the_syn_budget_of_a_source() {
    let rows = Family::BOTH.into_iter().flat_map(|family| {
        [exhausted(family), repeated(family), exempt(family)].map(|row| row.named_for(family))
    });
    packet_table("SYN budget", rows.collect());
}

/// Slow enough for a machine on which a row takes seconds.
const TWO_A_MINUTE: &str = "[limits]\nsyn_per_source = \"2/m\"\n";

fn exhausted(family: Family) -> Row {
    let path = |port| Path::usual(family).from(family.socket(PARTNER, port));
    let other = Path::usual(family).from(family.socket(FAR_PARTNER, 40_000));
    let opens = |path: Path| path.up(&path.syn()).counts(Counter::Steered);
    let refused = |port| {
        Step::dropped(Port::Wan0, &path(port).syn(), DropReason::SynBudget).leaves(counted(0, 2))
    };
    let usual = path(40_001);
    Row::new(
        "exhausted, refilled, and nobody else's",
        configuration(TWO_A_MINUTE),
    )
    .step(opens(usual))
    .step(opens(path(40_002)))
    .step(refused(40_003))
    .step(refused(40_004))
    // What the source has already may go on.
    .step(usual.down(&usual.syn_ack()))
    .step(usual.up(&usual.handshake_ack()).counts(Counter::Opened))
    .step(usual.up(&usual.client_data(0, b"data")))
    .step(opens(other))
    .step(opens(path(40_005)).after_change(|scene| later(scene, Duration::from_secs(35))))
    .step(Step::dropped(
        Port::Wan0,
        &path(40_006).syn(),
        DropReason::SynBudget,
    ))
}

/// Has every source's last packet have been so much earlier.
fn later(scene: &mut Scene<'_>, time: Duration) -> Result<()> {
    let budget = &mut scene.datapath().maps.budget;
    for entry in budget.iter().collect::<Result<Vec<_>, _>>()? {
        let (key, mut bucket) = entry;
        bucket.refilled_ns = bucket.refilled_ns.saturating_sub(time.as_nanos() as u64);
        budget.insert(key, bucket, 0)?;
    }
    Ok(())
}

/// One half-open flow is no free pass for a flood.
fn repeated(family: Family) -> Row {
    let path = Path::usual(family);
    Row::new("repeated SYNs are charged too", configuration(TWO_A_MINUTE))
        .step(path.up(&path.syn()).counts(Counter::Steered))
        .step(path.up(&path.syn()))
        .step(Step::dropped(Port::Wan0, &path.syn(), DropReason::SynBudget).leaves(counted(0, 1)))
}

fn exempt(family: Family) -> Row {
    let limits = format!("{TWO_A_MINUTE}allow = [\"198.51.100.0/24\", \"2001:db8:1::/64\"]\n");
    let path = |port| Path::usual(family).from(family.socket(PARTNER, port));
    Row::new("allowed prefixes have no budget", configuration(&limits)).steps(
        (40_000..40_008).map(|port| path(port).up(&path(port).syn()).counts(Counter::Steered)),
    )
}

#[test]
fn a_full_flow_table() {
    let rows = Family::BOTH.into_iter().map(|family| {
        let first = Path::usual(family);
        let second = first.from(family.socket(partner(1), 40_000));
        let ack = second.handshake_ack();
        let rst_at_edge = second
            .client_packet()
            .flags(RST)
            .seq(CLIENT_ISN.wrapping_add(1));
        Row::new("one flow fits", configuration(""))
            .named_for(family)
            .max_flows(1)
            .steps(first.handshake())
            .step(second.up(&second.syn()).counts(Counter::Steered))
            .step(second.down(&second.syn_ack()))
            .step(
                Step::answered(
                    Port::Wan0,
                    &ack,
                    reset_of(&ack).frame(),
                    DropReason::FlowTableFull,
                )
                .leaves(counted(1, 1)),
            )
            .step(first.up(&first.client_data(0, b"I was first")))
            .step(first.down(&first.edge_data(0, 11, b"so you were")))
            // The Edge repeats its SYN-ACK; the client, which knows nothing any more, resets it.
            .step(second.down(&second.syn_ack()))
            .step(second.up(&rst_at_edge).leaves(counted(1, 0)))
            // When the first flow has ended and been swept, there is room again.
            .step(first.up(&first.client_fin(11)))
            .step(
                second
                    .up(&second.syn().seq(CLIENT_ISN))
                    .counts(Counter::Steered)
                    .after_change(move |scene| {
                        let maps = &mut scene.datapath().maps;
                        for (key, _) in maps.all_flows()? {
                            maps.flows.remove(&key)?;
                        }
                        Ok(())
                    }),
            )
            .step(second.down(&second.syn_ack()))
            .step(
                second
                    .up(&second.handshake_ack())
                    .counts(Counter::Opened)
                    .leaves(counted(1, 0)),
            )
    });
    packet_table("a full flow table", rows.collect());
}
