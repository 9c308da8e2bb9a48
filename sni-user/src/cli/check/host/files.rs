//! The certificates, keys and lists that a configuration names.

use super::{Findings, Outcome};
use crate::{config::Config, tls::Store};

impl Findings {
    /// Loads all of them, as the agent would.
    pub(super) fn files(&mut self, config: &Config) {
        let terminated = config.domains.iter().filter_map(|it| it.terminate.as_ref());
        let terminated = terminated.count();
        if terminated == 0 && config.identity.mirror.is_none() {
            return;
        }
        let (findings, usable) = match Store::load(config, None) {
            Ok((_, warnings)) => (warnings, true),
            Err(findings) => (findings, false),
        };
        if usable && findings.is_empty() {
            let message = format!("those of {terminated} terminated domains are as they should be");
            self.add("certificates", Outcome::Ok, message);
        }
        for finding in findings {
            let outcome = if finding.is_error() {
                Outcome::Error
            } else {
                Outcome::Warning
            };
            let file = finding.file.display();
            let message = format!("{file}: {}; {}", finding.message, finding.help);
            self.add(finding.concern.to_string(), outcome, message);
        }
    }
}
