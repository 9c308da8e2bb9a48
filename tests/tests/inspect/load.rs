//! Reloads while connections come and go.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab,
    addresses::VIP_1,
    gateway::Gateway,
    lab_test,
    peers::{Limit, Partner, Storm},
};

use crate::{
    TIMEOUT, both,
    federation::{Federation, domain, ip_set},
    quiet, tcp,
};

const DOMAINS: usize = 10_000;
const RELOADS: usize = 6;
/// Between two reloads, of each kind.
const CONNECTIONS: usize = 40;

/// The domains beside those that are asked for, all in one pool.
fn others(pool: &str) -> String {
    let mut text = String::new();
    for n in 0..DOMAINS {
        let _ = writeln!(text, "{}", domain(&format!("d{n}.example"), pool));
    }
    text
}

fn write(lab: &Lab, text: &str) -> Result<()> {
    let directory = lab.dir().join("domains.d");
    std::fs::create_dir_all(&directory)?;
    // As a careful program does: nobody sees half of it.
    let new = directory.join("others.new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(new, directory.join("others.toml"))?)
}

#[test]
fn ten_thousand_domains_are_reloaded_under_load() {
    lab_test("reload-load", &quiet(), |lab| {
        let federation = Federation::new(lab)?;
        let pools = ["edges-a", "edges-b"];
        let frame = federation.pools()?
            + &ip_set("shared", VIP_1, "inspect = true\nbind = false")
            + "[limits]\nsyn_per_source = \"100000/s\"\nhello_per_source = \"100000/s\"\n"
            + &domain("contoso.example", "edges-a")
            + &federation.terminated("tailspin.example", "edges-a")?;
        let frames =
            pools.map(|pool| frame.replace("pool = \"edges-a\"", &format!("pool = {pool:?}")));
        let all = pools.map(others);
        let include = "include = [\"domains.d/*.toml\"]";
        write(lab, &all[0])?;
        let mut gateway = Gateway::start_with(lab, include, &frames[0])?;

        let mut held = Vec::new();
        let mut storms = Vec::new();
        for name in ["sip.contoso.example", "sip.tailspin.example"] {
            for address in both(VIP_1) {
                held.push(federation.open(name, address)?);
                let tls = federation.tls(name)?;
                let partner = Partner {
                    tls: Some(&tls),
                    ..tcp(lab)
                };
                storms.push(Storm::start(
                    &partner,
                    address,
                    2,
                    Limit::Connections(usize::MAX),
                )?);
            }
        }
        let go_on = |storms: &[Storm]| -> Result<()> {
            for storm in storms {
                storm.wait_for(storm.ended() + CONNECTIONS, TIMEOUT)?;
            }
            Ok(())
        };
        go_on(&storms)?;
        for round in 1..=RELOADS {
            let turn = round % 2;
            write(lab, &all[turn])?;
            gateway.configure(include, &frames[turn])?;
            let said = gateway.output(&["reload"])?;
            let first = said.lines().next().context("no answer")?;
            eprintln!("{first}");
            ensure!(said.contains("10,002 domains with 10,002 names"), "{said}");
            go_on(&storms)?;
            // The last of them, by the real tables.
            let name = format!("sip.d{}.example", DOMAINS - 1);
            let traced = gateway.json(&["trace", "name", &name])?;
            ensure!(traced["pool"] == pools[turn], "{traced}");
            for connection in &mut held {
                connection
                    .ping()
                    .context("a connection from before the first reload")?;
            }
        }
        for storm in storms {
            let report = storm.stop()?;
            report.ensure_no_failure()?;
            eprintln!(
                "{} connections meanwhile, none lost",
                report.connections.len()
            );
        }
        for connection in held {
            connection.close()?;
        }
        Ok(())
    });
}
