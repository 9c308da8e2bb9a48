//! An Edge, a partner, an authority with its name server, and a gateway that gets its certificates there.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use snigate_tests::{
    Lab, Namespace, Topology,
    addresses::{EDGE_A, SIP_TLS, VIP_1, at},
    deadline::Deadline,
    gateway::{Gateway, binary},
    output_within,
    peers::{Edge, EdgeTls, Partner, PartnerTls},
    pki::{Identity, Pki},
};

use crate::{
    TIMEOUT,
    authority::{Pebble, Place},
    names::NameServer,
};

/// Its certificate comes by ACME.
pub(crate) const CONTOSO: &str = "sip.contoso.example";
const EDGE_NAME: &str = "edge.hoster.example";

pub(crate) fn quiet() -> Topology {
    Topology {
        capture: false,
        ..Topology::default()
    }
}

/// Who is who.
pub(crate) struct Scene<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) names: NameServer,
    pub(crate) place: Place,
    pub(crate) pki: Pki,
    partner: Identity,
    gateway: Identity,
    _edge: Edge,
}

impl<'lab> Scene<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Result<Self> {
        let pki = Pki::new("federation", &lab.dir())?;
        let edge = EdgeTls::new(&pki.server("edge", &[EDGE_NAME])?, &pki)?;
        Ok(Self {
            names: NameServer::start(lab)?,
            place: Place::new(lab)?,
            partner: pki.server("partner", &["sip.partner.example"])?,
            gateway: pki.server("gateway", &["gateway.hoster.example"])?,
            _edge: Edge::start(&lab.edge_a, SIP_TLS, Some(&edge))?,
            pki,
            lab,
        })
    }

    pub(crate) fn pebble(&self) -> Result<Pebble> {
        self.place.start(self.lab, &self.names, 0)
    }

    /// The directory where the gateway keeps it all.
    pub(crate) fn state(&self) -> PathBuf {
        self.lab.dir().join("acme")
    }

    /// The file with the certificate of a SIP domain.
    pub(crate) fn certificate(&self, sip_domain: &str) -> PathBuf {
        self.state().join(format!("certs/{sip_domain}.pem"))
    }

    /// Everything but `[gateway]`: an inspected IP set, `[acme]` with further lines, and domains.
    pub(crate) fn tables(&self, acme: &str, domains: &str) -> String {
        let roots = self.pki.roots().display();
        format!(
            r#"
[[edge]]
name = "edge-a"
address = "{edge}"
tls = {{ name = "{EDGE_NAME}", roots = "{roots}" }}

[[pool]]
name = "edges-a"
edges = ["edge-a"]

[[ip_set]]
name = "shared"
addresses = ["{v4}", "{v6}"]
inspect = true
bind = false

[limits]
syn_per_source = "100000/s"
hello_per_source = "100000/s"

[identity]
gateway_certificate = "{chain}"
gateway_key = "{key}"

[acme]
directory = "{directory}"
contact = ["mailto:certificates@hoster.example"]
roots = "{pebble}"
{state}
{acme}

{domains}
"#,
            edge = at(EDGE_A.v4.into()),
            v4 = VIP_1.v4,
            v6 = VIP_1.v6,
            chain = self.gateway.chain.display(),
            key = self.gateway.key.display(),
            directory = Place::directory(),
            pebble = self.place.roots.display(),
            state = if acme.contains("state = ") {
                String::new()
            } else {
                format!("state = {:?}", self.state())
            },
        )
    }

    /// A `[[domain]]` whose certificate comes by ACME, as this says.
    pub(crate) fn domain(&self, sip_domain: &str, acme: &str) -> String {
        format!(
            "\n[[domain]]\nsip_domain = \"{sip_domain}\"\npool = \"edges-a\"\nacme = {acme}\n\
             client_roots = \"{}\"\nidentity = \"gateway\"\n",
            self.pki.roots().display()
        )
    }

    /// Writes a configuration for commands alone.
    pub(crate) fn configuration(&self, name: &str, acme: &str, domains: &str) -> Result<PathBuf> {
        let text = format!(
            "[gateway]\ninterfaces = [\"wan0\"]\n{}",
            self.tables(acme, domains)
        );
        self.lab.write_file(name, &text)
    }

    /// A command of `snigate` with this configuration, where the gateway is.
    pub(crate) fn command(&self, config: &Path, arguments: &[&str]) -> Result<Command> {
        let mut command = self.lab.gateway.command(binary()?);
        command
            .args(arguments)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null());
        Ok(command)
    }

    pub(crate) fn run(&self, config: &Path, arguments: &[&str]) -> Result<Output> {
        output_within(&mut self.command(config, arguments)?, TIMEOUT)
    }

    /// A partner's TLS that trusts whoever has signed the certificate in a file.
    pub(crate) fn tls(&self, trusted: &Path) -> Result<PartnerTls> {
        PartnerTls::trusting(CONTOSO, &self.partner, trusted, None)
    }

    pub(crate) fn partner<'a>(&'a self, tls: &'a PartnerTls) -> Partner<'a> {
        Partner {
            namespace: &self.lab.partner,
            source: None,
            tls: Some(tls),
            timeout: TIMEOUT,
        }
    }
}

/// The first lines of a certificate's file, up to its end.
pub(crate) fn first_certificate(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let end = text.find("-----END").context("no certificate")?;
    Ok(text[..end].to_owned())
}

/// Waits until a file is there, and says what is in its first certificate.
pub(crate) fn wait_for_certificate(gateway: &Gateway<'_>, file: &Path) -> Result<String> {
    let what = format!("the certificate {}", file.display());
    Deadline::after(TIMEOUT)
        .poll(&what, || Ok(file.exists().then_some(())))
        .with_context(|| gateway.log().unwrap_or_default())?;
    first_certificate(file)
}

/// Checks that only its owner can read or write a file.
pub(crate) fn ensure_secret(file: &Path) -> Result<()> {
    let metadata = fs::metadata(file).with_context(|| file.display().to_string())?;
    let mode = metadata.mode() & 0o7777;
    ensure!(mode == 0o600, "{} has mode {mode:o}", file.display());
    Ok(())
}

/// What a command has said.
pub(crate) fn said(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    format!("{}\n{out}{err}", output.status)
}

/// What comes back for these bytes at port 80, until the other side closes.
pub(crate) fn http(namespace: &Namespace, address: IpAddr, request: &[u8]) -> Result<String> {
    namespace.run(|| {
        let address = SocketAddr::new(address, 80);
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(request)?;
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut answer);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
}

/// The same for a path.
pub(crate) fn get(namespace: &Namespace, address: IpAddr, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {CONTOSO}\r\n\r\n");
    http(namespace, address, request.as_bytes())
}
