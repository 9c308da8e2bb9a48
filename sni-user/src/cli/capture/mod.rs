//! `snigate capture`: packets with what became of them, in a file that Wireshark reads.

mod file;
mod packet;

use std::{
    fs::OpenOptions,
    future::pending,
    io::{self, BufWriter, IsTerminal as _, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use rustix::time::{ClockId, clock_gettime};
use sni_common::{
    Address,
    contract::{Capturing, DropReason, Edge, Fate, LabelKind, MAX_SNAP, Prefix},
};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use self::file::{Frame, Writer};
use super::{
    CliError, Environment, ask::runtime, environment::interface_index, flow::unknown_edge,
    place::Place, read, units, watch::prefix,
};
use crate::{
    config::IpNet,
    datapath::{Capture, CapturedPacket, Maps, attached_interfaces},
};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Only packets that were dropped, or answered with a reset or an ICMP error; the default
    #[arg(long, conflicts_with = "all")]
    drops: bool,
    /// All packets of services and flows, whatever became of them
    #[arg(long)]
    all: bool,
    /// Only packets that were dropped for this reason; may be given several times
    #[arg(long, value_name = "NAME", value_parser = reasons(), hide_possible_values = true, conflicts_with = "all")]
    reason: Vec<DropReason>,
    /// Only packets with this client, or one of this prefix, at one end
    #[arg(long, visible_alias = "address", value_name = "PREFIX", value_parser = prefix)]
    client: Option<IpNet>,
    /// Only packets with this public address at one end
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    to: Option<IpNet>,
    /// Only packets to or from this Edge
    #[arg(long, value_name = "NAME")]
    edge: Option<String>,
    /// Only packets that come in by this interface
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Bytes of each packet, at most
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=MAX_SNAP as i64))]
    snaplen: u32,
    /// Packets a second, at most, on each CPU
    #[arg(long, value_name = "PACKETS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// End after this many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time, such as 30s or 5min
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// The file, or - for standard output, such as a pipe into Wireshark
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

/// A drop reason by its name.
fn reasons() -> impl TypedValueParser<Value = DropReason> {
    let names = DropReason::ALL.iter().map(|reason| reason.name());
    PossibleValuesParser::new(names).map(|name| {
        let mut all = DropReason::ALL.iter().copied();
        all.find(|reason| reason.name() == name)
            .expect("one of the possible values")
    })
}

/// How often the capture is renewed, and its progress told.
const TICK: Duration = Duration::from_secs(1);

pub(super) fn run(
    arguments: &Arguments,
    place: &Place,
    environment: &mut Environment<'_>,
) -> Result<(), CliError> {
    let to_output = arguments.output == Path::new("-");
    if to_output && io::stdout().is_terminal() {
        return Err(CliError::Usage(
            "packets are nothing for a terminal: name a file with --output, or use a pipe, such as `snigate capture | wireshark -k -i -`"
                .into(),
        ));
    }
    let maps = Maps::open(&place.pin_path()?)?;
    let attached = attached(&maps, arguments.interface.as_deref())?;
    let slots = slots(arguments.edge.as_deref(), &maps)?;
    let wanted = wanted(arguments, slots.as_deref());
    let edges = read::edges(&maps)?;
    runtime()?.block_on(async {
        let capture = Capture::begin(maps, wanted)?;
        let Environment {
            out,
            err,
            now_ns,
            interface_name,
            ..
        } = environment;
        let out: Box<dyn Write + '_> = if to_output {
            Box::new(out)
        } else {
            Box::new(BufWriter::new(create(&arguments.output)?))
        };
        let failed = |error| output_failed(&arguments.output, error);
        let writer = Writer::begin(out, PROGRAM, &about(arguments), arguments.snaplen);
        let mut session = Session {
            capture,
            writer: writer.map_err(failed)?,
            edges,
            slots,
            arguments,
            now_ns: *now_ns,
            interface_name: *interface_name,
            written: 0,
            lost: 0,
            progress: false,
            err: *err,
        };
        session.begin(&attached).map_err(failed)?;
        let ended = session.run().await;
        let rest = session.end(&ended);
        ended.and(rest)
    })
}

/// Its name and version, without anything of the host.
const PROGRAM: &str = concat!("snigate ", env!("CARGO_PKG_VERSION"));

