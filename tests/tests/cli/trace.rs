//! `snigate trace` and `snigate route ls` on real maps; no agent runs.

use anyhow::{Result, ensure};
use serde_json::Value;
use sni_common::contract::{
    Learned, Matched, NO_POOL, RouteAction, SniName, SniRoute, SniRouteKey,
};
use sni_user::datapath::Datapath;
use snigate_tests::lab_test;

use crate::rig::{Commands, SECOND, datapath, monotonic_ns, quiet, words};

fn add_routes(datapath: &mut Datapath) -> Result<()> {
    for (name, action) in [
        ("sip.fabrikam.example", RouteAction::Pass),
        ("*.voip.contoso.example", RouteAction::Terminate),
    ] {
        let key = SniRouteKey {
            generation: 1,
            name: SniName::new(name)?,
        };
        let route = SniRoute {
            pool_v4: 0,
            pool_v6: 1,
            action: action as u8,
            ..SniRoute::default()
        };
        datapath.maps.sni_routes.insert(key, route, 0)?;
    }
    Ok(())
}

fn learn(datapath: &mut Datapath) -> Result<()> {
    let at = monotonic_ns().saturating_sub(90 * SECOND);
    let passed = Learned {
        generation: 1,
        action: RouteAction::Terminate as u8,
        matched: Matched::Wildcard as u8,
        pool_v4: 0,
        pool_v6: 1,
        hits: 1,
        ..Learned::default()
    };
    let refused = Learned {
        generation: 1,
        matched: Matched::Nothing as u8,
        pool_v4: NO_POOL,
        pool_v6: NO_POOL,
        hits: 1,
        ..Learned::default()
    };
    let name = SniName::new("a.voip.contoso.example")?;
    datapath.maps.learn(1, &name, passed, at)?;
    datapath.maps.learn(1, &name, passed, at)?;
    datapath.maps.learn(1, &SniName::EMPTY, refused, at)?;
    Ok(())
}

fn outcome(commands: &Commands<'_>, command: &str) -> Result<(String, Value)> {
    let trace = commands.json(command)?;
    let outcome = trace["outcome"].as_str().unwrap_or_default().to_owned();
    Ok((outcome, trace))
}

#[test]
fn routes_are_listed_and_traced() {
    lab_test("cli-trace", &quiet(), |lab| {
        let (mut datapath, commands) = datapath(lab)?;
        add_routes(&mut datapath)?;
        learn(&mut datapath)?;
        let routes = commands.text("route ls")?;
        let lines: Vec<String> = routes.lines().map(words).collect();
        for expected in [
            "NAME GOES TO MATCHED IP SET HITS LAST SEEN",
            "sip.fabrikam.example edges exact - 0 never",
            "*.voip.contoso.example terminate, edges wildcard - 2 1m",
            "(none) refused nothing shared 1 1m",
            "a.voip.contoso.example terminate, edges wildcard shared 2 1m",
        ] {
            ensure!(
                lines.iter().any(|shown| shown.starts_with(expected)),
                "no line {expected:?}:\n{routes}"
            );
        }
        let only = commands.json("route ls *.fabrikam.example --configured")?;
        ensure!(
            only.as_array().is_some_and(|names| names.len() == 1),
            "{only}"
        );

        for (command, expected) in [
            ("trace name sip.fabrikam.example", "passed"),
            (
                "trace name b.voip.contoso.example --to 198.51.100.20:443",
                "terminated",
            ),
            ("trace name nobody.test --to 198.51.100.20", "refused"),
            ("trace name nobody.test --to 198.51.100.10", "steered"),
            (
                "trace packet --from 198.51.100.99:40000 --to 198.51.100.10",
                "steered",
            ),
            (
                "trace packet --from [2001:db8:2::1]:40000 --to [2001:db8:1::10]:5061",
                "steered",
            ),
            (
                "trace packet --from 198.51.100.99:40000 --to 198.51.100.10:80",
                "untouched",
            ),
            // Without an agent.
            (
                "trace packet --from 198.51.100.99:40000 --to 198.51.100.20",
                "refused",
            ),
            // By the ACL: denied, and a part of it allowed.
            (
                "trace packet --from 192.0.2.1:40000 --to 198.51.100.10",
                "refused",
            ),
            (
                "trace packet --from 192.0.2.7:40000 --to 198.51.100.10",
                "steered",
            ),
            (
                "trace packet --from [2001:db8:dead::1]:40000 --to [2001:db8:1::10]:5061",
                "refused",
            ),
        ] {
            let (found, trace) = outcome(&commands, command)?;
            ensure!(found == expected, "`{command}`: {trace}");
        }
        let (_, trace) = outcome(
            &commands,
            "trace packet --from [2001:db8:2::1]:40000 --to [2001:db8:1::10]:5061",
        )?;
        ensure!(trace["edge"] == "edge-six", "{trace}");
        commands.shows("status --control /nonexistent/control.sock", &["agent no agent answers at /nonexistent/control.sock: start one with `snigate run`, or name its socket with --control"])
    });
}
