//! Kamailio, a SIP server: as an Edge that holds its partners to the rules of federation, and as a partner.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::addresses::Host;
use crate::lab::Lab;
use crate::netns::Namespace;
use crate::pki::{Identity, Pki};
use crate::process::Process;

const START: Duration = Duration::from_secs(20);
/// How long the partner waits for an answer before it says 408 itself.
const ANSWER: Duration = Duration::from_secs(3);
/// Begins the lines that [`KamailioEdge::requests`] reads.
const SEEN: &str = "snigate-seen ";

/// What both roles have in common. No name is looked up: the lab has none.
const COMMON: &str = r#"
debug=1
log_stderror=yes
children=1
tcp_children=1
enable_tls=yes
dns=no
rev_dns=no
use_dns_cache=no
auto_aliases=no
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "exec.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "tls.so"
"#;

/// The check that a Lync Edge makes: the name that federation expects of the From domain has to be in the certificate of
/// the connection, as common name or as one of its alternative names.
///
/// The tls module's own `$tls_peer_san_hostname` gives only one of those, and `$tls_peer_subject` nothing, so OpenSSL is
/// asked. The domain is checked before it comes near a shell.
const EDGE_SCRIPT: &str = r#"
request_route {
    exec_avp("printf '%s' '$tls_peer_raw_cert' | openssl x509 -noout -subject -issuer -ext subjectAltName -nameopt RFC2253,-esc_msb | sed 's/^ *//; s/^[a-z]*=//'", "$avp(subject);$avp(issuer);$avp(title);$avp(names)");
    $var(name) = "sip." + $(fd{s.tolower});
    $var(status) = 403;
    if ($var(name) =~ "^[a-z0-9.-]+$") {
        if ($(tls_peer_subject_cn{s.tolower}) == $var(name)) {
            $var(status) = 200;
        } else if (exec_avp("printf '%s' '$tls_peer_raw_cert' | openssl x509 -noout -ext subjectAltName | tr -d ' ' | tr ',' '\n' | grep -qixF 'DNS:$var(name)'")) {
            $var(status) = 200;
        }
    }
    if ($var(status) == 200 && is_method("MESSAGE")) {
        $var(status) = 202;
    }
    xlog("L_NOTICE", "snigate-seen $rm|$fd|$rd|$tls_peer_server_name|$si|$var(status)|$avp(names)|$avp(issuer)|$avp(subject)\n");
    if ($var(status) == 403) {
        sl_send_reply("403", "The certificate does not name the domain");
    } else if ($var(status) == 202) {
        sl_send_reply("202", "Accepted");
    } else {
        sl_send_reply("200", "OK");
    }
}
"#;

/// Sends on whatever comes over UDP.
const PARTNER_SCRIPT: &str = r#"
modparam("tls", "xavp_cfg", "tls")
request_route {
    if ($proto != "udp") {
        sl_send_reply("403", "Only from here");
        exit;
    }
    $xavp(tls=>server_name) = "SERVER_NAME";
    $du = "sip:EDGE;transport=tls";
    if (!t_relay()) {
        sl_reply_error();
    }
}
"#;

/// Kamailio as an Edge: TLS 1.2 and 1.3 with client certificates required; OPTIONS is answered with 200, MESSAGE with
/// 202, and both with 403 if the From domain is not that of the certificate.
#[derive(Debug)]
pub struct KamailioEdge {
    /// The running server.
    pub process: Process,
}

/// A request as an Edge saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRequest {
    /// `OPTIONS` or `MESSAGE`.
    pub method: String,
    /// The domain it is from.
    pub from_domain: String,
    /// The domain it is for.
    pub to_domain: String,
    /// The server name of the connection it came over.
    pub server_name: Option<String>,
    /// Where that connection came from.
    pub source: IpAddr,
    /// How it was answered.
    pub status: u16,
    /// The DNS names of the client's certificate, as many as are within the kilobyte that Kamailio reads of a line.
    pub names: Vec<String>,
    /// The issuer of the client's certificate, as RFC 2253 writes it, not escaped beyond ASCII.
    pub issuer: String,
    /// The subject of the client's certificate: `CN=sip.partner.example,O=Partner`, the last attribute first.
    pub subject: String,
}

impl KamailioEdge {
    /// Starts it as `name` on `port` of both addresses of `host`, with the certificate `identity`, for clients with one of
    /// an authority in the file `clients`.
    ///
    /// # Errors
    /// It does not come up; the message quotes its output.
    pub fn start(
        lab: &Lab,
        name: &str,
        namespace: &Namespace,
        (host, port): (Host, u16),
        identity: &Identity,
        clients: &Path,
    ) -> Result<Self> {
        let tls = tls_config(identity, clients);
        let process = Instance {
            lab,
            name,
            namespace,
            listen: [
                tls_listener(host.v4.into(), port),
                tls_listener(host.v6.into(), port),
            ]
            .concat(),
            script: EDGE_SCRIPT,
        }
        .start(&tls, port)?;
        Ok(Self { process })
    }