/// What is in the file.
fn about(arguments: &Arguments) -> String {
    let what = if arguments.all {
        "packets of services and flows"
    } else {
        "packets of services and flows that were dropped or answered"
    };
    let snap = arguments.snaplen;
    format!("{what}, as they came in, the first {snap} bytes of each; by {PROGRAM}")
}

/// The interfaces that packets may come in by.
fn attached(maps: &Maps, only: Option<&str>) -> Result<Vec<String>, CliError> {
    let attached = attached_interfaces(maps.pin_path())?;
    let mut names: Vec<_> = attached.into_iter().map(|it| it.interface).collect();
    names.dedup();
    if names.is_empty() {
        return Err(CliError::NotAttached);
    }
    match only {
        None => Ok(names),
        Some(name) if names.iter().any(|it| it == name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(CliError::NotAttachedTo {
            name: name.to_owned(),
            attached: names.join(", "),
        }),
    }
}

/// What the datapath is asked for.
fn wanted(arguments: &Arguments, slots: Option<&[u16]>) -> Capturing {
    let end = |prefix: Option<IpNet>| {
        prefix.map_or_else(Prefix::default, |net| {
            let address = Address::from(net.network());
            Prefix::new(address, address.prefix_bits(net.prefix_len()))
        })
    };
    let reasons = arguments.reason.iter().map(|reason| 1 << *reason as u32);
    let reasons = reasons.fold(0, |all: u64, one: u64| all | one);
    Capturing {
        one_end: end(arguments.client),
        other_end: end(arguments.to),
        reasons: if reasons == 0 { u64::MAX } else { reasons },
        fates: if arguments.all {
            Fate::ANY
        } else {
            Fate::DROPS
        },
        snap: arguments.snaplen,
        ifindex: arguments
            .interface
            .as_deref()
            .and_then(interface_index)
            .unwrap_or(0),
        // The datapath looks for one; where the name has had several places, this command does.
        edge: match slots {
            Some([slot]) => u32::from(*slot) + 1,
            _ => 0,
        },
        millirate: arguments.rate * 1000,
        // A ring full of the longest packets takes some nine hundred.
        burst: arguments.rate.min(500),
        ..Capturing::default()
    }
}

/// The slots of the Edge that was named, which has several where it was moved; `None` where any will do.
fn slots(edge: Option<&str>, maps: &Maps) -> Result<Option<Vec<u16>>, CliError> {
    let Some(name) = edge else {
        return Ok(None);
    };
    let names = read::names(maps)?;
    let slots = names.edge_slots(name);
    if slots.is_empty() {
        return Err(unknown_edge(name, &names));
    }
    Ok(Some(slots))
}

fn create(path: &Path) -> Result<std::fs::File, CliError> {
    // Packets are not everybody's business.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(|source| CliError::File {
        what: "making",
        path: path.to_owned(),
        source,
    })
}

fn output_failed(path: &Path, source: io::Error) -> CliError {
    if path == Path::new("-") {
        return CliError::Output(source);
    }
    CliError::File {
        what: "writing",
        path: path.to_owned(),
        source,
    }
}

/// A capture that runs, and the file that it goes to.
struct Session<'a, W: Write> {
    capture: Capture,
    writer: Writer<W>,
    edges: Vec<(u16, Edge)>,
    /// Those of the Edge that was named; `None` where any will do.
    slots: Option<Vec<u16>>,
    arguments: &'a Arguments,
    now_ns: fn() -> u64,
    interface_name: fn(u32) -> Option<String>,
    written: u64,
    /// Of those that were lost, how many have been told in the file.
    lost: u64,
    /// Whether a line of progress stands on the terminal.
    progress: bool,
    err: &'a mut dyn Write,
}

