//! `cargo xtask build-and-load`, `cargo xtask bench`, `cargo xtask chaos` and `cargo xtask soak`: tasks that load the datapath into this machine's kernel.
//!
//! The lab and the benches live in the tests crate; its programs are run by name, so that this one stays quick to compile.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{build, packages, process, provision};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave the lab up at the end, to look around in it
    #[arg(long, conflicts_with = "config")]
    keep: bool,
    /// Run with this configuration on this host's own interfaces instead of in the lab
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Without a subcommand, everything in one go.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchOptions {
    /// Two minutes of it: whether everything works, but no figures to rely on; goes to the target directory
    #[arg(long)]
    quick: bool,
    /// Where benchmarks.md goes, and its pictures (docs; the target directory for a quick run, or one with further arguments)
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// Measure nothing; make the document again from the figures that an earlier run has kept
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Further arguments for the bench, such as `--rounds 3`, behind `--`
    #[arg(last = true)]
    arguments: Vec<OsString>,
    #[command(subcommand)]
    one: Option<Bench>,
}

#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// Nanoseconds and verified instructions per class of packets
    Datapath(Arguments),
    /// Inspected connections beside HAProxy and nginx: handshakes, throughput, latency
    Proxy(Arguments),
    /// Passed connections until the Edge answers: setup, rate and CPU of binding and hand-off beside HAProxy, nginx and routing
    Setup(Arguments),
    /// Passed connections once they stand: latency, messages, throughput and CPU beside HAProxy, nginx and routing
    Relay(Arguments),
    /// Memory and sockets of silent connections, beside HAProxy and nginx
    Idle(Arguments),
    /// Reading a ClientHello, routing it, loading a configuration: code that needs no kernel
    Micro(Arguments),
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Arguments for the program, such as `--rounds 3`; `-- --help` shows them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    require_root()?;
    match &options.config {
        Some(config) => on_this_host(config),
        None => in_the_lab(options.keep),
    }
}

pub(crate) fn bench(options: &BenchOptions) -> Result<()> {
    match &options.one {
        Some(bench) => one_bench(bench),
        None => all_benches(options),
    }
}

fn all_benches(options: &BenchOptions) -> Result<()> {
    if options.from.is_none() {
        require_root()?;
        packages::provide(&packages::BENCH)?;
    }
    let kept = process::target_dir()?.join("bench");
    let docs = process::workspace().join("docs");
    let whole = !options.quick && options.arguments.is_empty();
    // A part again, into the page that there is.
    let amends = options.arguments.iter().any(|it| it == "--amend");
    let usual = if whole || amends { &docs } else { &kept };
    let mut bench = program_of_tests("snigate-bench", true)?;
    bench.arg("all").args(options.quick.then_some("--quick"));
    let output = options.output.as_ref().unwrap_or(usual);
    bench.arg("--output").arg(output);
    // What is kept of a whole run took an hour.
    let results = if whole || amends {
        "results.json"
    } else {
        "partial.json"
    };
    bench.arg("--results").arg(kept.join(results));
    if let Some(from) = &options.from {
        bench.arg("--from").arg(from);
    } else if whole {
        let file = kept.join("micro.txt");
        fs::create_dir_all(&kept).with_context(|| kept.display().to_string())?;
        let printed = process::step("the agent's code", || process::output(&mut divan(&[])))?;
        fs::write(&file, printed).with_context(|| file.display().to_string())?;
        bench.arg("--micro").arg(file);
    }
    Err(process::replace_by(bench.args(&options.arguments)))
}

fn one_bench(bench: &Bench) -> Result<()> {
    let (name, Arguments { arguments }) = match bench {
        Bench::Datapath(arguments) => ("datapath", arguments),
        Bench::Proxy(arguments) => ("proxy", arguments),
        Bench::Setup(arguments) => ("setup", arguments),
        Bench::Relay(arguments) => ("relay", arguments),
        Bench::Idle(arguments) => ("idle", arguments),
        Bench::Micro(Arguments { arguments }) => return micro(arguments),
    };
    require_root()?;
    let mut bench = program_of_tests("snigate-bench", true)?;
    bench.arg(name).args(arguments);
    Err(process::replace_by(&mut bench))
}

