//! Where the datapath sits: on each interface at one of the hooks, by what outlives the agent and is taken over by the next one.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
        xdp::XdpLink,
    },
    util::KernelVersion,
};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::{
    Datapath, DatapathError, TC_PROGRAM, clsact,
    error::errno,
    program::{LINKS_DIR, detach_pinned, pinned_files, traffic_control, xdp},
};

/// Where the filter is, without TCX: always the same place, so that the next agent replaces it there. Before the one of
/// [`Datapath::attach_return`], which the kernel gives a priority above 0x8000.
const PRIORITY: u16 = 5061;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// How the datapath sits on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachMode {
    /// XDP, in the driver.
    Xdp,
    /// XDP, in the kernel's stack.
    XdpGeneric,
    /// Ingress of traffic control, by a link (Linux 6.6).
    Tcx,
    /// Ingress of traffic control, by a filter.
    Clsact,
}

impl AttachMode {
    const ALL: [Self; 4] = [Self::Xdp, Self::XdpGeneric, Self::Tcx, Self::Clsact];

    /// Traffic control as this kernel has it.
    #[must_use]
    pub fn traffic_control() -> Self {
        if KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0)) {
            Self::Tcx
        } else {
            Self::Clsact
        }
    }

    /// Whether it is the XDP hook, where frames are as the wire carried them.
    #[must_use]
    pub fn is_xdp(self) -> bool {
        matches!(self, Self::Xdp | Self::XdpGeneric)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One attachment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Attached {
    /// The interface.
    pub interface: String,
    /// How.
    #[serde(rename = "hook")]
    pub mode: AttachMode,
}

/// An attachment as its pin tells it. The index with the name, because an interface's name may come to mean another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seat {
    interface: String,
    ifindex: u32,
    mode: AttachMode,
}

impl Seat {
    /// The name of its pin. A BPF filesystem takes no dot, an interface's name has no colon.
    fn file(&self) -> String {
        format!(
            "{}:{}:{}",
            self.ifindex,
            self.mode,
            self.interface.replace('.', ":")
        )
    }

    /// `None` for the pin of a link that is at no interface.
    fn of(file: &str) -> Option<Self> {
        let mut parts = file.splitn(3, ':');
        let (ifindex, mode, interface) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            interface: interface.replace(':', "."),
            ifindex: ifindex.parse().ok()?,
            mode: *AttachMode::ALL.iter().find(|known| known.name() == mode)?,
        })
    }

    fn at(&self, mode: AttachMode) -> Self {
        Self {
            mode,
            ..self.clone()
        }
    }

    /// The same interface at the other kind of XDP, of which the kernel allows only one at a time.
    fn other_xdp(&self) -> Option<Self> {
        match self.mode {
            AttachMode::Xdp => Some(self.at(AttachMode::XdpGeneric)),
            AttachMode::XdpGeneric => Some(self.at(AttachMode::Xdp)),
            AttachMode::Tcx | AttachMode::Clsact => None,
        }
    }
}

impl Datapath {
    /// Attaches the program to each interface (name and index), or puts it in the place of the one that an earlier agent left there, without a
    /// gap. Returns those where it was not this agent's before. What is attached to an interface otherwise stays until
    /// [`Datapath::detach_others`], so that it has no gap either.
    ///
    /// # Errors
    /// Another program sits there, or an interface can't do what `mode` asks for; then nothing new is attached.
    pub fn attach(
        &mut self,
        interfaces: &[(String, u32)],
        mode: AttachMode,
    ) -> Result<Vec<Attached>, DatapathError> {
        let mut undo = Undo::default();
        let mut attached = Vec::new();
        for (interface, ifindex) in interfaces {
            let seat = Seat {
                interface: interface.clone(),
                ifindex: *ifindex,
                mode,
            };
            if self.seats.contains(&seat) {
                continue;
            }
            match self.occupy(&seat, &mut undo) {
                Ok(()) => attached.push(Attached {
                    interface: seat.interface,
                    mode,
                }),
                Err(error) => {
                    self.undo(undo);
                    return Err(error);
                }
            }
        }
        for seat in undo.bridges {
            self.leave(&seat)?;
        }
        Ok(attached)
    }

