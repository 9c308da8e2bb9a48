//! The programs' life: loaded, attached, pinned, adopted by the next agent, removed.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    programs::{
        Program, ProgramError, SchedClassifier, SkLookup, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLinkId,
        xdp::{XdpLink, XdpLinkId},
    },
};
use sni_common::contract::{ABI_VERSION, CONTROL_ABI};

use super::{
    MAPS, Maps, OBJECT, TC_PROGRAM, XDP_PROGRAM, dispatch,
    error::{DatapathError, errno},
    events::{EventStream, LogStream},
    returning,
};
use crate::config::Hook;

/// The directory of pinned links below the pin path.
pub(super) const LINKS_DIR: &str = "links";

/// Whether the state was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made anew.
    Fresh,
    /// Left by an earlier agent, with its flows.
    Adopted,
}

/// How a program sits on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachMode {
    /// In the driver.
    Native,
    /// In the kernel's stack, for drivers without XDP.
    Generic,
}

/// One attachment.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The interface.
    pub interface: String,
    /// How; `None` where an earlier agent attached it and the link was taken over.
    pub mode: Option<AttachMode>,
}

/// What the kernel says of the loaded program.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ProgramFacts {
    /// Kernel's program number.
    pub id: u32,
    /// Instructions that the verifier walked through.
    pub verified_instructions: u32,
    /// Instructions as translated.
    pub translated_bytes: u32,
}

/// A loaded datapath. State and attachments are pinned until [`Datapath::remove`], and only by their pins: dropping it changes nothing, but for
/// the classifiers of [`Datapath::attach_return`], which go with it.
pub struct Datapath {
    pub(super) ebpf: Ebpf,
    pub(super) pin_path: PathBuf,
    /// Whether this agent's own socket lookup is attached.
    pub(super) dispatching: bool,
    /// Classifiers by interface (name and index).
    pub(super) returns: HashMap<(String, u32), SchedClassifierLinkId>,
    /// The maps, open.
    pub maps: Maps,
    /// Whether the state was adopted.
    pub origin: Origin,
}

impl Datapath {
    /// Loads the program, with the state pinned below `pin_path` or with new state.
    ///
    /// `max_flows` sizes FLOWS when it is made; an adopted map keeps its size.
    ///
    /// # Errors
    /// No BPF filesystem, state of another ABI, no privileges, or the verifier's refusal. State that was made for nothing is removed.
    pub fn load(pin_path: &Path, max_flows: u32) -> Result<Self, DatapathError> {
        let origin = match Maps::open(pin_path) {
            Ok(_) => Origin::Adopted,
            Err(DatapathError::NotPinned { .. }) => {
                // What a start that was cut off may have left, without an ABI version.
                Self::remove_pinned(pin_path)?;
                Origin::Fresh
            }
            Err(error) => return Err(error),
        };
        Self::load_as(origin, pin_path, max_flows).inspect_err(|_| {
            if origin == Origin::Fresh
                && let Err(error) = Self::remove_pinned(pin_path)
            {
                tracing::warn!(%error, "what was made for the refused start can't be removed");
            }
        })
    }

    fn load_as(origin: Origin, pin_path: &Path, max_flows: u32) -> Result<Self, DatapathError> {
        fs::create_dir_all(pin_path.join(LINKS_DIR)).map_err(|e| {
            DatapathError::kernel(format!("making the directory {}", pin_path.display()), e)
        })?;
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(VerifierLogLevel::STATS);
        loader.map_max_entries("FLOWS", max_flows.saturating_mul(2));
        for (name, _) in MAPS {
            loader.map_pin_path(name, pin_path.join(name));
        }
        let mut ebpf = loader
            .load(OBJECT)
            .map_err(|error| refused(pin_path, error))?;
        xdp(&mut ebpf)?.load().map_err(unverified)?;
        program::<SchedClassifier>(&mut ebpf, TC_PROGRAM)?
            .load()
            .map_err(unverified)?;
        program::<SkLookup>(&mut ebpf, dispatch::PROGRAM)?
            .load()
            .map_err(unverified)?;
        program::<SchedClassifier>(&mut ebpf, returning::PROGRAM)?
            .load()
            .map_err(unverified)?;

        let mut maps = Maps::open_any(pin_path)?;
        maps.control
            .set(CONTROL_ABI, ABI_VERSION, 0)
            .map_err(|e| DatapathError::kernel("writing the map CONTROL", e))?;
        Ok(Self {
            ebpf,
            pin_path: pin_path.to_owned(),
            dispatching: false,
            returns: HashMap::new(),
            maps,
            origin,
        })
    }

