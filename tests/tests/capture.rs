//! `snigate capture`: what is in the file, as Wireshark's own programs read it.

use std::{
    fs,
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use snigate_tests::{
    Lab, Process, Topology,
    addresses::{EDGE_A, PARTNER, SIP_TLS, VIP_1, VIP_2, VIP_3, partner},
    deadline::Deadline,
    gateway::{Gateway, Tuning, binary, two_ip_sets, two_ip_sets_with_source},
    lab_test, output_within,
    peers::{Edge, Partner, open_socket},
};

const TIMEOUT: Duration = Duration::from_secs(60);
/// For connections that must not come about.
const IN_VAIN: Duration = Duration::from_millis(300);
/// Bytes that are exchanged: more than a segment.
const BYTES: u64 = 5000;

/// A partner that is welcome, and one that is not.
fn two_partners() -> Topology {
    Topology {
        capture: false,
        partner_addresses: 2,
        ..Topology::default()
    }
}

/// Tables where the second partner is denied.
fn denying(tables: &str) -> String {
    let denied = partner(1).both();
    let [v4, v6] = denied.map(|address| address.to_string());
    format!("{tables}\n[limits]\ndeny = [\"{v4}/32\", \"{v6}/128\"]\n")
}

fn start<'lab>(lab: &'lab Lab, hook: &'static str, tables: &str) -> Result<Gateway<'lab>> {
    let tuning = Tuning {
        hook: Some(hook),
        ..Tuning::default()
    };
    Gateway::start_tuned(lab, tuning, "", &denying(tables))
}

/// Begins a capture into a file of this name.
fn capture(gateway: &Gateway<'_>, lab: &Lab, name: &str, options: &[&str]) -> Result<Capture> {
    let file = lab.dir().join(format!("{name}.pcapng"));
    let output = file.display().to_string();
    let arguments = [&["capture", "--output", &output], options].concat();
    let mut process = lab.spawn(name, gateway.prepared(&arguments)?)?;
    process.wait_for_line("capturing ", TIMEOUT)?;
    Ok(Capture { process, file })
}

struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Ends it as an operator would.
    fn end(mut self) -> Result<File> {
        self.process.signal(Signal::SIGINT)?;
        self.ended()
    }

    fn ended(&mut self) -> Result<File> {
        let status = self.process.wait_for_exit(TIMEOUT)?;
        let said = self.process.stderr()?;
        ensure!(status.success(), "ended with {status}: {said}");
        Ok(File {
            packets: packets(&self.file)?,
            path: self.file.clone(),
            said,
        })
    }
}

/// A capture that has ended.
#[derive(Debug)]
struct File {
    path: PathBuf,
    packets: Vec<Packet>,
    said: String,
}

impl File {
    fn find(&self, what: &str, is_it: impl Fn(&Packet) -> bool) -> Result<&Packet> {
        let found = self.packets.iter().find(|packet| is_it(packet));
        found.with_context(|| format!("no packet {what} in {self:#?}"))
    }
}

/// A packet as tshark reads it.
#[derive(Debug)]
struct Packet {
    comments: Vec<String>,
    interface: String,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    flags: String,
    length: u64,
    taken: u64,
}

impl Packet {
    fn is(&self, source: IpAddr, destination: IpAddr, comment: &str) -> bool {
        self.source == Some(source)
            && self.destination == Some(destination)
            && self.comments == [comment]
    }
}

const FIELDS: [&str; 9] = [
    "frame.comment",
    "frame.interface_name",
    "ip.src",
    "ipv6.src",
    "ip.dst",
    "ipv6.dst",
    "tcp.flags",
    "frame.len",
    "frame.cap_len",
];

fn packets(file: &Path) -> Result<Vec<Packet>> {
    let mut tshark = std::process::Command::new("tshark");
    tshark.arg("-r").arg(file).args(["-n", "-T", "fields"]);
    tshark.args(["-E", "separator=|", "-E", "aggregator=~"]);
    tshark.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let text = succeeded(&mut tshark)?;
    let packets = text.lines().map(|line| {
        let fields: Vec<_> = line.split('|').collect();
        ensure!(fields.len() == FIELDS.len(), "{line}");
        let either = |v4: &str, v6: &str| v4.parse().or_else(|_| v6.parse()).ok();
        Ok(Packet {
            comments: fields[0].split('~').map(str::to_owned).collect(),
            interface: fields[1].to_owned(),
            source: either(fields[2], fields[3]),
            destination: either(fields[4], fields[5]),
            flags: fields[6].to_owned(),
            length: fields[7].parse()?,
            taken: fields[8].parse()?,
        })
    });
    packets.collect()
}

