//! Where the time goes on the hottest paths, by sampling (perf). What else the machine does at the same time is in no sample that counts.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::passed::{relay, setup};
use super::results::{Better, Metric, Role, Row, Table};
use super::whole::Plan;
use super::{Options, passed};
use crate::packets::Rig;
use crate::packets::bench::Bench;
use crate::packets::measure::stay_on_this_cpu;

/// Samples a second on each processor; odd, so that they do not go along with what comes a thousand times a second.
const FREQUENCY: &str = "1999";
/// What takes less, in per cent, is told together.
const LEAST: f64 = 1.5;
/// How much longer than other samples a load is.
const LONGER: u32 = 3;

/// All that was measured.
#[derive(Debug, Default)]
pub struct Measured {
    /// A table for each path.
    pub tables: Vec<Table>,
    /// What could not be, and why.
    pub left_out: Vec<String>,
}

/// Is told what comes next, and with that when a load begins.
type Progress<'a> = dyn FnMut(&str) + 'a;

/// A path, what is done on it, and which samples are of it.
struct Path {
    key: &'static str,
    title: &'static str,
    load: fn(&Plan, &mut Progress<'_>) -> Result<()>,
    place: fn(&Sample) -> Option<String>,
}

const PATHS: [Path; 4] = [
    Path {
        key: "established",
        title: "the datapath: a packet of one of 1,000 established flows, BPF_PROG_TEST_RUN",
        load: established,
        place: in_test_run,
    },
    Path {
        key: "hand-off",
        title: "the agent: passed connections, 16 at once, handed off; TCX",
        load: |plan, progress| {
            setup::run(
                &alone(plan, "hand-off, TCX", "offloads-on/parallel-16"),
                progress,
            )
            .map(drop)
        },
        place: in_agent,
    },
    Path {
        key: "relay",
        title: "the agent: a kilobyte there and back on 32 relayed connections",
        load: |plan, progress| {
            relay::run(&alone(plan, "relay", "offloads-on/messages"), progress).map(drop)
        },
        place: in_agent,
    },
    Path {
        key: "terminated",
        title: "the agent: terminated connections, full TLS 1.3 handshakes, RSA-2048, 8 clients",
        load: terminated,
        place: in_agent,
    },
];

/// Measures.
///
/// # Errors
/// A load fails, or perf does.
pub fn run(plan: &Plan, progress: &mut Progress<'_>) -> Result<Measured> {
    let mut measured = Measured::default();
    if let Err(error) = Command::new("perf").arg("--version").output()
        && error.kind() == ErrorKind::NotFound
    {
        let reason = "profiles: there is no perf; install the package linux-perf";
        measured.left_out.push(reason.to_owned());
        return Ok(measured);
    }
    for path in PATHS {
        let mut recording = None;
        let mut outcome = Ok(());
        (path.load)(plan, &mut |what| {
            progress(&format!("{}: {what}", path.key));
            // Programs are loaded and connections proved before.
            if recording.is_none() && what.starts_with("round 1 of") {
                match Recording::start(path.key) {
                    Ok(started) => recording = Some(started),
                    Err(error) => outcome = Err(error),
                }
            }
        })?;
        outcome?;
        let recording = recording.context("a load without a round")?;
        let shares = shares(&recording.stop()?, path.place);
        match table(&path, &shares) {
            Some(table) => measured.tables.push(table),
            None => measured.left_out.push(format!(
                "a profile, {}: perf has seen nothing of it",
                path.key
            )),
        }
    }
    Ok(measured)
}

fn established(plan: &Plan, progress: &mut Progress<'_>) -> Result<()> {
    // No more than the test runs is told of it.
    progress("round 1 of 1");
    Rig::new()?.run(|rig| {
        stay_on_this_cpu()?;
        let mut bench = Bench::new(rig, "established, IPv4")?;
        // A round takes a fifth of a second.
        bench
            .classes(if plan.quick { 2 } else { 30 }, |_| {})
            .map(drop)
    })
}

fn terminated(plan: &Plan, progress: &mut Progress<'_>) -> Result<()> {
    let options = Options {
        rounds: 1,
        workers: plan.workers,
        only: "terminated-tls13-rsa-full".to_owned(),
        sample: plan.sample * LONGER,
        systems: vec!["snigate".to_owned()],
        beside: None,
    };
    super::run(&options, progress).map(drop)
}

/// One system on one subject, longer than usual.
fn alone(plan: &Plan, system: &str, subject: &str) -> passed::Options {
    passed::Options {
        rounds: 1,
        sample: plan.sample * LONGER,
        workers: plan.workers,
        only: subject.to_owned(),
        systems: vec![system.to_owned()],
        afterwards: Duration::ZERO,
        other: None,
    }
}

/// perf, while it samples all processors.
struct Recording {
    perf: Child,
    file: PathBuf,
}

impl Recording {
    fn start(key: &str) -> Result<Self> {
        let file = std::env::temp_dir().join(format!("snigate-{}-{key}.perf", std::process::id()));
        let mut command = Command::new("perf");
        command
            .args([
                "record",
                "--quiet",
                "--all-cpus",
                "-g",
                "-F",
                FREQUENCY,
                "-o",
            ])
            .arg(&file);
        let perf = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("perf")?;
        // It has to open an event on each processor first.
        thread::sleep(Duration::from_millis(300));
        Ok(Self { perf, file })
    }

