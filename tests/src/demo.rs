//! The main job, shown: mutual TLS from a partner through the gateway, to the Edge of each address's IP set.

use std::{
    io::{Write, stdout},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use comfy_table::{ContentArrangement, Table, presets};

use crate::{
    Lab, Topology,
    addresses::{Host, SIP_TLS, VIP_1, VIP_2},
    gateway::{Gateway, two_ip_sets},
    peers::{OpensslClient, OpensslServer, TlsVersion},
    pki::{Identity, Pki},
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// The names in each Edge's certificate, and the addresses of its IP set.
const EDGES: [(&str, Host, &[&str]); 2] = [
    (
        "edge-a",
        VIP_1,
        &[
            "sip.contoso.example",
            "sip.fabrikam.example",
            "sip.litware.example",
        ],
    ),
    (
        "edge-b",
        VIP_2,
        &["sip.adatum.example", "sip.northwind.example"],
    ),
];

/// What a connection has shown.
struct Reached {
    address: SocketAddr,
    server_name: &'static str,
    edge: String,
    names: Vec<String>,
    version: String,
    packets: u64,
    setup: Duration,
}

/// Brings the lab up, runs the main job through it, prints what went where, and takes it all down again, or leaves it.
///
/// # Errors
/// Whatever does not work; the lab is removed then, too.
pub fn run(keep: bool) -> Result<()> {
    let mut steps = Steps::default();
    steps.begin("a partner, a gateway and two Edges in network namespaces")?;
    let lab = Lab::new(
        "demo",
        &Topology {
            capture: false,
            ..Topology::default()
        },
    )?;
    steps.begin("certificates: a CA, the partner, one for each Edge")?;
    let pki = Pki::new("federation", &lab.dir())?;
    let partner = pki.server("partner", &["sip.partner.example"])?;
    let servers = [server(&lab, &pki, 0)?, server(&lab, &pki, 1)?];
    steps.begin("the datapath on the gateway's interfaces, configured by snigate run")?;
    let gateway = Gateway::start(&lab, &two_ip_sets())?;
    steps.begin("mutual TLS from the partner, with openssl s_client")?;
    let mut reached = Vec::new();
    for (_, vip, names) in EDGES {
        for (index, address) in vip.both().into_iter().enumerate() {
            for version in TlsVersion::BOTH {
                // The names take turns, so that each is asked for.
                let name = names[(index + reached.len()) % names.len()];
                let address = SocketAddr::new(address, SIP_TLS);
                reached.push(connect(
                    &lab, &gateway, &pki, &partner, name, address, version,
                )?);
            }
        }
    }
    steps.end()?;

    println!("\n{}", table(&reached));
    println!(
        "Setup is TCP and TLS as openssl s_client sees them, the start of the program included.\n"
    );
    for (title, arguments) in [
        ("Services", &["service", "ls"][..]),
        ("Edges", &["edge", "ls"]),
        ("Flows", &["flow", "ls"]),
        ("Counters", &["status"]),
    ] {
        println!(
            "{title} (snigate {}):\n{}",
            arguments.join(" "),
            gateway.output(arguments)?
        );
    }
    check(&reached)?;

    if keep {
        println!("{}", lab.guide());
        println!("The agent and the Edges keep running. To ask the gateway:");
        println!(
            "  ip netns exec {} {} --pin-path {} status",
            lab.gateway.name(),
            crate::gateway::binary()?.display(),
            gateway.pin_path().display()
        );
        println!("To remove it all: snigate-lab down (in the build's directory).");
        std::mem::forget((gateway, servers));
        return lab.keep();
    }
    steps.begin("taking everything down")?;
    drop(gateway);
    drop(servers);
    drop(lab);
    steps.end()
}

fn server(lab: &Lab, pki: &Pki, index: usize) -> Result<OpensslServer> {
    let (name, _, names) = EDGES[index];
    let namespace = [&lab.edge_a, &lab.edge_b][index];
    OpensslServer::start(
        lab,
        name,
        namespace,
        SIP_TLS,
        &pki.server(name, names)?,
        pki,
    )
}

fn connect(
    lab: &Lab,
    gateway: &Gateway<'_>,
    pki: &Pki,
    partner: &Identity,
    server_name: &'static str,
    address: SocketAddr,
    version: TlsVersion,
) -> Result<Reached> {
    let client = OpensslClient::new(&lab.partner, server_name, partner, pki).version(version);
    let mut session = client.open(address, TIMEOUT)?;
    session.echo()?;
    // While it is open, so that the flow is the established one.
    let flows = gateway.json(&["flow", "ls"])?;
    let flow = flows
        .as_array()
        .and_then(|flows| {
            flows
                .iter()
                .find(|flow| flow["vip"] == address.to_string() && flow["state"] == "established")
        })
        .with_context(|| format!("no flow to {address} among {flows}"))?;
    let packets = |direction: &str| flow[direction]["packets"].as_u64().unwrap_or_default();
    let (edge, packets) = (
        flow["edge"].as_str().unwrap_or_default().to_owned(),
        packets("to_edge") + packets("to_client"),
    );
    let session = session.finish()?;
    Ok(Reached {
        address,
        server_name,
        edge,
        names: session.names,
        version: session.version,
        packets,
        setup: session.setup,
    })
}

fn table(reached: &[Reached]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "address",
        "server name",
        "Edge reached",
        "its certificate names",
        "TLS",
        "packets",
        "setup",
    ]);
    for one in reached {
        table.add_row([
            one.address.to_string(),
            one.server_name.to_owned(),
            one.edge.clone(),
            one.names.join("\n"),
            one.version.clone(),
            one.packets.to_string(),
            format!("{:.0} ms", one.setup.as_secs_f64() * 1000.0),
        ]);
    }
    table
}

/// What the table must say for the demonstration to have shown anything.
fn check(reached: &[Reached]) -> Result<()> {
    for one in reached {
        let (edge, _, names) = EDGES
            .iter()
            .find(|(_, vip, _)| vip.both().contains(&one.address.ip()))
            .context("an address of no IP set")?;
        ensure!(
            one.edge.starts_with(edge),
            "{} reached {} instead of {edge}",
            one.address,
            one.edge
        );
        ensure!(
            one.names == *names,
            "{} was shown a certificate for {:?}",
            one.address,
            one.names
        );
        ensure!(
            one.packets > 0,
            "no packet of the connection to {} was steered",
            one.address
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
