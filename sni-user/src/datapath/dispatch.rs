//! Connections to inspected services: the agent's listener, and the program that finds it for them.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd as _},
    path::Path,
};

use aya::{
    maps::{Map, MapData, MapError},
    programs::{SkLookup, links::FdLink},
};
use sni_common::contract::{CONTROL_LISTENER_PORT, LISTENER};
use socket2::SockRef;

use super::{
    Datapath, DatapathError,
    program::{LINKS_DIR, detach_pinned, program},
    sys::{Command, ElementAttributes, bpf, descriptor},
};

/// Name of the program in the object.
pub(super) const PROGRAM: &str = "snigate_dispatch";
/// The link's pin. No interface's: those begin with a number.
const PIN: &str = "dispatch";
/// Where the next one is pinned until it takes the place.
const NEXT_PIN: &str = "dispatch-next";

/// LISTENERS: a socket under [`LISTENER`], or none. The kernel takes it out when it is closed.
pub struct Listeners {
    map: MapData,
}

impl TryFrom<Map> for Listeners {
    type Error = MapError;

    fn try_from(map: Map) -> Result<Self, MapError> {
        match map {
            Map::SockMap(map) => Ok(Self { map }),
            _ => Err(MapError::InvalidMapType { map_type: 0 }),
        }
    }
}

impl Listeners {
    /// The cookie of the agent's listener, by which `ss -e` knows it, too (`sk:`); `None` where nobody listens.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn cookie(&self) -> Result<Option<u64>, DatapathError> {
        let mut cookie = 0u64;
        match self.element(Command::LookupElement, &raw mut cookie) {
            Ok(()) => Ok(Some(cookie)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(DatapathError::kernel("reading the map LISTENERS", error)),
        }
    }

    /// Puts a listening socket in the place of the one that is there.
    fn set(&mut self, socket: impl AsFd) -> io::Result<()> {
        let mut value = socket.as_fd().as_raw_fd() as u64;
        self.element(Command::UpdateElement, &raw mut value)
    }

    fn element(&self, command: Command, value: *mut u64) -> io::Result<()> {
        let key = LISTENER;
        let mut attributes = ElementAttributes {
            map_fd: descriptor(&self.map),
            padding: 0,
            key: &raw const key as u64,
            value: value as u64,
            flags: 0,
        };
        // SAFETY: a key of four bytes and a value of eight, as the contract has them; both outlive the call.
        unsafe { bpf(command, &mut attributes) }
    }
}

impl Datapath {
    /// Has connections to inspected services go to the agent's listener, in the network namespace of the calling thread, or no longer. Without a
    /// listener they are refused, so this comes before a configuration with inspected services is activated. Idempotent.
    ///
    /// The program of an earlier agent is detached when this one is there, so that there is no gap; like it, this one stays until it is
    /// unwanted or [`Datapath::remove`].
    ///
    /// # Errors
    /// When it can't be attached or pinned; what was attached stays.
    pub fn dispatch(&mut self, wanted: bool) -> Result<(), DatapathError> {
        let links = self.pin_path.join(LINKS_DIR);
        match (wanted, self.dispatching) {
            (true, false) => self.attach_dispatch(&links)?,
            (true, true) => {}
            (false, _) => {
                detach_pinned(&links.join(NEXT_PIN))?;
                detach_pinned(&links.join(PIN))?;
            }
        }
        self.dispatching = wanted;
        Ok(())
    }

    /// Hands connections to inspected services to this socket from now on: it listens, and takes both address families. It serves until it is
    /// closed, or another one takes its place.
    ///
    /// # Errors
    /// When it is no listening TCP socket of a network namespace that this process may use.
    pub fn serve_listener(&mut self, socket: impl AsFd) -> Result<(), DatapathError> {
        // The program keeps everybody away from the port itself; a service of that port would never be one.
        let address = SockRef::from(&socket).local_addr();
        let address = address.map_err(|e| {
            DatapathError::kernel("asking where the agent's listener is bound to", e)
        })?;
        let port = address.as_socket().map_or(0, |address| address.port());
        self.maps
            .control
            .set(CONTROL_LISTENER_PORT, u64::from(port), 0)
            .map_err(|e| DatapathError::map("CONTROL", e))?;
        self.maps.listeners.set(socket).map_err(|e| {
            DatapathError::kernel("putting the agent's listener into the map LISTENERS", e)
        })
    }

    /// A new link beside the old one, then in its place: two programs that agree do no harm, while an old link may be of another network
    /// namespace, or of one that is gone.
    fn attach_dispatch(&mut self, links: &Path) -> Result<(), DatapathError> {
        let what = "attaching the socket lookup to this network namespace";
        let namespace = File::open("/proc/thread-self/ns/net")
            .map_err(|e| DatapathError::kernel("opening this thread's network namespace", e))?;
        let program: &mut SkLookup = program(&mut self.ebpf, PROGRAM)?;
        let link = program
            .attach(namespace)
            .and_then(|id| program.take_link(id))
            .map_err(|e| DatapathError::kernel(what, e))?;
        let (next, pin) = (links.join(NEXT_PIN), links.join(PIN));
        detach_pinned(&next)?;
        FdLink::from(link).pin(&next).map_err(|e| {
            DatapathError::kernel(format!("pinning the link {}", next.display()), e)
        })?;
        fs::rename(&next, &pin)
            .map_err(|e| DatapathError::kernel(format!("pinning the link {}", pin.display()), e))
    }
}
