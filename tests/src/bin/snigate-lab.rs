//! Brings the lab up by hand.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use snigate_tests::{Lab, Tags, Topology, demo, kernel, leftovers};

/// The snigate lab: a partner, a gateway and two Edges in network namespaces.
#[derive(Debug, Parser)]
#[command(name = "snigate-lab")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the lab, say how to look around, and remove it on Ctrl-C.
    Up {
        /// Return at once and leave the lab until `snigate-lab down`.
        #[arg(long)]
        keep: bool,
        /// Put the partner's link into this VLAN.
        #[arg(long, value_name = "ID")]
        vlan: Option<u16>,
        /// Put a router with this MTU before edge-a.
        #[arg(long, value_name = "MTU")]
        router_mtu: Option<u32>,
    },
    /// Show the main job: mutual TLS from the partner, through the gateway, to the Edge of each IP set.
    Demo {
        /// Leave the lab, the agent and the Edges running until `snigate-lab down`.
        #[arg(long)]
        keep: bool,
        /// Where the datapath is attached.
        #[arg(long, default_value = "xdp", value_parser = hook)]
        hook: &'static str,
    },
    /// Load and attach every program of the datapath at every hook, and print as JSON what this kernel makes of them.
    Kernel,
    /// Remove the labs that were kept, and what dead processes left behind.
    Down,
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Up {
            keep,
            vlan,
            router_mtu,
        } => up(
            &Topology {
                wan_tags: vlan.map_or(Tags::None, Tags::Vlan),
                router_mtu,
                capture: false,
                ..Topology::default()
            },
            keep,
        ),
        Command::Demo { keep, hook } => demo::run(keep, hook),
        Command::Kernel => kernel(),
        Command::Down => down(),
    }
}

/// A value of `gateway.hook` that the lab's links are made for.
fn hook(name: &str) -> Result<&'static str> {
    const HOOKS: [&str; 2] = ["xdp", "tcx"];
    let known = HOOKS.into_iter().find(|known| *known == name);
    known.with_context(|| format!("it is one of {}", HOOKS.join(", ")))
}

fn kernel() -> Result<()> {
    let report = kernel::examine()?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn up(topology: &Topology, keep: bool) -> Result<()> {
    let lab = Lab::new("up", topology)?;
    println!("{}", lab.guide());
    if keep {
        println!("It stays until `snigate-lab down`.");
        return lab.keep();
    }
    println!("Ctrl-C removes it.");
    std::io::stdout().flush()?;
    // The thread that the lab has installed for signals removes it and ends the process.
    loop {
        std::thread::park();
    }
}

fn down() -> Result<()> {
    let mut removed = leftovers::remove_kept()?;
    removed.extend(leftovers::remove_orphans()?);
    if removed.is_empty() {
        println!("No lab was left.");
    }
    for lab in removed {
        println!("Removed {lab}.");
    }
    Ok(())
}
