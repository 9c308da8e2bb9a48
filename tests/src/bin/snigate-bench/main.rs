//! Measures what needs the kernel: the datapath, and the agent in the lab.

mod datapath;
mod idle;
mod passed;
mod proxy;
mod whole;

use std::io::Write as _;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

/// snigate's benches.
#[derive(Debug, Parser)]
#[command(name = "snigate-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Nanoseconds of a packet, by class and by the number of flows, through BPF_PROG_TEST_RUN.
    Datapath(datapath::Options),
    /// Handshakes, throughput and latency of inspected connections, beside HAProxy and nginx.
    Proxy(proxy::Options),
    /// Setting passed connections up, and the CPU of it: binding, hand-off, relay, HAProxy, nginx, routing.
    Setup(passed::Options),
    /// Latency, messages, throughput and CPU of passed connections once they stand: hand-off, relay, HAProxy, nginx, routing.
    Relay(passed::Options),
    /// Memory and sockets of silent connections: hand-off, relay, HAProxy, nginx.
    Idle(idle::Options),
    /// All of these in one go, and the document of it.
    All(whole::Options),
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let measures = match &arguments.command {
        Command::All(options) => options.measures(),
        _ => true,
    };
    ensure!(
        !measures || nix::unistd::geteuid().is_root(),
        "the bench loads the datapath into the kernel and needs root: run `sudo -E env \"PATH=$PATH\" cargo xtask bench ...`"
    );
    match arguments.command {
        Command::Datapath(options) => datapath::run(&options),
        Command::Proxy(options) => proxy::run(&options),
        Command::Setup(options) => passed::set_up(&options),
        Command::Relay(options) => passed::relay(&options),
        Command::Idle(options) => idle::run(&options),
        Command::All(options) => whole::run(&options),
    }
}

/// One line on standard error that is written over and over; gone at the end.
fn progress(what: &str) {
    eprint!("\r\x1b[K{what}");
    // Progress that nobody can see is no reason to stop.
    let _ = std::io::stderr().flush();
}

fn kernel() -> String {
    nix::sys::utsname::uname().map_or_else(
        |error| format!("of a version that it does not tell ({error})"),
        |name| name.release().to_string_lossy().into_owned(),
    )
}
