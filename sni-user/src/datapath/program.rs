//! The programs' life: loaded, attached, pinned, adopted by the next agent, removed.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    programs::{
        Program, ProgramError, SchedClassifier, SkLookup, Xdp, links::PinnedLink,
        tc::SchedClassifierLinkId,
    },
};
use sni_common::contract::{ABI_VERSION, CONTROL_ABI};

use super::{
    MAPS, Maps, OBJECT, TC_PROGRAM, XDP_PROGRAM,
    attach::{Seat, vacate_all},
    dispatch,
    error::{DatapathError, errno},
    events::{EventStream, LogStream},
    lacks::lacking,
    returning,
};

/// The object's programs.
const PROGRAMS: [&str; 4] = [
    XDP_PROGRAM,
    TC_PROGRAM,
    dispatch::PROGRAM,
    returning::PROGRAM,
];

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

/// What the kernel says of a loaded program.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ProgramFacts {
    /// Its name in the object.
    pub name: &'static str,
    /// Kernel's program number.
    pub id: u32,
    /// Instructions that the verifier walked through.
    pub verified_instructions: u32,
    /// Instructions as translated.
    pub translated_bytes: u32,
}

/// A loaded datapath. State and attachments are pinned until [`Datapath::remove`], and only by their pins: dropping it changes nothing, but for
/// the classifiers of [`ReturnHook::Clsact`](super::ReturnHook::Clsact), which go with it.
pub struct Datapath {
    pub(super) ebpf: Ebpf,
    pub(super) pin_path: PathBuf,
    /// Where this agent's own programs sit.
    pub(super) seats: HashSet<Seat>,
    /// Whether this agent's own socket lookup is attached.
    pub(super) dispatching: bool,
    /// This agent's own classifiers of Edges' answers by interface (name and index); those that are pinned need no link.
    pub(super) returns: HashMap<(String, u32), Option<SchedClassifierLinkId>>,
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
        // Those of the hooks follow when they are attached: see [`xdp`].
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
            seats: HashSet::new(),
            dispatching: false,
            returns: HashMap::new(),
            maps,
            origin,
        })
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

    /// What the kernel says of the programs that it has taken so far, the one for XDP first: those of the hooks are loaded when they are first used.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn facts(&self) -> Result<Vec<ProgramFacts>, DatapathError> {
        let mut facts = Vec::new();
        for name in PROGRAMS {
            let program = self.ebpf.program(name).ok_or_else(|| missing(name))?;
            if program.fd().is_ok() {
                facts.push(facts_of(name, program)?);
            }
        }
        Ok(facts)
    }

    /// The program itself, loaded, for tests and benches that run it on single packets.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn program(&mut self) -> Result<&mut Xdp, DatapathError> {
        xdp(&mut self.ebpf)
    }

    /// The same for traffic control.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn tc_program(&mut self) -> Result<&mut SchedClassifier, DatapathError> {
        traffic_control(&mut self.ebpf)
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
        vacate_all(pin_path)?;
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

pub(super) fn pinned_files(pin_path: &Path) -> Result<Vec<String>, DatapathError> {
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

/// The program for XDP. It is loaded by the first one who wants it, like that for traffic control: the verifier takes the better part of a second for
/// each of the two, a gateway has need of one, and a start is a time without an agent.
pub(super) fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    let program: &mut Xdp = program(ebpf, XDP_PROGRAM)?;
    if program.fd().is_err() {
        program.load().map_err(unverified)?;
    }
    Ok(program)
}

/// The program for traffic control.
pub(super) fn traffic_control(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, DatapathError> {
    let program: &mut SchedClassifier = program(ebpf, TC_PROGRAM)?;
    if program.fd().is_err() {
        program.load().map_err(unverified)?;
    }
    Ok(program)
}

fn facts_of(name: &'static str, program: &Program) -> Result<ProgramFacts, DatapathError> {
    let info = program
        .info()
        .map_err(|e| DatapathError::kernel(format!("asking about the program {name}"), e))?;
    Ok(ProgramFacts {
        name,
        id: info.id(),
        verified_instructions: info.verified_instruction_count().unwrap_or(0),
        translated_bytes: info.size_translated().unwrap_or(0),
    })
}

/// A program of the embedded object.
pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, DatapathError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    program.try_into().map_err(|e: ProgramError| {
        DatapathError::kernel(format!("taking {name} from the embedded object"), e)
    })
}

fn missing(name: &str) -> DatapathError {
    DatapathError::Kernel {
        what: "looking for a program in the embedded object".into(),
        source: format!("there is no {name}").into(),
    }
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
            if let Some(what) = lacking(&log) {
                return DatapathError::KernelLacks { what };
            }
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
