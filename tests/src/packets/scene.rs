//! A datapath of a row's own, configured the way the agent does it, into which packets are put one by one.

use std::collections::{BTreeMap, HashSet};
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Map, MapData, PerCpuValues, RingBuf};
use aya::programs::{TestRun as _, TestRunOptions};
use aya::util::nr_cpus;
use sni_common::contract::{
    CONTROL_GENERATION, Counter, DropReason, Edge, EdgeState, Event, HelloEvent, LabelKind, Pool,
    Stats, TELL_FLOWS, TELL_HELLOS, limits::MAX_POOLS, stats,
};
use sni_user::config::Config;
use sni_user::datapath::{Datapath, Maps, Tables};
use socket2::Socket;

use super::capture::Capture;
use super::loaded::Lent;
use super::rig::{Port, Rig, gateway_toward};
use crate::line;

/// The ports that the gateway owns toward Edges of `source = "gateway"`, unless a row says otherwise.
pub const OWNED_PORTS: (u16, u16) = (20_000, 1_000);

/// The kernel takes no shorter frame for a test run: an Ethernet header.
pub const SHORTEST_FRAME: usize = 14;

pub(super) const XDP_DROP: u32 = 1;
pub(super) const XDP_PASS: u32 = 2;
pub(super) const XDP_REDIRECT: u32 = 4;

// TC_ACT_SHOT, TC_ACT_UNSPEC and TC_ACT_REDIRECT.
const TC_DROP: u32 = 2;
const TC_PASS: u32 = u32::MAX;
const TC_REDIRECT: u32 = 7;

/// The datapath at one of its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// At XDP.
    Xdp,
    /// At the ingress of traffic control.
    Tc,
}

impl Program {
    /// Both hooks.
    pub const BOTH: [Self; 2] = [Self::Xdp, Self::Tc];
}

/// What the program returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the host.
    Pass,
    /// Dropped.
    Drop,
    /// Out by another interface, or back.
    Redirect,
}

/// What became of a packet.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The program's verdict.
    pub action: Action,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
    /// By how much each counter and drop reason rose; those that did not are left out.
    pub counts: BTreeMap<&'static str, u64>,
    /// What the agent was told.
    pub events: Vec<Event>,
    /// What it was told of ClientHellos besides.
    pub hellos: Vec<HelloEvent>,
}

/// A datapath with state of its own.
pub struct Scene<'a> {
    rig: &'a Rig,
    loaded: Lent<'a>,
    events: RingBuf<MapData>,
    capture: Option<Capture>,
    /// What is active, so that an equal configuration need not be written again: that takes tens of milliseconds.
    active: Option<(String, (u16, u16))>,
    program: Program,
}

/// What programs send out by an interface besides the packets that they are run on.
pub struct Besides(Socket);

impl Besides {
    /// What has come since the last look. It is there when the test run ends, unless the machine is busy: then it comes soon.
    ///
    /// # Errors
    /// The kernel's.
    pub fn frames(&self) -> Result<Vec<Vec<u8>>> {
        const LONGEST: usize = 2048;
        // The other end of the link is in this namespace.
        let next = || line::receive(LONGEST, |buffer| (&self.0).read(buffer)).transpose();
        Ok(std::iter::from_fn(next).collect::<Result<_, _>>()?)
    }
}

/// Where a frame meets the datapath.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hook {
    /// Its own.
    Front(Program),
    /// The ingress of traffic control, where the program sits that handles what the first one has let pass.
    Behind,
}

impl<'a> Scene<'a> {
    /// A datapath without configuration and with room for `max_flows` flows, at XDP; `name` is the capture's.
    ///
    /// # Errors
    /// The datapath can't be loaded, or the capture can't be written.
    pub fn new(rig: &'a Rig, name: &str, max_flows: u32) -> Result<Self> {
        Self::at(rig, name, max_flows, Program::Xdp)
    }

    /// Likewise, for either hook.
    ///
    /// # Errors
    /// As for [`Scene::new`].
    pub fn at(rig: &'a Rig, name: &str, max_flows: u32, program: Program) -> Result<Self> {
        let loaded = rig.lend(max_flows)?;
        let ring = MapData::from_pin(loaded.pins().join("EVENTS"))?;
        let mut scene = Self {
            rig,
            events: RingBuf::try_from(Map::from_map_data(ring)?)?,
            loaded,
            capture: None,
            active: None,
            program,
        };
        scene.reset(name)?;
        scene.forget_configuration()?;
        // What the one before has not read.
        while scene.events.next().is_some() {}
        Ok(scene)
    }

