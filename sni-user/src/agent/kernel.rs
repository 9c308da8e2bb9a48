//! The kernel's part: the datapath, and what the host's network needs so that inspected connections reach the agent and its own reach the
//! Edges.

use std::net::IpAddr;

use sni_common::contract::TRANSPARENT_MARK;

use super::{
    AgentError,
    binding::Binding,
    hooks::Choice,
    host::{self, AttachTo},
    segments::Segments,
};
use crate::{
    config::{Config, Hook, Mode, SourceMode},
    control::AttachedInterface,
    datapath::{Activated, AttachMode, Datapath, ReturnHook},
    kill_point::KillPoint,
    neighbours::Neighbours,
    net::{Change, LocalAddresses, Network, Placed, ReturnRoute, host as net_host},
    proxy::Uses,
};

/// The way back to transparent sockets. The rule comes before everybody's own ones, and applies to nobody else's packets.
pub(crate) const RETURN: ReturnRoute = ReturnRoute {
    mark: TRANSPARENT_MARK,
    table: 5061,
    priority: 100,
};

/// Everything in the kernel that the agent has made, and keeps as its configuration says.
pub(super) struct Kernel {
    pub(super) datapath: Datapath,
    pub(super) neighbours: Neighbours,
    pub(super) binding: Binding,
    network: Network,
    addresses: LocalAddresses,
    interfaces: Vec<AttachTo>,
    /// At which hook the datapath is attached to them.
    choice: Option<Choice>,
    /// Interfaces that frames can leave by: `interfaces`, and VLANs on top of them.
    leave_by: Vec<u32>,
    /// Something is there for open connections only, or could not be removed.
    leftovers: bool,
    /// Addresses that only open connections need.
    lingering: Vec<IpAddr>,
}

/// What a configuration needs for its inspected connections.
pub(crate) struct Needs {
    /// Addresses that must be the host's own.
    addresses: Vec<IpAddr>,
    /// Whether there are any that the configuration asks for.
    pub(crate) inspects: bool,
    /// Whether the agent connects to Edges with clients' addresses.
    pub(crate) transparent: bool,
}

impl Needs {
    pub(crate) fn of(config: &Config) -> Self {
        let inspected = |mode: &Mode| matches!(mode, Mode::Inspect { .. });
        let sets = config.ip_sets.iter().filter(|set| inspected(&set.mode));
        let addresses: Vec<_> = sets.flat_map(|set| set.addresses.clone()).collect();
        let preserves = |edge: &crate::config::Edge| edge.source == SourceMode::Preserve;
        Self {
            inspects: !addresses.is_empty(),
            transparent: !addresses.is_empty() && config.edges.iter().any(preserves),
            addresses,
        }
    }

    /// And what open connections need.
    fn with(mut self, uses: &Uses) -> Self {
        for address in &uses.addresses {
            if !self.addresses.contains(address) {
                self.addresses.push(*address);
            }
        }
        self.transparent |= uses.transparent;
        self
    }
}

impl Kernel {
    pub(super) fn new(datapath: Datapath, network: Network) -> Self {
        Self {
            datapath,
            neighbours: Neighbours::new(network.clone(), Vec::new()),
            binding: Binding::new(),
            addresses: LocalAddresses::new(network.clone()),
            network,
            interfaces: Vec::new(),
            choice: None,
            leave_by: Vec::new(),
            leftovers: false,
            lingering: Vec::new(),
        }
    }

    /// Makes everything go by `config`, or leaves it all as it was `before`. What is needed no longer stays until [`Kernel::settle`].
    pub(super) async fn apply(
        &mut self,
        config: &Config,
        before: Option<(&Config, &Uses)>,
    ) -> Result<Activated, AgentError> {
        let applied = self
            .try_apply(config, before.map(|(before, _)| before))
            .await;
        // Whoever starts takes everything back, or adopted a datapath that has its configuration.
        if let (Err(_), Some((before, uses))) = (&applied, before) {
            let interfaces = self.interfaces.clone();
            if let Err(error) = self.attach(&interfaces, before.gateway.hook) {
                tracing::error!(%error, "the datapath is not attached as before");
            }
            self.settle(before, uses).await;
        }
        applied
    }

    /// Removes the configuration from before the one that became active: after the proxy goes by that one, too, so that datapath and proxy differ for
    /// as short as can be.
    pub(super) fn retire_former(&mut self, activated: &Activated) {
        // Thousands of system calls, and a pause: other tasks go on elsewhere.
        tokio::task::block_in_place(|| self.datapath.maps.retire_former(activated));
    }

