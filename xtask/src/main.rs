//! snigate's task runner: what people type, and what CI runs.
//!
//! Each task provisions what it needs first, so that any of them works on a fresh checkout.

mod apt;
mod apt_source;
mod bpf_toolchain;
mod build;
mod process;
mod provision;
mod rust_src;

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
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Build(options) => build::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
