//! Domains whose TLS ends at the gateway, beside others that are passed through.

mod files;
mod mirror;
mod own;
mod partners;
mod rotation;
mod sessions;
mod unreachable;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use snigate_tests::{
    Lab,
    addresses::{EDGE_A, EDGE_B, GATEWAY_LAN_A, VIP_1},
    deadline::Deadline,
    gateway::{Gateway, binary},
    output_within,
    peers::{Hash, OpensslClient},
    pki::{Identity, Pki},
};
use x509_parser::pem::Pem;

use crate::TIMEOUT;

/// The domain whose TLS ends at the gateway.
const CONTOSO: &str = "sip.contoso.example";
/// One that is passed through.
const FABRIKAM: &str = "sip.fabrikam.example";
/// Another one, to the other Edge.
const ADATUM: &str = "sip.adatum.example";
/// A partner's server, and its SIP domain.
const PARTNER_NAME: &str = "sip.partner.example";
const PARTNER_DOMAIN: &str = "partner.example";
/// What the Edges' own certificates are for.
const EDGE_NAME: &str = "edge.hoster.example";

/// Who is who: the authority that everybody trusts, the hoster's own one for its Edges, and the gateway's identities.
struct Scene<'lab> {
    lab: &'lab Lab,
    federation: Pki,
    /// What a partner shows.
    partner: Identity,
    /// What partners are shown for [`CONTOSO`].
    contoso: Identity,
    /// What an Edge shows: the hoster's name for it, and [`FABRIKAM`]'s, which is passed through to it.
    edge: Identity,
    /// What the other Edge shows, likewise with [`ADATUM`].
    other_edge: Identity,
}

impl<'lab> Scene<'lab> {
    /// Makes all certificates; the gateway's identities are made by its own command, as an operator does it.
    fn new(lab: &'lab Lab) -> Result<Self> {
        let federation = Pki::new("federation", &lab.dir())?;
        let this = Self {
            partner: federation.server("partner", &[PARTNER_NAME])?,
            contoso: federation.server("contoso", &[CONTOSO])?,
            edge: federation.server("edge-a", &[EDGE_NAME, FABRIKAM])?,
            other_edge: federation.server("edge-b", &[EDGE_NAME, ADATUM])?,
            federation,
            lab,
        };
        let text = format!("[gateway]\ninterfaces = [\"wan0\"]\n{}", this.identity());
        let config = lab.write_file("identity.toml", &text)?;
        let made = this.snigate(&["ca", "init", "--config", &config.to_string_lossy()])?;
        ensure!(made.status.success(), "{}", said(&made));
        Ok(this)
    }

    /// The `[identity]` of the configuration.
    fn identity(&self) -> String {
        format!(
            r#"
[identity]
ca = "ca/mirror.pem"
key = "ca/mirror.key"
crl_url = "{}"
gateway_certificate = "ca/gateway.pem"
gateway_key = "ca/gateway.key"
"#,
            crl_url()
        )
    }

    /// The authority behind whatever the gateway shows to Edges.
    fn mirror_ca(&self) -> PathBuf {
        self.lab.dir().join("ca/mirror.pem")
    }

    /// Both authorities in one file, for an Edge that partners reach in both ways.
    fn both_authorities(&self) -> Result<PathBuf> {
        let both =
            fs::read_to_string(self.federation.roots())? + &fs::read_to_string(self.mirror_ca())?;
        self.lab.write_file("both.ca.pem", &both)
    }

    /// Two Edges with addresses of both families, the inspected IP set, the identities, and further tables.
    fn tables(&self, source: &str, tables: &str) -> String {
        let mut text = self.identity();
        for (letter, edge) in [("a", EDGE_A), ("b", EDGE_B)] {
            let members = [
                (String::new(), edge.v4.to_string()),
                ("-v6".to_owned(), format!("[{}]", edge.v6)),
            ];
            for (suffix, address) in &members {
                let name = format!("edge-{letter}{suffix}");
                text += &self.edge_table(&name, &format!("{address}:5061"), source);
            }
            text += &format!(
                "\n[[pool]]\nname = \"edges-{letter}\"\nedges = [\"edge-{letter}\", \"edge-{letter}-v6\"]\n"
            );
        }
        text + &ip_set() + tables
    }

    /// An `[[edge]]` that is verified by the hoster's name.
    fn edge_table(&self, name: &str, address: &str, source: &str) -> String {
        edge_table(name, address, source, EDGE_NAME, self.federation.roots())
    }

    /// A `[[domain]]` with a certificate, that requires one of its partners, with further lines.
    fn terminated(&self, sip_domain: &str, pool: &str, own: &Identity, more: &str) -> String {
        format!(
            r#"
[[domain]]
sip_domain = "{sip_domain}"
pool = "{pool}"
certificate = "{certificate}"
key = "{key}"
client_certificate = "required"
client_roots = "{roots}"
{more}
"#,
            certificate = own.chain.display(),
            key = own.key.display(),
            roots = self.federation.roots().display(),
        )
    }

