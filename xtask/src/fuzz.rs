//! `cargo xtask fuzz`: libFuzzer on the stable toolchain.
//!
//! cargo-fuzz would take longer to build than the targets, and asks for nightly. What it adds is a handful of stable flags, here
//! below; its address sanitizer is left out, as the fuzzed code has no `unsafe`.
//!
//! The datapath's programs are not code that libFuzzer could run: `cargo xtask fuzz datapath` is a test of the packet tables, for as long as one likes.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{bpf_toolchain, packages, process, provision};

/// A fuzz target.
struct Target {
    name: &'static str,
    /// What the fuzzer starts from besides its corpus.
    seeds: Option<&'static str>,
    /// Words that it puts into inputs.
    words: Option<&'static str>,
    /// Longest input, in bytes.
    longest: u32,
    /// Where an input that crashes it becomes a test.
    tests: &'static str,
}

const TARGETS: &[Target] = &[
    Target {
        name: "config",
        seeds: None,
        words: Some("fuzz/config.dict"),
        longest: 4096,
        tests: "sni-user/src/config/invariants.rs",
    },
    Target {
        name: "control",
        seeds: None,
        words: None,
        longest: 2048,
        tests: "sni-user/src/control/invariants.rs",
    },
    Target {
        name: "hello",
        seeds: Some("sni-user/tests/hellos"),
        words: None,
        // Bigger hellos are the tests' business; the search is faster without them.
        longest: 8192,
        tests: "sni-user/tests/hello/",
    },
    Target {
        name: "mirror",
        seeds: None,
        words: None,
        longest: 4096,
        tests: "sni-user/src/tls/invariants.rs",
    },
    Target {
        name: "proxy",
        seeds: None,
        words: None,
        // A little more than the longest header that is taken.
        longest: 2100,
        tests: "sni-user/src/proxy/proxy_header/invariants.rs",
    },
    Target {
        name: "translate",
        seeds: Some("sni-common/tests/translate/seeds"),
        words: None,
        // A translation, and the longest option area.
        longest: 62,
        tests: "sni-common/tests/translate/",
    },
    Target {
        name: "walk",
        seeds: Some("sni-user/tests/hellos"),
        words: None,
        // A little more than the datapath has room for.
        longest: 3200,
        tests: "sni-user/tests/hello/",
    },
];

/// Coverage for libFuzzer: which edges were taken, and what was compared with what.
const RUSTFLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// One target alone; `datapath` is not among those that run without it
    #[arg(value_parser = names())]
    target: Option<String>,
    /// How long to look, in seconds, at each target: 5; `datapath` with a seed: one round
    #[arg(long)]
    seconds: Option<u32>,
    /// Where chance begins: the same inputs are tried in the same order, as long as nothing has been found that is not in the
    /// repository; for `datapath` the first round's seed
    #[arg(long, value_name = "N", conflicts_with_all = ["reproduce", "minimise"])]
    seed: Option<u64>,
    /// Run this input alone, such as one that a crash has left
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "seconds",
        requires = "target"
    )]
    reproduce: Option<PathBuf>,
    /// Put what has been found since into the corpus of the repository, and leave out what adds nothing
    #[arg(long, conflicts_with_all = ["seconds", "reproduce"])]
    minimise: bool,
}

/// Enough to see that the targets work, and that what was found once is not back.
const SECONDS: u32 = 5;

/// The target whose code the kernel runs.
const DATAPATH: &str = "datapath";

fn names() -> Vec<&'static str> {
    let names = TARGETS.iter().map(|target| target.name);
    names.chain([DATAPATH]).collect()
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.target.as_deref() == Some(DATAPATH) {
        return datapath(options);
    }
    let directory = process::target_dir()?.join("fuzz");
    process::step("building the fuzz targets", || build(&directory))?;
    let wanted = |target: &&Target| {
        options
            .target
            .as_ref()
            .is_none_or(|name| name == target.name)
    };
    let mut failed = Vec::new();
    for target in TARGETS.iter().filter(wanted) {
        let fuzzer = directory.join(host()?).join("release").join(target.name);
        if let Some(input) = &options.reproduce {
            return process::run(Command::new(fuzzer).arg(input));
        }
        if options.minimise {
            minimise(target, &fuzzer, &directory)?;
            continue;
        }
        let seconds = options.seconds.unwrap_or(SECONDS);
        let what = format!("fuzzing {} for {seconds} s", target.name);
        let searched = process::step(&what, || {
            search(target, &fuzzer, &directory, seconds, options.seed)
        });
        if let Err(error) = searched {
            eprintln!("xtask: {error:#}");
            failed.push(target.name);
        }
    }
    if !failed.is_empty() {
        bail!("{} failed: see above", failed.join(", "));
    }
    Ok(())
}

