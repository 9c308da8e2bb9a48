//! `snigate flow kill` on real connections.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use snigate_tests::{
    Lab, Namespace, Topology,
    addresses::{EDGE_A, EDGE_B, Host, SIP_TLS, VIP_1, VIP_2},
    gateway::{Gateway, binary, two_ip_sets_with_source},
    lab_test, output_within,
};

use crate::rig::TIMEOUT;

/// A connection through the gateway, by both of its ends.
struct Connection {
    partner: TcpStream,
    edge: TcpStream,
}

impl Connection {
    fn open(lab: &Lab, listener: &TcpListener, vip: IpAddr) -> Result<Self> {
        let partner = lab.partner.run(|| {
            Ok(TcpStream::connect_timeout(
                &SocketAddr::new(vip, SIP_TLS),
                TIMEOUT,
            )?)
        })?;
        let (edge, _) = listener.accept()?;
        for end in [&partner, &edge] {
            end.set_read_timeout(Some(TIMEOUT))?;
            end.set_write_timeout(Some(TIMEOUT))?;
        }
        let this = Self { partner, edge };
        this.exchange()?;
        Ok(this)
    }

    fn client(&self) -> Result<SocketAddr> {
        Ok(self.partner.local_addr()?)
    }

    /// A few bytes each way: the handshake is over, and the connection works.
    fn exchange(&self) -> Result<()> {
        for (mut from, mut to) in [(&self.partner, &self.edge), (&self.edge, &self.partner)] {
            from.write_all(b"hello")?;
            to.read_exact(&mut [0; 5])?;
        }
        Ok(())
    }

    fn is_reset(&self) -> Result<()> {
        for (name, mut end) in [("partner", &self.partner), ("Edge", &self.edge)] {
            match end.read(&mut [0; 64]) {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                other => anyhow::bail!("the {name}'s end says {other:?}"),
            }
        }
        Ok(())
    }
}

fn listen(machine: &Namespace, host: Host) -> Result<[TcpListener; 2]> {
    let listen = |address: IpAddr| {
        machine.run(move || Ok(TcpListener::bind(SocketAddr::new(address, SIP_TLS))?))
    };
    let [v4, v6] = host.both();
    Ok([listen(v4)?, listen(v6)?])
}

/// What `flow ls` lists.
fn flows(gateway: &Gateway<'_>) -> Result<Vec<Value>> {
    let flows = gateway.json(&["flow", "ls"])?;
    Ok(flows.as_array().context("a list")?.clone())
}

fn kill_resets_both_sides(lab: &Lab, source: &str) -> Result<()> {
    let at_a = listen(&lab.edge_a, EDGE_A)?;
    let at_b = listen(&lab.edge_b, EDGE_B)?;
    let gateway = Gateway::start(lab, &two_ip_sets_with_source(source))?;
    let connect = |listeners: &[TcpListener; 2], vip: Host| {
        let [v4, v6] = listeners;
        Ok::<_, anyhow::Error>([
            Connection::open(lab, v4, vip.v4.into())?,
            Connection::open(lab, v6, vip.v6.into())?,
        ])
    };
    let to_a = connect(&at_a, VIP_1)?;
    let [kept, other] = connect(&at_b, VIP_2)?;
    ensure!(flows(&gateway)?.len() == 4);

    // One by its addresses.
    let client = other.client()?.to_string();
    let said = gateway.output(&[
        "flow",
        "kill",
        &client,
        &format!("[{}]:{SIP_TLS}", VIP_2.v6),
    ])?;
    ensure!(said == "1 flow ended\n", "{said}");
    other.is_reset()?;
    ensure!(
        flows(&gateway)?
            .iter()
            .all(|flow| flow["client"] != client.as_str())
    );

    // All of an Edge; the others go on.
    let said = gateway.output(&["flow", "kill", "--edge", "edge-a"])?;
    ensure!(said == "1 flow ended\n", "{said}");
    to_a[0].is_reset()?;
    to_a[1].exchange()?;
    kept.exchange()?;
    ensure!(flows(&gateway)?.len() == 2);

    // All there are, with data in flight one way: the Edge's end does not read.
    let mut busy = &kept.partner;
    let flood = thread::scope(|scope| {
        let flood = scope.spawn(move || while busy.write_all(&[0; 4096]).is_ok() {});
        thread::sleep(Duration::from_millis(50));
        let said = gateway.output(&["flow", "kill", "--all"])?;
        ensure!(said == "2 flows ended\n", "{said}");
        flood
            .join()
            .map_err(|_| anyhow::anyhow!("the flood panicked"))
    });
    flood?;
    to_a[1].is_reset()?;
    ensure!(flows(&gateway)?.is_empty());
    needs_a_raw_socket(lab, &gateway)?;
    let nobody = gateway.command(&["flow", "kill", &client])?;
    ensure!(nobody.status.code() == Some(1), "{nobody:?}");
    Ok(())
}

/// Everything but CAP_NET_RAW does not do, and says so.
fn needs_a_raw_socket(lab: &Lab, gateway: &Gateway<'_>) -> Result<()> {
    let mut command = lab.gateway.command("setpriv");
    command
        .args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw"])
        .arg(binary()?);
    command
        .arg("--pin-path")
        .arg(gateway.pin_path())
        .args(["flow", "kill", "--all"]);
    let output = output_within(&mut command, TIMEOUT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && said.contains("CAP_NET_RAW"),
        "{output:?}"
    );
    Ok(())
}

#[test]
fn killed_flows_are_reset_on_both_sides() {
    lab_test("cli-kill", &Topology::default(), |lab| {
        kill_resets_both_sides(lab, "preserve")
    });
}

#[test]
fn killed_flows_through_the_gateways_own_address_too() {
    lab_test("cli-kill-gateway", &Topology::default(), |lab| {
        kill_resets_both_sides(lab, "gateway")
    });
}
