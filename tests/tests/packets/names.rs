//! Server names through configurations: SNI_ROUTES and what it refers to.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path, time::Instant};

use anyhow::{Context as _, Error, Result, bail, ensure};
use sni_common::contract::{
    Account, AccountKey, AccountWriter, Learned, LearnedKey, Matched, NO_POOL, Pool,
    ROUTE_CONDITIONAL, RouteAction, SniName, SniRoute, candidates, limits::MAX_EDGES,
};
use sni_user::config::{Config, ServerName};
use sni_user::datapath::{Activated, DatapathError, Maps, Tables};
use snigate_tests::packets::plan::configuration;
use snigate_tests::packets::{Scene, packet_test};

const DOMAINS: &str = r#"
[[pool]]
name = "only-names"
edges = ["edge-a6"]

[[domain]]
sip_domain = "fabrikam.example"
pool = "pool-1"

[[domain]]
sip_domain = "contoso.example"
names = ["sip.contoso.example", "*.voip.contoso.example"]
pool = "only-names"
certificate = "chain.pem"
key = "key.pem"
"#;

fn config(more: &str) -> Result<Config> {
    Ok(Config::parse(Path::new("/names.toml"), &configuration(more))?.config)
}

fn activate(scene: &mut Scene<'_>, config: &Config) -> Result<Activated> {
    let tables = Tables::new(config, (0, 0), |_| Err("no Edge asks for it".into()))?;
    Ok(tables.activate(&mut scene.datapath().maps)?)
}

/// Every entry of SNI_ROUTES.
fn routes(maps: &Maps) -> Result<BTreeMap<(u32, String), SniRoute>> {
    let mut routes = BTreeMap::new();
    maps.for_each_route(|key, route| {
        routes.insert((key.generation, key.name.to_string()), route);
        Ok(())
    })?;
    Ok(routes)
}

/// The members' count of the pool that a route's number means, and its name.
fn pool(maps: &Maps, generation: u32, number: u32) -> Result<(u32, String)> {
    let pool = maps.pools.get(&Pool::index(generation, number), 0)?;
    let kind = sni_common::contract::LabelKind::Pool;
    let name = maps.label(kind, generation, number).context("a label")?;
    Ok((pool.family, name))
}

#[test]
fn names_come_and_go_with_their_configuration() {
    packet_test("names", |rig| {
        let mut scene = Scene::new(rig, "names", 64)?;
        let first = activate(&mut scene, &config(DOMAINS)?)?;
        ensure!(first.names == 3 && first.ip_sets == [0, 1], "{first:?}");
        let generation = first.generation;
        let maps = &scene.datapath().maps;
        let found = routes(maps)?;
        let route = |name: &str| {
            let route = found.get(&(generation, name.to_owned()));
            route.copied().with_context(|| format!("{name}: {found:?}"))
        };
        ensure!(found.len() == 3, "{found:?}");

        let passed = route("sip.fabrikam.example")?;
        ensure!(passed.action == RouteAction::Pass as u8 && passed.flags == 0);
        ensure!(pool(maps, generation, passed.pool_v4)? == (4, "pool-1".into()));
        ensure!(pool(maps, generation, passed.pool_v6)? == (6, "pool-1".into()));
        // A pool of domains alone, with one address family.
        for name in ["sip.contoso.example", "*.voip.contoso.example"] {
            let ended = route(name)?;
            ensure!(ended.action == RouteAction::Terminate as u8 && ended.flags == 0);
            ensure!(ended.pool_v4 == NO_POOL);
            ensure!(pool(maps, generation, ended.pool_v6)? == (6, "only-names".into()));
        }
        // By the candidates of a client's name.
        let (matched, name) = candidates("a.b.VOIP.contoso.example")
            .find(|(_, name)| matches!(maps.route(generation, name), Ok(Some(_))))
            .context("a route")?;
        ensure!(matched == Matched::Wildcard && name.as_str() == "*.voip.contoso.example");

        // Both IP sets keep their numbers, in another order; of the names nothing stays.
        let mut second = config("")?;
        second.ip_sets.reverse();
        let second = activate(&mut scene, &second)?;
        ensure!(second.names == 0 && second.ip_sets == [1, 0], "{second:?}");
        ensure!(routes(&scene.datapath().maps)?.is_empty());
        Ok(())
    });
}

/// Slots are given again when there are no others, and accounts are a slot's.
#[test]
fn another_edge_in_a_slot_begins_with_no_account() {
    packet_test("names, slots", |rig| {
        let mut scene = Scene::new(rig, "names-slots", 64)?;
        let mut full = config("")?;
        let own = full.edges.len();
        for number in own as u32..MAX_EDGES {
            let mut edge = full.edges[0].clone();
            edge.name = format!("edge-{number}").parse().map_err(Error::msg)?;
            edge.address.set_ip(Ipv4Addr::from_bits(number).into());
            full.edges.push(edge);
        }
        let slots = activate(&mut scene, &full)?.edge_slots;
        let accounts = |slot: u16| {
            let writers = AccountWriter::ALL.iter();
            writers.map(move |writer| AccountKey::edge(slot).by(*writer))
        };
        let maps = &mut scene.datapath().maps;
        for slot in &slots {
            for key in accounts(*slot) {
                maps.accounts.insert(key, Account::default(), 0)?;
            }
        }

        let mut other = config("")?;
        let mut edge = full.edges[own].clone();
        edge.address.set_ip(Ipv4Addr::from_bits(MAX_EDGES).into());
        other.edges.push(edge);
        let taken = activate(&mut scene, &other)?.edge_slots;
        ensure!(taken[..own] == slots[..own] && slots[own..].contains(&taken[own]));
        let maps = &scene.datapath().maps;
        for slot in slots {
            let left = accounts(slot).filter(|key| maps.accounts.get(key, 0).is_ok());
            let expected = if slot == taken[own] { 0 } else { 3 };
            let left = left.count();
            ensure!(left == expected, "{left} of slot {slot}, and {taken:?}");
        }
        Ok(())
    });
}

