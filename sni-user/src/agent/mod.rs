//! The agent: brings the datapath up as the configuration says, serves inspected connections, keeps true what both rely on, and takes it
//! all down again.
//!
//! `candidate` reads a configuration and its files; `kernel` makes the datapath and the host's network go by it; the proxy takes over when
//! both have succeeded, at the start and at every `reload`. `serve` is the agent's life in between, `control` what it can be asked.

mod acme;
mod binding;
mod candidate;
mod control;
mod cookies;
mod error;
mod events;
mod exposition;
mod files;
mod health;
mod heap;
pub(crate) mod hooks;
mod host;
mod kernel;
mod learn;
pub(crate) mod open_files;
mod reload;
mod revocation;
mod segments;
mod serve;
mod watching;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::TcpListener;

pub use self::error::AgentError;
pub(crate) use self::{
    binding::wanted as binds,
    cookies::{SETTINGS, Setting},
    kernel::{Needs, RETURN},
};

use self::{
    candidate::Candidate,
    exposition::Readers,
    files::{Stamps, Watch},
    kernel::Kernel,
    serve::{Agent, Signals},
};
use crate::{
    config::Config,
    datapath::{Datapath, HandOffs, Maps, Origin, lacks, map_kind},
    hold::{self, Keeper},
    instance::Instance,
    net::{Changes, LocalAddresses, Network, ReturnRoute, host as net_host},
    proxy::{Active, Numbers, Proxy, Uses},
};

/// How `snigate run` was called.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// Leave the datapath and the listener in place when the agent ends.
    pub leave: bool,
    /// Remove what is pinned before starting, whatever its version.
    pub fresh: bool,
    /// Arguments by which this program is a holder.
    pub holder: Vec<OsString>,
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// What keeps the agent from starting; nothing is attached then that was not attached before.
pub async fn run(options: RunOptions) -> Result<(), AgentError> {
    let main = std::path::absolute(&options.config)
        .map_err(|source| AgentError::io("finding the configuration", source))?;
    let mut stamps = Stamps::default();
    let candidate = Candidate::load(&main, &mut Default::default(), None, &mut stamps)?;
    for warning in candidate.warnings() {
        tracing::warn!("{warning}");
    }
    let gateway = &candidate.config.gateway;
    let (major, minor) = net_host::OLDEST_KERNEL;
    net_host::require_kernel(major, minor)?;
    net_host::require_capabilities()?;
    let pin_path = gateway.pin_path.clone();
    net_host::require_bpffs(&pin_path)?;
    let claimed = Instance::claim()
        .map_err(|source| AgentError::io("claiming the network namespace", source))?;
    let Some(_instance) = claimed else {
        return Err(AgentError::AlreadyRunning);
    };
    let signals = Signals::new()?;
    let watch =
        Watch::new().map_err(|source| AgentError::io("listening for changes of files", source))?;
    let mut keeper = Keeper::new(&gateway.control, options.holder);
    let listener = listener(&mut keeper)?;
    let network = Network::new()?;
    // Before the first look at the network, so that no change is missed.
    let changes = Changes::new()?;
    // A configuration that does not fit the host is refused before anything is loaded.
    host::interfaces(&network, &candidate.config).await?;
    if options.fresh {
        // They are noted there.
        cookies::restore(&pin_path)?;
        Datapath::remove_pinned(&pin_path)?;
    }

    let datapath = Datapath::load(&pin_path, gateway.max_flows)?;
    let origin = datapath.origin;
    describe(&datapath, &candidate.config)?;
    let mut kernel = Kernel::new(datapath, network);
    let proxy = match start(candidate, &listener, &mut kernel).await {
        Ok(proxy) => proxy,
        Err(error) => {
            // Adopted state goes on working as before; state made a moment ago is nobody's.
            if origin == Origin::Fresh
                && let Err(left) = kernel.remove().await
            {
                tracing::warn!(%left, "what was made for the refused start can't be removed");
            }
            return Err(error);
        }
    };
    // Whatever happens from here on, flows are more than their agent: only an orderly end takes the datapath away.
    let readers = Readers::open(&kernel.datapath)?;
    let agent = Agent::new(main, proxy, watch, stamps, readers);
    tokio::task::spawn_blocking(heap::trim);
    agent
        .serve(&mut kernel, listener, &mut keeper, changes, signals)
        .await?;
    if options.leave {
        tracing::info!(pin_path = %pin_path.display(), "the agent ends and leaves the datapath in place; flows go on, new ones are steered, and inspected ones wait for the next agent");
    } else {
        // What waits is told so while its address is still there.
        keeper.release();
        kernel.remove().await?;
        tracing::info!("detached: nothing of the datapath is left");
    }
    Ok(())
}