    /// Ends it, and returns what it has seen, sample by sample.
    fn stop(mut self) -> Result<String> {
        let pid = Pid::from_raw(i32::try_from(self.perf.id())?);
        kill(pid, Signal::SIGINT).context("ending perf")?;
        self.perf.wait()?;
        let mut command = Command::new("perf");
        command
            .args(["script", "-F", "comm,ip,sym,dso", "-i"])
            .arg(&self.file);
        let output = command.output().context("perf script")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "perf script: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Where a load has failed; it has ended already otherwise.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// One sample: who ran, and where, the innermost function first.
struct Sample<'a> {
    thread: &'a str,
    frames: Vec<Frame<'a>>,
}

struct Frame<'a> {
    function: &'a str,
    /// The program, library, or kernel that it is in.
    file: &'a str,
}

impl<'a> Sample<'a> {
    /// As `perf script` writes it: a line with the thread's name, then one for each frame.
    fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text.lines();
        let thread = lines.next()?.trim();
        let frame = |line: &'a str| {
            let (_address, rest) = line.trim().split_once(' ')?;
            let (function, file) = rest.rsplit_once(" (")?;
            Some(Frame {
                function,
                file: file.trim_end_matches(')'),
            })
        };
        Some(Self {
            thread,
            frames: lines.filter_map(frame).collect(),
        })
    }

    fn passes(&self, function: &str) -> bool {
        self.frames.iter().any(|frame| frame.function == function)
    }
}

/// By function.
fn in_test_run(sample: &Sample<'_>) -> Option<String> {
    const TEST_RUN: &str = "bpf_test_run";
    if !sample.passes(TEST_RUN) {
        return None;
    }
    let function = sample.frames.first()?.function;
    Some(match function {
        // A tag that changes with the program comes before its name.
        program if program.starts_with("bpf_prog_") => "the program itself".to_owned(),
        other => format!("`{other}`"),
    })
}

/// By system call, with all that the kernel does in it; or by whose code it is.
fn in_agent(sample: &Sample<'_>) -> Option<String> {
    if !["snigate", "tokio-rt-worker"].contains(&sample.thread) {
        return None;
    }
    let call = sample
        .frames
        .iter()
        .find_map(|frame| frame.function.strip_prefix("__x64_sys_"));
    if let Some(call) = call {
        return Some(format!("{call}(2)"));
    }
    let Frame { function, file } = sample.frames.first()?;
    // The datapath's own programs, when a packet comes.
    if file.contains("kernel") || file.starts_with("bpf_prog_") {
        return Some("the kernel, in interrupts".to_owned());
    }
    let file = file.rsplit('/').next().unwrap_or(file);
    if file != "snigate" {
        return Some(format!("`{file}`"));
    }
    let owner = function
        .trim_start_matches(['<', '&'])
        .split("::")
        .next()
        .unwrap_or_default();
    Some(match owner {
        "core" | "alloc" | "std" | "hashbrown" => "Rust's own library".to_owned(),
        "sni_user" | "sni_common" => "the agent's own code".to_owned(),
        // No path: C and assembly.
        _ if owner.len() == function.len() => "cryptography, and other C".to_owned(),
        library => format!("`{library}`"),
    })
}

