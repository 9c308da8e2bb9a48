//! Where a server name goes, and by whom.

use sni_common::contract::{
    EdgeState, Learned, LearnedKey, Matched, NO_POOL, ROUTE_AGENT, RouteAction, SERVICE_BIND,
    SniName,
};

use super::tables::{MadeUp, asked, maps, says, service_key};
use crate::cli::{
    trace::{name, server_name, steps::Outcome},
    view::made_up,
};

#[test]
fn a_name_goes_by_itself_then_by_its_wildcard() {
    let tables = MadeUp::new();
    let exact = tables.name("sip.fabrikam.example");
    assert_eq!(maps(&exact), ["CONTROL", "SNI_ROUTES", "POOLS"]);
    assert_eq!(
        (exact.outcome, exact.pool.as_deref()),
        (Outcome::Passed, Some("edges"))
    );
    assert_eq!(
        says(&exact, "SNI_ROUTES"),
        "sip.fabrikam.example (exact): edges"
    );
    assert_eq!(says(&exact, "POOLS"), "edges, IPv4: edge-a up, edge-b up");

    let wildcard = tables.name("a.b.voip.fabrikam.example");
    assert_eq!(
        (wildcard.outcome, wildcard.pool.as_deref()),
        (Outcome::Terminated, Some("chat"))
    );
    assert_eq!(
        says(&wildcard, "SNI_ROUTES"),
        "no a.b.voip.fabrikam.example, no *.b.voip.fabrikam.example; *.voip.fabrikam.example (wildcard): terminate, chat"
    );
}

#[test]
fn the_address_decides_about_names_that_nobody_has() {
    let mut tables = MadeUp::new();
    let depends = tables.name("nobody.test");
    assert_eq!(depends.outcome, Outcome::Depends);
    assert!(depends.because.contains("--to"), "{depends}");

    let refused = tables.name("nobody.test to 198.51.100.20:5061");
    assert_eq!(refused.outcome, Outcome::Refused);
    assert!(refused.because.contains("unrecognized_name"), "{refused}");

    let seen = Learned {
        generation: 7,
        action: RouteAction::Pass as u8,
        matched: Matched::Default as u8,
        pool_v4: 1,
        pool_v6: NO_POOL,
        hits: 12,
        last_seen_ns: made_up::AT - 3_000_000_000,
        ..Learned::default()
    };
    let key = LearnedKey {
        ip_set: 1,
        name: SniName::EMPTY,
    };
    tables.learned.insert(key, seen);
    let default = tables.name(" to 198.51.100.21:5061");
    assert_eq!(
        (default.outcome, default.pool.as_deref()),
        (Outcome::Passed, Some("chat"))
    );
    assert_eq!(
        says(&default, "SNI_LEARNED"),
        "asked for 12 times, the last time 3s ago: chat (default)"
    );

    assert_eq!(
        tables
            .name("sip.fabrikam.example to 198.51.100.10:5061")
            .outcome,
        Outcome::Steered,
        "the address decides, whatever the name"
    );
    assert_eq!(
        tables
            .name("sip.fabrikam.example to 198.51.100.20:443")
            .outcome,
        Outcome::Untouched
    );
}

#[test]
fn what_the_datapath_would_bind_is_told() {
    let mut tables = MadeUp::new();
    let to = "198.51.100.21:5061";
    let binding =
        |tables: &MadeUp, name: &str| says(&tables.name(&format!("{name} to {to}")), "binding");
    assert_eq!(
        binding(&tables, "sip.fabrikam.example"),
        "",
        "it does not bind there"
    );
    let service = tables
        .services
        .get_mut(&service_key(to))
        .expect("a service");
    service.flags = SERVICE_BIND;
    tables.add_route("sip.litware.example", RouteAction::Pass, 1, ROUTE_AGENT);
    let bound = "the datapath knows the name, and connects to the Edge itself";
    assert_eq!(binding(&tables, "sip.fabrikam.example"), bound);
    for (name, why) in [
        (
            "sip.contoso.example alpn sip",
            "the application protocols decide, too",
        ),
        ("sip.litware.example", "the pool counts connections"),
        ("nobody.test", "it takes the first connection"),
    ] {
        let told = binding(&tables, name);
        assert!(told.contains(why), "{name}: {told}");
    }
    assert_eq!(
        binding(&tables, "a.voip.fabrikam.example"),
        "",
        "it is terminated"
    );

    let mut seen = Learned {
        generation: 7,
        action: RouteAction::Pass as u8,
        ..Learned::default()
    };
    let key = LearnedKey {
        ip_set: 1,
        name: SniName::new("nobody.test").expect("a name"),
    };
    tables.learned.insert(key, seen);
    assert_eq!(binding(&tables, "nobody.test"), bound);
    seen.generation = 6;
    tables.learned.insert(key, seen);
    assert!(binding(&tables, "nobody.test").contains("first connection"));

    tables.answers = false;
    assert!(binding(&tables, "sip.fabrikam.example").contains("binding is off"));
}