    /// The requests it has answered so far, in their order.
    ///
    /// # Errors
    /// Its log could not be read.
    pub fn requests(&self) -> Result<Vec<SeenRequest>> {
        let log = self.process.stderr()?;
        log.lines()
            .filter_map(|line| line.split_once(SEEN))
            .map(|(_, seen)| parse(seen).with_context(|| format!("a line of Kamailio's: {seen:?}")))
            .collect()
    }
}

/// Kamailio as a partner: what comes over UDP at [`Self::local`] goes over TLS, with the partner's certificate, to one
/// Edge by one server name.
///
/// It does not check that the Edge's certificate carries that name, only that an authority it trusts has signed it.
#[derive(Debug)]
pub struct KamailioPartner {
    /// The running server.
    pub process: Process,
    /// Where it listens inside its namespace.
    pub local: SocketAddr,
}

impl KamailioPartner {
    /// Starts it as `name`, sending from the addresses of `host` to `edge` with the server name `server_name`. Partners in
    /// the same namespace have different ports `port`.
    ///
    /// # Errors
    /// It does not come up; the message quotes its output.
    pub fn start(
        lab: &Lab,
        name: &str,
        namespace: &Namespace,
        (host, port): (Host, u16),
        (identity, pki): (&Identity, &Pki),
        (server_name, edge): (&str, SocketAddr),
    ) -> Result<Self> {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let tls = tls_config(identity, pki.roots());
        // Kamailio sends over TLS only in a family in which it also listens.
        let listen = [
            format!("listen=udp:{local}\n"),
            tls_listener(host.v4.into(), port),
            tls_listener(host.v6.into(), port),
        ];
        let script = PARTNER_SCRIPT
            .replace("SERVER_NAME", server_name)
            .replace("EDGE", &edge.to_string());
        let process = Instance {
            lab,
            name,
            namespace,
            listen: listen.concat(),
            script: &script,
        }
        .start(&tls, port)?;
        Ok(Self { process, local })
    }
}

/// One Kamailio with its files.
struct Instance<'a> {
    lab: &'a Lab,
    name: &'a str,
    namespace: &'a Namespace,
    listen: String,
    script: &'a str,
}

impl Instance<'_> {
    fn start(&self, tls: &str, port: u16) -> Result<Process> {
        let name = self.name;
        let tls = self.lab.write_file(&format!("{name}.tls.cfg"), tls)?;
        let config = format!(
            "#!KAMAILIO\n{COMMON}{}modparam(\"tls\", \"config\", \"{}\")\n\
             modparam(\"tm\", \"fr_timer\", {})\n{}",
            self.listen,
            tls.display(),
            ANSWER.as_millis(),
            self.script,
        );
        let config = self.lab.write_file(&format!("{name}.cfg"), &config)?;
        let mut command = self.namespace.command("kamailio");
        command
            // In the foreground, with children of 16 MB shared and 4 MB private memory each.
            .args(["-DD", "-E", "-m", "16", "-M", "4", "-f"])
            .arg(config)
            .arg("-Y")
            .arg(self.lab.dir())
            .arg("-w")
            .arg(self.lab.dir());
        let mut process = self.lab.spawn(name, command)?;
        process.wait_for_listener(self.namespace, port, START)?;
        Ok(process)
    }
}

fn tls_listener(address: IpAddr, port: u16) -> String {
    format!("listen=tls:{}\n", SocketAddr::new(address, port))
}

/// The configuration of Kamailio's tls module, the same for connections that it accepts and that it opens.
fn tls_config(identity: &Identity, roots: &Path) -> String {
    let section = |role: &str| {
        format!(
            "[{role}:default]\nmethod = TLSv1.2+\nverify_certificate = yes\nrequire_certificate = yes\n\
             certificate = {}\nprivate_key = {}\nca_list = {}\n",
            identity.chain.display(),
            identity.key.display(),
            roots.display()
        )
    };
    section("server") + &section("client")
}

fn parse(seen: &str) -> Result<SeenRequest> {
    // Kamailio's word for what is not there.
    let present = |field: &str| !["", "<null>"].contains(&field);
    let fields: Vec<&str> = seen.splitn(9, '|').collect();
    let &[
        method,
        from,
        to,
        server_name,
        source,
        status,
        names,
        issuer,
        subject,
    ] = fields.as_slice()
    else {
        bail!("not nine fields");
    };
    Ok(SeenRequest {
        method: method.to_owned(),
        from_domain: from.to_owned(),
        to_domain: to.to_owned(),
        server_name: present(server_name).then(|| server_name.to_owned()),
        source: source.trim_matches(['[', ']']).parse()?,
        status: status.parse()?,
        names: names
            .split(", ")
            .filter_map(|name| name.strip_prefix("DNS:"))
            .map(str::to_owned)
            .collect(),
        issuer: issuer.to_owned(),
        subject: subject.to_owned(),
    })
}