    /// Attaches the program to each interface (name and index), or puts it in the place of the one that an earlier agent left there.
    ///
    /// With `auto`, all are attached natively or none: a native program can't redirect to an interface whose driver has no XDP.
    ///
    /// # Errors
    /// Another program sits there, or a driver can't do what `hook` asks for; then nothing new is attached.
    pub fn attach(
        &mut self,
        interfaces: &[(String, u32)],
        hook: Hook,
    ) -> Result<Vec<Attached>, DatapathError> {
        let modes: &[(XdpMode, AttachMode)] = match hook {
            Hook::Xdp => &[(XdpMode::Driver, AttachMode::Native)],
            Hook::XdpGeneric => &[(XdpMode::Skb, AttachMode::Generic)],
            Hook::Auto => &[
                (XdpMode::Driver, AttachMode::Native),
                (XdpMode::Skb, AttachMode::Generic),
            ],
            Hook::Tcx => return Err(DatapathError::NoTcx),
        };
        let mut attached = Vec::new();
        let mut rest = Vec::new();
        for (name, ifindex) in interfaces {
            if self.take_over(&self.pin_of(name, *ifindex))? {
                attached.push(Attached {
                    interface: name.clone(),
                    mode: None,
                });
            } else {
                rest.push((name.clone(), *ifindex));
            }
        }
        for (index, (mode, name)) in modes.iter().enumerate() {
            match self.attach_all(&rest, *mode) {
                Ok(()) => {
                    attached.extend(rest.into_iter().map(|(interface, _)| Attached {
                        interface,
                        mode: Some(*name),
                    }));
                    break;
                }
                Err(error @ DatapathError::NoNativeXdp { .. }) if index + 1 < modes.len() => {
                    tracing::warn!(%error, "attaching to all interfaces generically");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(attached)
    }

    /// Attaches to all interfaces or to none.
    fn attach_all(
        &mut self,
        interfaces: &[(String, u32)],
        mode: XdpMode,
    ) -> Result<(), DatapathError> {
        let program = xdp(&mut self.ebpf)?;
        let mut ids = Vec::new();
        for (name, ifindex) in interfaces {
            match program.attach_to_if_index(*ifindex, mode) {
                Ok(id) => ids.push(id),
                Err(error) => {
                    for id in ids {
                        program.detach(id).map_err(|e| {
                            DatapathError::kernel("detaching from an interface again", e)
                        })?;
                    }
                    return Err(not_attached(name, mode, error));
                }
            }
        }
        for ((name, ifindex), id) in interfaces.iter().zip(ids) {
            let path = self.pin_path.join(LINKS_DIR).join(pin_name(name, *ifindex));
            pin(xdp(&mut self.ebpf)?, id, &path)?;
        }
        Ok(())
    }

    fn pin_of(&self, interface: &str, ifindex: u32) -> PathBuf {
        self.pin_path
            .join(LINKS_DIR)
            .join(pin_name(interface, ifindex))
    }

    /// Puts this program in the place of an earlier one, without a gap; `false` when there is none, or its interface is gone.
    fn take_over(&mut self, path: &Path) -> Result<bool, DatapathError> {
        if !path.exists() {
            return Ok(false);
        }
        let what = || format!("taking over the link {}", path.display());
        let pinned = PinnedLink::from_pin(path).map_err(|e| DatapathError::kernel(what(), e))?;
        let link = XdpLink::try_from(FdLink::from(pinned))
            .map_err(|e| DatapathError::kernel(what(), e))?;
        let program = xdp(&mut self.ebpf)?;
        match program.attach_to_link(link) {
            Ok(id) => {
                // The pin is another reference to the same link; this one may go.
                program
                    .take_link(id)
                    .map_err(|e| DatapathError::kernel(what(), e))?;
                Ok(true)
            }
            // The interface was removed: its link is an empty shell. A new interface of this name is attached afresh.
            Err(error) if matches!(errno(&error), Some(ENOLINK | EINVAL | ENODEV)) => {
                fs::remove_file(path).map_err(|e| DatapathError::kernel(what(), e))?;
                Ok(false)
            }
            Err(error) => Err(DatapathError::kernel(what(), error)),
        }
    }

    /// Detaches from interfaces that are not in `keep`: an earlier configuration may have named more, and an interface that was made anew has
    /// another index.
    ///
    /// # Errors
    /// When a pin can't be removed.
    pub fn detach_others(&mut self, keep: &[(String, u32)]) -> Result<Vec<String>, DatapathError> {
        let keep: Vec<_> = keep
            .iter()
            .map(|(name, ifindex)| pin_name(name, *ifindex))
            .collect();
        let mut gone = Vec::new();
        for file in pinned_files(&self.pin_path)? {
            if let Some(interface) = interface_of(&file)
                && !keep.contains(&file)
            {
                detach_pinned(&self.pin_path.join(LINKS_DIR).join(&file))?;
                gone.push(interface.to_owned());
            }
        }
        Ok(gone)
    }

    /// The stream of events.
    ///
    /// # Errors
    /// When the ring can't be opened, or no tokio runtime is there.
    pub fn events(&self) -> Result<EventStream, DatapathError> {
        EventStream::open(&self.pin_path)
    }

    /// The stream of diagnostics, as records of `tracing`.
    ///
    /// # Errors
    /// When the ring can't be opened.
    pub fn log(&mut self) -> Result<LogStream, DatapathError> {
        LogStream::open(&mut self.ebpf)
    }

    /// What the kernel says of the program.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn facts(&mut self) -> Result<ProgramFacts, DatapathError> {
        let info = xdp(&mut self.ebpf)?
            .info()
            .map_err(|e| DatapathError::kernel("asking about the loaded program", e))?;
        Ok(ProgramFacts {
            id: info.id(),
            verified_instructions: info.verified_instruction_count().unwrap_or(0),
            translated_bytes: info.size_translated().unwrap_or(0),
        })
    }

    /// The program itself, for tests and benches that run it on single packets.
    ///
    /// # Errors
    /// When the object lacks it.
    pub fn program(&mut self) -> Result<&mut Xdp, DatapathError> {
        xdp(&mut self.ebpf)
    }

    /// Detaches from every interface and removes all state.
    ///
    /// # Errors
    /// When a pin can't be removed.
    pub fn remove(self) -> Result<(), DatapathError> {
        let path = self.pin_path.clone();
        drop(self);
        Self::remove_pinned(&path)
    }

    /// Removes whatever is pinned below `pin_path`, of any ABI: links first, so that nothing is steered into maps that are going.
    ///
    /// # Errors
    /// When a pin can't be removed.
    pub fn remove_pinned(pin_path: &Path) -> Result<(), DatapathError> {
        for file in pinned_files(pin_path)? {
            detach_pinned(&pin_path.join(LINKS_DIR).join(file))?;
        }
        for directory in [pin_path.join(LINKS_DIR), pin_path.to_owned()] {
            let failed = |e| DatapathError::kernel(format!("removing {}", directory.display()), e);
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                let path = entry.map_err(failed)?.path();
                if !path.is_dir() {
                    fs::remove_file(&path).map_err(failed)?;
                }
            }
            fs::remove_dir(&directory).map_err(failed)?;
        }
        Ok(())
    }
}

/// Removes a link's pin, and with it the attachment; none is fine, too.
///
/// The link is held open meanwhile: when its last descriptor is closed the kernel detaches at once, after its last pin only some time later.
pub(super) fn detach_pinned(path: &Path) -> Result<(), DatapathError> {
    let failed = |e| DatapathError::kernel(format!("removing {}", path.display()), e);
    let _held = PinnedLink::from_pin(path);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// The name of a link's pin: the index with it, because an interface's name may come to mean another one.
fn pin_name(interface: &str, ifindex: u32) -> String {
    format!("{ifindex}-{interface}")
}

/// `None` for the pin of a link that is at no interface.
fn interface_of(pin_name: &str) -> Option<&str> {
    let (ifindex, interface) = pin_name.split_once('-')?;
    ifindex.parse::<u32>().is_ok().then_some(interface)
}

/// Names of the interfaces that the datapath pinned below `pin_path` is attached to, in order.
///
/// # Errors
/// When the directory can't be read.
pub fn attached_interfaces(pin_path: &Path) -> Result<Vec<String>, DatapathError> {
    let mut names: Vec<_> = pinned_files(pin_path)?
        .iter()
        .filter_map(|file| interface_of(file).map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

fn pinned_files(pin_path: &Path) -> Result<Vec<String>, DatapathError> {
    let directory = pin_path.join(LINKS_DIR);
    let failed = |e| DatapathError::kernel(format!("reading {}", directory.display()), e);
    let mut files = Vec::new();
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        files.push(
            entry
                .map_err(failed)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    Ok(files)
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    program(ebpf, XDP_PROGRAM)
}

/// A program of the embedded object.
pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, DatapathError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| DatapathError::Kernel {
            what: "looking for a program in the embedded object".into(),
            source: format!("there is no {name}").into(),
        })?;
    program.try_into().map_err(|e: ProgramError| {
        DatapathError::kernel(format!("taking {name} from the embedded object"), e)
    })
}

fn not_attached(interface: &str, mode: XdpMode, error: ProgramError) -> DatapathError {
    let interface = interface.to_owned();
    match errno(&error) {
        Some(EBUSY | EEXIST) => DatapathError::InterfaceBusy { interface },
        Some(EOPNOTSUPP | EINVAL | ERANGE) if matches!(mode, XdpMode::Driver) => {
            DatapathError::NoNativeXdp {
                interface,
                reason: error.to_string(),
            }
        }
        _ => DatapathError::kernel(format!("attaching the datapath to {interface}"), error),
    }
}

fn pin(program: &mut Xdp, id: XdpLinkId, path: &Path) -> Result<(), DatapathError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| DatapathError::Kernel {
        what: format!("pinning the link {}", path.display()),
        source,
    };
    let link = program.take_link(id).map_err(|e| failed(Box::new(e)))?;
    let link = FdLink::try_from(link).map_err(|e| failed(Box::new(e)))?;
    link.pin(path).map(drop).map_err(|e| failed(Box::new(e)))
}

fn refused(pin_path: &Path, error: EbpfError) -> DatapathError {
    // What BPF_OBJ_PIN answers on any other filesystem.
    if errno(&error) == Some(EPERM) && !on_bpffs(pin_path) {
        return DatapathError::NoBpffs {
            path: pin_path.to_owned(),
        };
    }
    DatapathError::kernel("loading the datapath", error)
}

/// Whether a path is on a BPF filesystem, by its mount in this process's mount table.
fn on_bpffs(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (_, point, kind) = (words.next()?, words.next()?, words.next()?);
            path.starts_with(point).then_some((point.len(), kind))
        })
        .max_by_key(|(length, _)| *length)
        .is_some_and(|(_, kind)| kind == "bpf")
}

fn unverified(error: ProgramError) -> DatapathError {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } if io_error.raw_os_error() != Some(EPERM) => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().collect();
            DatapathError::Verifier {
                reason: io_error.to_string(),
                log: lines[lines.len().saturating_sub(20)..].join("\n"),
            }
        }
        error => DatapathError::kernel("loading the datapath", error),
    }
}

const EPERM: i32 = 1;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ERANGE: i32 = 34;
const ENOLINK: i32 = 67;
const EOPNOTSUPP: i32 = 95;
