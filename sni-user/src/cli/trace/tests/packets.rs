//! Where a packet goes, stage by stage.

use sni_common::{
    Address,
    contract::{AclAction, BudgetKey, BudgetKind, FILTER_EDGES, LabelKind, SourceMode, filter_bit},
    token_bucket::TokenBucket,
};

use super::tables::{MadeUp, address, maps, says};
use crate::cli::{trace::steps::Outcome, view::made_up};

#[test]
fn a_packet_goes_through_the_stages_of_the_datapath() {
    let mut tables = MadeUp::new();
    let client = tables.client_of(1);
    let steered = tables.packet(&client, "198.51.100.10:5061");
    assert_eq!(
        maps(&steered),
        [
            "FILTER",
            "FLOWS",
            "HALF_OPEN",
            "SERVICES",
            "ACL",
            "BUDGET",
            "POOLS",
            "MAGLEV",
            "EDGES"
        ]
    );
    assert_eq!(steered.outcome, Outcome::Steered);
    assert!(
        says(&steered, "EDGES").ends_with(&format!("sees {client}")),
        "{steered}"
    );
    tables.edges[1].source = SourceMode::Gateway as u8;
    tables.edges[1].gateway = address("203.0.113.129:0").ip().into();
    let steered = tables.packet(&client, "198.51.100.10:5061");
    assert!(
        says(&steered, "EDGES").contains("sees 203.0.113.129 and a port"),
        "{steered}"
    );

    assert_eq!(
        tables.packet(&client, "198.51.100.10:80").outcome,
        Outcome::Untouched
    );
    let inspected = tables.packet(&client, "198.51.100.20:5061");
    assert_eq!(inspected.outcome, Outcome::Inspected);
    tables.listener = false;
    let refused = tables.packet(&client, "198.51.100.20:5061");
    assert_eq!(refused.outcome, Outcome::Refused);
    assert_eq!(says(&refused, "LISTENERS"), "no agent listens");
}

#[test]
fn sources_are_admitted_as_the_datapath_does() {
    let mut tables = MadeUp::new();
    let client = "192.0.2.1:40000";
    let source = Address::from(address(client).ip());
    let trace = tables.packet(client, "198.51.100.10:5061");
    assert!(
        says(&trace, "BUDGET").ends_with("and 9 more at once"),
        "{trace}"
    );

    let empty = TokenBucket {
        refilled_ns: made_up::AT,
        millitokens: 999,
    };
    let key = BudgetKey {
        source,
        kind: BudgetKind::Syn as u32,
    };
    tables.budget.insert(key, empty);
    let trace = tables.packet(client, "198.51.100.20:5061");
    assert_eq!(trace.outcome, Outcome::Refused);
    assert!(trace.because.contains("syn_per_source"), "{trace}");

    tables.acl.insert(source, AclAction::Allow);
    let trace = tables.packet(client, "198.51.100.10:5061");
    assert_eq!(
        trace.outcome,
        Outcome::Steered,
        "an allowed source has no budget"
    );
    tables.acl.insert(source, AclAction::Deny);
    let trace = tables.packet(client, "198.51.100.10:5061");
    assert_eq!(trace.outcome, Outcome::Refused);
    assert!(trace.because.contains("limits.deny"), "{trace}");
}

#[test]
fn known_flows_go_their_way_whatever_else_is_said() {
    let mut tables = MadeUp::new();
    let flows = made_up::flow_tables(&[("192.0.2.1:40000", 0, 0)], &[]);
    tables.flows.extend(flows.established);
    tables
        .names
        .labels
        .extend(made_up::names(&[(LabelKind::Edge, 0, 3, "edge-c")]).labels);
    let source = Address::from(address("192.0.2.1:0").ip());
    tables.acl.insert(source, AclAction::Deny);
    let trace = tables.packet("192.0.2.1:40000", "198.51.100.10:5061");
    assert_eq!(
        (trace.outcome, trace.edge.as_deref()),
        (Outcome::Forwarded, Some("edge-c"))
    );
    assert!(
        trace
            .because
            .ends_with("from 192.0.2.1:40000 to 203.0.113.10:5061"),
        "{trace}"
    );
    // The way back: known by the Edge's bit in the filter.
    let edge = address("203.0.113.10:5061");
    tables
        .filter
        .push(FILTER_EDGES + filter_bit(&edge.ip().into(), edge.port().to_be()));
    let trace = tables.packet("203.0.113.10:5061", "192.0.2.1:40000");
    assert_eq!(trace.outcome, Outcome::Forwarded);
    assert!(says(&trace, "FLOWS").contains("from its Edge"), "{trace}");
    let trace = tables.packet("203.0.113.10:5061", "192.0.2.1:40001");
    assert_eq!(trace.outcome, Outcome::Untouched);
}
