use std::{net::SocketAddr, path::Path};

use super::*;

fn config(balance: &str, seed: &str) -> Config {
    let text = format!(
        r#"
[gateway]
interfaces = ["wan0"]
seed = "{seed}"
[[edge]]
name = "a"
address = "203.0.113.10:5061"
[[edge]]
name = "b"
address = "203.0.113.11:5061"
[[edge]]
name = "c"
address = "203.0.113.12:5061"
[[edge]]
name = "six"
address = "[2001:db8::10]:5061"
[[pool]]
name = "edges"
edges = ["a", "b", {{ name = "c", weight = 2 }}, "six"]
balance = "{balance}"
[[ip_set]]
name = "shared"
addresses = ["198.51.100.10"]
inspect = true
default = "edges"
"#
    );
    Config::parse(Path::new("/snigate.toml"), &text)
        .unwrap_or_else(|found| panic!("{found}"))
        .config
}

fn client(port: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1], port))
}

#[test]
fn what_is_handed_off_still_counts() {
    let config = config("least-connections", "seed");
    let edges = edges(&config);
    let edge = &edges.edges[0];
    let (first, second) = (edge.enter(), edge.enter());
    first.hand_off();
    assert_eq!(edge.connections(), 2);
    let before = edges.before_sweep();
    // While the sweep reads: counted again until the next one, rather than not at all.
    second.hand_off();
    edges.swept(&before, |index| if index == 0 { 2 } else { 0 });
    assert_eq!(edge.connections(), 3);
    let before = edges.before_sweep();
    edges.swept(&before, |index| if index == 0 { 2 } else { 0 });
    assert_eq!(edge.connections(), 2);
    // A new configuration knows it, too.
    let next = Edges::new(&config, &edges);
    assert_eq!(next.edges[0].connections(), 2);
    next.swept(&next.before_sweep(), |_| 0);
    assert_eq!(edge.connections(), 0);
}

fn names(order: &[Arc<Edge>]) -> Vec<&str> {
    order.iter().map(|edge| edge.config.name.as_str()).collect()
}

fn edges(config: &Config) -> Edges {
    Edges::new(config, &Edges::default())
}

#[test]
fn every_edge_of_the_clients_family_is_tried_once() {
    let edges = edges(&config("maglev", "x"));
    let pool = edges.pool(0).expect("a pool");
    let mut first = HashMap::new();
    for port in 1..=4000 {
        let order = pool.order(client(port));
        let mut sorted = names(&order);
        *first.entry(sorted[0].to_owned()).or_insert(0) += 1;
        sorted.sort_unstable();
        assert_eq!(sorted, ["a", "b", "c"]);
    }
    // The weights: half of all for c.
    assert!((1800..2200).contains(&first["c"]), "{first:?}");
    assert!((850..1150).contains(&first["a"]), "{first:?}");
    let six = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 1));
    assert_eq!(names(&pool.order(six)), ["six"]);
}

#[test]
fn two_gateways_with_one_seed_agree() {
    let choices = |seed: &str| {
        let edges = edges(&config("maglev", seed));
        let pool = edges.pool(0).expect("a pool");
        (1..200)
            .map(|port| names(&pool.order(client(port)))[0].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(choices("x"), choices("x"));
    assert_ne!(choices("x"), choices("y"));
}

#[test]
fn least_connections_counts_in_relation_to_weights() {
    let edges = edges(&config("least-connections", "x"));
    let pool = edges.pool(0).expect("a pool");
    let mut open = Vec::new();
    for port in 0..40 {
        open.push(pool.order(client(port))[0].enter());
    }
    let counts: Vec<_> = edges.iter().map(|edge| edge.connections()).collect();
    assert_eq!(counts, [10, 10, 20, 0]);
    drop(open);
    assert!(edges.iter().all(|edge| edge.connections() == 0));
}

#[test]
fn counts_outlive_a_configuration() {
    let config = config("least-connections", "x");
    let before = edges(&config);
    let open = before.pool(0).expect("a pool").order(client(1))[0].enter();
    let after = Edges::new(&config, &before);
    let sum = |edges: &Edges| edges.iter().map(|edge| edge.connections()).sum::<u32>();
    assert_eq!(sum(&after), 1);
    drop(open);
    assert_eq!(sum(&after), 0);
}

#[test]
fn only_edges_that_are_up_are_tried_and_the_others_clients_stay() {
    let edges = edges(&config("maglev", "x"));
    let pool = edges.pool(0).expect("a pool");
    let order = |port| names(&pool.order(client(port))).join(" ");
    let before: Vec<_> = (1..500).map(order).collect();
    let b = edges.iter().nth(1).expect("b");
    for state in [EdgeState::Down, EdgeState::Draining] {
        b.set_state(state);
        edges.refresh();
        for (port, before) in (1..500).zip(&before) {
            let now = order(port);
            assert!(!now.contains('b'), "{now}");
            assert!(
                before.starts_with('b') || before[..1] == now[..1],
                "{before}: {now}"
            );
        }
        assert!(!pool.is_left_without(b));
    }
    let six = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 1));
    let last = edges.iter().nth(3).expect("six");
    last.set_state(EdgeState::Down);
    edges.refresh();
    assert!(pool.serves(six) && pool.order(six).is_empty());
    assert!(pool.is_left_without(last));
    // States go on with the next configuration.
    let next = Edges::new(&config("maglev", "x"), &edges);
    let again = next.pool(0).expect("a pool");
    assert!(again.order(six).is_empty());
    for edge in next.iter() {
        edge.set_state(EdgeState::Up);
    }
    next.refresh();
    let after: Vec<_> = (1..500)
        .map(|port| names(&again.order(client(port))).join(" "))
        .collect();
    assert_eq!(before, after);
}

/// The datapath's tables are made of what its maps say of an Edge, the agent's of the configuration.
#[test]
fn an_edge_is_the_same_by_the_maps() {
    for edge in &config("maglev", "x").edges {
        let address = sni_common::Address::from(edge.address.ip());
        let by_maps = config::maglev_identity(
            edge.name.as_str(),
            address.into(),
            edge.address.port().to_be(),
        );
        assert_eq!(by_maps, edge.maglev_identity());
    }
}