    /// The same datapath for another row: no flows, no accounts, no budgets spent, no VLANs, no SYNs answered, no names learned, every Edge up and nothing
    /// known of it. Loading one takes much longer.
    ///
    /// # Errors
    /// A map can't be written, or the capture can't.
    pub fn reset(&mut self, name: &str) -> Result<()> {
        self.capture = Capture::wanted(name)?;
        let maps = &mut self.loaded.datapath.maps;
        for (key, _) in maps.all_flows()? {
            maps.flows.remove(&key)?;
        }
        for (key, _) in maps.all_half_open()? {
            maps.half_open.remove(&key)?;
        }
        for key in maps.budget.keys().collect::<Result<Vec<_>, _>>()? {
            maps.budget.remove(&key)?;
        }
        for key in maps.handing_off.keys().collect::<Result<Vec<_>, _>>()? {
            maps.handing_off.remove(&key)?;
        }
        for seen in [&mut maps.client_syns, &mut maps.edge_syn_acks] {
            for key in seen.keys().collect::<Result<Vec<_>, _>>()? {
                seen.remove(&key)?;
            }
        }
        for key in maps.pending.keys().collect::<Result<Vec<_>, _>>()? {
            maps.pending.remove(&key)?;
        }
        for key in maps.hellos.keys().collect::<Result<Vec<_>, _>>()? {
            maps.hellos.remove(&key)?;
        }
        for key in maps.sni_learned.keys().collect::<Result<Vec<_>, _>>()? {
            maps.sni_learned.remove(&key)?;
        }
        maps.announce(None)?;
        maps.tell(TELL_FLOWS | TELL_HELLOS)?;
        for key in maps.accounts.keys().collect::<Result<Vec<_>, _>>()? {
            maps.accounts.remove(&key)?;
        }
        for key in maps.links.keys().collect::<Result<Vec<_>, _>>()? {
            maps.links.remove(&key)?;
        }
        // The sampling of drop events goes by the counters.
        let zeros = PerCpuValues::try_from(vec![Stats::default(); nr_cpus().map_err(|e| e.1)?])?;
        maps.stats.set(0, zeros, 0)?;
        for entry in maps.labels.iter().collect::<Result<Vec<_>, _>>()? {
            if entry.0.kind == LabelKind::Edge as u32 {
                let number = entry.0.number;
                let mut edge = maps.edges.get(&number, 0)?;
                edge.no_timestamps_until_s = 0;
                maps.edges.set(number, edge, 0)?;
                if edge.state != EdgeState::Up as u8 {
                    maps.set_edge_state(u16::try_from(number)?, EdgeState::Up)?;
                }
            }
        }
        Ok(())
    }

    /// How many flows fit.
    #[must_use]
    pub fn max_flows(&self) -> u32 {
        self.loaded.max_flows
    }

    /// The hook whose program is run.
    #[must_use]
    pub fn program(&self) -> Program {
        self.program
    }

    /// Activates a configuration, as the agent does.
    ///
    /// # Errors
    /// It is wrong, or does not fit.
    pub fn configure(&mut self, configuration: &str) -> Result<()> {
        self.configure_with_ports(configuration, OWNED_PORTS)
    }

    /// Activates a configuration with other ports toward Edges of `source = "gateway"`.
    ///
    /// # Errors
    /// It is wrong, or does not fit.
    pub fn configure_with_ports(&mut self, configuration: &str, ports: (u16, u16)) -> Result<()> {
        let wanted = Some((configuration.to_owned(), ports));
        if self.active == wanted {
            return Ok(());
        }
        let loaded = Config::parse(Path::new("packets.toml"), configuration)
            .map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let tables = Tables::new(&loaded.config, ports, |edge| {
            Ok(gateway_toward(edge.address.ip()))
        })?;
        tables.activate(&mut self.loaded.datapath.maps)?;
        self.active = wanted;
        Ok(())
    }

    /// Leaves no configuration active, as before the first one.
    ///
    /// # Errors
    /// The map can't be written.
    pub fn deactivate(&mut self) -> Result<()> {
        self.active = None;
        let maps = &mut self.loaded.datapath.maps;
        Ok(maps.control.set(CONTROL_GENERATION, 0, 0)?)
    }

    /// Likewise, and without the Edges that had their slots by it: a name may stand for another one in the next.
    fn forget_configuration(&mut self) -> Result<()> {
        self.deactivate()?;
        let maps = &mut self.loaded.datapath.maps;
        for key in maps.labels.keys().collect::<Result<Vec<_>, _>>()? {
            maps.labels.remove(&key)?;
            if key.kind == LabelKind::Edge as u32 {
                maps.edges.set(key.number, Edge::default(), 0)?;
            }
        }
        Ok(())
    }

