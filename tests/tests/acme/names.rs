//! Knot as the name server, where the partner is: it has the zone `example`, and takes updates that are signed.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::Result;
use snigate_tests::{
    Lab, Process,
    addresses::{PARTNER, VIP_1},
    deadline::Deadline,
};

use crate::TIMEOUT;

const PORT: u16 = 5353;
const SECRET: &str = "c25pZ2F0ZSdzIGxhYiBoYXMgbm8gc2VjcmV0cyBhdCBhbGw=";
const OTHER_SECRET: &str = "bm90IHRoZSBvbmUgdGhhdCB0aGUgbmFtZSBzZXJ2ZXIga25vd3M=";

/// A running name server.
pub(crate) struct NameServer {
    _process: Process,
}

impl NameServer {
    /// Starts it. Every name below `example` is at the gateway's first virtual IPv4 address, but those below `elsewhere.example`, which are where
    /// nothing answers at port 80.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let storage = lab.dir().join("knot");
        fs::create_dir(&storage)?;
        let zone = format!(
            "$ORIGIN example.\n$TTL 60\n\
             @ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A {partner}\n\
             * A {vip}\n*.elsewhere A {partner}\n",
            partner = PARTNER.v4,
            vip = VIP_1.v4,
        );
        fs::write(storage.join("example.zone"), zone)?;
        let config = format!(
            "server:\n  listen: {address}@{PORT}\n  rundir: {storage}\n  pidfile: {storage}/knot.pid\n  \
             automatic-acl: off\nlog:\n- target: stderr\n  any: info\n\
             key:\n- id: acme\n  algorithm: hmac-sha256\n  secret: {SECRET}\n\
             acl:\n- id: update\n  key: acme\n  action: update\n\
             database:\n  storage: {storage}\n\
             zone:\n- domain: example\n  storage: {storage}\n  file: example.zone\n  zonefile-sync: -1\n  \
             zonefile-load: difference\n  acl: update\n",
            address = PARTNER.v4,
            storage = storage.display(),
        );
        let config = lab.write_file("knot.conf", &config)?;
        // Pebble waits two seconds for an answer, which a busy machine may take longer for.
        let mut command = lab.partner.command("nice");
        command.args(["-n", "-19", "knotd", "-c"]).arg(config);
        let mut process = lab.spawn("knotd", command)?;
        process.wait_for_listener(&lab.partner, PORT, TIMEOUT)?;
        let this = Self { _process: process };
        Deadline::after(TIMEOUT).poll("the zone", || {
            Ok((!this.lookup(lab, "A", "sip.contoso.example")?.is_empty()).then_some(()))
        })?;
        Ok(this)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(PARTNER.v4), PORT)
    }

    /// What it says to who asks.
    pub(crate) fn lookup(&self, lab: &Lab, kind: &str, name: &str) -> Result<String> {
        let (server, port) = (format!("@{}", PARTNER.v4), PORT.to_string());
        let output = lab.partner.output(
            "dig",
            &[&server, "-p", &port, "+short", "+tries=1", name, kind],
        );
        // Not there yet.
        Ok(output.unwrap_or_default().trim().to_owned())
    }

    /// A `dns_hook`: the packaged one, with its configuration; with a key that the server knows, or another.
    pub(crate) fn hook(&self, lab: &Lab, known: bool) -> Result<PathBuf> {
        let secret = if known { SECRET } else { OTHER_SECRET };
        let name = if known { "known" } else { "other" };
        let key = format!("key \"acme\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n");
        let key = lab.write_file(&format!("{name}.tsig"), &key)?;
        let config = format!(
            "SERVER={}\nPORT={PORT}\nZONE=example\nKEY_FILE={}\n",
            PARTNER.v4,
            key.display()
        );
        let config = lab.write_file(&format!("{name}.conf"), &config)?;
        let packaged = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../packaging/acme-nsupdate");
        let hook = format!(
            "#!/bin/sh\nACME_NSUPDATE_CONF={} exec {} \"$@\"\n",
            config.display(),
            packaged.display()
        );
        script(lab, &format!("{name}-hook"), &hook)
    }
}

/// Writes a program.
pub(crate) fn script(lab: &Lab, name: &str, text: &str) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = lab.write_file(name, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