    /// [`CONTOSO`], terminated, and the two that are passed through.
    fn three_domains(&self, identity: &str) -> String {
        let line = format!("identity = \"{identity}\"");
        self.terminated("contoso.example", "edges-a", &self.contoso, &line)
            + "\n[[domain]]\nsip_domain = \"fabrikam.example\"\npool = \"edges-a\"\n\
               \n[[domain]]\nsip_domain = \"adatum.example\"\npool = \"edges-b\"\n"
    }

    /// A partner's OpenSSL, asking for this name.
    fn openssl<'a>(&'a self, name: &'a str) -> OpensslClient<'a> {
        OpensslClient::new(&self.lab.partner, name, &self.partner, &self.federation)
    }

    /// Runs `snigate` where the gateway runs.
    fn snigate(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.lab.gateway.command(binary()?);
        command.args(arguments).stdin(Stdio::null());
        output_within(&mut command, TIMEOUT)
    }

    /// The same about the configuration of the running gateway.
    fn ask(&self, arguments: &[&str]) -> Result<Output> {
        let config = self.lab.dir().join("snigate.toml");
        let config = config.to_string_lossy();
        self.snigate(&[arguments, &["--config", &config]].concat())
    }

    /// What the agent tells of itself.
    fn agent(&self) -> Result<serde_json::Value> {
        let output = self.ask(&["status", "--json"])?;
        ensure!(output.status.success(), "{}", said(&output));
        let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let agent = status.get("agent").filter(|agent| agent.is_object());
        Ok(agent.with_context(|| status.to_string())?.clone())
    }

    /// How many the agent has counted under this name.
    fn counted(&self, name: &str) -> Result<u64> {
        let agent = self.agent()?;
        Ok(agent["counters"][name].as_u64().unwrap_or(0))
    }

    /// Waits until so many are counted, and no more; the count may come after the peer's side of it.
    fn ensure_counted(&self, name: &str, expected: u64) -> Result<()> {
        let what = format!("{expected} of {name}");
        let reached = || Ok((self.counted(name)? >= expected).then_some(()));
        Deadline::after(TIMEOUT).poll(&what, reached)?;
        let count = self.counted(name)?;
        ensure!(count == expected, "{count} of {name}, not {expected}");
        Ok(())
    }
}

/// The inspected IP set.
fn ip_set() -> String {
    let (v4, v6) = (VIP_1.v4, VIP_1.v6);
    format!(
        "\n[[ip_set]]\nname = \"shared\"\naddresses = [\"{v4}\", \"{v6}\"]\ninspect = true\nbind = false\n"
    )
}

fn edge_table(name: &str, address: &str, source: &str, verified: &str, roots: &Path) -> String {
    format!(
        r#"
[[edge]]
name = "{name}"
address = "{address}"
source = "{source}"
tls = {{ name = "{verified}", roots = "{}" }}
"#,
        roots.display()
    )
}

/// Where the gateway serves the revocation list of its authority: on its address towards the first Edge.
fn crl_url() -> String {
    format!("http://{}/mirror.crl", GATEWAY_LAN_A.v4)
}

/// Waits until the agent has logged a line with all these words.
fn wait_for_log(gateway: &Gateway<'_>, words: &[&str]) -> Result<()> {
    let found = || {
        let log = gateway.log()?;
        let line = log
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)));
        Ok(line.then_some(()))
    };
    Deadline::after(TIMEOUT)
        .poll(&format!("a line with {words:?} in the log"), found)
        .with_context(|| gateway.log().unwrap_or_default())
}

/// The number of the alert (RFC 8446 section 6) with which this client's connection ends.
fn alert(client: &OpensslClient<'_>, address: SocketAddr) -> Result<u8> {
    let told = match client.connect(address, TIMEOUT) {
        Ok(session) => anyhow::bail!("the connection was carried: {}", session.output),
        Err(error) => format!("{error:#}"),
    };
    told.split_once("SSL alert number ")
        .and_then(|(_, rest)| rest.lines().next()?.trim().parse().ok())
        .with_context(|| format!("no alert: {told}"))
}

/// The certificate that is shown for a name, whether or not it can be verified.
fn shown_for(scene: &Scene<'_>, name: &str, address: SocketAddr) -> Result<Hash> {
    let mut command = scene.lab.partner.command("openssl");
    command
        .args(["s_client", "-connect", &address.to_string()])
        .args(["-servername", name, "-cert"])
        .arg(&scene.partner.chain)
        .arg("-key")
        .arg(&scene.partner.key)
        .stdin(Stdio::null());
    let output = output_within(&mut command, TIMEOUT)?;
    let first = Pem::iter_from_buffer(&output.stdout).next();
    let first = first.with_context(|| said(&output))??;
    Ok(digest(&SHA256, &first.contents).as_ref().try_into()?)
}

/// Everything that a program has written.
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
