//! Made-up tables, and what is asked of them.

use std::{collections::HashMap, net::SocketAddr, path::Path};

use sni_common::{
    Address,
    contract::{
        AclAction, BudgetKey, Edge, FILTER_SERVICES, Flow, FlowKey, LabelKind, Learned, LearnedKey,
        Mode, NO_POOL, Pool, PoolMember, ROUTE_CONDITIONAL, RouteAction, Service, ServiceKey,
        Settings, SniName, SniRoute, filter_bit,
    },
    maglev,
    token_bucket::TokenBucket,
};

use crate::{
    cli::{
        read::Names,
        trace::{
            name::{self, NameQuestion, Rules},
            packet::{self, PacketQuestion},
            steps::Trace,
            tables::Tables,
        },
        view::made_up,
    },
    config::Config,
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
pub(super) struct MadeUp {
    pub(super) names: Names,
    settings: Settings,
    pub(super) filter: Vec<u32>,
    pub(super) flows: HashMap<FlowKey, Flow>,
    half_open: HashMap<FlowKey, Flow>,
    pub(super) services: HashMap<ServiceKey, Service>,
    pub(super) acl: HashMap<Address, AclAction>,
    pub(super) budget: HashMap<BudgetKey, TokenBucket>,
    pub(super) listener: bool,
    pub(super) answers: bool,
    routes: HashMap<SniName, SniRoute>,
    pub(super) learned: HashMap<LearnedKey, Learned>,
    pub(super) edges: [Edge; 2],
    /// What the datapath would choose among.
    maglev: Box<maglev::Table>,
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(super) fn service_key(at: &str) -> ServiceKey {
    let at = address(at);
    ServiceKey::tcp(7, at.ip().into(), at.port().to_be())
}

impl MadeUp {
    pub(super) fn new() -> Self {
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

    pub(super) fn add_route(&mut self, name: &str, action: RouteAction, pool_v4: u32, flags: u8) {
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
    pub(super) fn client_of(&self, edge: u16) -> String {
        (40_000..)
            .map(|port: u16| format!("192.0.2.1:{port}"))
            .find(|client| self.edge_of(client) == edge)
            .expect("a client")
    }

    pub(super) fn name(&self, question: &str) -> Trace {
        let config = Config::parse(Path::new("/snigate.toml"), CONFIG)
            .unwrap_or_else(|found| panic!("{found}"))
            .config;
        let rules = Rules::new(&config);
        name::trace(&asked(question), self, Some(&rules)).expect("a trace")
    }

    pub(super) fn packet(&self, from: &str, to: &str) -> Trace {
        let question = PacketQuestion {
            from: address(from),
            to: address(to),
        };
        packet::trace(&question, self).expect("a trace")
    }
}

/// `NAME [to ADDRESS] [from ADDRESS] [alpn PROTOCOL]…`
pub(super) fn asked(question: &str) -> NameQuestion {
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
pub(super) fn maps(trace: &Trace) -> Vec<&'static str> {
    trace.steps.iter().map(|step| step.map).collect()
}

pub(super) fn says(trace: &Trace, map: &str) -> String {
    let said = trace.steps.iter().filter(|step| step.map == map);
    said.map(|step| step.says.clone())
        .collect::<Vec<_>>()
        .join("\n")
}
