//! What the running kernel makes of the datapath: every program loaded, attached at every hook, and detached again.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::net::if_::if_nametoindex;
use serde_json::{Value, json};
use sni_user::datapath::{AttachMode, Datapath, ReturnHook, attached_interfaces, lacks};

use crate::{Lab, Topology};

const INTERFACES: [&str; 3] = ["wan0", "lan0", "lan1"];
/// As a small gateway has them.
const MAX_FLOWS: u32 = 10_000;

/// Loads and attaches everything in a lab of its own. Returns the kernel's release, its facts about the programs, the hooks, and sentences about what it
/// lacks.
///
/// # Errors
/// The kernel refuses a program or a hook.
pub fn examine() -> Result<Value> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's name")?;
    let topology = Topology {
        capture: false,
        ..Topology::default()
    };
    let lab = Lab::new("kernel", &topology)?;
    let pins = lab.bpffs()?.join("snigate");
    let (programs, attached) = lab.gateway.run(|| {
        let mut datapath = Datapath::load(&pins, MAX_FLOWS)?;
        let attached = attach_everywhere(&mut datapath);
        // All of them, now that each hook has had its own.
        let programs = datapath.facts();
        datapath.remove()?;
        Ok((programs?, attached?))
    })?;
    Ok(json!({
        "kernel": release.trim(),
        "programs": programs,
        "attached": attached,
        "lacks": lacks(),
    }))
}

/// At one hook after the other, as an agent does whose configuration changes, with the classifier of Edges' answers behind; and the socket lookup.
fn attach_everywhere(datapath: &mut Datapath) -> Result<Vec<&'static str>> {
    let mut interfaces = Vec::new();
    for name in INTERFACES {
        let index = if_nametoindex(name).with_context(|| format!("the index of {name}"))?;
        interfaces.push((name.to_owned(), index));
    }
    datapath.dispatch(true)?;
    let mut attached = Vec::new();
    for mode in [
        AttachMode::Xdp,
        AttachMode::XdpGeneric,
        AttachMode::traffic_control(),
    ] {
        datapath.attach(&interfaces, mode)?;
        datapath.attach_return(&interfaces, ReturnHook::beside(mode))?;
        datapath.detach_others(&interfaces, mode)?;
        let seats = attached_interfaces(datapath.maps.pin_path())?;
        ensure!(
            seats.len() == INTERFACES.len() && seats.iter().all(|seat| seat.mode == mode),
            "{seats:?} instead of {mode}"
        );
        attached.push(mode.name());
    }
    Ok(attached)
}
