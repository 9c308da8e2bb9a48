//! Ten thousand domains: so many at once and no more, in bounded memory.

use std::{
    fmt::Write as _,
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{Process, deadline::Deadline, lab_test};

use crate::{
    cases::{Case, Shown},
    dns::Nsd,
    pki::{Sent, Wanted},
    scene::{Scene, configuration, prepared, topology, usual, write},
};

const DOMAINS: usize = 10_000;
/// Of so many, one has a server; the others are somewhere else.
const SERVED: usize = 100;
const AT_ONCE: usize = 48;
/// What a process has open besides: standard streams, the runtime's, a connection to the DNS server.
const OTHERS: usize = 24;

fn is_served(number: usize) -> bool {
    number.is_multiple_of(SERVED)
}

fn zone() -> String {
    let mut text = "crl.hoster A 198.51.100.10\n".to_owned();
    for number in 0..DOMAINS {
        let address = if is_served(number) {
            "198.51.100.10"
        } else {
            "203.0.113.77"
        };
        let _ = writeln!(
            text,
            "_sipfederationtls._tcp.d{number} SRV 0 0 5061 sip.d{number}"
        );
        let _ = writeln!(text, "sip.d{number} A {address}");
    }
    text
}

/// One certificate for all that are served, as a hoster has one.
const CASE: Case = Case {
    domain: "all.example",
    zone: "",
    names: &["~^sip\\.d[0-9]+\\.example$"],
    shown: Shown::Made(|pki, domain| {
        let names: Vec<_> = (0..DOMAINS)
            .step_by(SERVED)
            .map(|number| format!("sip.d{number}.example"))
            .collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let wanted = Wanted::right(domain).named(&names, Some(names[0]));
        pki.make(domain, &wanted, Sent::Right)
    }),
    found: &[],
};

/// What a process has at most, seen from outside.
#[derive(Debug, Default)]
struct Most {
    files: usize,
    /// Its own highest mark, in kilobytes.
    memory: usize,
}

impl Most {
    fn look(&mut self, pid: u32) -> Option<()> {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
        self.files = self.files.max(files);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let memory = line.split_whitespace().next()?.parse().ok()?;
        self.memory = self.memory.max(memory);
        Some(())
    }
}

fn watched(mut process: Process) -> Result<(Value, Most)> {
    let mut most = Most::default();
    Deadline::after(Duration::from_secs(1800)).poll("the check of all domains", || {
        // Gone between the two looks, or about to be.
        let _ = most.look(process.pid());
        Ok((!process.is_running()?).then_some(()))
    })?;
    let told = process.stdout()?;
    let report: Value =
        serde_json::from_str(&told).with_context(|| process.stderr().unwrap_or_default())?;
    Ok((report["dns"].clone(), most))
}

fn number(value: &Value) -> Result<usize> {
    let number = value
        .as_u64()
        .with_context(|| format!("{value} is no number"))?;
    Ok(usize::try_from(number)?)
}

#[test]
fn ten_thousand_domains_are_checked_so_many_at_once() {
    lab_test("dns-check-many", &topology(), |lab| {
        let _dns = Nsd::start(lab, &[("example", zone())])?;
        let scene = Scene::start(lab, &[CASE])?;
        let names: Vec<_> = (0..DOMAINS).map(|n| format!("d{n}.example")).collect();
        let config = write(
            lab,
            &configuration(names.iter().map(|it| (it.as_str(), &[][..]))),
        )?;
        let at_once = AT_ONCE.to_string();
        let mut arguments = usual(&scene.pki);
        arguments.extend(["--json", "--concurrency", &at_once].map(str::to_owned));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut command: Command = prepared(lab, &config, &arguments)?;
        command.stdin(Stdio::null());
        let (report, most) = watched(lab.spawn("check", command)?)?;

        let (summary, work) = (&report["summary"], &report["work"]);
        ensure!(number(&summary["domains"])? == DOMAINS, "{summary}");
        let served = DOMAINS / SERVED;
        ensure!(number(&summary["good"])? == served, "{summary}");
        ensure!(
            number(&summary["findings"]["address-foreign"])? == DOMAINS - served,
            "{summary}"
        );
        ensure!(number(&summary["errors"])? == DOMAINS - served, "{summary}");
        ensure!(number(&work["domains"]["most"])? == AT_ONCE, "{work}");
        for kind in ["queries", "connections"] {
            ensure!(number(&work[kind]["most"])? <= AT_ONCE, "{work}");
        }
        ensure!(number(&work["queries"]["all"])? >= 3 * DOMAINS, "{work}");
        ensure!(number(&work["revocation_lists"]["all"])? == 1, "{work}");
        // The process was looked at while it worked, and never had more open than that.
        // A socket may still be closing while the domain's next one opens.
        ensure!(
            most.files > 3 && most.files <= 2 * AT_ONCE + OTHERS,
            "{most:?}"
        );
        ensure!(most.memory > 0 && most.memory < 400 << 10, "{most:?}");
        eprintln!("{DOMAINS} domains: {most:?}, {work}");
        Ok(())
    });
}
