//! The main job, shown: mutual TLS from a partner through the gateway, steered by address, passed through by server name, and terminated with the
//! certificate of the name.

use std::{
    io::{Write, stdout},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::{
    Lab, Process, Topology,
    addresses::{EDGE_B, Host, SIP_TLS, VIP_1, VIP_2, VIP_3},
    deadline::Deadline,
    gateway::{Gateway, Tuning, binary, two_ip_sets},
    output_within,
    peers::{OpensslClient, OpensslServer, TlsVersion},
    pki::{Identity, Pki},
};

/// The longest that anything may take, also on an emulated machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where an Edge trusts mirrored identities and nobody else.
const MIRROR_PORT: u16 = 5062;

const NAMES_A: &[&str] = &[
    "sip.contoso.example",
    "sip.fabrikam.example",
    "sip.litware.example",
];
const NAMES_B: &[&str] = &["sip.adatum.example", "sip.northwind.example"];
const NAMES_OWN: &[&str] = &["sip.tailspin.example"];

/// One way of connections: where to, which names are asked for, and what is to come of it.
struct Way {
    vip: Host,
    way: &'static str,
    ask: &'static [&'static str],
    /// How the Edge's name begins.
    edge: &'static str,
    /// The names in the certificate that is shown.
    names: &'static [&'static str],
}

const WAYS: [Way; 5] = [
    Way {
        vip: VIP_1,
        way: "steered",
        ask: NAMES_A,
        edge: "edge-a",
        names: NAMES_A,
    },
    Way {
        vip: VIP_2,
        way: "steered",
        ask: NAMES_B,
        edge: "edge-b",
        names: NAMES_B,
    },
    Way {
        vip: VIP_3,
        way: "bound",
        ask: &["sip.contoso.example"],
        edge: "edge-a",
        names: NAMES_A,
    },
    Way {
        vip: VIP_3,
        way: "bound",
        ask: &["sip.adatum.example"],
        edge: "edge-b",
        names: NAMES_B,
    },
    Way {
        vip: VIP_3,
        way: "terminated",
        ask: NAMES_OWN,
        edge: "edge-mirror",
        names: NAMES_OWN,
    },
];

/// What a connection has shown.
struct Reached {
    address: SocketAddr,
    server_name: &'static str,
    way: String,
    edge: String,
    names: Vec<String>,
    version: String,
    setup: Duration,
}

/// Brings the lab up, runs the main job through it with the datapath at this hook, prints what went where, and takes it all down again, or leaves it.
///
/// # Errors
/// Whatever does not work; the lab is removed then, too.
pub fn run(keep: bool, hook: &'static str) -> Result<()> {
    let mut steps = Steps::default();
    steps.begin("a partner, a gateway and two Edges in network namespaces")?;
    let lab = Lab::new(
        "demo",
        &Topology {
            offloads: hook == "tcx",
            capture: false,
            ..Topology::default()
        },
    )?;
    steps.begin(
        "certificates: a CA, the partner, each Edge, a customer of the gateway; snigate ca init",
    )?;
    let pki = Pki::new("federation", &lab.dir())?;
    let partner = pki.server("partner", &["sip.partner.example"])?;
    let config = tables(&pki, &pki.server("own", NAMES_OWN)?);
    let mirror = make_mirror_ca(&lab, &config)?;
    steps.begin("the Edges: openssl s_server, each with its certificate")?;
    let of_edges = pki.server("edge-mirror", &["edge-mirror.hoster.example"])?;
    let servers = [
        server(&lab, &pki, "edge-a", NAMES_A)?,
        server(&lab, &pki, "edge-b", NAMES_B)?,
        OpensslServer::start_trusting(
            &lab,
            "edge-mirror",
            &lab.edge_b,
            MIRROR_PORT,
            &of_edges,
            &mirror,
        )?,
    ];
    steps.begin("the gateway: snigate run, the datapath on its interfaces")?;
    let tuning = Tuning {
        hook: Some(hook),
        ..Tuning::default()
    };
    let gateway = Gateway::start_tuned(&lab, tuning, "", &config)?;
    let mut watch = watch(&lab)?;
    steps.begin("mutual TLS from the partner, with openssl s_client")?;
    let client = |name| OpensslClient::new(&lab.partner, name, &partner, &pki);
    let mut reached = Vec::new();
    for way in &WAYS {
        for (index, address) in way.vip.both().into_iter().enumerate() {
            for version in TlsVersion::BOTH {
                // The names take turns, so that each is asked for.
                let name = way.ask[(index + reached.len()) % way.ask.len()];
                let address = SocketAddr::new(address, SIP_TLS);
                let client = client(name).version(version);
                reached.push(connect(&gateway, &mut watch, &client, name, address)?);
            }
        }
    }
    let unknown = SocketAddr::new(VIP_3.v4.into(), SIP_TLS);
    let refused = client("sip.unknown.example").connect(unknown, TIMEOUT);
    ensure!(refused.is_err(), "an unknown name was let in: {refused:?}");
    steps.end()?;

    println!("\n{}", table(&reached));
    println!(
        "All at port {SIP_TLS}. Setup is TCP and TLS as openssl s_client sees them, the start of the program included.\n\
         sip.unknown.example at {unknown} was refused with a TLS alert, as no domain has that name.\n"
    );
    for (title, arguments) in [
        ("Services", &["service", "ls"][..]),
        ("Steered flows", &["flow", "ls"]),
        ("Server names", &["route", "ls"]),
        ("Certificates", &["cert", "ls"]),
        ("Counters", &["status"]),
    ] {
        println!(
            "{title} (snigate {}):\n{}",
            arguments.join(" "),
            snigate(&lab, arguments)?
        );
    }
    check(&reached)?;

    if keep {
        println!("{}", lab.guide());
        println!("The agent and the Edges keep running. To ask the gateway:");
        println!(
            "  ip netns exec {} {} --config {} status",
            lab.gateway.name(),
            binary()?.display(),
            lab.dir().join("snigate.toml").display()
        );
        println!("To remove it all: snigate-lab down (in the build's directory).");
        drop(watch);
        std::mem::forget((gateway, servers));
        return lab.keep();
    }
    steps.begin("taking everything down")?;
    drop(watch);
    drop(gateway);
    drop(servers);
    drop(lab);
    steps.end()
}

