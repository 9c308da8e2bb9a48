//! Pebble, the authority that Let's Encrypt tests clients with, where the partner is.

use std::path::PathBuf;

use anyhow::Result;
use snigate_tests::{Lab, Process, addresses::PARTNER, pki::Pki};

use crate::{TIMEOUT, names::NameServer};

const PORT: u16 = 14000;

/// A running pebble.
pub(crate) struct Pebble {
    process: Process,
}

/// Where it is, whether or not it runs.
pub(crate) struct Place {
    config: PathBuf,
    /// Who has signed its own certificate.
    pub(crate) roots: PathBuf,
}

impl Place {
    /// Of an authority that issues for no name below `blocked.example`.
    pub(crate) fn new(lab: &Lab) -> Result<Self> {
        let pki = Pki::new("pebble", &lab.dir())?;
        let own = pki.server("pebble", &[&PARTNER.v4.to_string()])?;
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("{}:{PORT}", PARTNER.v4),
            "managementListenAddress": format!("{}:{}", PARTNER.v4, PORT + 1),
            "certificate": own.chain,
            "privateKey": own.key,
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "domainBlocklist": ["blocked.example"],
        }});
        Ok(Self {
            config: lab.write_file("pebble.json", &config.to_string())?,
            roots: pki.roots().to_owned(),
        })
    }

    /// The URL of its directory.
    pub(crate) fn directory() -> String {
        format!("https://{}:{PORT}/dir", PARTNER.v4)
    }

    /// Starts it. It asks this name server, and refuses so many of a hundred good nonces.
    pub(crate) fn start(&self, lab: &Lab, names: &NameServer, bad_nonces: u32) -> Result<Pebble> {
        let mut command = lab.partner.command("nice");
        command
            .args(["-n", "-19", "pebble"])
            .args(["-dnsserver", &names.address().to_string(), "-config"])
            .arg(&self.config)
            .env("PEBBLE_VA_NOSLEEP", "1")
            // Every order is proven anew.
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", bad_nonces.to_string());
        let mut process = lab.spawn("pebble", command)?;
        process.wait_for_listener(&lab.partner, PORT, TIMEOUT)?;
        Ok(Pebble { process })
    }
}

impl Pebble {
    /// What it has logged.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(self.process.stdout()? + &self.process.stderr()?)
    }
}
