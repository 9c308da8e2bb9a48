//! `snigate service`, `edge`, `status` and `log`.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::ensure;
use serde_json::json;
use sni_common::contract::FLAG_LOG;
use snigate_tests::{addresses::VIP_2, lab_test};

use crate::{
    made_up::{insert_flows, slots},
    rig::{datapath, quiet},
};

#[test]
fn services_and_edges_are_listed_by_name() {
    lab_test("cli-services", &quiet(), |lab| {
        let (mut datapath, commands) = datapath(lab)?;
        commands.shows(
            "service ls",
            &[
                "ADDRESS PORT IP SET MODE POOL EDGES",
                "198.51.100.10 5061 san-group-1 steer edges edge-a, edge-b",
                "198.51.100.20 443 shared inspect, bind - -",
                "198.51.100.20 5061 shared inspect, bind - -",
                "2001:db8:1::10 5061 san-group-1 steer edges edge-six",
            ],
        )?;
        let services = commands.json("service ls")?;
        ensure!(
            services.as_array().is_some_and(|list| list.len() == 4),
            "{services}"
        );
        ensure!(
            services[0]["edges"][1] == json!({ "name": "edge-b", "state": "up", "weight": 3 }),
            "{services}"
        );

        let slots = slots(&commands)?;
        insert_flows(&mut datapath, slots)?;
        commands.shows(
            "edge ls",
            &[
                "EDGE ADDRESS SOURCE STATE POOLS FLOWS HALF-OPEN TOTAL TO EDGE TO CLIENT",
                "edge-a 203.0.113.10:5061 preserve up edges 1 1 1 3.4 kB 98.0 kB",
                "edge-b 203.0.113.140:5061 gateway 203.0.113.129 up edges (weight 3) 1 0 1 3.4 kB 98.0 kB",
                "edge-six [2001:db8:a::10]:5061 preserve up edges 0 1 0 0 B 0 B",
            ],
        )?;
        Ok(())
    });
}

#[test]
fn status_tells_what_the_datapath_does() {
    lab_test("cli-status", &quiet(), |lab| {
        let (mut datapath, commands) = datapath(lab)?;
        insert_flows(&mut datapath, [0, 1, 2])?;
        // A connection that is none of ours; whether somebody answers does not matter.
        let _ = lab.partner.run(|| {
            let address = SocketAddr::new(VIP_2.v4.into(), 22);
            Ok(TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok())
        })?;
        let pins = commands.pins.display().to_string();
        commands.shows(
            "status",
            &[
                &format!("pinned {pins}, ABI 6"),
                "attached wan0: xdp",
                "generation 1",
                "flows 2 of 1,000 (0.2%), and 2 half-open",
                "edges 3 up",
                "binding off",
                "diagnostics off",
                "TABLE ENTRIES MAX FULL",
                "FLOWS 4 2,000 0.2%",
                "COUNTER VALUE",
            ],
        )?;
        let some = commands.text("status")?;
        ensure!(
            some.contains("passed") && !some.contains("no-neighbour"),
            "{some}"
        );
        let all = commands.text("status --all")?;
        for line in [
            "no-neighbour",
            "The next hop's link-layer address is not known",
            "stale-next-hops",
        ] {
            ensure!(all.contains(line), "{all}");
        }
        let status = commands.json("status")?;
        for (field, value) in [
            ("abi", json!(6)),
            ("generation", json!(1)),
            (
                "interfaces",
                json!([{ "interface": "wan0", "hook": "xdp", "reason": null }]),
            ),
            ("flags", json!([])),
            ("max_flows", json!(1000)),
            ("flows", json!(2)),
            ("half_open", json!(2)),
        ] {
            ensure!(status[field] == value, "{field} in {status}");
        }
        ensure!(status["counters"]["passed"].as_u64() > Some(0), "{status}");
        ensure!(status["drops"][0]["reason"] == "truncated", "{status}");

        commands.text("log on")?;
        ensure!(datapath.maps.flags()? == FLAG_LOG);
        commands.shows("status", &["diagnostics on"])?;
        ensure!(commands.json("status")?["flags"] == json!(["log"]));
        commands.text("log off")?;
        ensure!(datapath.maps.flags()? == 0);
        Ok(())
    });
}
