//! The pinned maps, by type.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray};
use sni_common::{
    contract::{
        ABI_VERSION, Account, AccountKey, AclKey, Announced, BudgetKey, CONTROL_ABI,
        CONTROL_ANNOUNCED, CONTROL_CAPTURE, CONTROL_FLAGS, CONTROL_GENERATION, CONTROL_TELL,
        Capturing, Edge, Flow, FlowKey, HandingOff, HelloBytes, Label, LabelKey, LabelKind,
        Learned, LearnedKey, Link, Pending, Pool, Service, ServiceKey, Settings, SniRoute,
        SniRouteKey, Stats, SynSeen,
    },
    maglev,
    token_bucket::TokenBucket,
};

use super::{
    batch,
    dispatch::Listeners,
    error::{DatapathError, errno},
};

/// Names of the maps, as pinned, with what they hold. SCRATCH and aya-log's ring are not among them: they hold no state.
pub const MAPS: &[(&str, &str)] = &[
    (
        "CONTROL",
        "ABI version, active generation, flags, listener's port, what is announced, wanted events, end of the capture",
    ),
    ("SETTINGS", "seed, budgets, ports, by bank"),
    (
        "FILTER",
        "endpoints of services and Edges, as bits of a hash",
    ),
    ("SERVICES", "address and port to mode, pool, IP set"),
    ("POOLS", "members of each pool, by bank"),
    ("MAGLEV", "slot to Edge of each pool, by bank"),
    ("EDGES", "address, source mode and state of each Edge"),
    ("SNI_ROUTES", "configured server name to action, pools"),
    (
        "SNI_LEARNED",
        "server names that clients asked for, by IP set",
    ),
    ("LISTENERS", "the agent's listener for inspected services"),
    ("FLOWS", "established flows, one entry per direction"),
    ("HALF_OPEN", "flows before the handshake is complete"),
    (
        "HANDING_OFF",
        "flows of which the agent still has the sockets",
    ),
    ("CLIENT_SYNS", "how clients of the agent began"),
    ("EDGE_SYN_ACKS", "how Edges answered the agent"),
    (
        "ACCOUNTS",
        "what ended connections carried, by route and Edge",
    ),
    ("ACL", "denied and allowed prefixes"),
    ("BUDGET", "what sources and prefixes may still begin"),
    ("LINKS", "VLAN interfaces"),
    ("STATS", "counters and drop reasons, per CPU"),
    ("EVENTS", "ring of events for the agent"),
    ("CAPTURING", "which packets `snigate capture` wants"),
    ("CAPTURED", "ring of those packets"),
    ("LABELS", "names of Edges, pools and IP sets"),
    (
        "PENDING",
        "connections that the datapath has begun by itself",
    ),
    ("HELLOS", "the first bytes of their clients"),
];

/// A map's shape, as the kernel reports it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MapKind {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub holds: &'static str,
    /// Kernel map type.
    pub kind: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries that fit.
    pub max_entries: u32,
}

/// The shape of one pinned map.
///
/// # Errors
/// When it is not pinned or may not be opened.
pub fn map_kind(
    pin_path: &Path,
    name: &'static str,
    holds: &'static str,
) -> Result<MapKind, DatapathError> {
    let data = open(pin_path, name)?;
    let info = data
        .info()
        .map_err(|e| DatapathError::kernel(format!("reading the map {name}"), e))?;
    let kind = info.map_type().map_or_else(
        |_| "unknown".to_owned(),
        |kind| format!("{kind:?}").to_lowercase(),
    );
    Ok(MapKind {
        name,
        holds,
        kind,
        key_size: info.key_size(),
        value_size: info.value_size(),
        max_entries: info.max_entries(),
    })
}