    /// Sets an Edge up, draining or down, as health and `snigate edge` do.
    ///
    /// # Errors
    /// There is no such Edge.
    pub fn set_edge(&mut self, name: &str, state: EdgeState) -> Result<()> {
        let slot = u16::try_from(self.edge_slot(name)?)?;
        Ok(self.loaded.datapath.maps.set_edge_state(slot, state)?)
    }

    /// The slot of an Edge.
    ///
    /// # Errors
    /// There is no such Edge.
    pub fn edge_slot(&self, name: &str) -> Result<u32> {
        // One of an earlier configuration, with another address or source, may have had the name.
        let active = self.slots_in_pools()?;
        for entry in self.maps().labels.iter() {
            let (key, label) = entry?;
            if key.kind == LabelKind::Edge as u32
                && label.as_str() == name
                && active.contains(&key.number)
            {
                return Ok(key.number);
            }
        }
        bail!("no Edge of the active configuration is called {name}")
    }

    fn slots_in_pools(&self) -> Result<HashSet<u32>> {
        let maps = self.maps();
        let generation = maps.generation()?;
        let mut slots = HashSet::new();
        for number in 0..MAX_POOLS {
            let pool = maps.pools.get(&Pool::index(generation, number), 0)?;
            let members = pool.members.iter().take(pool.count as usize);
            slots.extend(members.map(|member| u32::from(member.edge)));
        }
        Ok(slots)
    }

