//! Servers that are down or say nothing: the check ends, and says so.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{Lab, addresses::PARTNER, lab_test};

use crate::{
    dns::PORT,
    scene::{check, configuration, topology, write},
};

const DOMAINS: usize = 500;

/// Has many domains checked by a DNS server that never answers anything.
fn ask_nobody(lab: &Lab, more: &[&str]) -> Result<Value> {
    let names: Vec<_> = (0..DOMAINS).map(|n| format!("d{n}.example")).collect();
    let domains = names.iter().map(|name| (name.as_str(), &[][..]));
    let config = write(lab, &configuration(domains))?;
    let server = SocketAddr::new(PARTNER.v4.into(), PORT).to_string();
    let (report, is_well) = check(lab, &config, &[&["--resolver", &server], more].concat())?;
    ensure!(!is_well, "nothing is wrong, it says");
    Ok(report)
}

fn all_are(report: &Value, id: &str) -> Result<()> {
    ensure!(
        report["summary"]["findings"][id] == DOMAINS,
        "{}",
        report["summary"]
    );
    let queries = report["work"]["queries"]["all"]
        .as_u64()
        .context("queries")?;
    // Those that were under way when it was clear that there is no answer, and none after.
    ensure!(
        queries < 100,
        "{queries} queries to a server that does not answer"
    );
    Ok(())
}

#[test]
fn a_silent_dns_server_is_given_up() {
    lab_test("dns-check-silent", &topology(), |lab| {
        let _silent = lab
            .partner
            .run(|| Ok(UdpSocket::bind((PARTNER.v4, PORT))?))?;
        all_are(&ask_nobody(lab, &["--timeout", "1s"])?, "dns-silent")
    });
}

#[test]
fn a_dns_server_that_is_down_is_given_up() {
    lab_test("dns-check-down", &topology(), |lab| {
        all_are(&ask_nobody(lab, &["--timeout", "1s"])?, "dns-silent")
    });
}

#[test]
fn the_whole_check_ends_when_its_time_is_over() {
    lab_test("dns-check-deadline", &topology(), |lab| {
        let _silent = lab
            .partner
            .run(|| Ok(UdpSocket::bind((PARTNER.v4, PORT))?))?;
        // Nobody would wait so long for a single answer.
        let report = ask_nobody(lab, &["--timeout", "1h", "--deadline", "500ms"])?;
        ensure!(
            report["summary"]["findings"]["not-checked"] == DOMAINS,
            "{}",
            report["summary"]
        );
        Ok(())
    });
}
