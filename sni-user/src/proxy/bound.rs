//! Connections that the datapath has bound by itself: the proxy only tells of them.

use std::{net::SocketAddr, time::SystemTime};

use sni_common::contract::{HelloEvent, Matched};

use super::{Active, Proxy, Target};
use crate::{control::HelloSeen, datapath::endpoint};

impl Proxy {
    /// Tells those who watch of a ClientHello whose connection the datapath has bound to an Edge of this name.
    pub fn bound(&self, hello: &HelloEvent, edge: &str) {
        self.show(|| seen(&self.active(), hello, edge));
    }
}

/// As for the agent's own connections, but without what the datapath does not read.
fn seen(active: &Active, hello: &HelloEvent, edge: &str) -> HelloSeen {
    let key = &hello.event.key;
    let address = endpoint(key.destination, key.destination_port_be);
    let name = Some(hello.name.as_str()).filter(|name| !name.is_empty());
    HelloSeen {
        at: SystemTime::now(),
        source: endpoint(key.source, key.source_port_be),
        address,
        server_name: name.map(str::to_owned),
        version: None,
        alpn: Vec::new(),
        ja4: None,
        post_quantum: false,
        ech: false,
        route: target(active, name, address).and_then(|target| active.destination(target)),
        matched: u8::try_from(hello.matched)
            .ok()
            .and_then(|matched| Matched::try_from(matched).ok()),
        result: format!("bound to {edge}"),
    }
}

/// Where the configuration sends it now, which may be a later one than the datapath went by.
fn target(active: &Active, name: Option<&str>, address: SocketAddr) -> Option<Target> {
    match name.and_then(|name| active.routing.named(name, &[])) {
        Some(named) => named.domain.map(Target::Domain),
        None => active.routing.service(address)?.default.map(Target::Pool),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sni_common::contract::{Event, FlowKey, SniName};

    use super::*;
    use crate::{config::Config, edges::Edges, proxy::Numbers, tls::Store};

    const CONFIG: &str = r#"
[gateway]
interfaces = ["wan0"]
[[edge]]
name = "edge-a"
address = "203.0.113.10:5061"
[[pool]]
name = "edges-a"
edges = ["edge-a"]
[[pool]]
name = "others"
edges = ["edge-a"]
[[ip_set]]
name = "shared"
addresses = ["198.51.100.20"]
inspect = true
default = "others"
[[domain]]
sip_domain = "fabrikam.example"
pool = "edges-a"
"#;

    fn told(name: &str, matched: Matched) -> HelloSeen {
        let config = Config::parse(Path::new("/snigate.toml"), CONFIG);
        let config = config.unwrap_or_else(|found| panic!("{found}")).config;
        let (tls, _) = Store::load(&config, None).expect("no certificates");
        let active = Active::new(config, tls, Numbers::default(), &Edges::default());
        let hello = HelloEvent {
            event: Event {
                key: FlowKey {
                    source: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
                    destination: std::net::Ipv4Addr::new(198, 51, 100, 20).into(),
                    source_port_be: 40_000_u16.to_be(),
                    destination_port_be: 5061_u16.to_be(),
                },
                ..Event::default()
            },
            matched: matched as u32,
            name: SniName::new(name).expect("a name"),
            ..HelloEvent::default()
        };
        seen(&active, &hello, "edge-a")
    }

    #[test]
    fn a_bound_connection_is_told_like_the_agents_own() {
        let seen = told("sip.fabrikam.example", Matched::Exact);
        assert_eq!(seen.source.to_string(), "192.0.2.1:40000");
        assert_eq!(seen.address.to_string(), "198.51.100.20:5061");
        assert_eq!(seen.server_name.as_deref(), Some("sip.fabrikam.example"));
        assert_eq!(seen.matched, Some(Matched::Exact));
        assert_eq!(seen.route.as_deref(), Some("edges-a"));
        assert_eq!(seen.result, "bound to edge-a");
        let unknown = told("nobody.test", Matched::Default);
        assert_eq!(unknown.route.as_deref(), Some("others"));
        assert_eq!(told("", Matched::Default).server_name, None);
    }
}