#[test]
fn a_name_of_two_domains_is_for_the_agent_to_decide() {
    packet_test("names, twice", |rig| {
        let mut scene = Scene::new(rig, "names-twice", 64)?;
        let mut config = config(DOMAINS)?;
        let mut again = config.domains[1].clone();
        again.names.truncate(1);
        again.pool = config.domains[0].pool.clone();
        again.terminate = None;
        config.domains.push(again);
        let Activated {
            generation, names, ..
        } = activate(&mut scene, &config)?;
        ensure!(names == 3);
        let found = routes(&scene.datapath().maps)?;
        for (name, flags) in [
            ("sip.fabrikam.example", 0),
            ("*.voip.contoso.example", 0),
            ("sip.contoso.example", ROUTE_CONDITIONAL),
        ] {
            let route = found[&(generation, name.to_owned())];
            ensure!(route.flags == flags, "{name}: {route:?}");
        }
        // The first domain's.
        let route = found[&(generation, "sip.contoso.example".to_owned())];
        ensure!(route.action == RouteAction::Terminate as u8);
        Ok(())
    });
}

#[test]
fn a_hundred_thousand_names_fit_and_too_many_are_refused() {
    packet_test("names, many", |rig| {
        let mut scene = Scene::new(rig, "names-many", 64)?;
        let mut many = config(DOMAINS)?;
        let names = |count: usize| -> Result<Vec<ServerName>> {
            (0..count)
                .map(|n| format!("sip.customer-{n}.example").parse())
                .collect::<Result<_, _>>()
                .map_err(|error| anyhow::anyhow!("{error:?}"))
        };
        many.domains[0].names = names(131_070)?;
        for _ in 0..2 {
            let start = Instant::now();
            let activated = activate(&mut scene, &many)?;
            println!("131,072 names activated in {:?}", start.elapsed());
            ensure!(activated.names == 131_072);
            let start = Instant::now();
            let found = routes(&scene.datapath().maps)?;
            println!("and read in {:?}", start.elapsed());
            ensure!(found.len() == 131_072);
            ensure!(
                found
                    .keys()
                    .all(|(found, _)| *found == activated.generation)
            );
        }

        many.domains[0].names = names(131_071)?;
        match activate(&mut scene, &many) {
            Err(error) => {
                let error = error.downcast::<DatapathError>()?;
                ensure!(
                    matches!(error, DatapathError::TooMany { limit: 131_072, .. }),
                    "{error}"
                );
                ensure!(error.to_string().contains("wildcards"), "{error}");
            }
            Ok(activated) => bail!("{activated:?}"),
        }
        ensure!(routes(&scene.datapath().maps)?.len() == 131_072);
        Ok(())
    });
}

#[test]
fn names_that_clients_ask_for_are_learned() {
    packet_test("names, learned", |rig| {
        let mut scene = Scene::new(rig, "names-learned", 64)?;
        let maps = &mut scene.datapath().maps;
        let name = SniName::new("sip.fabrikam.example")?;
        let exact = Learned {
            generation: 1,
            action: RouteAction::Pass as u8,
            matched: Matched::Exact as u8,
            pool_v4: 0,
            pool_v6: NO_POOL,
            hits: 1,
            // The map's own to say.
            first_seen_ns: 99,
            ..Learned::default()
        };
        let default = Learned {
            generation: 2,
            matched: Matched::Default as u8,
            ..exact
        };
        maps.learn(3, &name, exact, 1000)?;
        maps.learn(3, &name, Learned { hits: 5, ..default }, 2000)?;
        maps.learn(4, &name, exact, 3000)?;
        maps.learn(3, &SniName::EMPTY, default, 4000)?;
        let mut learned = BTreeMap::new();
        maps.for_each_learned(|LearnedKey { ip_set, name }, value| {
            learned.insert((ip_set, name.to_string()), value);
            Ok(())
        })?;
        let expected = |what: Learned, hits, first_seen_ns, last_seen_ns| Learned {
            hits,
            first_seen_ns,
            last_seen_ns,
            ..what
        };
        let fabrikam = || String::from("sip.fabrikam.example");
        let expected = BTreeMap::from([
            ((3, fabrikam()), expected(default, 6, 1000, 2000)),
            ((4, fabrikam()), expected(exact, 1, 3000, 3000)),
            ((3, String::new()), expected(default, 1, 4000, 4000)),
        ]);
        ensure!(learned == expected, "{learned:#?}");
        Ok(())
    });
}