/// All typed maps of a pinned datapath.
pub struct Maps {
    pin_path: PathBuf,
    /// Whether nothing is left of other generations than the active one. Not known before the first configuration.
    pub(super) tidy: bool,
    /// See [`CONTROL_ABI`] and its neighbours for the slots.
    pub control: Array<MapData, u64>,
    /// Settings by bank.
    pub settings: Array<MapData, Settings>,
    /// Filter of endpoints.
    pub filter: Array<MapData, u64>,
    /// Services.
    pub services: HashMap<MapData, ServiceKey, Service>,
    /// Pools by bank.
    pub pools: Array<MapData, Pool>,
    /// Maglev tables by bank.
    pub maglev: Array<MapData, MaglevTable>,
    /// Edges by slot.
    pub edges: Array<MapData, Edge>,
    /// Configured server names.
    pub sni_routes: HashMap<MapData, SniRouteKey, SniRoute>,
    /// Server names that clients asked for.
    pub sni_learned: HashMap<MapData, LearnedKey, Learned>,
    /// The agent's listener; see [`super::Datapath::serve_listener`].
    pub listeners: Listeners,
    /// Established flows.
    pub flows: HashMap<MapData, FlowKey, Flow>,
    /// Half-open flows.
    pub half_open: HashMap<MapData, FlowKey, Flow>,
    /// Flows of which the agent still has the sockets.
    pub handing_off: HashMap<MapData, FlowKey, HandingOff>,
    /// How clients of the agent began.
    pub client_syns: HashMap<MapData, FlowKey, SynSeen>,
    /// How Edges answered the agent.
    pub edge_syn_acks: HashMap<MapData, FlowKey, SynSeen>,
    /// What ended flows and connections have carried.
    pub accounts: HashMap<MapData, AccountKey, Account>,
    /// Denied and allowed prefixes.
    pub acl: LpmTrie<MapData, AclKey, u32>,
    /// What sources and prefixes may still begin.
    pub budget: HashMap<MapData, BudgetKey, TokenBucket>,
    /// VLAN interfaces.
    pub links: HashMap<MapData, u32, Link>,
    /// Counters.
    pub stats: PerCpuArray<MapData, Stats>,
    /// Which packets a capture wants; see [`super::Capture`].
    pub(super) capturing: Array<MapData, Capturing>,
    /// Names.
    pub labels: HashMap<MapData, LabelKey, Label>,
    /// Connections that the datapath has begun by itself.
    pub pending: HashMap<MapData, FlowKey, Pending>,
    /// The first bytes of their clients.
    pub hellos: HashMap<MapData, FlowKey, HelloBytes>,
}

/// A Maglev table as a map value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct MaglevTable(pub maglev::Table);

// SAFETY: an array of integers.
unsafe impl aya::Pod for MaglevTable {}

impl Maps {
    /// Opens the maps pinned below `pin_path`.
    ///
    /// # Errors
    /// When nothing is pinned there, when it is of another ABI, or when it may not be opened.
    pub fn open(pin_path: &Path) -> Result<Self, DatapathError> {
        // Before the other maps: those of another version may not even have the same names.
        let control = typed::<Array<MapData, u64>>(pin_path, "CONTROL")?;
        let abi = control
            .get(&CONTROL_ABI, 0)
            .map_err(|e| DatapathError::kernel("reading the map CONTROL", e))?;
        match abi {
            ABI_VERSION => Self::open_any(pin_path),
            // Made a moment ago by an agent that is starting, or that was cut off at it.
            0 => Err(DatapathError::NotPinned {
                path: pin_path.to_owned(),
            }),
            found => Err(DatapathError::OtherAbi {
                path: pin_path.to_owned(),
                found,
                ours: ABI_VERSION,
            }),
        }
    }

