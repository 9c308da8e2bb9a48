//! nsd with zones of the test.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;
use snigate_tests::{Lab, Process, addresses::PARTNER};

/// Where it listens, in the partner's namespace.
pub(crate) const PORT: u16 = 5300;

/// A running nsd.
pub(crate) struct Nsd {
    _process: Process,
}

/// Where to ask it.
pub(crate) fn address() -> SocketAddr {
    SocketAddr::new(PARTNER.v4.into(), PORT)
}

impl Nsd {
    /// Starts it with zones: their names, and what is in them behind the SOA.
    pub(crate) fn start(lab: &Lab, zones: &[(&str, String)]) -> Result<Self> {
        let directory = lab.dir().join("nsd");
        fs::create_dir_all(&directory)?;
        let mut config = configuration(&directory);
        for (number, (name, content)) in zones.iter().enumerate() {
            let file = format!("{number}.zone");
            let head = format!(
                "$ORIGIN {name}.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns.hoster.test.\n"
            );
            fs::write(directory.join(&file), head + content)?;
            let _ = write!(
                config,
                "zone:\n  name: \"{name}\"\n  zonefile: \"{file}\"\n"
            );
        }
        let file = directory.join("nsd.conf");
        fs::write(&file, config)?;
        let mut command = lab.partner.command("nsd");
        command.arg("-d").arg("-c").arg(&file);
        let mut process = lab.spawn("nsd", command)?;
        process.wait_for_listener(&lab.partner, PORT, Duration::from_secs(60))?;
        Ok(Self { _process: process })
    }
}

/// Without privileges to give away, a place outside of the directory, or a limit of answers in a second.
fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "server:\n  ip-address: {}@{PORT}\n  username: \"\"\n  chroot: \"\"\n  database: \"\"\n  zonesdir: \"{directory}\"\n  \
         pidfile: \"{directory}/nsd.pid\"\n  zonelistfile: \"{directory}/zone.list\"\n  xfrdfile: \"{directory}/xfrd.state\"\n  \
         server-count: 1\n  rrl-ratelimit: 0\nremote-control:\n  control-enable: no\n",
        PARTNER.v4
    )
}