    /// The datapath, for what a row does to its maps.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.loaded.datapath
    }

    /// Its maps.
    pub(super) fn maps(&self) -> &Maps {
        &self.loaded.datapath.maps
    }

    /// The rig it runs in.
    #[must_use]
    pub fn rig(&self) -> &'a Rig {
        self.rig
    }

    /// Lets a frame arrive at an interface.
    ///
    /// # Errors
    /// The kernel refuses the test run.
    pub fn send(&mut self, port: Port, frame: &[u8]) -> Result<Outcome> {
        let before = self.loaded.datapath.maps.stats()?;
        let hook = Hook::Front(self.program);
        let (action, out) = self.run(hook, port, frame, frame.len())?;
        self.outcome(port, frame, action, out, &before)
    }

    /// Lets a frame that the program has let pass arrive at the one behind it, `snigate_return`.
    ///
    /// # Errors
    /// The kernel refuses the test run.
    pub fn send_behind(&mut self, port: Port, frame: &[u8]) -> Result<Outcome> {
        let before = self.loaded.datapath.maps.stats()?;
        let (action, out) = self.run(Hook::Behind, port, frame, frame.len())?;
        self.outcome(port, frame, action, out, &before)
    }

    /// What `body` has a program send out by an interface besides the packet that it was run on, and how it ends.
    ///
    /// # Errors
    /// The interface can't be listened at, or the body's.
    pub fn sent_by<T>(
        &mut self,
        port: Port,
        body: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<(T, Vec<Vec<u8>>)> {
        let besides = self.listen(port)?;
        let result = body(self)?;
        Ok((result, besides.frames()?))
    }

    /// Listens for what programs send out by an interface besides the packets that they are run on.
    ///
    /// # Errors
    /// The interface can't be listened at.
    pub fn listen(&self, port: Port) -> Result<Besides> {
        Ok(Besides(line::open_incoming(&format!(
            "{}-far",
            port.name()
        ))?))
    }

    /// Lets a frame arrive in two buffers, the first of `linear` bytes; `None` where the kernel can't (before Linux 6.18).
    ///
    /// # Errors
    /// The kernel refuses the test run for another reason.
    pub fn send_split(
        &mut self,
        port: Port,
        frame: &[u8],
        linear: usize,
    ) -> Result<Option<Outcome>> {
        let before = self.loaded.datapath.maps.stats()?;
        match self.run(Hook::Front(self.program), port, frame, linear) {
            Ok((action, out)) => self.outcome(port, frame, action, out, &before).map(Some),
            Err(error) if is_invalid(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets a frame arrive at an interface; `None` where the kernel can't: at traffic control it runs none without a whole IP header.
    ///
    /// # Errors
    /// The kernel refuses the test run for another reason.
    pub fn send_short(&mut self, port: Port, frame: &[u8]) -> Result<Option<Outcome>> {
        match (self.send(port, frame), self.program) {
            (Err(error), Program::Tc) if is_invalid(&error) => Ok(None),
            (sent, _) => sent.map(Some),
        }
    }

    /// Likewise at the program behind, which is always at traffic control.
    ///
    /// # Errors
    /// As for [`Scene::send_short`].
    pub fn send_behind_short(&mut self, port: Port, frame: &[u8]) -> Result<Option<Outcome>> {
        match self.send_behind(port, frame) {
            Err(error) if is_invalid(&error) => Ok(None),
            sent => sent.map(Some),
        }
    }

    fn run(
        &mut self,
        hook: Hook,
        port: Port,
        frame: &[u8],
        linear: usize,
    ) -> Result<(Action, Vec<u8>)> {
        ensure!(
            frame.len() >= SHORTEST_FRAME,
            "the kernel runs no frame of {} bytes",
            frame.len()
        );
        let index = self.rig.index(port);
        let context = match hook {
            Hook::Front(Program::Xdp) => context(linear, index).to_vec(),
            Hook::Front(Program::Tc) | Hook::Behind => tc_context(index).to_vec(),
        };
        // Larger than what goes in: answers may grow at the front, and VLAN tags too; and a ClientHello may take the place of a SYN-ACK.
        let mut out = vec![0; frame.len() + 2048];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = match hook {
            Hook::Front(Program::Xdp) => self.loaded.datapath.program()?.test_run(options),
            Hook::Front(Program::Tc) => self.loaded.datapath.tc_program()?.test_run(options),
            Hook::Behind => self.loaded.behind()?.test_run(options),
        }
        .with_context(|| format!("running a frame of {} bytes", frame.len()))?;
        out.truncate(result.data_size_out as usize);
        let action = match (hook == Hook::Front(Program::Xdp), result.return_value) {
            (true, XDP_DROP) | (false, TC_DROP) => Action::Drop,
            (true, XDP_PASS) | (false, TC_PASS) => Action::Pass,
            (true, XDP_REDIRECT) | (false, TC_REDIRECT) => Action::Redirect,
            (_, other) => bail!("the program returned {other}"),
        };
        Ok((action, out))
    }

    fn outcome(
        &mut self,
        port: Port,
        frame: &[u8],
        action: Action,
        out: Vec<u8>,
        before: &Stats,
    ) -> Result<Outcome> {
        let counts = risen(before, &self.loaded.datapath.maps.stats()?);
        let (mut events, mut hellos) = (Vec::new(), Vec::new());
        while let Some(item) = self.events.next() {
            ensure!(
                [size_of::<Event>(), size_of::<HelloEvent>()].contains(&item.len()),
                "an event of another size"
            );
            // SAFETY: at least as long as an event, whose every bit pattern is valid.
            events.push(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
            if item.len() == size_of::<HelloEvent>() {
                // SAFETY: as above.
                hellos.push(unsafe { item.as_ptr().cast::<HelloEvent>().read_unaligned() });
            }
        }
        if let Some(capture) = &mut self.capture {
            capture.record(port, frame, action, &out)?;
        }
        Ok(Outcome {
            action,
            frame: out,
            counts,
            events,
            hellos,
        })
    }
}

/// `struct xdp_md` for a frame whose first buffer has `linear` bytes.
#[must_use]
pub fn context(linear: usize, ifindex: u32) -> [u8; 24] {
    // data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let fields = [0, linear as u32, 0, ifindex, 0, 0];
    let mut bytes = [0; 24];
    for (chunk, field) in bytes.chunks_exact_mut(4).zip(fields) {
        chunk.copy_from_slice(&u32::to_ne_bytes(field));
    }
    bytes
}

/// `struct __sk_buff` as far as the interface that a packet arrives at; the kernel takes nothing else there.
fn tc_context(ifindex: u32) -> [u8; 44] {
    let mut bytes = [0; 44];
    bytes[40..].copy_from_slice(&ifindex.to_ne_bytes());
    bytes
}

fn risen(before: &Stats, after: &Stats) -> BTreeMap<&'static str, u64> {
    (0..stats::ENTRIES)
        .filter(|i| before.0[*i] != after.0[*i])
        .map(|i| (name(i as u32), after.0[i] - before.0[i]))
        .collect()
}

fn name(index: u32) -> &'static str {
    let counter = Counter::try_from(index).map(Counter::name);
    let reason = DropReason::try_from(index.wrapping_sub(stats::DROPS)).map(DropReason::name);
    counter.or(reason).unwrap_or("a counter without a name")
}

fn is_invalid(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.raw_os_error() == Some(libc::EINVAL))
}
