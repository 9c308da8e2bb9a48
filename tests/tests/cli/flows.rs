//! `snigate flow ls` and `snigate flow show`.

use anyhow::ensure;
use serde_json::json;
use snigate_tests::lab_test;

use crate::{
    made_up::{insert_flows, slots},
    rig::{datapath, quiet, words},
};

#[test]
fn flows_are_listed_and_shown() {
    lab_test("cli-flows", &quiet(), |lab| {
        let (mut datapath, commands) = datapath(lab)?;
        commands.shows(
            "flow ls",
            &["CLIENT VIP ROUTE EDGE SEEN AS WAY STATE AGE IDLE TO EDGE TO CLIENT"],
        )?;
        ensure!(commands.json("flow ls")? == json!([]));
        let slots = slots(&commands)?;
        insert_flows(&mut datapath, slots)?;

        let vip = "198.51.100.10:5061";
        let rest = "2m 30s 1m 30s 12/3.4 kB 9/98.0 kB";
        let first = format!(
            "198.51.100.1:4001 {vip} san-group-1 edge-a the client steered established {rest}"
        );
        commands.shows(
            "flow ls",
            &[
                &first,
                &format!("198.51.100.1:4002 {vip} san-group-1 edge-b 203.0.113.129:20005 steered closing {rest}"),
                &format!("198.51.100.1:4003 {vip} san-group-1 edge-a the client steered half-open {rest}"),
                &format!(
                    "[2001:db8:1::1]:4004 [2001:db8:1::10]:5061 san-group-1 edge-six the client steered recovered {rest}"
                ),
            ],
        )?;
        let counted = |command: &str| {
            commands
                .json(command)
                .map(|flows| flows.as_array().map_or(0, Vec::len))
        };
        for (filter, expected) in [
            ("", 4),
            ("--edge edge-a", 2),
            ("--edge edge-b", 1),
            ("--client 198.51.100.1", 3),
            ("--client 198.51.100.1:4002", 1),
            ("--client 2001:db8:1::1", 1),
            ("--client 198.51.100.2", 0),
            ("--edge edge-a --client 198.51.100.1:4002", 0),
            ("--limit 2", 2),
        ] {
            let found = counted(&format!("flow ls {filter}"))?;
            ensure!(found == expected, "flow ls {filter}: {found}");
        }
        let limited = commands.run("flow ls --limit 1")?;
        ensure!(
            String::from_utf8_lossy(&limited.stderr).contains("3 more"),
            "{limited:?}"
        );
        ensure!(
            words(&String::from_utf8_lossy(&limited.stdout)).ends_with(&words(&first)),
            "{limited:?}"
        );
        commands.fails(
            "flow ls --edge nobody",
            1,
            "no Edge nobody: the datapath knows edge-a, edge-b, edge-six",
        )?;
        commands.fails("flow ls --client nobody", 2, "write an address")?;

        commands.shows(
            "flow show 198.51.100.1:4002",
            &[
                "client 198.51.100.1:4002",
                "VIP 198.51.100.10:5061, IP set san-group-1",
                "Edge edge-b at 203.0.113.140:5061, steered",
                "route none: the address decided",
                "seen as 203.0.113.129:20005",
                "state closing",
                "opened 2m 30s ago",
                "to the Edge",
                "arrives 198.51.100.1:4002 > 198.51.100.10:5061",
                "leaves 203.0.113.129:20005 > 203.0.113.140:5061",
                "carried 3.4 kB in 12 packets",
                "marks fin",
                "sequence next 1000, last acknowledgement 2000",
                "checksum TCP by 0x1234, IPv4 header by 0x0000",
                "next hop lo, MTU 1500",
                "frames 02:00:00:00:00:01 > 02:00:00:00:00:0a",
                "valid looked up again with the next packet",
                "to the client",
                "arrives 203.0.113.140:5061 > 203.0.113.129:20005",
                "leaves 198.51.100.10:5061 > 198.51.100.1:4002",
                "sequence next 2000, last acknowledgement 1000",
            ],
        )?;
        let shown = commands.json("flow show 198.51.100.1:4002 198.51.100.10:5061")?;
        ensure!(shown[0]["state"] == "closing", "{shown}");
        ensure!(
            shown[0]["entries"]["to_edge"]["next_hop"]["interface"] == "lo",
            "{shown}"
        );
        ensure!(
            shown[0]["entries"]["to_client"]["next_seq"] == 2000,
            "{shown}"
        );
        commands.fails(
            "flow show 198.51.100.1:4002 198.51.100.20:5061",
            1,
            "no flow of 198.51.100.1:4002 to 198.51.100.20:5061: `snigate flow ls --client 198.51.100.1`",
        )
    });
}
