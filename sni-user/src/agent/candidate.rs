//! A configuration on its way to become the active one: read, with all files that it names.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use super::{AgentError, error::FileFindings, files::Stamps};
use crate::{
    config::{Config, Diagnostics, Gateway, Loaded, Name, ServerName},
    tls::{self, Finding, Store},
};

/// Routes that were added by command: they hold until the agent ends, or the configuration defines the name.
pub(super) type LiveRoutes = BTreeMap<ServerName, Name>;

/// What is to become active.
pub(super) struct Candidate {
    pub(super) config: Config,
    pub(super) tls: Store,
    /// The configuration's own files.
    pub(super) files: Vec<PathBuf>,
    /// All files, as they were before they were read.
    pub(super) stamps: Stamps,
    warnings: Diagnostics,
    findings: Vec<Finding>,
}

impl Candidate {
    /// Reads everything. Certificates that have not changed are taken from `previous`. Live routes whose name the configuration defines, or whose
    /// pool is gone, are taken out of `live`.
    pub(super) fn load(
        main: &Path,
        live: &mut LiveRoutes,
        previous: Option<&Store>,
    ) -> Result<Self, AgentError> {
        let before = Stamps::of_directory(main);
        let Loaded {
            mut config,
            warnings,
            files,
            domains_at: _,
        } = Config::load(main)?;
        overlay(&mut config, live);
        let (tls, findings) = Store::load(&config, previous).map_err(FileFindings)?;
        let mut stamps = before;
        stamps.add(&files);
        stamps.add(tls.files());
        Ok(Self {
            config,
            tls,
            files,
            stamps,
            warnings,
            findings,
        })
    }

    /// What is allowed but probably not meant, a sentence each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let warnings = self.warnings.iter().map(ToString::to_string);
        let findings = self.findings.iter().map(tls::Finding::to_string);
        warnings.chain(findings).collect()
    }

    pub(super) fn log_warnings(&self) {
        for warning in self.warnings() {
            tracing::warn!("{warning}");
        }
    }

    /// Whether a running agent can go from `before` to this.
    pub(super) fn check_change(&self, before: &Gateway) -> Result<(), AgentError> {
        let after = &self.config.gateway;
        let fixed: [(&'static str, String, String); 3] = [
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
            ("hook", before.hook.to_string(), after.hook.to_string()),
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

/// Adds the live routes that still apply.
fn overlay(config: &mut Config, live: &mut LiveRoutes) {
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