    /// Detaches from interfaces that are not in `keep`, and from those at any other hook than `mode`: an earlier configuration may have named more,
    /// and an interface that was made anew has another index.
    ///
    /// # Errors
    /// When something can't be removed.
    pub fn detach_others(
        &mut self,
        keep: &[(String, u32)],
        mode: AttachMode,
    ) -> Result<Vec<Attached>, DatapathError> {
        let mut gone = Vec::new();
        for seat in pinned_seats(&self.pin_path)? {
            let (interface, ifindex) = (&seat.interface, &seat.ifindex);
            let is_kept = |(name, index): &(String, u32)| name == interface && index == ifindex;
            if seat.mode != mode || !keep.iter().any(is_kept) {
                self.leave(&seat)?;
                gone.push(Attached {
                    interface: seat.interface,
                    mode: seat.mode,
                });
            }
        }
        Ok(gone)
    }

    fn occupy(&mut self, seat: &Seat, undo: &mut Undo) -> Result<(), DatapathError> {
        if let Some(other) = seat.other_xdp()
            && self.pin_of(&other).exists()
        {
            // Traffic control serves while the one makes room for the other.
            let bridge = seat.at(AttachMode::traffic_control());
            if !self.pin_of(&bridge).exists() {
                self.sit_down(&bridge)?;
                undo.bridges.push(bridge);
            }
            self.leave(&other)?;
            undo.displaced.push(other);
        }
        let adopted = self.pin_of(seat).exists();
        self.sit_down(seat)?;
        if !adopted {
            undo.made.push(seat.clone());
        }
        Ok(())
    }

    /// As it was, as far as that can be had; what can't is said.
    fn undo(&mut self, undo: Undo) {
        let mut failures = Vec::new();
        for seat in undo.made {
            failures.extend(self.leave(&seat).err());
        }
        for seat in undo.displaced {
            failures.extend(self.sit_down(&seat).err());
        }
        for seat in undo.bridges {
            failures.extend(self.leave(&seat).err());
        }
        for error in failures {
            tracing::error!(%error, "an attachment can't be taken back");
        }
    }

    fn sit_down(&mut self, seat: &Seat) -> Result<(), DatapathError> {
        let pin = self.pin_of(seat);
        match seat.mode {
            AttachMode::Xdp => self.attach_xdp(seat, XdpMode::Driver, &pin)?,
            AttachMode::XdpGeneric => self.attach_xdp(seat, XdpMode::Skb, &pin)?,
            AttachMode::Tcx => self.attach_tcx(seat, &pin)?,
            AttachMode::Clsact => self.attach_clsact(seat, &pin)?,
        }
        self.seats.insert(seat.clone());
        Ok(())
    }

    fn leave(&mut self, seat: &Seat) -> Result<(), DatapathError> {
        self.seats.remove(seat);
        vacate(&self.pin_path, seat)
    }

    fn pin_of(&self, seat: &Seat) -> PathBuf {
        self.pin_path.join(LINKS_DIR).join(seat.file())
    }

    fn attach_xdp(&mut self, seat: &Seat, mode: XdpMode, pin: &Path) -> Result<(), DatapathError> {
        let program = xdp(&mut self.ebpf)?;
        let adopted = adopt(pin, |link| {
            let id = program.attach_to_link(XdpLink::try_from(link)?)?;
            // The pin is another reference to the same link; this one may go.
            program.take_link(id)?;
            Ok(())
        })?;
        if adopted {
            return Ok(());
        }
        let id = program
            .attach_to_if_index(seat.ifindex, mode)
            .map_err(|error| not_attached(seat, error))?;
        let link = program.take_link(id).map_err(|e| unpinned(pin, e))?;
        pin_link(FdLink::try_from(link).map_err(|e| unpinned(pin, e))?, pin)
    }

    /// At the front: like XDP it comes before what others do with packets, and before the classifier of Edges' answers.
    fn attach_tcx(&mut self, seat: &Seat, pin: &Path) -> Result<(), DatapathError> {
        let program = traffic_control(&mut self.ebpf)?;
        attach_tcx(program, &seat.interface, LinkOrder::first(), pin, |error| {
            not_attached(seat, error)
        })
    }

