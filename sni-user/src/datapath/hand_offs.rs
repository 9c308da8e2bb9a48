//! What handing a connection off needs of the datapath: how its peers began, its flow's entries, and who still has sockets.

use std::{
    net::SocketAddr,
    num::NonZero,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread::available_parallelism,
};

use aya::maps::MapError;
use sni_common::{
    contract::{Flow, FlowKey, HandingOff, SynSeen},
    tcp::state,
};

use super::{Additions, DatapathError, Maps, error::errno, names::found};
use crate::kill_point::KillPoint;

/// BPF_NOEXIST: whoever inserts a tuple first owns it.
const NOT_THERE_YET: u64 = 1;

/// Handles of the maps for those who write; more processors than these are seldom in the same call.
const WRITERS: usize = 4;

/// The maps that hand-offs read and write, shared by all connections. Each call is a system call or two.
pub struct HandOffs {
    /// For whoever only looks, for which nobody waits: the kernel's own locks are enough.
    maps: Maps,
    /// aya lets a map be written by whoever has a handle for himself. With one for all, connections waited for each other at every step, and each wait is a
    /// system call and a thread woken. The entries of a connection are nobody else's.
    writers: Vec<Mutex<Maps>>,
}

/// Why the datapath does not take a flow.
#[derive(Debug, thiserror::Error)]
pub enum FlowRefused {
    /// There is no room.
    #[error("the flow table is full: raise `max_flows`")]
    Full,
    /// Another flow has these addresses and ports.
    #[error("another flow of the datapath has its addresses and ports")]
    Taken,
    /// The kernel.
    #[error(transparent)]
    Map(#[from] DatapathError),
}

impl HandOffs {
    /// Opens the maps pinned below `pin_path`.
    ///
    /// # Errors
    /// When they are not there.
    pub fn open(pin_path: &Path) -> Result<Self, DatapathError> {
        let cpus = available_parallelism().map_or(1, NonZero::get);
        let writer = |_| Maps::open(pin_path).map(Mutex::new);
        Ok(Self {
            maps: Maps::open(pin_path)?,
            writers: (0..cpus.clamp(1, WRITERS))
                .map(writer)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Forgets all hand-offs of an agent that was killed: its sockets are gone.
    ///
    /// # Errors
    /// When the map can't be read or written.
    pub fn forget_all(&self) -> Result<(), DatapathError> {
        let mut maps = self.writer();
        let keys: Vec<_> = maps.handing_off.keys().filter_map(Result::ok).collect();
        for key in keys {
            gone(maps.handing_off.remove(&key))?;
        }
        Ok(())
    }

    /// Whether packets of these addresses and ports belong to a flow.
    pub fn has_flow(&self, key: &FlowKey) -> bool {
        self.maps.has_flow(key)
    }

    /// How a client began, by the tuple of its packets.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn client_syn(&self, key: &FlowKey) -> Result<Option<SynSeen>, DatapathError> {
        found("CLIENT_SYNS", self.maps.client_syns.get(key, 0))
    }

    /// How an Edge answered, by the tuple of its packets.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn edge_syn_ack(&self, key: &FlowKey) -> Result<Option<SynSeen>, DatapathError> {
        found("EDGE_SYN_ACKS", self.maps.edge_syn_acks.get(key, 0))
    }

    /// Begins the hand-off of one direction: from now on its packets are forwarded, except acknowledgements before `need_ack`.
    ///
    /// # Errors
    /// When the datapath does not take it; then all is as before.
    pub fn begin(&self, key: &FlowKey, flow: &Flow, need_ack: u32) -> Result<(), FlowRefused> {
        self.need(key, need_ack)?;
        KillPoint::HandOffGiving.pass();
        let mut maps = self.writer();
        // Of a client that the datapath has left to the agent.
        let _ = maps.pending.remove(key);
        let inserted = maps.flows.insert(key, flow, NOT_THERE_YET);
        inserted.map_err(|error| {
            // Nobody's without its flow.
            let _ = maps.handing_off.remove(key);
            match errno(&error) {
                Some(libc::E2BIG | libc::ENOMEM) => FlowRefused::Full,
                Some(libc::EEXIST) => FlowRefused::Taken,
                _ => FlowRefused::Map(DatapathError::map("FLOWS", error)),
            }
        })
    }

    /// Acknowledgements before `need_ack` are the socket's, in packets of this direction.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn need(&self, key: &FlowKey, need_ack: u32) -> Result<(), DatapathError> {
        let handing_off = HandingOff {
            need_ack,
            padding: 0,
        };
        let mut maps = self.writer();
        let written = maps.handing_off.insert(key, handing_off, 0);
        written.map_err(|error| DatapathError::map("HANDING_OFF", error))
    }

    /// One direction's entry as it is now; none where the flow is gone.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn flow(&self, key: &FlowKey) -> Result<Option<Flow>, DatapathError> {
        self.maps.established(key)
    }

    /// Notes a FIN of one direction that its socket has received and the datapath has not seen. What packets of this direction change in the entry at
    /// the same moment is lost; after a FIN only acknowledgements are to come.
    ///
    /// # Errors
    /// When the map can't be read or written.
    pub fn note_end(&self, key: &FlowKey) -> Result<(), DatapathError> {
        let mut maps = self.writer();
        let Some(mut flow) = maps.established(key)? else {
            return Ok(());
        };
        flow.state |= state::FIN;
        flow.next_seq = flow.next_seq.wrapping_add(1);
        let written = maps.flows.insert(key, flow, 0);
        written.map_err(|error| DatapathError::map("FLOWS", error))
    }

    /// Ends a hand-off: the sockets are about to be given up.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn end(&self, keys: [&FlowKey; 2]) -> Result<(), DatapathError> {
        let mut maps = self.writer();
        let [first, second] = keys;
        gone(maps.handing_off.remove(first))?;
        KillPoint::HandOffEnding.pass();
        gone(maps.handing_off.remove(second))
    }

    /// Takes a flow back.
    ///
    /// # Errors
    /// When the maps can't be written.
    pub fn abandon(&self, keys: [&FlowKey; 2]) -> Result<(), DatapathError> {
        let mut maps = self.writer();
        for key in keys {
            gone(maps.flows.remove(key))?;
            gone(maps.handing_off.remove(key))?;
        }
        Ok(())
    }

    /// Adds to the accounts of connections that the agent carries. What could not be written stays in `additions`.
    ///
    /// # Errors
    /// When the map can't be read or written.
    pub fn account(&self, additions: &mut Additions) -> Result<(), DatapathError> {
        self.writer().account(additions)
    }

    /// Whether this Edge still has its slot; once no flow and no pool refers to it any longer, another one may.
    pub fn is_in_slot(&self, slot: u16, edge: SocketAddr) -> bool {
        let entry = self.maps.edges.get(&slot.into(), 0);
        entry.is_ok_and(|entry| {
            (entry.address, u16::from_be(entry.port_be)) == (edge.ip().into(), edge.port())
        })
    }

    /// A handle that nobody uses now, or else the first.
    fn writer(&self) -> MutexGuard<'_, Maps> {
        let mut free = self.writers.iter().map(Mutex::try_lock);
        if let Some(writer) = free.find_map(Result::ok) {
            return writer;
        }
        self.writers[0]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was not there is as good as removed.
pub(super) fn gone(removed: Result<(), MapError>) -> Result<(), DatapathError> {
    match removed {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(DatapathError::kernel("removing an entry of a map", error)),
    }
}
