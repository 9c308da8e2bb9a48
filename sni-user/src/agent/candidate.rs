//! A configuration on its way to become the active one: read, with all files that it names.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use super::{AgentError, error::FileFindings, files::Stamps};
use crate::{
    config::{Config, Diagnostics, Gateway, Loaded, Name, Roots, ServerName},
    tls::{Finding, Store, staple_path},
};

/// Routes that were added by command: they hold until the agent ends, or the configuration defines the name.
pub(super) type LiveRoutes = BTreeMap<ServerName, Name>;

/// Warnings that are shown of one configuration: ten thousand domains can have twenty thousand, and the first hundred say it all.
const WARNINGS: usize = 100;

/// What is to become active.
pub(super) struct Candidate {
    pub(super) config: Config,
    pub(super) tls: Store,
    /// How many files the configuration was read from.
    pub(super) files: usize,
    warnings: Diagnostics,
    findings: Vec<Finding>,
}

impl Candidate {
    /// Reads everything. Certificates that have not changed are taken from `previous`. Live routes whose name the configuration defines, or whose
    /// pool is gone, are taken out of `live`.
    ///
    /// `stamps` become those of everything that was looked for, also where it fails: as it was before it was read.
    pub(super) fn load(
        main: &Path,
        live: &mut LiveRoutes,
        previous: Option<&Store>,
        stamps: &mut Stamps,
    ) -> Result<Self, AgentError> {
        let mut known = stamps.anew();
        known.add(Stamps::of([&main.to_owned()]));
        *stamps = known.clone();
        let loaded = Config::load(main)?;
        let Loaded {
            mut config,
            warnings,
            files,
            directories,
            domains_at: _,
        } = loaded;
        let paths: Vec<_> = files.iter().chain(&directories).cloned().collect();
        let named: HashSet<_> = paths.iter().cloned().chain(named_by(&config)).collect();
        *stamps = known.only(&named);
        stamps.add(Stamps::of(&named));
        overlay(&mut config, live);
        let (tls, findings) = Store::load(&config, previous).map_err(FileFindings)?;
        Ok(Self {
            config,
            tls,
            files: files.len(),
            warnings,
            findings,
        })
    }

    /// What is allowed but probably not meant, a sentence each; the first of them.
    pub(super) fn warnings(&self) -> Vec<String> {
        let warnings = self.warnings.iter().map(ToString::to_string);
        let findings = self.findings.iter().map(ToString::to_string);
        let all = self.warnings.len() + self.findings.len();
        let mut shown: Vec<_> = warnings.chain(findings).take(WARNINGS).collect();
        if all > WARNINGS {
            shown.push(format!(
                "and {} warnings more: `snigate check` shows them all",
                all - WARNINGS
            ));
        }
        shown
    }

    /// Whether a running agent can go from `before` to this.
    pub(super) fn check_change(&self, before: &Gateway) -> Result<(), AgentError> {
        let after = &self.config.gateway;
        let fixed: [(&'static str, String, String); 2] = [
            (
                "pin_path",
                before.pin_path.display().to_string(),
                after.pin_path.display().to_string(),
            ),
            (
                "control",
                before.control.display().to_string(),
                after.control.display().to_string(),
            ),
        ];
        for (key, from, to) in fixed {
            if from != to {
                return Err(AgentError::Unchangeable { key, from, to });
            }
        }
        if before.max_flows != after.max_flows {
            tracing::warn!(
                from = before.max_flows,
                to = after.max_flows,
                "the flow table keeps its size; `snigate run --fresh` makes a new one, without the flows"
            );
        }
        Ok(())
    }
}

/// The files that a configuration names and does not consist of.
fn named_by(config: &Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let roots = |roots: &Roots| match roots {
        Roots::File(file) => Some(file.clone()),
        Roots::System => None,
    };
    for termination in config.domains.iter().filter_map(|it| it.terminate.as_ref()) {
        files.push(termination.certificate.clone());
        files.push(termination.key.clone());
        files.push(staple_path(&termination.certificate));
        files.extend(roots(&termination.client_roots));
        files.extend(termination.client_crls.iter().cloned());
    }
    let edges = config.edges.iter().filter_map(|edge| edge.tls.as_ref());
    files.extend(edges.filter_map(|tls| roots(&tls.roots)));
    let identity = &config.identity;
    files.extend((identity.mirror.iter()).flat_map(|ca| [ca.certificate.clone(), ca.key.clone()]));
    files.extend(
        (identity.gateway.iter()).flat_map(|own| [own.certificate.clone(), own.key.clone()]),
    );
    files
}

/// Adds the live routes that still apply.
fn overlay(config: &mut Config, live: &mut LiveRoutes) {
    if live.is_empty() {
        return;
    }
    let defined: HashSet<ServerName> = config
        .domains
        .iter()
        .flat_map(|domain| domain.names.iter().cloned())
        .collect();
    live.retain(|name, pool| {
        if defined.contains(name) {
            tracing::info!(%name, "the configuration defines this name now; the route that was added by command is forgotten");
            return false;
        }
        let added = config.add_route(name.clone(), pool);
        if !added {
            tracing::warn!(%name, %pool, "the pool of a route that was added by command is gone, and the route with it");
        }
        added
    });
}