#[test]
fn the_protocols_that_are_offered_decide_where_they_do() {
    let tables = MadeUp::new();
    let sip = tables.name("sip.contoso.example alpn sip");
    assert_eq!(
        (sip.outcome, sip.pool.as_deref()),
        (Outcome::Passed, Some("edges"))
    );
    let chat = tables.name("sip.contoso.example alpn h2 alpn xmpp-server");
    assert_eq!(chat.pool.as_deref(), Some("chat"));
    assert!(
        says(&chat, "configuration").contains("chat.example"),
        "{chat}"
    );
    let neither = tables.name("sip.contoso.example to 198.51.100.20:5061 alpn h2");
    assert_eq!(neither.outcome, Outcome::Refused, "{neither}");
    let unknown = name::trace(&asked("sip.contoso.example alpn sip"), &tables, None);
    assert_eq!(unknown.expect("a trace").outcome, Outcome::Depends);
}

#[test]
fn the_edge_of_a_client_is_the_datapaths_choice() {
    let mut tables = MadeUp::new();
    let client = tables.client_of(0);
    let question = format!("sip.fabrikam.example to 198.51.100.20:5061 from {client}");
    let trace = tables.name(&question);
    assert_eq!(trace.edge.as_deref(), Some("edge-a"), "{trace}");
    let packet = tables.packet(&client, "198.51.100.10:5061");
    assert_eq!(packet.edge.as_deref(), Some("edge-a"), "{packet}");

    tables.edges[0].state = EdgeState::Down as u8;
    let trace = tables.name(&question);
    assert_eq!(trace.edge.as_deref(), Some("edge-b"), "{trace}");
    assert!(
        says(&trace, "MAGLEV").starts_with("edge-a is down; then slot"),
        "{trace}"
    );
    tables.edges[1].state = EdgeState::Draining as u8;
    let packet = tables.packet(&client, "198.51.100.10:5061");
    assert_eq!(packet.outcome, Outcome::Refused);
    assert!(
        says(&packet, "MAGLEV").ends_with("no Edge is up"),
        "{packet}"
    );

    let least = tables.name(&format!(
        "a.voip.fabrikam.example to 198.51.100.20:5061 from {client}"
    ));
    assert_eq!((least.outcome, least.edge), (Outcome::Terminated, None));
    assert!(least.because.contains("the fewest"), "{}", least.because);
}

#[test]
fn traces_are_numbered_steps_or_json() {
    let trace = MadeUp::new().name("sip.fabrikam.example");
    assert_eq!(
        trace.to_string(),
        " 1  CONTROL        generation 7 is active\n \
          2  SNI_ROUTES     sip.fabrikam.example (exact): edges\n \
          3  POOLS          edges, IPv4: edge-a up, edge-b up\n\
         =>  passed through to an Edge of edges\n"
    );
    let json = serde_json::to_value(&trace).expect("JSON");
    assert_eq!(json["steps"][1]["map"], "SNI_ROUTES");
    assert_eq!(
        (&json["outcome"], &json["pool"], &json["edge"]),
        (&"passed".into(), &"edges".into(), &serde_json::Value::Null)
    );
}

#[test]
fn names_are_compared_as_the_agent_does() {
    assert_eq!(
        server_name("SIP.Fabrikam.example.").unwrap(),
        "sip.fabrikam.example"
    );
    assert_eq!(server_name("").unwrap(), "");
    for wrong in ["*.fabrikam.example", "a b", "a..b"] {
        assert_eq!(server_name(wrong).unwrap_err().status(), 2, "{wrong}");
    }
}
