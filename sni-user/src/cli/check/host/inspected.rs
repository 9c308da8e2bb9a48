//! What inspected connections need of the host.

use super::{Findings, Outcome};
use crate::{
    agent::{Needs, RETURN, SETTINGS, Setting, binds, open_files},
    config::Config,
    net::{Network, host},
};

impl Findings {
    pub(super) async fn inspected(&mut self, config: &Config, network: &Network) {
        let needs = Needs::of(config);
        if !needs.inspects {
            return;
        }
        let connections = config.gateway.max_connections;
        match open_files::shortfall(connections) {
            None => self.add(
                "open files",
                Outcome::Ok,
                format!("enough for {connections} connections of the agent"),
            ),
            Some(sentence) => self.add("open files", Outcome::Warning, sentence),
        }
        if binds(config) {
            for setting in &SETTINGS {
                self.setting(setting);
            }
        }
        if needs.transparent {
            self.way_back(config, network).await;
        }
    }

    /// What binding needs; without it everything goes by the agent.
    fn setting(&mut self, setting: &Setting) {
        let Setting { key, value, .. } = *setting;
        let (outcome, message) = match host::setting(key) {
            Ok(found) if found == value => (Outcome::Ok, format!("{key} is {value}")),
            Ok(found) if host::is_settable(key) => (
                Outcome::Ok,
                format!("{key} is {found}; the agent sets it to {value} while it runs"),
            ),
            Ok(found) => (
                Outcome::Warning,
                format!(
                    "{key} is {found} and can't be set by this process: the datapath binds nothing before it is {value} (`sysctl -w {key}={value}`)"
                ),
            ),
            Err(error) => (Outcome::Warning, error.to_string()),
        };
        self.add("binding", outcome, message);
    }

    /// The way of Edges' answers to the agent's transparent sockets.
    async fn way_back(&mut self, config: &Config, network: &Network) {
        const CHECK: &str = "way back";
        match RETURN.missing(network).await {
            Ok(missing) if missing.is_empty() => {
                self.add(CHECK, Outcome::Ok, "the agent's rule and route are there");
            }
            Ok(_) => self.add(
                CHECK,
                Outcome::Ok,
                "nobody is in the way of the rule and the route that the agent adds",
            ),
            Err(error) => self.add(CHECK, Outcome::Error, error),
        }
        for interface in &config.gateway.interfaces {
            match host::source_mark_note(interface) {
                Ok(None) => {}
                Ok(Some(note)) => self.add(CHECK, Outcome::Warning, note),
                Err(error) => self.add(CHECK, Outcome::Warning, error),
            }
        }
    }
}