impl<W: Write> Session<'_, W> {
    fn begin(&mut self, attached: &[String]) -> io::Result<()> {
        for name in attached {
            if let Some(ifindex) = interface_index(name) {
                self.writer.interface(ifindex, || name.clone())?;
            }
        }
        self.writer.flush()?;
        let what = if self.arguments.all {
            "packets"
        } else {
            "dropped packets"
        };
        let on = attached.join(", ");
        writeln!(self.err, "capturing {what} on {on}; Ctrl-C ends it")
    }

    /// Until it is over.
    async fn run(&mut self) -> Result<(), CliError> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Runtime)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(CliError::Runtime)?;
        let duration = self.arguments.duration;
        let deadline = async {
            match duration {
                Some(duration) => sleep(duration).await,
                None => pending().await,
            }
        };
        tokio::pin!(deadline);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                packets = self.capture.next() => if self.take(&packets?)? {
                    return Ok(());
                },
                _ = tick.tick() => {
                    if self.capture.is_over() {
                        return Err(CliError::DatapathGone);
                    }
                    self.capture.renew()?;
                    self.tell_progress()?;
                }
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                () = &mut deadline => return Ok(()),
            }
        }
    }

    /// Writes packets; whether that were as many as wanted.
    fn take(&mut self, packets: &[CapturedPacket]) -> Result<bool, CliError> {
        let failed = |error| output_failed(&self.arguments.output, error);
        // Of the moment, because the host's clock is set now and then.
        let since_1970 = clock_gettime(ClockId::Realtime);
        let since_1970 =
            since_1970.tv_sec.unsigned_abs() * 1_000_000_000 + since_1970.tv_nsec.unsigned_abs();
        let start_ns = since_1970.saturating_sub((self.now_ns)());
        for packet in packets {
            if self.is_complete() {
                break;
            }
            self.write(packet, start_ns).map_err(failed)?;
        }
        self.writer.flush().map_err(failed)?;
        Ok(self.is_complete())
    }

    fn is_complete(&self) -> bool {
        self.arguments.count.is_some_and(|n| self.written >= n)
    }

    fn write(&mut self, captured: &CapturedPacket, start_ns: u64) -> io::Result<()> {
        let head = &captured.head;
        let edge = packet::edge(head, &self.edges);
        let is_of = |slots: &Vec<u16>| edge.is_some_and(|(slot, _)| slots.contains(&slot));
        if !self.slots.as_ref().is_none_or(is_of) {
            return Ok(());
        }
        let interface_name = self.interface_name;
        let name = |ifindex: u32| interface_name(ifindex).unwrap_or_else(|| ifindex.to_string());
        let edge = edge.map(|(slot, direction)| (self.edge_name(slot), direction));
        let edge = edge
            .as_ref()
            .map(|(name, direction)| (name.as_str(), *direction));
        let leaves_by = (head.leaves_by != 0).then(|| name(head.leaves_by));
        let mut comments = vec![packet::comment(head, edge, leaves_by.as_deref())];
        comments.extend(self.newly_lost());
        let (bytes, length) = packet::on_the_wire(captured);
        let interface = self.writer.interface(head.ifindex, || name(head.ifindex))?;
        self.writer.packet(&Frame {
            interface,
            at_ns: start_ns + head.at_ns,
            bytes: &bytes,
            length,
            comments: &comments,
            answer: packet::answer(head),
        })?;
        self.written += 1;
        Ok(())
    }

    fn edge_name(&self, slot: u16) -> String {
        self.capture
            .maps()
            .label(LabelKind::Edge, 0, slot.into())
            .unwrap_or_else(|| format!("#{slot}"))
    }

    /// What whoever reads the file must know of what is not in it.
    fn newly_lost(&mut self) -> Option<String> {
        let lost = self.capture.lost().ok()?;
        let newly = lost.saturating_sub(self.lost);
        self.lost = lost;
        (newly > 0).then(|| {
            format!(
                "about here {} are missing",
                units::counted(newly as usize, "packet")
            )
        })
    }

    /// On a terminal, in one line that is written again and again.
    fn tell_progress(&mut self) -> Result<(), CliError> {
        if !io::stderr().is_terminal() {
            return Ok(());
        }
        let lost = units::count(self.capture.lost()?);
        let written = units::counted(self.written as usize, "packet");
        write!(self.err, "\r{written}, {lost} lost ")?;
        self.err.flush()?;
        self.progress = true;
        Ok(())
    }

    /// Writes what is there yet, unless it was the file that failed, and sums up.
    fn end(&mut self, ended: &Result<(), CliError>) -> Result<(), CliError> {
        if !matches!(ended, Err(CliError::Output(_) | CliError::File { .. })) {
            while let Some(packets) = self.capture.rest()? {
                if self.take(&packets)? {
                    break;
                }
            }
        }
        let written = units::counted(self.written as usize, "packet");
        let lost = self.capture.lost()?;
        let advice = if lost > 0 {
            " (more than --rate, or faster than they were written)"
        } else {
            ""
        };
        let line_end = if self.progress { "\n" } else { "" };
        let lost = units::count(lost);
        writeln!(self.err, "{line_end}{written} written, {lost} lost{advice}")?;
        Ok(())
    }
}