fn build(directory: &Path) -> Result<()> {
    // With --target the flags go into the target alone, not into build scripts.
    let host = host()?;
    process::output(
        process::cargo("build")
            .args(["--quiet", "--release", "--locked"])
            .args(["--manifest-path", "fuzz/Cargo.toml"])
            .args(["--target", &host, "--bins", "--target-dir"])
            .arg(directory)
            .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f")),
    )
    .context(
        "libFuzzer needs a C++ compiler: if c++ is what is missing, run `apt-get install g++`",
    )?;
    Ok(())
}

/// Looks for inputs that crash; interesting ones are kept below the target directory, and the next search starts from them.
fn search(
    target: &Target,
    fuzzer: &Path,
    directory: &Path,
    seconds: u32,
    seed: Option<u64>,
) -> Result<()> {
    let corpus = directory.join("corpus").join(target.name);
    let artifacts = directory.join("artifacts");
    for directory in [&corpus, &artifacts] {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("{} can't be made", directory.display()))?;
    }
    let words = target.words.map(|file| process::workspace().join(file));
    let output = Command::new(fuzzer)
        .arg(&corpus)
        .args(words.map(|file| format!("-dict={}", file.display())))
        .args(target.inputs())
        .args(seed.map(|seed| format!("-seed={seed}")))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_len={}", target.longest))
        .args(["-timeout=10", "-print_final_stats=1"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} can't be started", fuzzer.display()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{told}");
        bail!(
            "{name} panics, or contradicts itself: run `cargo xtask fuzz {name} --reproduce FILE` with the file that is named \
             above, and make its input a test in {}",
            target.tests,
            name = target.name
        );
    }
    for statistic in told.lines().filter_map(|line| line.strip_prefix("stat::")) {
        eprintln!("xtask: {statistic}");
    }
    Ok(())
}

/// Has libFuzzer choose the fewest inputs that go everywhere, and puts them where the old ones were. Those with names of their own are somebody's, and stay.
fn minimise(target: &Target, fuzzer: &Path, directory: &Path) -> Result<()> {
    let chosen = directory.join("chosen").join(target.name);
    if chosen.exists() {
        std::fs::remove_dir_all(&chosen)?;
    }
    std::fs::create_dir_all(&chosen)?;
    process::output(
        Command::new(fuzzer)
            .args(["-set_cover_merge=1", "-use_counters=0"])
            .arg(format!("-max_len={}", target.longest))
            .arg(&chosen)
            .args(target.inputs())
            .arg(directory.join("corpus").join(target.name)),
    )?;
    let corpus = target.corpus();
    for input in files(&corpus)?.into_iter().filter(|path| is_found(path)) {
        std::fs::remove_file(input)?;
    }
    // What a name stands for is there already.
    let named: Vec<_> = files(&corpus)?
        .into_iter()
        .map(std::fs::read)
        .collect::<Result<_, _>>()?;
    for input in files(&chosen)? {
        let name = input.file_name().context("a file without a name")?;
        if !named.contains(&std::fs::read(&input)?) {
            std::fs::copy(&input, corpus.join(name))?;
        }
    }
    eprintln!("xtask: {}: {} inputs", target.name, files(&corpus)?.len());
    Ok(())
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("{} can't be read", directory.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    paths.collect()
}

/// Whether libFuzzer has named it, by its SHA-1.
fn is_found(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl Target {
    /// Its inputs in the repository.
    fn corpus(&self) -> PathBuf {
        process::workspace().join("fuzz/corpus").join(self.name)
    }

    /// Where it starts from.
    fn inputs(&self) -> Vec<PathBuf> {
        let seeds = self.seeds.map(|seeds| process::workspace().join(seeds));
        [self.corpus()].into_iter().chain(seeds).collect()
    }
}

/// Random packets through the programs themselves (BPF_PROG_TEST_RUN), in the lab.
fn datapath(options: &Options) -> Result<()> {
    if options.reproduce.is_some() || options.minimise {
        bail!("packets are repeated by their seed: run `cargo xtask fuzz datapath --seed N`");
    }
    if !process::is_root() {
        bail!("running packets through the kernel needs root: run it with sudo");
    }
    provision::datapath_toolchain()?;
    packages::provide(&packages::LAB)?;
    let mut test = process::cargo("test");
    test.args(["--package", "snigate-tests", "--test", "packets"])
        .args(["--", "--nocapture", "nothing_goes_where_it_must_not"])
        .env("SNIGATE_LAB", "1");
    if let Some(seed) = options.seed {
        test.env("SNIGATE_PACKETS_SEED", seed.to_string());
    }
    // A seed alone is one round.
    let seconds = options
        .seconds
        .or(options.seed.is_none().then_some(SECONDS));
    if let Some(seconds) = seconds {
        test.env("SNIGATE_PACKETS_SECONDS", seconds.to_string());
    }
    process::run(&mut test)
}

/// The compiler's own target triple.
fn host() -> Result<String> {
    let text = process::output(bpf_toolchain::rustc().arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(Into::into)
        .context("`rustc -vV` does not name its host: reinstall the toolchain with rustup")
}