/// Two steered IP sets, and an inspected one with three domains.
fn tables(pki: &Pki, own: &Identity) -> String {
    two_ip_sets()
        + &format!(
            r#"
[[edge]]
name = "edge-mirror"
address = "{v4}:{MIRROR_PORT}"
source = "gateway"
tls = {{ name = "edge-mirror.hoster.example", roots = "{roots}" }}

[[edge]]
name = "edge-mirror-v6"
address = "[{v6}]:{MIRROR_PORT}"
source = "gateway"
tls = {{ name = "edge-mirror.hoster.example", roots = "{roots}" }}

[[pool]]
name = "edges-mirror"
edges = ["edge-mirror", "edge-mirror-v6"]

[[ip_set]]
name = "shared"
addresses = ["{vip4}", "{vip6}"]
inspect = true

[[domain]]
sip_domain = "contoso.example"
pool = "edges-a"

[[domain]]
sip_domain = "adatum.example"
pool = "edges-b"

[[domain]]
sip_domain = "tailspin.example"
pool = "edges-mirror"
certificate = "{certificate}"
key = "{key}"
client_certificate = "required"
client_roots = "{roots}"
identity = "mirror"

[identity]
ca = "ca/mirror.pem"
key = "ca/mirror.key"
crl_url = "http://{vip4}/mirror.crl"
"#,
            v4 = EDGE_B.v4,
            v6 = EDGE_B.v6,
            vip4 = VIP_3.v4,
            vip6 = VIP_3.v6,
            roots = pki.roots().display(),
            certificate = own.chain.display(),
            key = own.key.display(),
        )
}

/// The private CA, made as an operator makes it; gives the file that Edges trust.
fn make_mirror_ca(lab: &Lab, tables: &str) -> Result<std::path::PathBuf> {
    let text = format!("[gateway]\ninterfaces = [\"wan0\"]\n{tables}");
    let config = lab.write_file("ca-init.toml", &text)?;
    let mut command = lab.gateway.command(binary()?);
    command.arg("--config").arg(config).args(["ca", "init"]);
    let made = output_within(&mut command, TIMEOUT)?;
    ensure!(made.status.success(), "{made:?}");
    Ok(lab.dir().join("ca/mirror.pem"))
}

fn server(lab: &Lab, pki: &Pki, name: &str, names: &[&str]) -> Result<OpensslServer> {
    let namespace = match name {
        "edge-a" => &lab.edge_a,
        _ => &lab.edge_b,
    };
    let identity = pki.server(name, names)?;
    OpensslServer::start(lab, name, namespace, SIP_TLS, &identity, pki)
}

