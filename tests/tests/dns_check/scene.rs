//! Everything that the cases need, and the command.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{
    Lab, Process, Topology,
    addresses::{SIP_TLS, VIP_1, VIP_2},
    gateway::{binary, two_pools},
    output_within,
};

use crate::{
    cases::{Case, Shown},
    dns,
    pki::{Made, Pki, Sent, Wanted},
    rustls_server::RustlsServer,
};

/// Addresses beside the plan's that servers of the cases have, in the gateway's namespace.
const OWN: [u8; 10] = [30, 31, 32, 33, 34, 35, 36, 37, 38, 39];
/// Further ones of nginx.
const FURTHER: [u8; 8] = [51, 52, 53, 54, 55, 56, 57, 58];
const START: Duration = Duration::from_secs(60);
/// For a command that ends by itself; far longer than any bound that is tested.
pub(crate) const COMMAND: Duration = Duration::from_secs(300);

/// A lab without captures, in which nobody forwards anything.
pub(crate) fn topology() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

fn further(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, last)
}

/// The servers of all cases.
pub(crate) struct Scene<'lab> {
    lab: &'lab Lab,
    pub(crate) pki: Pki,
    servers: Vec<Process>,
    faulty: Vec<RustlsServer>,
    silent: Vec<TcpListener>,
}

impl<'lab> Scene<'lab> {
    pub(crate) fn start(lab: &'lab Lab, cases: &[Case]) -> Result<Self> {
        for last in OWN.iter().chain(&FURTHER) {
            lab.gateway
                .ip(&format!("addr add {}/32 dev wan0", further(*last)))?;
        }
        lab.partner.ip("-6 route del default")?;
        let mut scene = Self {
            pki: Pki::new(&lab.dir())?,
            lab,
            servers: Vec::new(),
            faulty: Vec::new(),
            silent: Vec::new(),
        };
        let old = lab.write_file("openssl.cnf", OLD)?;
        let mut hosts = Vec::new();
        for case in cases {
            scene.show(case, &old, &mut hosts)?;
        }
        scene.nginx(&hosts, &old)?;
        Ok(scene)
    }

    /// Has a case's certificate shown: by a server of its own, or by nginx, for which it is collected.
    fn show(&mut self, case: &Case, old: &Path, hosts: &mut Vec<(String, Made)>) -> Result<()> {
        let name = format!("sip.{}", case.domain);
        let right = || {
            let wanted = Wanted::right(&name);
            self.pki.make(case.domain, &wanted, Sent::Right)
        };
        match &case.shown {
            Shown::Nothing => {}
            Shown::Right => hosts.push((name.clone(), right()?)),
            Shown::Made(make) => {
                let name = case.names.first().map_or(name, |&name| name.to_owned());
                let made = make(&self.pki, case.domain).context(case.domain)?;
                hosts.push((name, made));
            }
            Shown::Openssl(address, options) => {
                let made = right()?;
                if case.found.contains(&"certificates-differ") {
                    let wanted = Wanted::right(&name).days(-30..89);
                    let other = self.pki.make("other", &wanted, Sent::Right)?;
                    hosts.push((name.clone(), other));
                }
                self.openssl(address, &made, options, old)?;
            }
            Shown::Rustls(address, fault) => {
                let (made, address) = (right()?, SocketAddr::new(address.parse()?, SIP_TLS));
                let server = RustlsServer::start(&self.lab.gateway, address, &made, *fault)?;
                self.faulty.push(server);
            }
            Shown::Silent(address) => {
                let listener = self
                    .lab
                    .gateway
                    .run(|| Ok(TcpListener::bind((*address, SIP_TLS))?))?;
                self.silent.push(listener);
            }
        }
        Ok(())
    }

    fn openssl(&mut self, address: &str, made: &Made, options: &[&str], old: &Path) -> Result<()> {
        let mut command = self.lab.gateway.command("openssl");
        command
            .args([
                "s_server",
                "-www",
                "-accept",
                &format!("{address}:{SIP_TLS}"),
            ])
            .arg("-cert_chain")
            .arg(self.lab.dir().join("issuing.pem"))
            .arg("-cert")
            .arg(&made.chain)
            .arg("-key")
            .arg(&made.key)
            .args(options)
            .env("OPENSSL_CONF", old);
        let mut server = self.lab.spawn("s_server", command)?;
        server.wait_for_line("ACCEPT", START)?;
        self.servers.push(server);
        Ok(())
    }

    /// nginx shows each name its certificate, refuses all others, and has the revocation lists.
    fn nginx(&mut self, hosts: &[(String, Made)], old: &Path) -> Result<()> {
        let directory = self.lab.dir();
        self.pki.write_lists(&directory.join("lists"))?;
        let mut listen = String::new();
        let mut addresses: Vec<String> = [VIP_1, VIP_2]
            .iter()
            .flat_map(|vip| [vip.v4.to_string(), format!("[{}]", vip.v6)])
            .collect();
        addresses.extend(FURTHER.map(|last| further(last).to_string()));
        for address in &addresses {
            let _ = writeln!(listen, "listen {address}:{SIP_TLS} ssl;");
        }
        let config = self
            .lab
            .write_file("nginx.conf", &web(&directory, &listen, VIP_1.v4, hosts))?;
        let mut command = self.lab.gateway.command("nginx");
        command
            .arg("-c")
            .arg(config)
            .arg("-e")
            .arg(directory.join("nginx.error.log"))
            .env("OPENSSL_CONF", old);
        let mut server = self.lab.spawn("nginx", command)?;
        // On its other port there are listeners of others.
        server.wait_for_listener(&self.lab.gateway, 80, START)?;
        self.servers.push(server);
        Ok(())
    }
}

