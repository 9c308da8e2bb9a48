//! The agent: brings the datapath up as the configuration says, keeps true what it relies on, and takes it down again.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
};

use sni_common::{
    contract::{DropReason, Event, EventKind, LabelKind},
    expiry::Timeouts,
};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
};

use crate::{
    config::{self, Config, Diagnostics},
    datapath::{
        Activated, Datapath, DatapathError, EventStream, LogStream, Maps, Origin, Tables, map_kind,
    },
    instance::Instance,
    neighbours::{Neighbours, NextHopAddress},
    net::{Changes, NetError, Network, host, vlan_links},
    sweeper::Sweeper,
};

/// How `snigate run` was called.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// Leave the datapath in place when the agent ends.
    pub leave: bool,
    /// Remove what is pinned before starting, whatever its version.
    pub fresh: bool,
}

/// Why the agent can't run, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration is wrong.
    #[error(transparent)]
    Configuration(#[from] Diagnostics),
    /// The datapath.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The host's network.
    #[error(transparent)]
    Network(#[from] NetError),
    /// The host itself.
    #[error(transparent)]
    Host(#[from] host::HostError),
    /// Somebody else is at it.
    #[error(
        "another agent runs on {pin_path}: stop it first, or set `gateway.pin_path` to another place"
    )]
    AlreadyRunning {
        /// The pin path.
        pin_path: String,
    },
    /// A refusal of the operating system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// What keeps the agent from starting; nothing is attached then that was not attached before.
pub async fn run(options: RunOptions) -> Result<(), AgentError> {
    let loaded = Config::load(&options.config)?;
    for warning in loaded.warnings.iter() {
        tracing::warn!("{warning}");
    }
    let config = loaded.config;
    let (major, minor) = host::OLDEST_KERNEL;
    host::require_kernel(major, minor)?;
    host::require_capabilities()?;
    let pin_path = &config.gateway.pin_path;
    host::require_bpffs(pin_path)?;
    let claimed = Instance::claim(pin_path).map_err(|source| AgentError::Io {
        what: "claiming the pin path for this agent",
        source,
    })?;
    let Some(_instance) = claimed else {
        return Err(AgentError::AlreadyRunning {
            pin_path: pin_path.display().to_string(),
        });
    };
    let network = Network::new()?;
    // Before the first look at the network, so that no change is missed.
    let changes = Changes::new()?;
    let interfaces = interfaces(&network, &config).await?;
    if options.fresh {
        Datapath::remove_pinned(pin_path)?;
    }

    let mut datapath = Datapath::load(pin_path, config.gateway.max_flows)?;
    if let Err(error) = start(&mut datapath, &network, &config, &interfaces).await {
        // Adopted state goes on working as before; state made a moment ago is nobody's.
        if datapath.origin == Origin::Fresh {
            datapath.remove()?;
        }
        return Err(error);
    }
    // Whatever happens from here on, flows are more than their agent: only an orderly end takes the datapath away.
    serve(&mut datapath, network, changes, &config, interfaces).await?;
    if options.leave {
        tracing::info!(pin_path = %pin_path.display(), "the agent ends and leaves the datapath in place; flows go on, new ones are steered");
    } else {
        datapath.remove()?;
        tracing::info!("detached: nothing of the datapath is left");
    }
    Ok(())
}

/// An interface of the configuration, as the host has it: name and index.
type AttachTo = (String, u32);

async fn interfaces(network: &Network, config: &Config) -> Result<Vec<AttachTo>, AgentError> {
    let addresses = || config.ip_sets.iter().flat_map(|set| &set.addresses);
    let mut found = Vec::new();
    for name in &config.gateway.interfaces {
        let interface = network.interface(name).await?;
        // The route lookup in the datapath refuses packets of interfaces that don't forward.
        if addresses().any(IpAddr::is_ipv4) {
            host::require_forwarding(name, host::Family::V4)?;
        }
        if addresses().any(IpAddr::is_ipv6) {
            host::require_forwarding(name, host::Family::V6)?;
        }
        found.push((name.clone(), interface.index));
    }
    Ok(found)
}

/// Makes the configuration the active one, and attaches.
async fn start(
    datapath: &mut Datapath,
    network: &Network,
    config: &Config,
    interfaces: &[AttachTo],
) -> Result<(), AgentError> {
    if datapath.origin == Origin::Adopted {
        let room = map_kind(&config.gateway.pin_path, "FLOWS", "")?.max_entries / 2;
        if room != config.gateway.max_flows {
            tracing::warn!(
                room,
                max_flows = config.gateway.max_flows,
                "the adopted flow table keeps its size; `snigate run --fresh` makes a new one, without the flows"
            );
        }
        tracing::info!(pin_path = %config.gateway.pin_path.display(), "adopted the datapath that an earlier agent left");
    }
    let facts = datapath.facts()?;
    tracing::debug!(
        verified_instructions = facts.verified_instructions,
        "the kernel took the datapath"
    );
    refresh_links(&mut datapath.maps, network, interfaces).await?;
    let Activated {
        generation,
        services,
        edges,
        ..
    } = activate(&mut datapath.maps, network, config).await?;
    tracing::info!(generation, services, edges, "configuration active");

    attach(datapath, config, interfaces)
}

/// Attaches where the datapath is not attached yet, and detaches where it has no business any longer.
fn attach(
    datapath: &mut Datapath,
    config: &Config,
    interfaces: &[AttachTo],
) -> Result<(), AgentError> {
    for attached in datapath.attach(interfaces, config.gateway.hook)? {
        let interface = attached.interface;
        match attached.mode {
            Some(mode) => tracing::info!(%interface, ?mode, "attached"),
            None => {
                tracing::info!(%interface, "took the place of the program that was attached, in its mode")
            }
        }
    }
    for interface in datapath.detach_others(interfaces)? {
        tracing::info!(%interface, "detached from an interface that is gone or no longer configured");
    }
    Ok(())
}

async fn activate(
    maps: &mut Maps,
    network: &Network,
    config: &Config,
) -> Result<Activated, AgentError> {
    let gateway_mode = |edge: &&config::Edge| edge.source == config::SourceMode::Gateway;
    let mut own = HashMap::new();
    for edge in config.edges.iter().filter(gateway_mode) {
        let address = match network.route_to(edge.address.ip(), None).await {
            Ok(route) => route
                .source
                .ok_or_else(|| "the route there gives no address of the gateway's own".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        own.insert(edge.address.ip(), address);
    }
    let ports = if own.is_empty() {
        (0, 0)
    } else {
        host::owned_ports()?
    };
    let tables = Tables::new(config, ports, |edge| own_address(&own, edge.address.ip()))?;
    Ok(tables.activate(maps)?)
}

fn own_address(
    own: &HashMap<IpAddr, Result<IpAddr, String>>,
    edge: IpAddr,
) -> Result<IpAddr, String> {
    own.get(&edge)
        .cloned()
        .unwrap_or_else(|| Err("its route was not looked up".to_owned()))
}

/// VLAN interfaces that routes may name: frames for them leave tagged by what carries them. Returns every interface that frames can leave by.
async fn refresh_links(
    maps: &mut Maps,
    network: &Network,
    attached: &[AttachTo],
) -> Result<Vec<u32>, AgentError> {
    let mut indices: Vec<_> = attached.iter().map(|(_, index)| *index).collect();
    let links = vlan_links(&network.interfaces().await?, &indices);
    let known: HashSet<u32> = links.iter().map(|(index, _)| *index).collect();
    for (index, link) in links {
        maps.links
            .insert(index, link, 0)
            .map_err(|e| DatapathError::map("LINKS", e))?;
    }
    let gone: Vec<_> = maps
        .links
        .keys()
        .filter_map(Result::ok)
        .filter(|index| !known.contains(index))
        .collect();
    for index in gone {
        maps.links
            .remove(&index)
            .map_err(|e| DatapathError::map("LINKS", e))?;
    }
    indices.extend(known);
    Ok(indices)
}

/// The agent's life: sweeps, events, changes of the host's network, until a signal.
async fn serve(
    datapath: &mut Datapath,
    network: Network,
    mut changes: Changes,
    config: &Config,
    mut interfaces: Vec<AttachTo>,
) -> Result<(), AgentError> {
    let io = |what| move |source| AgentError::Io { what, source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(io("waiting for SIGINT"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(io("waiting for SIGTERM"))?;
    let idle_ns = u64::try_from(config.gateway.idle_timeout.as_nanos()).unwrap_or(u64::MAX);
    let _sweeper = Sweeper::start(
        Maps::open(&config.gateway.pin_path)?,
        Timeouts::with_idle(idle_ns),
    );
    let mut events: EventStream = datapath.events()?;
    let mut log: LogStream = datapath.log()?;
    let leave_by = refresh_links(&mut datapath.maps, &network, &interfaces).await?;
    let mut neighbours = Neighbours::new(network, leave_by);
    neighbours.keep_edges(&config.edges).await;
    let mut wanted = HashSet::new();
    tracing::info!("ready");
    loop {
        select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            read = events.next(|event| take(event, &datapath.maps, &mut wanted)) => read?,
            read = log.next() => read?,
            change = changes.next() => {
                let change = change?;
                tracing::debug!(?change, "the host's network changed");
                if change.links
                    && let Err(error) = follow(datapath, &mut neighbours, config, &mut interfaces).await
                {
                    tracing::error!(%error, "the datapath can't follow the change of interfaces; it stays as it is until the next one");
                }
                if change.links || change.routes || change.addresses {
                    neighbours.keep_edges(&config.edges).await;
                } else if change.neighbours {
                    neighbours.mend().await;
                }
            }
        }
        neighbours.resolve(wanted.drain()).await;
    }
}

/// Interfaces have come, gone or changed: attaches to those that were made anew under their names, and learns the VLAN interfaces.
async fn follow(
    datapath: &mut Datapath,
    neighbours: &mut Neighbours,
    config: &Config,
    interfaces: &mut Vec<AttachTo>,
) -> Result<(), AgentError> {
    let now = self::interfaces(neighbours.network(), config).await?;
    if now != *interfaces {
        attach(datapath, config, &now)?;
        *interfaces = now;
    }
    let leave_by = refresh_links(&mut datapath.maps, neighbours.network(), interfaces).await?;
    neighbours.leave_by(leave_by);
    Ok(())
}

fn take(event: Event, maps: &Maps, wanted: &mut HashSet<NextHopAddress>) {
    let key = &event.key;
    let (source, destination) = (IpAddr::from(key.source), IpAddr::from(key.destination));
    let (source_port, destination_port) = (
        u16::from_be(key.source_port_be),
        u16::from_be(key.destination_port_be),
    );
    match EventKind::try_from(event.kind) {
        Ok(EventKind::NeighbourWanted) => {
            wanted.insert((event.ifindex, destination));
        }
        Ok(EventKind::Dropped) => {
            let reason = DropReason::try_from(event.reason);
            let (name, sentence) = reason.map_or(
                ("unknown", "A reason that this version does not know."),
                |reason| (reason.name(), reason.sentence()),
            );
            tracing::warn!(reason = name, %source, source_port, %destination, destination_port, "dropped (sampled): {sentence}");
        }
        Ok(kind) if tracing::enabled!(tracing::Level::DEBUG) => {
            let edge = maps
                .label(LabelKind::Edge, 0, event.edge)
                .unwrap_or_default();
            tracing::debug!(%kind, %source, source_port, %destination, destination_port, edge, "flow");
        }
        Ok(_) => {}
        Err(unknown) => {
            tracing::warn!(%unknown, "an event of a kind that this version does not know")
        }
    }
}