/// Removes what an agent that has ended left behind: the datapath of whatever version, what it added to the host's network, its holder.
///
/// # Errors
/// When an agent runs, or something can't be removed; the rest is removed all the same.
pub async fn detach(pin_path: &Path, control: &Path) -> Result<(), AgentError> {
    let claimed = Instance::claim()
        .map_err(|source| AgentError::io("claiming the network namespace", source))?;
    let Some(_instance) = claimed else {
        return Err(AgentError::AlreadyRunning);
    };
    let held = hold::release(control)
        .map_err(|source| AgentError::io("ending the holder of the listening socket", source));
    let network = Network::new()?;
    let settings = cookies::restore(pin_path);
    let datapath = Datapath::remove_pinned(pin_path);
    let back = ReturnRoute::remove(&network).await;
    let addresses = LocalAddresses::new(network).release().await;
    held?;
    settings?;
    datapath?;
    back?;
    addresses?;
    Ok(())
}

/// The listener of the agent before, with the connections that wait there, or a new one.
fn listener(keeper: &mut Keeper) -> Result<TcpListener, AgentError> {
    if let Some((from, left)) = keeper.inherited() {
        match Proxy::adopt(left) {
            Ok(listener) => {
                tracing::info!(
                    from,
                    "took over the listening socket of the agent before, with the connections that wait there"
                );
                return Ok(listener);
            }
            Err(reason) => tracing::warn!(
                from,
                %reason,
                "the listening socket of the agent before can't be taken over: connections that wait there are lost, and a new one takes its place"
            ),
        }
    }
    Proxy::listener()
        .map_err(|source| AgentError::io("listening for inspected connections", source))
}

/// Says what was found.
fn describe(datapath: &Datapath, config: &Config) -> Result<(), AgentError> {
    let gateway = &config.gateway;
    if datapath.origin == Origin::Adopted {
        let room = map_kind(&gateway.pin_path, "FLOWS", "")?.max_entries / 2;
        if room != gateway.max_flows {
            tracing::warn!(
                room,
                max_flows = gateway.max_flows,
                "the adopted flow table keeps its size; `snigate run --fresh` makes a new one, without the flows"
            );
        }
        tracing::info!(pin_path = %gateway.pin_path.display(), "adopted the datapath that an earlier agent left");
    }
    for lack in lacks() {
        tracing::warn!("{lack}");
    }
    Ok(())
}

/// Makes the first configuration the active one, everywhere.
async fn start(
    candidate: Candidate,
    listener: &TcpListener,
    kernel: &mut Kernel,
) -> Result<Arc<Proxy>, AgentError> {
    let address = listener.local_addr();
    let address = address
        .map_err(|source| AgentError::io("asking where the listener is bound to", source))?;
    // What an earlier agent announced stays, so that known names are bound meanwhile.
    let maps = &kernel.datapath.maps;
    kernel.binding.introduce(maps, address.port()).await;
    kernel.datapath.serve_listener(listener)?;
    let activated = kernel.apply(&candidate.config, None).await?;
    kernel.retire_former(&activated);
    kernel.settle(&candidate.config, &Uses::default()).await;
    tracing::info!(
        generation = activated.generation,
        services = activated.services,
        edges = activated.edges,
        names = activated.names,
        "configuration active"
    );
    for facts in kernel.datapath.facts()? {
        tracing::debug!(
            program = facts.name,
            verified_instructions = facts.verified_instructions,
            "the kernel took the datapath"
        );
    }
    let pin_path = candidate.config.gateway.pin_path.clone();
    let (learned, hand_offs) = (Maps::open(&pin_path)?, HandOffs::open(&pin_path)?);
    // Those of an agent that was killed: nobody has their sockets.
    hand_offs.forget_all()?;
    let Candidate { config, tls, .. } = candidate;
    let active = Active::new(config, tls, Numbers::from(&activated), &Default::default());
    let (proxy, lessons) = Proxy::new(active, hand_offs);
    let segments = kernel.segments(&proxy.active().config).await;
    proxy.limit_segments(segments.map_or(0, |segments| segments.limit));
    learn::start(lessons, learned);
    Ok(proxy)
}
