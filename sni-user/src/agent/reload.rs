//! A new configuration while the agent runs: as a whole, or not at all.

use std::time::Instant;

use super::{
    AgentError,
    candidate::Candidate,
    control::{Change, refusal, remembered},
    heap,
    kernel::Kernel,
    serve::Agent,
};
use crate::{
    config::{Config, Name, ServerName},
    control::{Refusal, RefusalKind, Reloaded, RouteAdded, RouteRemoved, domains},
    datapath::Activated,
    kill_point::KillPoint,
    proxy::{Active, Numbers},
    service_manager,
};

impl Agent {
    /// Does what was asked. Whoever has asked may have gone; it is done all the same.
    pub(super) async fn answer(&mut self, kernel: &mut Kernel, request: Change) {
        match request {
            Change::Reload(answer) => drop(answer.send(self.reload(kernel).await)),
            Change::AddRoute(name, pool, answer) => {
                drop(answer.send(self.add_route(kernel, name, pool).await));
            }
            Change::RemoveRoute(name, answer) => {
                drop(answer.send(self.remove_route(kernel, name).await));
            }
            Change::DrainEdge(name, answer) => {
                let (maps, active) = (&mut kernel.datapath.maps, self.active());
                drop(answer.send(self.health.drain(&name, maps, &active)));
            }
            Change::EnableEdge(name, answer) => {
                let (maps, active) = (&mut kernel.datapath.maps, self.active());
                drop(answer.send(self.health.enable(&name, maps, &active)));
            }
            Change::AddDomain(domain, answer) => {
                let main = self.main.clone();
                let changed = domains::add(&main, &domain, || self.reload(kernel)).await;
                self.forget_own_change(changed.is_err());
                drop(answer.send(changed.map_err(Refusal::from)));
            }
            Change::RemoveDomain(sip_domain, answer) => {
                let main = self.main.clone();
                let changed = domains::remove(&main, &sip_domain, || self.reload(kernel)).await;
                self.forget_own_change(changed.is_err());
                drop(answer.send(changed.map_err(Refusal::from)));
            }
        }
    }

    /// A change that was taken back leaves files as they were, but for their times.
    fn forget_own_change(&mut self, taken_back: bool) {
        if taken_back {
            self.stamps = self.stamps.anew();
        }
    }

    /// A reload that nobody waits for.
    pub(super) async fn reload_and_say(&mut self, kernel: &mut Kernel, why: &'static str) {
        tracing::info!(why, "loading the configuration anew");
        // What comes of it is in the log.
        let _ = self.reload(kernel).await;
    }

    /// Loads everything anew, and makes it active as a whole or not at all.
    async fn reload(&mut self, kernel: &mut Kernel) -> Result<Reloaded, Refusal> {
        service_manager::reloading();
        let reloaded = self.try_reload(kernel).await;
        tokio::task::spawn_blocking(heap::trim);
        if let Err(error) = &reloaded {
            for line in error.to_string().lines() {
                tracing::error!(
                    "the configuration is not taken, what was active stays active: {line}"
                );
            }
            self.facts().refused = Some(remembered(error));
            // Files that only the refused one names are waited for as well.
            self.listen_on();
        }
        service_manager::ready();
        reloaded.map_err(|error| refusal(&self.main, &error))
    }