fn succeeded(command: &mut std::process::Command) -> Result<String> {
    let output = output_within(command, TIMEOUT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

fn exchange(lab: &Lab, edge: &Edge, address: SocketAddr) -> Result<()> {
    // The kernel might choose the one that is denied.
    let [v4, v6] = PARTNER.both();
    let client = if address.is_ipv4() { v4 } else { v6 };
    let partner = Partner {
        namespace: &lab.partner,
        source: Some(SocketAddr::new(client, 0)),
        tls: None,
        timeout: TIMEOUT,
    };
    partner.exchange(address, BYTES, BYTES)?;
    edge.report(TIMEOUT)?;
    Ok(())
}

/// Tries to connect from an address, which must fail like this.
fn fails(lab: &Lab, from: IpAddr, to: SocketAddr, how: ErrorKind, within: Duration) -> Result<()> {
    let source = SocketAddr::new(from, 0);
    let outcome = lab
        .partner
        .run(|| Ok(open_socket(Some(source), to, within)))?;
    let kind = outcome.err().map(|error| error.kind());
    ensure!(kind == Some(how), "{from} to {to}: {kind:?}");
    Ok(())
}

fn denied(lab: &Lab, to: SocketAddr) -> Result<()> {
    let [v4, v6] = partner(1).both();
    let from = if to.is_ipv4() { v4 } else { v6 };
    fails(lab, from, to, ErrorKind::TimedOut, IN_VAIN)
}

#[test]
fn packets_and_what_became_of_them_at_xdp() {
    lab_test("capture-xdp", &two_partners(), |lab| {
        everything(lab, "xdp", "xdp")
    });
}

#[test]
fn packets_and_what_became_of_them_at_traffic_control() {
    lab_test("capture-tcx", &two_partners(), |lab| {
        everything(lab, "tcx", "tc")
    });
}

/// Steered, denied, reset and refused connections of both families; then all packets are in the file.
fn everything(lab: &Lab, hook: &'static str, shown: &str) -> Result<()> {
    let inspected = format!(
        "[[ip_set]]\nname = \"shared\"\naddresses = [\"{}\", \"{}\"]\ninspect = true\nbind = false\n",
        VIP_3.v4, VIP_3.v6
    );
    let mut gateway = start(lab, hook, &(two_ip_sets() + &inspected))?;
    let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
    for drained in ["edge-b", "edge-b-v6"] {
        gateway.output(&["edge", "drain", drained])?;
    }
    let drops = capture(&gateway, lab, "drops", &["--drops"])?;
    traffic(lab, &edge)?;
    let drops = drops.end()?;
    for packet in &drops.packets {
        let comment = &packet.comments[0];
        let is_drop = comment.starts_with("dropped: ") || comment.starts_with("answered: ");
        ensure!(is_drop, "{packet:?}");
    }

    let all = capture(&gateway, lab, "all", &["--all"])?;
    traffic(lab, &edge)?;
    // Nobody takes inspected connections, and the capture goes on without an agent.
    gateway.kill()?;
    let holder = gateway.holder()?.context("no holder")?;
    kill(holder, Signal::SIGKILL)?;
    Deadline::after(TIMEOUT).poll("the listener's end", || {
        let to = VIP_3.sip()[0];
        let socket = lab.partner.run(|| Ok(open_socket(None, to, TIMEOUT)))?;
        let refused = socket.is_err_and(|it| it.kind() == ErrorKind::ConnectionRefused);
        Ok(refused.then_some(()))
    })?;
    let client = PARTNER.v6.into();
    let vip = VIP_3.sip()[1];
    fails(lab, client, vip, ErrorKind::ConnectionRefused, TIMEOUT)?;
    let all = all.end()?;

    for (family, edge_name) in ["edge-a", "edge-a-v6"].into_iter().enumerate() {
        let [client, vip, edge] = [PARTNER, VIP_1, EDGE_A].map(|host| host.both()[family]);
        let to = format!("forwarded; to {edge_name}; out by lan0; at {shown}");
        let to = all.find("to the Edge", |packet| packet.is(client, vip, &to))?;
        ensure!(to.interface == "wan0", "{to:?}");
        // As it came in: the Edge has the client's address for the destination, and not yet the public one for the source.
        let from = format!("forwarded; from {edge_name}; out by wan0; at {shown}");
        let from = all.find("from the Edge", |packet| packet.is(edge, client, &from))?;
        ensure!(from.interface == "lan0", "{from:?}");
        let longer = all.find("that was cut", |packet| packet.length > packet.taken)?;
        ensure!(longer.taken >= 256, "{longer:?}");
    }
    for client in PARTNER.both() {
        let said = "dropped: no-listener; at socket-lookup, which has no packet";
        all.find("that nobody took", |packet| {
            let comment = &packet.comments[0];
            comment.starts_with(said) && comment.contains(&client.to_string())
        })?;
    }
    for file in [&drops, &all] {
        for (family, client) in partner(1).both().into_iter().enumerate() {
            let comment = format!("dropped: denied; at {shown}");
            let denied = file.find("that was denied", |packet| {
                packet.is(client, VIP_1.both()[family], &comment)
            })?;
            ensure!(
                denied.flags == "0x0002" || denied.flags == "0x00c2",
                "{denied:?}"
            );
            let comment = format!("answered: no-edge; at {shown}");
            file.find("that was answered", |packet| {
                packet.is(PARTNER.both()[family], VIP_2.both()[family], &comment)
            })?;
        }
        judged(file)?;
    }
    Ok(())
}

/// Connections that are steered, denied and reset.
fn traffic(lab: &Lab, edge: &Edge) -> Result<()> {
    for address in VIP_1.sip() {
        exchange(lab, edge, address)?;
        denied(lab, address)?;
    }
    for (from, to) in PARTNER.both().into_iter().zip(VIP_2.sip()) {
        fails(lab, from, to, ErrorKind::ConnectionRefused, TIMEOUT)?;
    }
    Ok(())
}

/// Other readers take the file, and find as many packets in it as were said to be.
fn judged(file: &File) -> Result<()> {
    let mut capinfos = std::process::Command::new("capinfos");
    let infos = succeeded(capinfos.arg("-M").arg(&file.path))?;
    let has = |key: &str, value: &str| {
        let mut lines = infos
            .lines()
            .filter(|line| line.trim_start().starts_with(key));
        ensure!(
            lines.any(|line| line.contains(value)),
            "no {key} {value} in {infos}"
        );
        Ok(())
    };
    let number = file.packets.len();
    has("File type", "pcapng")?;
    has("File timestamp precision", "nanoseconds (9)")?;
    has("Number of packets", &number.to_string())?;
    has("Number of interfaces in file", "3")?;
    has("Encapsulation", "Ethernet")?;
    has("Capture comment", "by snigate ")?;
    let said = format!("{number} packets written, 0 lost");
    ensure!(file.said.contains(&said), "{}", file.said);
    let mut tcpdump = std::process::Command::new("tcpdump");
    let lines = succeeded(tcpdump.args(["-n", "-r"]).arg(&file.path))?;
    ensure!(
        lines.lines().count() >= number,
        "{number} packets in {lines}"
    );
    let denied = format!("> {}.{SIP_TLS}: Flags [S", VIP_1.v4);
    ensure!(lines.contains(&denied), "{lines}");
    Ok(())
}

#[test]
fn only_what_was_asked_for() {
    lab_test("capture-filters", &two_partners(), |lab| {
        // Edges see the gateway's address: whose packets theirs are, only the flow knows.
        let gateway = start(lab, "xdp", &two_ip_sets_with_source("gateway"))?;
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let both = |lab: &Lab| {
            VIP_1
                .sip()
                .into_iter()
                .try_for_each(|to| exchange(lab, &edge, to))
        };

        let client = PARTNER.v4.to_string();
        let answers = ["--all", "--client", &client, "--interface", "lan0"];
        let answers = capture(&gateway, lab, "answers", &answers)?;
        let refused = gateway.refusal(&["capture", "--output", "/dev/null"])?;
        ensure!(
            refused.contains("another `snigate capture` runs"),
            "{refused}"
        );
        both(lab)?;
        let answers = answers.end()?;
        answers.find("from the Edge", |packet| {
            packet.source == Some(EDGE_A.v4.into())
        })?;
        let comment = "forwarded; from edge-a; out by wan0; at xdp";
        for packet in &answers.packets {
            ensure!(packet.comments == [comment], "{packet:?}");
        }

        let to = VIP_1.v6.to_string();
        let edges = [
            "--all",
            "--edge",
            "edge-a-v6",
            "--to",
            &to,
            "--snaplen",
            "80",
        ];
        let edges = capture(&gateway, lab, "edges", &edges)?;
        both(lab)?;
        let edges = edges.end()?;
        edges.find("that was cut", |packet| {
            packet.taken == 80 && packet.length > 80
        })?;
        for packet in &edges.packets {
            let is_v6 = packet.source.is_some_and(|source| source.is_ipv6());
            ensure!(is_v6 && packet.taken <= 80, "{packet:?}");
            ensure!(packet.comments[0].contains(" edge-a-v6;"), "{packet:?}");
        }

        let prefix = format!("{}/128", partner(1).v6);
        let reason = ["--reason", "denied", "--address", &prefix, "--count", "1"];
        let mut reason = capture(&gateway, lab, "reason", &reason)?;
        both(lab)?;
        for to in VIP_1.sip() {
            denied(lab, to)?;
        }
        let reason = reason.ended()?;
        ensure!(reason.packets.len() == 1, "{reason:?}");
        let comment = "dropped: denied; at xdp";
        ensure!(
            reason.packets[0].is(partner(1).v6.into(), VIP_1.v6.into(), comment),
            "{reason:?}"
        );

        // What is not shown is counted, told, and told in the file.
        let slow = capture(&gateway, lab, "slow", &["--all", "--rate", "1"])?;
        both(lab)?;
        let slow = slow.end()?;
        ensure!(slow.said.contains(" lost (more than --rate"), "{slow:?}");
        let lost = gateway.json(&["status", "--all"])?;
        ensure!(
            lost["counters"]["capture-lost"].as_u64() > Some(0),
            "{lost}"
        );
        Ok(())
    });
}

#[test]
fn to_a_pipe_and_after_a_kill() {
    lab_test("capture-pipe", &two_partners(), |lab| {
        let gateway = start(lab, "tcx", &two_ip_sets())?;
        let edge = Edge::start(&lab.edge_a, SIP_TLS, None)?;
        let killed = capture(&gateway, lab, "killed", &["--all"])?;
        exchange(lab, &edge, VIP_1.sip()[0])?;
        // What was written is complete at any time.
        Deadline::after(TIMEOUT).poll("packets in the file", || {
            let packets = packets(&killed.file).ok();
            Ok(packets.filter(|packets| !packets.is_empty()))
        })?;
        killed.process.signal(Signal::SIGKILL)?;
        let Capture { mut process, .. } = killed;
        process.wait_for_exit(TIMEOUT)?;

        let mut command = gateway.prepared(&["capture", "--all", "--count", "3"])?;
        let mut piped = command.stdout(Stdio::piped()).spawn()?;
        Deadline::after(TIMEOUT).poll("the third packet", || {
            exchange(lab, &edge, VIP_1.sip()[1])?;
            Ok(piped.try_wait()?)
        })?;
        let mut bytes = Vec::new();
        piped
            .stdout
            .take()
            .context("no pipe")?
            .read_to_end(&mut bytes)?;
        let file = lab.dir().join("piped.pcapng");
        fs::write(&file, &bytes)?;
        let piped = packets(&file)?;
        ensure!(piped.len() == 3, "{piped:?}");
        // Of none of them is one that the killed capture has left in the ring.
        for packet in &piped {
            let is_v6 = packet.source.is_some_and(|source| source.is_ipv6());
            ensure!(is_v6, "{packet:?}");
        }

        // The datapath ends by itself what nobody renews.
        let killed = capture(&gateway, lab, "forgotten", &["--all"])?;
        killed.process.signal(Signal::SIGKILL)?;
        let is_on = || -> Result<bool> {
            let control = gateway.output(&["map", "dump", "CONTROL"])?;
            let mut lines = control
                .lines()
                .filter(|it| it.contains("the capture of packets"));
            Ok(!lines.any(|line| line.contains("there is none")))
        };
        ensure!(is_on()?, "it is over already");
        Deadline::after(TIMEOUT).poll("the end of the capture", || {
            exchange(lab, &edge, VIP_1.sip()[0])?;
            Ok((!is_on()?).then_some(()))
        })
    });
}

#[test]
fn where_there_is_nothing_to_capture() {
    lab_test("capture-refused", &two_partners(), |lab| {
        let nowhere = lab.bpffs()?.join("nowhere");
        let capture = |command: &mut std::process::Command, pins: &Path| -> Result<String> {
            command.arg("--pin-path").arg(pins);
            command.args(["capture", "--output", "/dev/null"]);
            let output = output_within(command, TIMEOUT)?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(1), "{said}");
            Ok(said)
        };
        let said = capture(&mut lab.gateway.command(binary()?), &nowhere)?;
        ensure!(said.contains("no snigate datapath is pinned"), "{said}");
        let gateway = start(lab, "xdp", &two_ip_sets())?;
        let pins = gateway.pin_path();
        let mut nobody = lab.gateway.command("setpriv");
        nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        let said = capture(nobody.arg(binary()?), pins)?;
        ensure!(said.contains("needs root"), "{said}");
        let said = gateway.refusal(&["capture", "--output", "/dev/null", "--interface", "eth9"])?;
        ensure!(said.contains("it is to lan0, lan1, wan0"), "{said}");
        let said = gateway.refusal(&["capture", "--output", "/dev/null", "--edge", "edge-c"])?;
        ensure!(said.contains("the datapath knows edge-a, "), "{said}");
        Ok(())
    });
}
