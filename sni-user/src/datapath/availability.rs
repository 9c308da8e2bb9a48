//! Which Edges get new flows: their states in EDGES, and the tables of MAGLEV that new flows go by.

use sni_common::{
    contract::{Edge, EdgeState, LabelKind, Pool, PoolMember, limits::MAX_POOLS},
    maglev,
};

use super::{DatapathError, Maps, maps::MaglevTable};
use crate::config::maglev_identity;

impl Maps {
    /// What the datapath takes the Edge in a slot for.
    ///
    /// # Errors
    /// When the map can't be read, or has no state that this version knows.
    pub fn edge_state(&self, slot: u16) -> Result<EdgeState, DatapathError> {
        let edge = self.edge(slot)?;
        EdgeState::try_from(edge.state)
            .map_err(|error| DatapathError::kernel(format!("the state of Edge #{slot}"), error))
    }

    /// Sets the state of the Edge in a slot, and has new flows of the active configuration go by it. Flows that are there stay where they are.
    ///
    /// # Errors
    /// When a map can't be read or written. What is written by then is right, and a packet in between finds an Edge that is up by further slots.
    pub fn set_edge_state(&mut self, slot: u16, state: EdgeState) -> Result<(), DatapathError> {
        self.write_edge_state(slot, state)?;
        let generation = self.generation()?;
        for number in 0..MAX_POOLS {
            let pool = self.pool(generation, number)?;
            if members(&pool).any(|member| member.edge == slot) {
                self.write_available(generation, number, &pool)?;
            }
        }
        Ok(())
    }

    /// Only in EDGES: for an Edge that is in no pool of the active configuration.
    pub(super) fn write_edge_state(
        &mut self,
        slot: u16,
        state: EdgeState,
    ) -> Result<(), DatapathError> {
        // What the datapath notes of the Edge meanwhile may be lost: it notes it again with the next answer.
        let mut edge = self.edge(slot)?;
        edge.state = state as u8;
        self.edges
            .set(slot.into(), edge, 0)
            .map_err(|e| DatapathError::map("EDGES", e))
    }

    /// Writes the table that new flows of a pool go by, from the one with all its Edges and their states.
    pub(super) fn write_available(
        &mut self,
        generation: u32,
        number: u32,
        pool: &Pool,
    ) -> Result<(), DatapathError> {
        let reading = |e| DatapathError::kernel("reading the map MAGLEV", e);
        let whole = self.maglev.get(&Pool::index(generation, number), 0);
        let whole = Box::new(whole.map_err(reading)?);
        let mut available = Vec::new();
        for member in members(pool) {
            let edge = self.edge(member.edge)?;
            if edge.state == EdgeState::Up as u8 {
                available.push(maglev::Member {
                    identity: self.identity(member.edge, &edge),
                    edge: member.edge,
                    weight: member.weight,
                });
            }
        }
        let seed = self.settings_of(generation)?.seed;
        let mut table = Box::new(MaglevTable([maglev::NO_EDGE; maglev::ENTRIES]));
        maglev::fill_available(&mut table.0, &whole.0, &mut available, seed);
        self.maglev
            .set(Pool::available_index(generation, number), *table, 0)
            .map_err(|e| DatapathError::map("MAGLEV", e))
    }

    /// What identifies the Edge in Maglev's tables, the same as by the configuration.
    fn identity(&self, slot: u16, edge: &Edge) -> u64 {
        let name = self.label(LabelKind::Edge, 0, slot.into());
        maglev_identity(&name.unwrap_or_default(), edge.address.into(), edge.port_be)
    }
}

fn members(pool: &Pool) -> impl Iterator<Item = &PoolMember> {
    pool.members.iter().take(pool.count as usize)
}