    /// First what is missing, which disturbs nobody; then the flip.
    async fn try_apply(
        &mut self,
        config: &Config,
        before: Option<&Config>,
    ) -> Result<Activated, AgentError> {
        let interfaces = host::interfaces(&self.network, config).await?;
        let choice = self.attach(&interfaces, config.gateway.hook)?;
        let mut both = self.interfaces.clone();
        both.extend(
            interfaces
                .iter()
                .filter(|it| !self.interfaces.contains(it))
                .cloned(),
        );
        let leave_by = host::learn_links(&mut self.datapath.maps, &self.network, &both).await?;
        let needs = Needs::of(config);
        let mut addresses = before.map_or_else(Vec::new, |before| Needs::of(before).addresses);
        addresses.extend(&needs.addresses);
        // What open connections still use of earlier ones is not to be removed here either.
        addresses.extend(&self.lingering);
        self.make_local(&addresses, &leave_by).await?;
        if needs.transparent {
            self.lead_back(&both).await?;
        }
        if needs.inspects {
            self.datapath.dispatch(true)?;
            self.watch_answers(&both, choice.mode)?;
        }
        KillPoint::ReloadPrepared.pass();
        let activated = host::activate(&mut self.datapath.maps, &self.network, config).await?;
        self.interfaces = interfaces;
        self.choice = Some(choice);
        Ok(activated)
    }

    /// Attaches where the datapath is not attached yet, at the hook of choice. What is attached at another hook stays for now.
    fn attach(&mut self, interfaces: &[AttachTo], hook: Hook) -> Result<Choice, AgentError> {
        let names: Vec<_> = interfaces.iter().map(|(name, _)| name.clone()).collect();
        // What was refused once is not asked for again whenever an interface changes.
        let known = self.choice.clone();
        let mut choice = known
            .filter(|choice| choice.is_for(hook, names.iter()))
            .unwrap_or_else(|| Choice::new(hook, &names));
        loop {
            let error = match self.datapath.attach(interfaces, choice.mode) {
                Ok(attached) => {
                    for one in attached {
                        if let Some(seat) = choice.of_interface(&one.interface) {
                            tracing::info!("attached to {seat}");
                        }
                    }
                    return Ok(choice);
                }
                Err(error) => error,
            };
            match choice.next(&error) {
                Some(next) => {
                    tracing::warn!(%error, "attaching at another hook: {}", next.mode);
                    choice = next;
                }
                None => return Err(error.into()),
            }
        }
    }

    /// Where the datapath sits, and why.
    pub(super) fn attached(&self) -> Vec<AttachedInterface> {
        self.choice.iter().flat_map(Choice::attached).collect()
    }

    fn mode(&self) -> AttachMode {
        let choice = self.choice.as_ref();
        choice.map_or(AttachMode::Xdp, |choice| choice.mode)
    }

    async fn make_local(
        &mut self,
        addresses: &[IpAddr],
        interfaces: &[u32],
    ) -> Result<(), AgentError> {
        let kept = self.addresses.keep(addresses, interfaces).await?;
        for Placed { address, ifindex } in &kept.added {
            tracing::info!(%address, ifindex, "an inspected address was made local");
        }
        for Placed { address, ifindex } in &kept.removed {
            tracing::info!(%address, ifindex, "an address that was made local is removed");
        }
        Ok(())
    }

    /// Edges' answers to the agent's transparent sockets.
    async fn lead_back(&mut self, interfaces: &[AttachTo]) -> Result<(), AgentError> {
        let added = RETURN.install(&self.network).await?.added;
        for piece in &added {
            tracing::info!("for Edges with `source = \"preserve\"`: {piece}");
        }
        for (name, _) in interfaces.iter().filter(|_| !added.is_empty()) {
            if let Some(note) = net_host::source_mark_note(name)? {
                tracing::warn!("{note}");
            }
        }
        Ok(())
    }

    /// Packets to the agent's sockets: those of Edges to transparent ones are marked, and those that come too late are dropped.
    fn watch_answers(
        &mut self,
        interfaces: &[AttachTo],
        mode: AttachMode,
    ) -> Result<(), AgentError> {
        Ok(self
            .datapath
            .attach_return(interfaces, ReturnHook::beside(mode))?)
    }

    /// Removes what neither the configuration nor an open connection needs. Trouble is said, and does no harm beyond that.
    pub(super) async fn settle(&mut self, config: &Config, uses: &Uses) {
        self.remove_needless(config, uses).await;
        self.neighbours.leave_by(self.leave_by.clone());
        self.neighbours.keep_edges(&config.edges).await;
    }

    async fn remove_needless(&mut self, config: &Config, uses: &Uses) {
        if let Err(error) = self.try_remove_needless(config, uses).await {
            self.leftovers = true;
            tracing::warn!(%error, "something that is needed no longer can't be removed; it is tried again");
        }
    }

