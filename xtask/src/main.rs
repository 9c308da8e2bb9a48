//! snigate's task runner: what people type, and what CI runs.
//!
//! Each task provisions what it needs first, so that any of them works on a fresh checkout.

mod apt;
mod apt_source;
mod bpf_toolchain;
mod build;
mod check;
mod dist;
mod fuzz;
mod kernels;
mod load;
mod locks;
mod packages;
mod process;
mod provision;
mod reproduce;
mod rust_src;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "snigate's task runner")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the build needs and is missing, then build the workspace
    Build(build::Options),
    /// Build, load the datapath and run it: in the lab, or with --config on this host
    BuildAndLoad(load::Options),
    /// Build everything and run all tests; as root also those in the lab
    Test(test::Options),
    /// Formatting, lints, documentation, dependencies: everything CI looks at besides the tests
    Check,
    /// Feed whatever reads foreign bytes with what a fuzzer thinks of; or the datapath itself with random packets
    Fuzz(fuzz::Options),
    /// Make the Debian package
    Dist(dist::Options),
    /// Load, attach and run the datapath on Debian's kernels, under QEMU, and hold the verifier's work against its budget
    Kernels(kernels::Options),
    /// Play faults in the lab, and say what became of the connections
    Chaos(load::Arguments),
    /// Soak the gateway in the lab for some minutes, and say whether anything grows
    Soak(load::Arguments),
    /// Measure everything beside HAProxy, nginx and nftables, and write docs/benchmarks.md; or one bench alone
    Bench(load::BenchOptions),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Build(options) => build::run(&options),
        Task::BuildAndLoad(options) => load::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Check => check::run(),
        Task::Fuzz(options) => fuzz::run(&options),
        Task::Dist(options) => dist::run(&options),
        Task::Kernels(options) => kernels::run(&options),
        Task::Chaos(arguments) => load::chaos("chaos", &arguments),
        Task::Soak(arguments) => load::chaos("soak", &arguments),
        Task::Bench(options) => load::bench(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