    async fn try_reload(&mut self, kernel: &mut Kernel) -> Result<Reloaded, AgentError> {
        let began = Instant::now();
        let before = self.active();
        let mut live = self.live.clone();
        let candidate = tokio::task::block_in_place(|| {
            let stamps = &mut self.stamps;
            Candidate::load(&self.main, &mut live, Some(&before.tls), stamps)
        })?;
        candidate.check_change(&before.config.gateway)?;
        KillPoint::ReloadLoaded.pass();
        let warnings = candidate.warnings();
        let files = candidate.files;
        let Candidate { config, tls, .. } = candidate;
        // Made before the flip, so that the agent goes by it right after the datapath.
        let mut active = Active::new(config, tls, Numbers::default(), &before.edges);
        let uses = self.proxy.uses();
        let activated = kernel
            .apply(&active.config, Some((&before.config, &uses)))
            .await?;
        KillPoint::ReloadActivated.pass();
        active.numbers = Numbers::from(&activated);
        let reloaded = summary(&active.config, &activated, files, warnings, began);
        self.proxy.activate(active);
        KillPoint::ReloadSwapped.pass();
        kernel.retire_former(&activated);
        let current = self.active();
        self.health.follow(&mut kernel.datapath.maps, &current);
        let uses = self.proxy.uses();
        kernel.settle(&self.active().config, &uses).await;
        KillPoint::ReloadSettled.pass();
        self.follow_segments(kernel).await;
        KillPoint::ReloadFollowed.pass();
        self.live = live;
        {
            let mut facts = self.facts();
            facts.generation = activated.generation;
            facts.activated = Instant::now();
            facts.refused = None;
        }
        self.note_attachments(kernel);
        for warning in &reloaded.warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!(
            generation = reloaded.generation,
            domains = reloaded.domains,
            names = reloaded.names,
            ms = reloaded.took_us / 1000,
            "configuration active"
        );
        self.follow_configuration().await;
        Ok(reloaded)
    }

    async fn add_route(
        &mut self,
        kernel: &mut Kernel,
        name: ServerName,
        pool: Name,
    ) -> Result<RouteAdded, Refusal> {
        let active = self.active();
        if !self.live.contains_key(&name) && defines(&active.config, &name) {
            return Err(defined(&name));
        }
        if !active.config.pools.iter().any(|it| it.name == pool) {
            let pools = active.config.pools.iter().map(|pool| pool.name.as_str());
            let pools = pools.collect::<Vec<_>>().join(", ");
            let message = format!("there is no pool {pool}: the pools are {pools}");
            return Err(Refusal::new(RefusalKind::NotFound, message));
        }
        let replaced = self.live.insert(name.clone(), pool.clone());
        if let Err(refusal) = self.reload(kernel).await {
            // The live routes are as they were before the attempt, but for this one.
            match replaced {
                Some(before) => self.live.insert(name, before),
                None => self.live.remove(&name),
            };
            return Err(refusal);
        }
        // The files on disk were loaded with it, and may have come to say otherwise.
        if self.live.get(&name) != Some(&pool) {
            return Err(defined(&name));
        }
        Ok(RouteAdded {
            name: name.to_string(),
            pool: pool.to_string(),
            replaced: replaced.map(|pool| pool.to_string()),
        })
    }

    async fn remove_route(
        &mut self,
        kernel: &mut Kernel,
        name: ServerName,
    ) -> Result<RouteRemoved, Refusal> {
        let Some(pool) = self.live.remove(&name) else {
            return Err(if defines(&self.active().config, &name) {
                defined(&name)
            } else {
                let message =
                    format!("there is no route for {name}: `snigate route ls` shows what there is");
                Refusal::new(RefusalKind::NotFound, message)
            });
        };
        if let Err(refusal) = self.reload(kernel).await {
            self.live.insert(name, pool);
            return Err(refusal);
        }
        Ok(RouteRemoved {
            name: name.to_string(),
            pool: pool.to_string(),
        })
    }
}

fn defines(config: &Config, name: &ServerName) -> bool {
    let mut names = config.domains.iter().flat_map(|domain| &domain.names);
    names.any(|defined| defined == name)
}

fn defined(name: &ServerName) -> Refusal {
    let message = format!(
        "{name} is a name of the configuration, or its pool is gone from there: change it there (`snigate domain ls` says where)"
    );
    Refusal::new(RefusalKind::Conflict, message)
}

fn summary(
    config: &Config,
    activated: &Activated,
    files: usize,
    warnings: Vec<String>,
    began: Instant,
) -> Reloaded {
    let terminated = config.domains.iter().filter(|it| it.terminate.is_some());
    Reloaded {
        generation: activated.generation,
        took_us: u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
        files,
        ip_sets: config.ip_sets.len(),
        edges: config.edges.len(),
        pools: config.pools.len(),
        domains: config.domains.len(),
        names: activated.names,
        terminated: terminated.count(),
        warnings,
    }
}