    /// Opens them without a look at their ABI version.
    pub(super) fn open_any(pin_path: &Path) -> Result<Self, DatapathError> {
        let control = typed::<Array<MapData, u64>>(pin_path, "CONTROL")?;
        Ok(Self {
            pin_path: pin_path.to_owned(),
            tidy: false,
            control,
            settings: typed(pin_path, "SETTINGS")?,
            filter: typed(pin_path, "FILTER")?,
            services: typed(pin_path, "SERVICES")?,
            pools: typed(pin_path, "POOLS")?,
            maglev: typed(pin_path, "MAGLEV")?,
            edges: typed(pin_path, "EDGES")?,
            sni_routes: typed(pin_path, "SNI_ROUTES")?,
            sni_learned: typed(pin_path, "SNI_LEARNED")?,
            listeners: typed(pin_path, "LISTENERS")?,
            flows: typed(pin_path, "FLOWS")?,
            half_open: typed(pin_path, "HALF_OPEN")?,
            handing_off: typed(pin_path, "HANDING_OFF")?,
            client_syns: typed(pin_path, "CLIENT_SYNS")?,
            edge_syn_acks: typed(pin_path, "EDGE_SYN_ACKS")?,
            accounts: typed(pin_path, "ACCOUNTS")?,
            acl: typed(pin_path, "ACL")?,
            budget: typed(pin_path, "BUDGET")?,
            links: typed(pin_path, "LINKS")?,
            stats: typed(pin_path, "STATS")?,
            capturing: typed(pin_path, "CAPTURING")?,
            labels: typed(pin_path, "LABELS")?,
            pending: typed(pin_path, "PENDING")?,
            hellos: typed(pin_path, "HELLOS")?,
        })
    }