    async fn try_remove_needless(
        &mut self,
        config: &Config,
        uses: &Uses,
    ) -> Result<(), AgentError> {
        let own = Needs::of(config);
        let needs = Needs::of(config).with(uses);
        // What `with` adds comes last.
        self.lingering = needs.addresses[own.addresses.len()..].to_vec();
        self.leftovers = !self.lingering.is_empty() || needs.transparent != own.transparent;
        self.detach_others()?;
        self.datapath.dispatch(own.inspects)?;
        self.leave_by =
            host::refresh_links(&mut self.datapath.maps, &self.network, &self.interfaces).await?;
        let interfaces = self.interfaces.clone();
        let watched = own.inspects || needs.transparent;
        self.watch_answers(if watched { &interfaces } else { &[] }, self.mode())?;
        if needs.transparent {
            self.lead_back(&interfaces).await?;
        } else {
            ReturnRoute::remove(&self.network).await?;
        }
        let leave_by = self.leave_by.clone();
        self.make_local(&needs.addresses, &leave_by).await
    }

    /// Connections may have ended that needed what the configuration does not need.
    pub(super) async fn clear_leftovers(&mut self, config: &Config, uses: &Uses) {
        if self.leftovers {
            self.remove_needless(config, uses).await;
        }
    }

    fn detach_others(&mut self) -> Result<(), AgentError> {
        for gone in self.datapath.detach_others(&self.interfaces, self.mode())? {
            tracing::info!(
                interface = gone.interface,
                hook = gone.mode.name(),
                "detached where it is gone or no longer wanted"
            );
        }
        Ok(())
    }

    /// The host's network has changed: what the configuration needs is brought back.
    pub(super) async fn follow(&mut self, change: Change, config: &Config, uses: &Uses) {
        if change.links
            && let Err(error) = self.follow_links(config).await
        {
            tracing::error!(%error, "the datapath can't follow the change of interfaces; it stays as it is until the next one");
        }
        if let Err(error) = self.repair(change, config, uses).await {
            tracing::error!(%error, "what inspected connections need of the host's network is not complete; it is tried again with the next change");
        }
        if change.links || change.routes || change.addresses {
            self.neighbours.keep_edges(&config.edges).await;
        } else if change.neighbours {
            self.neighbours.mend().await;
        }
    }

    /// Attaches to interfaces that were made anew under their names, and learns the VLAN interfaces.
    async fn follow_links(&mut self, config: &Config) -> Result<(), AgentError> {
        let now = host::interfaces(&self.network, config).await?;
        let choice = self.attach(&now, config.gateway.hook)?;
        self.interfaces = now;
        self.choice = Some(choice);
        self.detach_others()?;
        self.leave_by =
            host::refresh_links(&mut self.datapath.maps, &self.network, &self.interfaces).await?;
        self.neighbours.leave_by(self.leave_by.clone());
        Ok(())
    }

    async fn repair(
        &mut self,
        change: Change,
        config: &Config,
        uses: &Uses,
    ) -> Result<(), AgentError> {
        let needs = Needs::of(config).with(uses);
        if change.addresses || change.links {
            let leave_by = self.leave_by.clone();
            self.make_local(&needs.addresses, &leave_by).await?;
        }
        let interfaces = self.interfaces.clone();
        if change.links && (needs.inspects || needs.transparent) {
            self.watch_answers(&interfaces, self.mode())?;
        }
        if needs.transparent && (change.routes || change.links) {
            self.lead_back(&interfaces).await?;
        }
        Ok(())
    }

    /// How large segments may be; none where it is not known.
    pub(super) async fn segments(&self, config: &Config) -> Option<Segments> {
        let interfaces = match self.network.interfaces().await {
            Ok(interfaces) => interfaces,
            Err(error) => {
                tracing::debug!(%error, "the MTU toward the Edges is not known");
                return None;
            }
        };
        let mtu = |index: u32| {
            let interface = interfaces.iter().find(|interface| interface.index == index);
            interface.map(|interface| interface.mtu)
        };
        let mut to_edges = Vec::new();
        for edge in &config.edges {
            // An Edge that can't be reached gets no connections.
            if let Ok(route) = self.network.route_to(edge.address.ip(), None).await {
                to_edges.extend(mtu(route.ifindex));
            }
        }
        let attached = self.interfaces.iter().filter_map(|(_, index)| mtu(*index));
        Segments::new(to_edges.into_iter(), attached)
    }

    /// Has the datapath bind what `config` says, beside the listener that is bound to `port`.
    pub(super) async fn bind(&mut self, port: u16, config: &Config, segments: Option<Segments>) {
        let maps = &mut self.datapath.maps;
        self.binding.follow(maps, port, config, segments).await;
    }

    /// Removes everything.
    pub(super) async fn remove(mut self) -> Result<(), AgentError> {
        // All of it, whatever becomes of the parts. What the settings were is noted in the datapath.
        let settings = self.binding.end(&mut self.datapath.maps);
        let datapath = self.datapath.remove();
        let back = ReturnRoute::remove(&self.network).await;
        let addresses = self.addresses.release().await;
        settings?;
        datapath?;
        back?;
        addresses?;
        Ok(())
    }
}
