//! Traces through made-up tables.

use std::collections::HashMap;

use sni_common::{
    Address,
    contract::{
        AclAction, BudgetKey, BudgetKind, Edge, EdgeState, FILTER_EDGES, FILTER_SERVICES, Flow,
        FlowKey, LabelKind, Learned, LearnedKey, Matched, Mode, NO_POOL, Pool, PoolMember,
        ROUTE_AGENT, ROUTE_CONDITIONAL, RouteAction, SERVICE_BIND, Service, ServiceKey, Settings,
        SniName, SniRoute, SourceMode, filter_bit,
    },
    maglev,
    token_bucket::TokenBucket,
};

use super::{
    name::{NameQuestion, Rules},
    packet::PacketQuestion,
    steps::{Outcome, Trace},
    tables::Tables,
    *,
};
use crate::{
    cli::{read::Names, view::made_up},
    datapath::DatapathError,
};

const CONFIG: &str = r#"
[gateway]
interfaces = ["wan0"]

[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"

[[edge]]
name = "edge-b"
address = "203.0.113.140:5061"

[[pool]]
name = "edges"
edges = ["edge-a", "edge-b"]

[[pool]]
name = "chat"
edges = ["edge-b"]
balance = "least-connections"

[[ip_set]]
name = "shared"
addresses = ["198.51.100.20"]
inspect = true

[[domain]]
sip_domain = "contoso.example"
names = ["sip.contoso.example"]
alpn = ["sip"]
pool = "edges"

[[domain]]
sip_domain = "chat.example"
names = ["sip.contoso.example"]
alpn = ["xmpp-server"]
pool = "chat"
"#;

/// Two pools over IPv4: 0 with both Edges, 1 with edge-b; a steered and an inspected address.
struct MadeUp {
    names: Names,
    settings: Settings,
    filter: Vec<u32>,
    flows: HashMap<FlowKey, Flow>,
    half_open: HashMap<FlowKey, Flow>,
    services: HashMap<ServiceKey, Service>,
    acl: HashMap<Address, AclAction>,
    budget: HashMap<BudgetKey, TokenBucket>,
    listener: bool,
    answers: bool,
    routes: HashMap<SniName, SniRoute>,
    learned: HashMap<LearnedKey, Learned>,
    edges: [Edge; 2],
    /// What the datapath would choose among.
    maglev: Box<maglev::Table>,
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn service_key(at: &str) -> ServiceKey {
    let at = address(at);
    ServiceKey::tcp(7, at.ip().into(), at.port().to_be())
}

impl MadeUp {
    fn new() -> Self {
        let names = made_up::names(&[
            (LabelKind::Edge, 0, 0, "edge-a"),
            (LabelKind::Edge, 0, 1, "edge-b"),
            (LabelKind::Pool, 7, 0, "edges"),
            (LabelKind::Pool, 7, 1, "chat"),
            (LabelKind::IpSet, 0, 0, "san-group-1"),
            (LabelKind::IpSet, 0, 1, "shared"),
        ]);
        let mut made_up = Self {
            names,
            settings: Settings {
                seed: 7,
                syn_millirate: 1000,
                syn_burst: 10,
                acl_prefixes: 2,
                ..Settings::default()
            },
            filter: Vec::new(),
            flows: HashMap::new(),
            half_open: HashMap::new(),
            services: HashMap::new(),
            acl: HashMap::new(),
            budget: HashMap::new(),
            listener: true,
            answers: true,
            routes: HashMap::new(),
            learned: HashMap::new(),
            edges: [
                made_up::edge("203.0.113.10:5061"),
                made_up::edge("203.0.113.140:5061"),
            ],
            maglev: Box::new([maglev::NO_EDGE; maglev::ENTRIES]),
        };
        let mut members = [0, 1].map(|edge| maglev::Member {
            identity: maglev::identity(&[&[edge as u8]]),
            edge,
            weight: 1,
        });
        maglev::fill(&mut made_up.maglev, &mut members, 7);
        made_up.serve("198.51.100.10:5061", Mode::Steer, 0, 0);
        made_up.serve("198.51.100.20:5061", Mode::Inspect, NO_POOL, 1);
        made_up.serve("198.51.100.21:5061", Mode::Inspect, 1, 1);
        made_up.add_route("sip.fabrikam.example", RouteAction::Pass, 0, 0);
        made_up.add_route("*.voip.fabrikam.example", RouteAction::Terminate, 1, 0);
        made_up.add_route(
            "sip.contoso.example",
            RouteAction::Pass,
            0,
            ROUTE_CONDITIONAL,
        );
        made_up
    }

    fn serve(&mut self, at: &str, mode: Mode, pool: u32, ip_set: u32) {
        let key = service_key(at);
        let service = Service {
            mode: mode as u8,
            pool,
            ip_set,
            ..Service::default()
        };
        self.services.insert(key, service);
        self.filter
            .push(FILTER_SERVICES + filter_bit(&key.address, key.port_be));
    }

    fn add_route(&mut self, name: &str, action: RouteAction, pool_v4: u32, flags: u8) {
        let route = SniRoute {
            pool_v4,
            pool_v6: NO_POOL,
            action: action as u8,
            flags,
            ..SniRoute::default()
        };
        self.routes
            .insert(SniName::new(name).expect("a name"), route);
    }

    fn edge_of(&self, from: &str) -> u16 {
        let from = address(from);
        let slot = maglev::slot(&from.ip().into(), from.port().to_be(), 7);
        self.maglev[slot as usize]
    }

    /// A client whom the table gives this Edge.
    fn client_of(&self, edge: u16) -> String {
        (40_000..)
            .map(|port: u16| format!("192.0.2.1:{port}"))
            .find(|client| self.edge_of(client) == edge)
            .expect("a client")
    }

    fn name(&self, question: &str) -> Trace {
        let config = Config::parse(std::path::Path::new("/snigate.toml"), CONFIG)
            .unwrap_or_else(|found| panic!("{found}"))
            .config;
        let rules = Rules::new(&config);
        name::trace(&asked(question), self, Some(&rules)).expect("a trace")
    }

    fn packet(&self, from: &str, to: &str) -> Trace {
        let question = PacketQuestion {
            from: address(from),
            to: address(to),
        };
        packet::trace(&question, self).expect("a trace")
    }
}

/// `NAME [to ADDRESS] [from ADDRESS] [alpn PROTOCOL]…`
fn asked(question: &str) -> NameQuestion {
    let mut words = question.split(' ');
    let mut asked = NameQuestion {
        name: words.next().unwrap_or_default().to_owned(),
        to: None,
        from: None,
        alpn: Vec::new(),
    };
    while let (Some(word), Some(value)) = (words.next(), words.next()) {
        match word {
            "to" => asked.to = Some(address(value)),
            "from" => asked.from = Some(address(value)),
            _ => asked.alpn.push(value.as_bytes().to_vec()),
        }
    }
    asked
}

impl Tables for MadeUp {
    fn names(&self) -> &Names {
        &self.names
    }
    fn now_ns(&self) -> u64 {
        made_up::AT
    }
    fn settings(&self) -> Result<Settings, DatapathError> {
        Ok(self.settings)
    }
    fn in_filter(&self, bit: u32) -> Result<bool, DatapathError> {
        Ok(self.filter.contains(&bit))
    }
    fn established(&self, key: &FlowKey) -> Result<Option<Flow>, DatapathError> {
        Ok(self.flows.get(key).copied())
    }
    fn half_open(&self, key: &FlowKey) -> Result<Option<Flow>, DatapathError> {
        Ok(self.half_open.get(key).copied())
    }
    fn service(&self, key: &ServiceKey) -> Result<Option<Service>, DatapathError> {
        Ok(self.services.get(key).copied())
    }
    fn acl(&self, source: Address) -> Result<Option<u32>, DatapathError> {
        Ok(self.acl.get(&source).map(|action| *action as u32))
    }
    fn budget(&self, key: &BudgetKey) -> Result<Option<TokenBucket>, DatapathError> {
        Ok(self.budget.get(key).copied())
    }
    fn answers(&self) -> Result<bool, DatapathError> {
        Ok(self.answers)
    }
    fn has_listener(&self) -> Result<bool, DatapathError> {
        Ok(self.listener)
    }
    fn route(&self, name: &SniName) -> Result<Option<SniRoute>, DatapathError> {
        Ok(self.routes.get(name).copied())
    }
    fn learned(&self, key: &LearnedKey) -> Result<Option<Learned>, DatapathError> {
        Ok(self.learned.get(key).copied())
    }
    fn pool(&self, number: u32) -> Result<Pool, DatapathError> {
        let mut pool = Pool {
            family: 4,
            ..Pool::default()
        };
        let members: &[u16] = match number {
            0 => &[0, 1],
            1 => &[1],
            _ => &[],
        };
        for (place, edge) in pool.members.iter_mut().zip(members) {
            *place = PoolMember {
                edge: *edge,
                weight: 1,
            };
        }
        pool.count = members.len() as u32;
        Ok(pool)
    }
    fn maglev(&self, pool: u32, slot: u32) -> Result<Option<u16>, DatapathError> {
        Ok(match pool {
            0 => self.maglev.get(slot as usize).copied(),
            1 => Some(1),
            _ => Some(maglev::NO_EDGE),
        })
    }
    fn edge(&self, slot: u16) -> Result<Edge, DatapathError> {
        Ok(self.edges[usize::from(slot)])
    }
}

/// The maps that were asked, in their order.
fn maps(trace: &Trace) -> Vec<&'static str> {
    trace.steps.iter().map(|step| step.map).collect()
}

fn says(trace: &Trace, map: &str) -> String {
    let said = trace.steps.iter().filter(|step| step.map == map);
    said.map(|step| step.says.clone())
        .collect::<Vec<_>>()
        .join("\n")
}

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
