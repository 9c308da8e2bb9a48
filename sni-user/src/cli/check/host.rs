//! Whether this host can run a configuration: every finding at once, each with what to do about it.

mod files;
mod inspected;
mod metrics;
mod receiving;

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;

use crate::{
    agent::hooks::Choice,
    cli::table::{Column, Row},
    config::{Config, SourceMode},
    datapath::{DatapathError, Maps, lacks},
    net::{
        Interface, NetError, Network,
        host::{self, Family, HostError},
        vlan_links,
    },
};

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) result: Outcome,
    check: String,
    message: String,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// As it must be.
    Ok,
    /// The gateway runs, but maybe not as meant.
    Warning,
    /// The gateway does not start, or moves no packets.
    Error,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Row for Finding {
    const COLUMNS: &'static [Column] = &[
        Column::left("HOST"),
        Column::left("RESULT"),
        Column::wrapping("WHAT"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.check.clone(),
            self.result.name().into(),
            self.message.clone(),
        ]
    }
}

/// Checks this host, in this network namespace.
pub(super) async fn findings(config: &Config) -> Vec<Finding> {
    let mut findings = Findings::default();
    findings.kernel();
    findings.capabilities();
    findings.pins(&config.gateway.pin_path);
    findings.ports(config);
    findings.metrics(&config.gateway);
    if let Err(error) = findings.network(config).await {
        findings.add("network", Outcome::Error, error);
    }
    findings.files(config);
    findings.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: impl Into<String>, result: Outcome, message: impl ToString) {
        self.0.push(Finding {
            result,
            check: check.into(),
            message: message.to_string(),
        });
    }

    /// What was found, or why not.
    fn conclude(&mut self, check: &str, found: Result<String, HostError>) {
        match found {
            Ok(message) => self.add(check, Outcome::Ok, message),
            Err(error) => self.add(check, Outcome::Error, error),
        }
    }

    fn kernel(&mut self) {
        let (major, minor) = host::OLDEST_KERNEL;
        let found = host::require_kernel(major, minor)
            .and_then(|()| host::kernel_version())
            .map(|(major, minor)| format!("Linux {major}.{minor}"));
        self.conclude("kernel", found);
        for lack in lacks() {
            self.add("kernel", Outcome::Warning, lack);
        }
    }

    /// A warning only: whoever checks a configuration need not be who runs it.
    fn capabilities(&mut self) {
        match host::require_capabilities() {
            Ok(()) => self.add(
                "capabilities",
                Outcome::Ok,
                "this process may load the datapath",
            ),
            Err(error) => self.add("capabilities", Outcome::Warning, error),
        }
    }

    fn pins(&mut self, pin_path: &Path) {
        if let Err(error) = host::require_bpffs(pin_path) {
            return self.add("pin path", Outcome::Error, error);
        }
        match Maps::open(pin_path) {
            Ok(_) => self.add(
                "pin path",
                Outcome::Ok,
                format!(
                    "{} has a datapath that `snigate run` adopts",
                    pin_path.display()
                ),
            ),
            Err(DatapathError::NotPinned { .. }) => {
                self.add(
                    "pin path",
                    Outcome::Ok,
                    format!("{} is free", pin_path.display()),
                );
            }
            Err(error @ DatapathError::OtherAbi { .. }) => {
                self.add("pin path", Outcome::Error, error);
            }
            Err(error) => self.add("pin path", Outcome::Warning, error),
        }
    }

    fn ports(&mut self, config: &Config) {
        if config
            .edges
            .iter()
            .any(|edge| edge.source == SourceMode::Gateway)
        {
            let found = host::owned_ports().map(|(first, count)| {
                let last = u32::from(first) + u32::from(count) - 1;
                format!("{first} to {last} are the gateway's own toward Edges")
            });
            self.conclude("ports", found);
        }
    }

    async fn network(&mut self, config: &Config) -> Result<(), NetError> {
        let network = Network::new()?;
        let all = network.interfaces().await?;
        let mut attached = Vec::new();
        let choice = Choice::new(config.gateway.hook, &config.gateway.interfaces);
        for name in &config.gateway.interfaces {
            match network.interface(name).await {
                Ok(interface) => {
                    self.interface(name, &interface, &all, config, &choice);
                    attached.push(interface.index);
                }
                Err(error) => self.add(name, Outcome::Error, error),
            }
        }
        self.edges(config, &network, &all, &attached).await;
        self.inspected(config, &network).await;
        Ok(())
    }

    fn interface(
        &mut self,
        name: &str,
        interface: &Interface,
        all: &[Interface],
        config: &Config,
        choice: &Choice,
    ) {
        let before = self.0.len();
        if !interface.up {
            let sentence = format!("is down: bring it up with `ip link set dev {name} up`");
            self.add(name, Outcome::Warning, sentence);
        }
        let families: BTreeMap<bool, Family> = config
            .ip_sets
            .iter()
            .flat_map(|set| &set.addresses)
            .map(|address| (address.is_ipv6(), Family::of(*address)))
            .collect();
        for family in families.into_values() {
            if let Err(error) = host::require_forwarding(name, family) {
                self.add(name, Outcome::Error, error);
            }
        }
        match host::reverse_path_note(name) {
            Ok(None) => {}
            Ok(Some(note)) => self.add(name, Outcome::Warning, note),
            Err(error) => self.add(name, Outcome::Warning, error),
        }
        self.receiving(name, interface, all, choice);
        if self.0.len() == before {
            let hook = choice.of_interface(name).map_or_else(String::new, |seat| {
                format!("; hook: {} ({})", seat.hook, seat.reason)
            });
            self.add(name, Outcome::Ok, format!("is up and forwards{hook}"));
        }
    }

    async fn edges(
        &mut self,
        config: &Config,
        network: &Network,
        all: &[Interface],
        attached: &[u32],
    ) {
        let vlans = vlan_links(all, attached);
        let is_reached =
            |index| attached.contains(&index) || vlans.iter().any(|(vlan, _)| *vlan == index);
        for edge in &config.edges {
            let check = format!("Edge {}", edge.name);
            let route = match network.route_to(edge.address.ip(), None).await {
                Ok(route) => route,
                Err(error) => {
                    self.add(check, Outcome::Error, error);
                    continue;
                }
            };
            let name = all
                .iter()
                .find(|interface| interface.index == route.ifindex)
                .map_or_else(
                    || format!("interface {}", route.ifindex),
                    |found| found.name.clone(),
                );
            if is_reached(route.ifindex) {
                let via = route
                    .gateway
                    .map(|gateway| format!(" via {gateway}"))
                    .unwrap_or_default();
                self.add(check, Outcome::Ok, format!("is reached over {name}{via}"));
            } else {
                self.add(
                    check,
                    Outcome::Error,
                    format!(
                        "{} is reached over {name}, where its answers would bypass the datapath: name {name} in `gateway.interfaces`, or mend the route",
                        edge.address.ip()
                    ),
                );
            }
        }
    }
}
