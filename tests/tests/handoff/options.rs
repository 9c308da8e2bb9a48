//! TCP options that one side, the other, or neither has.

use anyhow::{Context as _, Result};
use snigate_tests::{Namespace, Topology, addresses::vips};

use crate::{MEGABYTE, in_scenes};

/// Timestamps last: that an Edge has none is remembered for a minute, in which clients that are not known for Linux go by the agent.
const OPTIONS: [&str; 3] = ["tcp_sack", "tcp_window_scaling", TIMESTAMPS];
const TIMESTAMPS: &str = "tcp_timestamps";
const BYTES: u64 = 4 * MEGABYTE;

#[test]
fn an_option_that_one_side_lacks() {
    in_scenes("options", &Topology::default(), |scene| {
        let edge = scene.edge()?;
        let [partner_end, edge_end] = scene.ends();
        for option in OPTIONS {
            for (who, without) in [
                ("the partner", &[partner_end][..]),
                ("the Edge", &[edge_end]),
                ("either", &[partner_end, edge_end]),
            ] {
                set(without, &[option], "0")?;
                for address in vips() {
                    let what = format!("{address}, no {option} at {who}");
                    scene.cleanly(&what, || scene.exchange(&edge, address, BYTES))?;
                }
                set(without, &[option], "1")?;
            }
        }
        // One side has all of them, the other none.
        for (who, without) in [
            ("the partner", &[partner_end][..]),
            ("the Edge", &[edge_end]),
            ("either", &[partner_end, edge_end]),
        ] {
            set(without, &OPTIONS, "0")?;
            for address in vips() {
                let what = format!("{address}, no option at {who}");
                scene.cleanly(&what, || scene.exchange(&edge, address, BYTES))?;
            }
            set(without, &OPTIONS, "1")?;
        }
        // Timestamps that start anywhere (1, RFC 7323 section 5.4) and from the same clock for all (2).
        for value in ["2", "1"] {
            set(&scene.ends(), &[TIMESTAMPS], value)?;
            for address in vips() {
                let what = format!("{address}, tcp_timestamps = {value}");
                scene.cleanly(&what, || scene.exchange(&edge, address, BYTES))?;
            }
        }
        Ok(())
    });
}

fn set(ends: &[&Namespace], options: &[&str], value: &str) -> Result<()> {
    for end in ends {
        for option in options {
            end.sysctl(&format!("net/ipv4/{option}"), value)
                .with_context(|| format!("{option} = {value}"))?;
        }
    }
    Ok(())
}