/// Per cent of the samples that count, by place, the largest first.
fn shares(script: &str, place: impl Fn(&Sample<'_>) -> Option<String>) -> Vec<(String, f64)> {
    let mut counts = BTreeMap::new();
    let samples = script.split("\n\n").filter_map(Sample::parse);
    for place in samples.filter_map(|sample| place(&sample)) {
        *counts.entry(place).or_insert(0u32) += 1;
    }
    let all: u32 = counts.values().sum();
    let share = |(place, count)| (place, f64::from(count) * 100.0 / f64::from(all));
    let mut shares: Vec<_> = counts.into_iter().map(share).collect();
    shares.sort_by(|one, other| other.1.total_cmp(&one.1));
    let small = shares.partition_point(|(_, share)| *share >= LEAST);
    let rest: f64 = shares.drain(small..).map(|(_, share)| share).sum();
    if rest > 0.0 {
        shares.push(("everything else".to_owned(), rest));
    }
    shares
}

fn table(path: &Path, shares: &[(String, f64)]) -> Option<Table> {
    let row = |(place, share): &(String, f64)| Row {
        name: place.clone(),
        role: Role::Ours,
        x: None,
        cells: vec![vec![*share]],
    };
    (!shares.is_empty()).then(|| Table {
        key: format!("profile/{}", path.key),
        title: path.title.to_owned(),
        metrics: vec![Metric::new("share of the time", "%", Better::Neither)],
        rows: shares.iter().map(row).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "snigate-bench \n\tffffffffc00092b0 bpf_prog_26ccc27533f4d55b_snigate_xdp (bpf_prog_26ccc27533f4d55b_snigate_xdp)\n\
        \tffffffff81cafe00 bpf_test_run ([kernel.kallsyms])\n\n\
        tokio-rt-worker \n\tffffffff81e7bea2 tcp_sendmsg ([kernel.kallsyms])\n\tffffffff81e80538 __x64_sys_sendto ([kernel.kallsyms])\n\
        \t          10afa8 __send (/usr/lib/x86_64-linux-gnu/libc.so.6)\n\n\
        tokio-rt-worker \n\t          eebb20 <core::str::pattern::CharSearcher as core::str::pattern::Searcher>::next_match (/opt/snigate)\n\n\
        tokio-rt-worker \n\t          eebb20 <sni_user::proxy::relay::onward::Onward>::copy (/opt/snigate)\n\n\
        tokio-rt-worker \n\t          eebb20 bn_mul_mont (/opt/snigate)\n\n\
        another \n\t          eebb20 bn_mul_mont (/opt/another)\n";

    #[test]
    fn samples_are_placed_by_what_they_are_in() {
        let test_run = shares(SCRIPT, in_test_run);
        assert_eq!(test_run, [("the program itself".to_owned(), 100.0)]);
        let mut agent = shares(SCRIPT, in_agent);
        agent.sort_by(|one, other| one.0.cmp(&other.0));
        let places: Vec<_> = agent.iter().map(|(place, _)| place.as_str()).collect();
        assert_eq!(
            places,
            [
                "Rust's own library",
                "cryptography, and other C",
                "sendto(2)",
                "the agent's own code",
            ]
        );
        assert!(agent.iter().all(|(_, share)| *share == 25.0));
    }

    #[test]
    fn what_takes_little_is_told_together() {
        let one = "tokio-rt-worker \n\t1 bn_mul_mont (/opt/snigate)\n\n".repeat(99);
        let script = one + "tokio-rt-worker \n\t1 rustls::a (/opt/snigate)\n";
        let shares = shares(&script, in_agent);
        assert_eq!(shares[1], ("everything else".to_owned(), 1.0));
    }
}