/// What current versions of OpenSSL refuse by default.
const OLD: &str = "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = default\n[default]\n\
                   MinProtocol = TLSv1\nCipherString = DEFAULT:@SECLEVEL=0\n";

fn web(directory: &Path, listen: &str, lists: Ipv4Addr, hosts: &[(String, Made)]) -> String {
    let directory = directory.display();
    let mut text = format!(
        "daemon off;\nuser root;\npid {directory}/nginx.pid;\nworker_processes 1;\nevents {{ worker_connections 1024; }}\n\
         http {{\naccess_log off;\nserver_names_hash_bucket_size 128;\nssl_protocols TLSv1.2 TLSv1.3;\nssl_ciphers DEFAULT:@SECLEVEL=0;\n\
         client_body_temp_path {directory}/nginx.body;\nproxy_temp_path {directory}/nginx.proxy;\nfastcgi_temp_path {directory}/nginx.fastcgi;\n\
         uwsgi_temp_path {directory}/nginx.uwsgi;\nscgi_temp_path {directory}/nginx.scgi;\n\
         server {{\nlisten {lists}:80;\nserver_name crl.hoster.example;\nroot {directory}/lists;\nrewrite ^/moved/(.*)$ /$1 redirect;\n}}\n\
         server {{\n{listen}server_name _;\nssl_reject_handshake on;\n}}\n"
    );
    for (name, Made { chain, key }) in hosts {
        let _ = write!(
            text,
            "server {{\n{listen}server_name {name};\nssl_certificate {};\nssl_certificate_key {};\n}}\n",
            chain.display(),
            key.display()
        );
    }
    text + "}\n"
}

/// A configuration with these domains, which all go to the same pool: those of the plan's first address and the cases' are inspected, the
/// second is steered to another pool.
pub(crate) fn configuration<'a>(
    domains: impl IntoIterator<Item = (&'a str, &'a [&'a str])>,
) -> String {
    let mut addresses = vec![format!("\"{}\"", VIP_1.v4), format!("\"{}\"", VIP_1.v6)];
    addresses.extend(
        OWN.iter()
            .chain(&FURTHER)
            .map(|last| format!("\"{}\"", further(*last))),
    );
    // Where the partner has no route to.
    addresses.push("\"2001:db8:99::1\"".to_owned());
    let mut text = format!(
        "[gateway]\ninterfaces = [\"wan0\"]\n{}\n[[ip_set]]\nname = \"shared\"\naddresses = [{}]\ninspect = true\n\n\
         [[ip_set]]\nname = \"steered\"\naddresses = [\"{}\"]\nsteer = \"edges-b\"\n",
        two_pools("preserve"),
        addresses.join(", "),
        VIP_2.v4,
    );
    for (domain, names) in domains {
        let _ = write!(
            text,
            "\n[[domain]]\nsip_domain = \"{domain}\"\npool = \"edges-a\"\n"
        );
        if !names.is_empty() {
            let _ = writeln!(text, "names = {names:?}");
        }
    }
    text
}

/// `snigate check --dns`, as a partner runs it.
pub(crate) fn prepared(lab: &Lab, config: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = lab.partner.command(binary()?);
    command
        .arg("--config")
        .arg(config)
        .args(["check", "--dns"])
        .args(arguments);
    Ok(command)
}

/// What it says as JSON, and whether it says that all is well.
pub(crate) fn check(lab: &Lab, config: &Path, arguments: &[&str]) -> Result<(Value, bool)> {
    let arguments = [&["--json"][..], arguments].concat();
    let output = output_within(&mut prepared(lab, config, &arguments)?, COMMAND)?;
    let status = output.status.code().context("it was killed")?;
    let told = || String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        status < 2 && !output.stdout.is_empty(),
        "status {status}: {}",
        told()
    );
    let report: Value = serde_json::from_slice(&output.stdout).with_context(told)?;
    Ok((report["dns"].clone(), status == 0))
}

/// The names of a domain's findings, in their order in the alphabet.
pub(crate) fn found(report: &Value, domain: &str) -> Result<Vec<String>> {
    let domains = report["domains"].as_array().context("domains")?;
    let examined = domains.iter().find(|it| it["domain"] == domain);
    let examined = examined.with_context(|| format!("no {domain} in the report"))?;
    let findings = examined["findings"].as_array().context("findings")?;
    let mut ids: Vec<_> = findings
        .iter()
        .map(|it| it["id"].as_str().unwrap_or_default().to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    Ok(ids)
}

/// Writes a configuration into the lab.
pub(crate) fn write(lab: &Lab, text: &str) -> Result<PathBuf> {
    lab.write_file("check.toml", text)
}

/// A zone with these cases in it, and the host of the revocation lists.
pub(crate) fn zone(cases: &[Case]) -> String {
    let mut text = format!("crl.hoster A {}\n", VIP_1.v4);
    for case in cases {
        if case.domain.ends_with(".example") {
            let _ = write!(text, "$ORIGIN {}.\n{}", case.domain, case.zone);
        }
    }
    text
}

/// The arguments that every run has.
pub(crate) fn usual(pki: &Pki) -> Vec<String> {
    let server = dns::address().to_string();
    let roots = pki.roots().display().to_string();
    let words = ["--resolver", &server, "--roots", &roots, "--rate", "1000"];
    words.map(str::to_owned).to_vec()
}