/// With debug assertions, which the points have at which agents are killed.
pub(crate) fn chaos(what: &str, Arguments { arguments }: &Arguments) -> Result<()> {
    let only_tells = |it: &OsString| ["--list", "--help", "-h"].iter().any(|word| it == word);
    let mut chaos = if arguments.iter().any(only_tells) {
        provision::datapath_toolchain()?;
        built_program_of_tests("snigate-chaos", false)?
    } else {
        require_root()?;
        program_of_tests("snigate-chaos", false)?
    };
    Err(process::replace_by(chaos.arg(what).args(arguments)))
}

/// divan's benches, which print one table.
fn micro(arguments: &[OsString]) -> Result<()> {
    provision::datapath_toolchain()?;
    process::run(&mut divan(arguments))
}

fn divan(arguments: &[OsString]) -> Command {
    let mut cargo = process::cargo("bench");
    cargo.args(["--quiet", "--package", "sni-user", "--bench", "micro", "--"]);
    cargo.args(arguments);
    cargo
}

fn in_the_lab(keep: bool) -> Result<()> {
    let mut lab = program_of_tests("snigate-lab", false)?;
    lab.arg("demo").args(keep.then_some("--keep"));
    Err(process::replace_by(&mut lab))
}

/// A program of the tests crate, together with the `snigate` that it starts.
fn program_of_tests(name: &str, release: bool) -> Result<Command> {
    provision::datapath_toolchain()?;
    packages::provide(&packages::LAB)?;
    built_program_of_tests(name, release)
}

fn built_program_of_tests(name: &str, release: bool) -> Result<Command> {
    // Not `cargo run`: that unites the features of its one package's dependencies only, and would compile many again.
    build::workspace(release)?;
    let profile = if release { "release" } else { "debug" };
    Ok(Command::new(
        process::target_dir()?.join(profile).join(name),
    ))
}

fn on_this_host(config: &Path) -> Result<()> {
    fs::metadata(config)
        .with_context(|| format!("the configuration {} can't be read", config.display()))?;
    provision::datapath_toolchain()?;
    let mut cargo = process::cargo("build");
    cargo.args(["--release", "--package", "sni-user", "--bin", "snigate"]);
    process::run(&mut cargo)?;
    mount_bpf_file_system()?;
    let mut snigate = Command::new(process::target_dir()?.join("release/snigate"));
    snigate.args(["run", "--config"]).arg(config);
    Err(process::replace_by(&mut snigate))
}

fn require_root() -> Result<()> {
    if !process::is_root() {
        bail!("loading the datapath needs root: run `sudo -E env \"PATH=$PATH\" cargo xtask ...`");
    }
    Ok(())
}

/// Maps and programs are pinned in the BPF file system. systemd mounts it; minimal systems and containers don't.
fn mount_bpf_file_system() -> Result<()> {
    const WHERE: &str = "/sys/fs/bpf";
    let mounts = fs::read_to_string("/proc/mounts").context("/proc/mounts can't be read")?;
    if is_mounted(&mounts, WHERE, "bpf") {
        return Ok(());
    }
    eprintln!("xtask: mounting the BPF file system at {WHERE}");
    process::run(Command::new("mount").args(["-t", "bpf", "bpf", WHERE]))
}

/// Whether a line of /proc/mounts (device, directory, type, ...) says so.
fn is_mounted(mounts: &str, directory: &str, kind: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(directory) && fields.next() == Some(kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_is_directory_and_type() {
        let mounts = "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n";
        assert!(is_mounted(mounts, "/sys/fs/bpf", "bpf"));
        assert!(!is_mounted(mounts, "/sys", "bpf"));
        assert!(!is_mounted("", "/sys/fs/bpf", "bpf"));
    }
}