    /// The active generation; 0 before the first configuration.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn generation(&self) -> Result<u32, DatapathError> {
        Ok(self.control(CONTROL_GENERATION)? as u32)
    }

    /// The feature flags.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn flags(&self) -> Result<u64, DatapathError> {
        self.control(CONTROL_FLAGS)
    }

    /// Sets or clears a feature flag.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn set_flag(&mut self, flag: u64, on: bool) -> Result<(), DatapathError> {
        let flags = self.flags()?;
        let flags = if on { flags | flag } else { flags & !flag };
        self.control
            .set(CONTROL_FLAGS, flags, 0)
            .map_err(|e| DatapathError::kernel("writing the map CONTROL", e))
    }

    /// What SYN-ACKs of the datapath announce; none where it answers no SYNs.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn announced(&self) -> Result<Option<Announced>, DatapathError> {
        Ok(Announced::from_slot(self.control(CONTROL_ANNOUNCED)?))
    }

    /// Has the datapath answer SYNs to what it may bind, and announce this; or answer none.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn announce(&mut self, announced: Option<Announced>) -> Result<(), DatapathError> {
        let slot = announced.map_or(0, Announced::to_slot);
        self.control
            .set(CONTROL_ANNOUNCED, slot, 0)
            .map_err(|e| DatapathError::map("CONTROL", e))
    }

    /// Has the datapath tell of what only people want to know: [`TELL_FLOWS`](sni_common::contract::TELL_FLOWS),
    /// [`TELL_HELLOS`](sni_common::contract::TELL_HELLOS), and nothing else.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn tell(&mut self, wanted: u64) -> Result<(), DatapathError> {
        self.control
            .set(CONTROL_TELL, wanted, 0)
            .map_err(|e| DatapathError::map("CONTROL", e))
    }

    /// Has the datapath show packets to whoever captures until this time, monotonic clock, nanoseconds; 0 ends it.
    pub(super) fn capture_until(&mut self, until_ns: u64) -> Result<(), DatapathError> {
        self.control
            .set(CONTROL_CAPTURE, until_ns, 0)
            .map_err(|e| DatapathError::map("CONTROL", e))
    }

    /// What the last capture wanted.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn capturing(&self) -> Result<Capturing, DatapathError> {
        self.capturing
            .get(&0, 0)
            .map_err(|e| DatapathError::kernel("reading the map CAPTURING", e))
    }

    /// Every entry of established flows, as they are while the reading passes by.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn all_flows(&self) -> Result<Vec<(FlowKey, Flow)>, DatapathError> {
        let mut entries = Vec::new();
        self.for_each_flow(|key, flow| {
            entries.push((key, flow));
            Ok(())
        })?;
        Ok(entries)
    }

    /// Hands every entry of established flows to `each`, without holding them all.
    ///
    /// # Errors
    /// When the map can't be read, or what `each` returns.
    pub fn for_each_flow(
        &self,
        each: impl FnMut(FlowKey, Flow) -> Result<(), DatapathError>,
    ) -> Result<(), DatapathError> {
        // SAFETY: the types of FLOWS, as opened above.
        unsafe { batch::for_each("FLOWS", &open(&self.pin_path, "FLOWS")?, each) }
    }

    /// Whether packets of these addresses and ports belong to a flow of the datapath. Where that can't be read, they do not: nobody waits for it.
    pub fn has_flow(&self, key: &FlowKey) -> bool {
        self.flows.get(key, 0).is_ok() || self.half_open.get(key, 0).is_ok()
    }

    /// Every entry of half-open flows.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn all_half_open(&self) -> Result<Vec<(FlowKey, Flow)>, DatapathError> {
        let mut entries = Vec::new();
        // SAFETY: the types of HALF_OPEN, as opened above.
        unsafe {
            batch::for_each(
                "HALF_OPEN",
                &open(&self.pin_path, "HALF_OPEN")?,
                |key, flow| {
                    entries.push((key, flow));
                    Ok(())
                },
            )?;
        }
        Ok(entries)
    }

    /// Every connection that the datapath has begun by itself.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn all_pending(&self) -> Result<Vec<(FlowKey, Pending)>, DatapathError> {
        let mut entries = Vec::new();
        // SAFETY: the types of PENDING, as opened above.
        unsafe {
            batch::for_each(
                "PENDING",
                &open(&self.pin_path, "PENDING")?,
                |key, pending| {
                    entries.push((key, pending));
                    Ok(())
                },
            )?;
        }
        Ok(entries)
    }

    /// Where the maps are pinned.
    pub fn pin_path(&self) -> &Path {
        &self.pin_path
    }

    fn control(&self, slot: u32) -> Result<u64, DatapathError> {
        self.control
            .get(&slot, 0)
            .map_err(|e| DatapathError::kernel("reading the map CONTROL", e))
    }

    /// The counters of all CPUs together.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn stats(&self) -> Result<Stats, DatapathError> {
        let values = self
            .stats
            .get(&0, 0)
            .map_err(|e| DatapathError::kernel("reading the map STATS", e))?;
        let mut sum = Stats::default();
        values.iter().for_each(|cpu| sum.add(cpu));
        Ok(sum)
    }

    /// The name of a thing; `None` for one that has no label (any longer).
    pub fn label(&self, kind: LabelKind, generation: u32, number: u32) -> Option<String> {
        let key = LabelKey {
            kind: kind as u32,
            generation,
            number,
        };
        self.labels
            .get(&key, 0)
            .ok()
            .map(|label| label.as_str().to_owned())
    }
}

pub(super) fn open(pin_path: &Path, name: &str) -> Result<MapData, DatapathError> {
    let path = pin_path.join(name);
    MapData::from_pin(&path).map_err(|error| {
        // Not only ENOENT: a directory on another filesystem answers EPERM or EINVAL for what is not there.
        let missing = matches!(fs::metadata(&path), Err(e) if e.kind() == io::ErrorKind::NotFound);
        if missing || errno(&error) == Some(2) {
            DatapathError::NotPinned {
                path: pin_path.to_owned(),
            }
        } else {
            DatapathError::kernel(format!("opening the map {}", path.display()), error)
        }
    })
}

pub(super) fn typed<T>(pin_path: &Path, name: &str) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    let what = || format!("opening the map {}", pin_path.join(name).display());
    let map =
        Map::from_map_data(open(pin_path, name)?).map_err(|e| DatapathError::kernel(what(), e))?;
    T::try_from(map).map_err(|e| DatapathError::kernel(what(), e))
}
