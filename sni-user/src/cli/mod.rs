//! The command line: nouns with verbs, reading the pinned maps with or without an agent.
//!
//! A command opens the maps (`place` says which), reads what it needs as plain data (`read`), has a pure function make lines of it
//! (`view`), and writes them as a table or as JSON (`table`). What it touches besides is its [`Environment`], so that tests run commands
//! as they are.

mod ask;
mod audit;
mod ca;
mod capture;
mod cert;
mod check;
mod detach;
mod dns;
mod domain;
mod edge;
mod environment;
mod error;
mod flow;
mod hold;
mod log;
mod manual;
mod map;
mod place;
mod plan;
mod read;
mod reload;
mod route;
mod run;
mod service;
mod status;
mod table;
mod top;
mod trace;
mod units;
mod view;
mod watch;

use std::{
    ffi::OsString,
    io::{self, BufWriter},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _};

pub use self::{environment::Environment, error::CliError};

use self::place::Place;
use crate::datapath::Maps;

/// An XDP-accelerated SNI gateway for SIP federation
#[derive(clap::Parser, Debug)]
#[command(
    name = "snigate",
    version,
    disable_help_subcommand = true,
    subcommand_required = true
)]
#[command(after_help = "Exit status: 0 done, 1 failed, 2 wrong usage.")]
struct Cli {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// Run the agent in the foreground: load, attach and configure the datapath, and look after it
    Run(run::Arguments),
    /// Remove what an agent has left behind: attachments, flows, addresses, the waiting connections
    ///
    /// For after `snigate run --leave`, or an agent that was killed. Refused while an agent runs.
    Detach,
    /// Keep the listening socket for the next agent
    #[command(hide = true)]
    Hold(hold::Arguments),
    /// Check the configuration, and whether this host can run it
    Check(check::Arguments),
    /// Have the running agent load everything anew: configuration, certificates
    ///
    /// All of it becomes active at once, or, when something is wrong with it, none. Open connections stay.
    Reload,
    /// Show the state of the datapath and of its agent: flows, tables, counters, drops
    Status(status::Arguments),
    /// Show what happens right now: Edges, pools, routes, flows and drops, by rate
    ///
    /// Connections that the agent carries are in the sums of Edges and routes, and not in the list of flows.
    Top(top::Arguments),
    /// Show every ClientHello as it comes: who asks for which name, and where it goes
    Watch(watch::Arguments),
    /// Write packets to a file that Wireshark reads, each with what became of it: dropped ones, or all
    ///
    /// Packets are shown as they came in. The file is in the format pcapng; a comment of each packet has the drop reason and the Edge.
    Capture(capture::Arguments),
    /// Tell what would happen to a server name or a packet, and why
    #[command(subcommand)]
    Trace(trace::Verb),
    /// Routes: server names and where connections that ask for them go
    #[command(subcommand)]
    Route(route::Verb),
    /// Domains: the SIP domains of the configuration
    #[command(subcommand)]
    Domain(domain::Verb),
    /// Services: public addresses and ports, and what is done with connections to them
    #[command(subcommand)]
    Service(service::Verb),
    /// Edges: the servers behind the gateway
    #[command(subcommand)]
    Edge(edge::Verb),
    /// Flows: client connections and where they go
    #[command(subcommand)]
    Flow(flow::Verb),
    /// Maps: what the datapath goes by, entry by entry
    #[command(subcommand)]
    Map(map::Verb),
    /// Certificates of the configuration: names, issuers, expiry
    #[command(subcommand)]
    Cert(cert::Verb),
    /// Plan certificates, addresses and DNS records for a list of SIP domains
    Plan(Box<plan::Arguments>),
    /// The DNS records by which partners find each domain, as a table or as lines for zone files
    Dns(dns::Arguments),
    /// The private CA behind mirrored identities
    #[command(subcommand)]
    Ca(ca::Verb),
    /// Switch the datapath's diagnostics of every packet on or off
    Log(log::Arguments),
    /// Print completions for a shell
    Completions(manual::Completions),
    /// Print the manual page, or write one page per command
    Man(manual::Man),
}

/// How a read command writes.
#[derive(clap::Args, Clone, Copy, Debug)]
struct Output {
    /// Write JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    // Not locked: `snigate run` logs there from several threads.
    let mut err = io::stderr();
    ExitCode::from(run(
        std::env::args_os(),
        &mut Environment::of_process(&mut out, &mut err),
    ))
}

/// Runs a command; the first argument is the program's name. Returns the exit status: 0 done, 1 failed, 2 usage.
pub fn run<A>(arguments: impl IntoIterator<Item = A>, environment: &mut Environment<'_>) -> u8
where
    A: Into<OsString> + Clone,
{
    let outcome = match Cli::try_parse_from(arguments) {
        Ok(cli) => execute(&cli, environment),
        Err(error) => explain(&error, environment),
    };
    let outcome = outcome.and_then(|status| {
        environment.out.flush()?;
        Ok(status)
    });
    match outcome {
        Ok(status) => status,
        // Whoever read the output has seen enough: `snigate flow ls | head`.
        Err(CliError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            // What was written before the failure comes before the sentence. If neither can be written, the status says it.
            let _ = environment.out.flush();
            if !matches!(error, CliError::Reported) {
                let _ = writeln!(environment.err, "snigate: {error}");
            }
            error.status()
        }
    }
}

fn execute(cli: &Cli, environment: &mut Environment<'_>) -> Result<u8, CliError> {
    let place = &cli.place;
    match &cli.command {
        Command::Run(arguments) => run::run(arguments, place, environment),
        Command::Detach => detach::run(place, environment),
        Command::Hold(arguments) => hold::run(arguments, environment),
        Command::Check(arguments) => check::run(arguments, place, environment),
        Command::Reload => reload::run(place, environment),
        Command::Status(arguments) => status::run(arguments, maps(place), place, environment),
        Command::Top(arguments) => top::run(arguments, maps(place)?, environment),
        Command::Watch(arguments) => watch::run(arguments, place, environment),
        Command::Capture(arguments) => capture::run(arguments, place, environment),
        Command::Trace(verb) => trace::run(verb, place, environment),
        Command::Route(verb) => route::run(verb, place, environment),
        Command::Domain(verb) => domain::run(verb, place, environment),
        Command::Service(verb) => service::run(verb, &maps(place)?, environment),
        Command::Edge(verb) => edge::run(verb, place, environment),
        Command::Flow(verb) => flow::run(verb, &mut maps(place)?, place, environment),
        Command::Map(verb) => map::run(verb, &maps(place)?, environment),
        Command::Cert(verb) => cert::run(verb, place, environment),
        Command::Plan(arguments) => plan::run(arguments, environment),
        Command::Dns(arguments) => dns::run(arguments, place, environment),
        Command::Ca(verb) => ca::run(verb, place, environment),
        Command::Log(arguments) => log::run(arguments, &mut maps(place)?, place, environment),
        Command::Completions(arguments) => {
            manual::completions(arguments, Cli::command(), environment)
        }
        Command::Man(arguments) => manual::man(arguments, Cli::command(), environment),
    }?;
    Ok(0)
}

fn maps(place: &Place) -> Result<Maps, CliError> {
    Ok(Maps::open(&place.pin_path()?)?)
}

/// Help and the version go to standard output and are no failure; the rest is wrong usage.
fn explain(error: &clap::Error, environment: &mut Environment<'_>) -> Result<u8, CliError> {
    if error.use_stderr() {
        write!(environment.err, "{}", error.render())?;
        Ok(2)
    } else {
        write!(environment.out, "{}", error.render())?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests;