/// `snigate watch`: what the agent does with each connection.
fn watch(lab: &Lab) -> Result<Process> {
    let mut command = lab.gateway.command(binary()?);
    command.arg("--config").arg(lab.dir().join("snigate.toml"));
    command.args(["watch", "--json"]);
    lab.spawn("watch", command)
}

fn snigate(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let mut command = lab.gateway.command(binary()?);
    command.arg("--config").arg(lab.dir().join("snigate.toml"));
    let output = output_within(command.args(arguments), TIMEOUT)?;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn connect(
    gateway: &Gateway<'_>,
    watch: &mut Process,
    client: &OpensslClient<'_>,
    server_name: &'static str,
    address: SocketAddr,
) -> Result<Reached> {
    let before = watch.stdout()?.lines().count();
    let mut session = client.open(address, TIMEOUT)?;
    session.echo()?;
    let (way, edge) = if VIP_3.both().contains(&address.ip()) {
        watched(watch, before)?
    } else {
        steered(gateway, address)?
    };
    let session = session.finish()?;
    Ok(Reached {
        address,
        server_name,
        way,
        edge,
        names: session.names,
        version: session.version,
        setup: session.setup,
    })
}

/// What the datapath did with the connection that is open.
fn steered(gateway: &Gateway<'_>, address: SocketAddr) -> Result<(String, String)> {
    let flows = gateway.json(&["flow", "ls"])?;
    let is_it =
        |flow: &&Value| flow["vip"] == address.to_string() && flow["state"] == "established";
    let flow = flows.as_array().and_then(|flows| flows.iter().find(is_it));
    let flow = flow.with_context(|| format!("no flow to {address} among {flows}"))?;
    let edge = flow["edge"].as_str().unwrap_or_default().to_owned();
    Ok(("steered".to_owned(), edge))
}

/// What the agent did with the connection after so many.
fn watched(watch: &Process, before: usize) -> Result<(String, String)> {
    let line = Deadline::after(TIMEOUT).poll("a line of snigate watch", || {
        Ok(watch.stdout()?.lines().nth(before).map(str::to_owned))
    })?;
    let seen: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    let result = seen["result"].as_str().unwrap_or_default();
    let (way, edge) = result.split_once(" to ").with_context(|| line.clone())?;
    Ok((way.to_owned(), edge.to_owned()))
}

fn table(reached: &[Reached]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "address",
        "server name",
        "way",
        "Edge reached",
        "certificate",
        "TLS",
        "setup",
    ]);
    for one in reached {
        table.add_row([
            one.address.ip().to_string(),
            one.server_name.to_owned(),
            one.way.clone(),
            one.edge.clone(),
            match &one.names[..] {
                [only] => only.clone(),
                [first, more @ ..] => format!("{first} +{}", more.len()),
                [] => String::new(),
            },
            one.version.clone(),
            format!("{:.0} ms", one.setup.as_secs_f64() * 1000.0),
        ]);
    }
    table
}

/// What the table must say for the demonstration to have shown anything.
fn check(reached: &[Reached]) -> Result<()> {
    for one in reached {
        let is_it = |way: &&Way| {
            way.vip.both().contains(&one.address.ip()) && way.ask.contains(&one.server_name)
        };
        let way = WAYS
            .iter()
            .find(is_it)
            .context("a way that was not asked for")?;
        ensure!(
            one.edge.starts_with(way.edge) && one.way == way.way,
            "{} was {} to {} instead of {} to {}",
            one.address,
            one.way,
            one.edge,
            way.way,
            way.edge
        );
        ensure!(
            one.names == *way.names,
            "{} was shown a certificate for {:?}",
            one.address,
            one.names
        );
    }
    Ok(())
}

/// Says what is going on, and how long it took.
#[derive(Default)]
struct Steps {
    started: Option<Instant>,
}

impl Steps {
    fn begin(&mut self, what: &str) -> Result<()> {
        self.end()?;
        self.started = Some(Instant::now());
        print!("{what} … ");
        Ok(stdout().flush()?)
    }

    fn end(&mut self) -> Result<()> {
        if let Some(started) = self.started.take() {
            println!("{:.1} s", started.elapsed().as_secs_f64());
        }
        Ok(stdout().flush()?)
    }
}