    /// A filter can't be pinned, and needs not: it stays until it is removed. A directory in the place of the pin says that it is there.
    fn attach_clsact(&mut self, seat: &Seat, mark: &Path) -> Result<(), DatapathError> {
        let refused = |error: ProgramError| not_attached(seat, error);
        let program = traffic_control(&mut self.ebpf)?;
        clsact::add_qdisc(&seat.interface).map_err(|e| refused(e.into()))?;
        if mark.exists() {
            let there = filter(&seat.interface).map_err(|e| refused(TcError::from(e).into()))?;
            match program.attach_to_link(there) {
                // Not this agent's to remove when it ends.
                Ok(id) => return keep(program.take_link(id).map_err(refused)?),
                // Somebody has removed it, with the queueing discipline or alone.
                Err(error) if errno(&error) == Some(libc::ENOENT) => {}
                Err(error) => return Err(refused(error)),
            }
        } else {
            // One that is marked nowhere is of a datapath whose pins are gone.
            clsact::remove_filters(&seat.interface, TC_PROGRAM).map_err(|e| refused(e.into()))?;
            fs::create_dir(mark).map_err(|e| unpinned(mark, e))?;
        }
        let place = NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            classid: None,
        };
        let attached = program
            .attach_with_options(
                &seat.interface,
                TcAttachType::Ingress,
                TcAttachOptions::Netlink(place),
            )
            .and_then(|id| program.take_link(id));
        match attached {
            Ok(link) => keep(link),
            Err(error) => {
                fs::remove_dir(mark).map_err(|e| unpinned(mark, e))?;
                Err(refused(error))
            }
        }
    }
}

/// What an attempt has changed, to be taken back when it fails.
#[derive(Default)]
struct Undo {
    made: Vec<Seat>,
    displaced: Vec<Seat>,
    /// What serves only meanwhile.
    bridges: Vec<Seat>,
}

/// Where and how the datapath pinned below `pin_path` is attached, by interface.
///
/// # Errors
/// When the directory can't be read.
pub fn attached_interfaces(pin_path: &Path) -> Result<Vec<Attached>, DatapathError> {
    let mut attached: Vec<_> = pinned_seats(pin_path)?
        .into_iter()
        .map(|seat| Attached {
            interface: seat.interface,
            mode: seat.mode,
        })
        .collect();
    attached.sort_by(|a, b| (&a.interface, a.mode.name()).cmp(&(&b.interface, b.mode.name())));
    Ok(attached)
}

/// Detaches from every interface.
pub(super) fn vacate_all(pin_path: &Path) -> Result<(), DatapathError> {
    for seat in pinned_seats(pin_path)? {
        vacate(pin_path, &seat)?;
    }
    Ok(())
}

fn pinned_seats(pin_path: &Path) -> Result<Vec<Seat>, DatapathError> {
    let files = pinned_files(pin_path)?;
    Ok(files.iter().filter_map(|file| Seat::of(file)).collect())
}

fn vacate(pin_path: &Path, seat: &Seat) -> Result<(), DatapathError> {
    let pin = pin_path.join(LINKS_DIR).join(seat.file());
    if seat.mode != AttachMode::Clsact {
        return detach_pinned(&pin);
    }
    let failed = |error: TcError| {
        DatapathError::kernel(format!("removing the filter of {}", seat.interface), error)
    };
    // By its index: it may have been renamed. Where it is gone, the filter is gone with it.
    if let Some(interface) = name_of(seat.ifindex).map_err(|e| failed(e.into()))? {
        clsact::remove_filters(&interface, TC_PROGRAM).map_err(failed)?;
    }
    match fs::remove_dir(&pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DatapathError::kernel(
            format!("removing {}", pin.display()),
            error,
        )),
        _ => Ok(()),
    }
}

