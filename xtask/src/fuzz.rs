//! `cargo xtask fuzz`: libFuzzer on the stable toolchain.
//!
//! cargo-fuzz would take longer to build than the targets, and asks for nightly. What it adds is a handful of stable flags, here
//! below; its address sanitizer is left out, as the fuzzed code has no `unsafe`.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{bpf_toolchain, process};

/// A fuzz target.
struct Target {
    name: &'static str,
    /// What the fuzzer starts from.
    seeds: &'static str,
    /// Longest input, in bytes.
    longest: u32,
    /// Where an input that crashes it becomes a test.
    tests: &'static str,
}

const TARGETS: &[Target] = &[
    Target {
        name: "hello",
        seeds: "sni-user/tests/hellos",
        // Bigger hellos are the tests' business; the search is faster without them.
        longest: 8192,
        tests: "sni-user/tests/hello/",
    },
    Target {
        name: "translate",
        seeds: "sni-common/tests/translate/seeds",
        // A translation, and the longest option area.
        longest: 62,
        tests: "sni-common/tests/translate/",
    },
    Target {
        name: "walk",
        seeds: "sni-user/tests/hellos",
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
    /// One target alone: hello, translate or walk
    #[arg(value_parser = TARGETS.iter().map(|target| target.name).collect::<Vec<_>>())]
    target: Option<String>,
    /// How long to look, in seconds; at each target
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Run this input alone, such as one that a crash has left
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "seconds",
        requires = "target"
    )]
    reproduce: Option<PathBuf>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let directory = process::target_dir()?.join("fuzz");
    process::step("building the fuzz targets", || build(&directory))?;
    let wanted = |target: &&Target| {
        options
            .target
            .as_ref()
            .is_none_or(|name| name == target.name)
    };
    for target in TARGETS.iter().filter(wanted) {
        let fuzzer = directory.join(host()?).join("release").join(target.name);
        if let Some(input) = &options.reproduce {
            return process::run(Command::new(fuzzer).arg(input));
        }
        let what = format!("fuzzing {} for {} s", target.name, options.seconds);
        process::step(&what, || {
            search(target, &fuzzer, &directory, options.seconds)
        })?;
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
fn search(target: &Target, fuzzer: &Path, directory: &Path, seconds: u32) -> Result<()> {
    let corpus = directory.join("corpus").join(target.name);
    let artifacts = directory.join("artifacts");
    for directory in [&corpus, &artifacts] {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("{} can't be made", directory.display()))?;
    }
    let output = Command::new(fuzzer)
        .arg(&corpus)
        .arg(process::workspace().join(target.seeds))
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

/// The compiler's own target triple.
fn host() -> Result<String> {
    let text = process::output(bpf_toolchain::rustc().arg("-vV"))?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(Into::into)
        .context("`rustc -vV` does not name its host: reinstall the toolchain with rustup")
}