/// The interface with this index in the calling thread's network namespace.
fn name_of(ifindex: u32) -> io::Result<Option<String>> {
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    match netdevice::index_to_name(&any, ifindex) {
        Ok(name) => Ok(Some(name)),
        Err(error) if io::Error::from(error).raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The filter at its place on an interface, whoever has put it there.
fn filter(interface: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, PRIORITY, HANDLE, None)
}

/// Lets a filter stay when nobody knows of it any more.
fn keep(link: SchedClassifierLink) -> Result<(), DatapathError> {
    // Dropping it would detach it, and there is no other way to let go. It owns no descriptor.
    std::mem::forget(link);
    Ok(())
}

/// Puts this program in the place of an earlier one, without a gap; `false` when there is none, or its interface is gone.
pub(super) fn adopt(
    pin: &Path,
    update: impl FnOnce(FdLink) -> Result<(), Box<dyn std::error::Error + Send + Sync>>,
) -> Result<bool, DatapathError> {
    if !pin.exists() {
        return Ok(false);
    }
    let what = || format!("taking over the link {}", pin.display());
    let pinned = PinnedLink::from_pin(pin).map_err(|e| DatapathError::kernel(what(), e))?;
    match update(FdLink::from(pinned)) {
        Ok(()) => Ok(true),
        // The interface was removed: its link is an empty shell. A new interface of this name is attached afresh.
        Err(error)
            if matches!(
                errno(error.as_ref()),
                Some(libc::ENOLINK | libc::EINVAL | libc::ENODEV)
            ) =>
        {
            fs::remove_file(pin).map_err(|e| DatapathError::kernel(what(), e))?;
            Ok(false)
        }
        Err(source) => Err(DatapathError::Kernel {
            what: what(),
            source,
        }),
    }
}

/// Attaches a classifier to what comes in by an interface, with a link at `pin`, or adopts the link that is pinned there.
///
/// # Errors
/// `refused` makes them of what the kernel says; or the link can't be pinned.
pub(super) fn attach_tcx(
    program: &mut SchedClassifier,
    interface: &str,
    order: LinkOrder,
    pin: &Path,
    refused: impl FnOnce(ProgramError) -> DatapathError,
) -> Result<(), DatapathError> {
    let adopted = adopt(pin, |link| {
        let id = program.attach_to_link(SchedClassifierLink::try_from(link)?)?;
        // The pin is another reference to the same link; this one may go.
        program.take_link(id)?;
        Ok(())
    })?;
    if adopted {
        return Ok(());
    }
    let link = program
        .attach_with_options(
            interface,
            TcAttachType::Ingress,
            TcAttachOptions::TcxOrder(order),
        )
        .and_then(|id| program.take_link(id))
        .map_err(refused)?;
    pin_link(FdLink::try_from(link).map_err(|e| unpinned(pin, e))?, pin)
}

fn not_attached(seat: &Seat, error: ProgramError) -> DatapathError {
    let interface = seat.interface.clone();
    let why = errno(&error);
    match (seat.mode, why) {
        (AttachMode::Xdp | AttachMode::XdpGeneric, Some(libc::EBUSY | libc::EEXIST)) => {
            DatapathError::InterfaceBusy { interface }
        }
        (AttachMode::Xdp, Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ERANGE)) => {
            DatapathError::NoNativeXdp {
                interface,
                reason: error.to_string(),
            }
        }
        (
            AttachMode::Tcx | AttachMode::Clsact,
            Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOENT | libc::ERANGE),
        ) => DatapathError::NoTrafficControl {
            interface,
            reason: error.to_string(),
        },
        _ => DatapathError::kernel(
            format!("attaching the datapath to {interface} ({})", seat.mode),
            error,
        ),
    }
}

pub(super) fn pin_link(link: FdLink, pin: &Path) -> Result<(), DatapathError> {
    link.pin(pin).map(drop).map_err(|e| unpinned(pin, e))
}

pub(super) fn unpinned(
    pin: &Path,
    error: impl std::error::Error + Send + Sync + 'static,
) -> DatapathError {
    // Whoever may attach may pin; what is refused is the place.
    DatapathError::Kernel {
        what: format!("pinning the link {}", pin.display()),
        source: Box::new(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_tells_interface_and_hook() {
        for (interface, mode, file) in [
            ("wan0", AttachMode::Xdp, "7:xdp:wan0"),
            ("generic-a", AttachMode::Xdp, "7:xdp:generic-a"),
            ("a", AttachMode::XdpGeneric, "7:xdp-generic:a"),
            ("wan0.100", AttachMode::Tcx, "7:tcx:wan0:100"),
            ("lan-0", AttachMode::Clsact, "7:clsact:lan-0"),
        ] {
            let seat = Seat {
                interface: interface.to_owned(),
                ifindex: 7,
                mode,
            };
            assert_eq!(seat.file(), file);
            assert_eq!(Seat::of(file), Some(seat));
        }
        for other in ["dispatch", "dispatch-next", "7-wan0", "x:xdp:a", "7:ebpf:a"] {
            assert_eq!(Seat::of(other), None, "{other}");
        }
    }
}
