//! Activating a configuration: it is written beside the old one, then one store makes it the valid one.

use std::{
    collections::{HashMap, HashSet},
    thread,
    time::Duration,
};

use aya::maps::lpm_trie::Key;
use sni_common::{
    Address,
    contract::{
        AclKey, CONTROL_GENERATION, Edge, EdgeState, FILTER_EDGES, FILTER_SERVICES, Label,
        LabelKey, LabelKind, Mode, Pool, PoolMember, Service, ServiceKey, bank, filter_bit,
        limits::{MAX_EDGES, MAX_POOLS},
    },
    maglev,
};

use super::{
    DatapathError, Maps,
    maps::MaglevTable,
    tables::{FamilyPool, NamedEdge, Tables},
};
use crate::kill_point::KillPoint;

/// Longer than any packet is on its way through the program, by orders of magnitude: after it nobody reads the old generation.
const GRACE: Duration = Duration::from_millis(20);

/// What became active.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Activated {
    /// Its generation.
    pub generation: u32,
    /// Services, counting addresses and ports.
    pub services: usize,
    /// Edges.
    pub edges: usize,
    /// The slot of each, in the configuration's order.
    pub edge_slots: Vec<u16>,
    /// Server names, wildcards included.
    pub names: usize,
    /// The number of each IP set, in the configuration's order.
    pub ip_sets: Vec<u32>,
    /// The number of each pool for IPv4 and for IPv6, likewise; `NO_POOL` where it has no such Edge.
    pub pools: Vec<[u32; 2]>,
}

impl Tables {
    /// Writes everything under the next generation, makes it the active one, and removes the former one.
    ///
    /// # Errors
    /// As of [`Tables::switch`].
    pub fn activate(&self, maps: &mut Maps) -> Result<Activated, DatapathError> {
        let activated = self.switch(maps)?;
        maps.retire_former(&activated);
        Ok(activated)
    }

    /// Writes everything under the next generation and makes it the active one. The former one is still there, for [`Maps::retire_former`].
    ///
    /// # Errors
    /// When something can't be written; the active configuration is then as it was, and what was written is taken back.
    pub fn switch(&self, maps: &mut Maps) -> Result<Activated, DatapathError> {
        let active = maps.generation()?;
        let next = active.checked_add(1).unwrap_or(1);
        // An agent that was killed while it wrote may have left entries under the very number that is to be used now.
        if !maps.tidy {
            retire(maps, |generation| generation != active)?;
        }
        maps.tidy = false;
        let edges = self.place_edges(maps)?;
        let ip_sets = self.number_ip_sets(maps)?;
        KillPoint::ReloadPlaced.pass();
        if let Err(error) = self.write(maps, next, &edges, &ip_sets) {
            if let Err(left) = retire(maps, |generation| generation == next) {
                tracing::warn!(%left, "what was written of the refused configuration is removed with the next one");
            }
            return Err(error);
        }
        KillPoint::ReloadWritten.pass();
        maps.control
            .set(CONTROL_GENERATION, u64::from(next), 0)
            .map_err(|e| DatapathError::kernel("activating the configuration", e))?;
        KillPoint::ReloadSwitched.pass();
        Ok(Activated {
            generation: next,
            services: self
                .services
                .iter()
                .map(|service| service.ports.len())
                .sum(),
            edges: edges.len(),
            edge_slots: edges,
            names: self.routes.len(),
            ip_sets,
            pools: self.pool_numbers.clone(),
        })
    }

    /// The slot of each Edge: the one it has, else a free one. An Edge that changes address or source is another Edge: flows refer to
    /// slots, and so does the configuration that is active until the flip.
    fn place_edges(&self, maps: &mut Maps) -> Result<Vec<u16>, DatapathError> {
        let mut known = HashMap::new();
        let mut free = Vec::new();
        for slot in (0..MAX_EDGES).rev() {
            let entry = maps
                .edges
                .get(&slot, 0)
                .map_err(|e| DatapathError::kernel("reading the map EDGES", e))?;
            if entry.address.is_unset() {
                free.push(slot);
            } else {
                let name = maps.label(LabelKind::Edge, 0, slot).unwrap_or_default();
                known.insert(edge_identity(name, &entry), slot);
            }
        }
        let mut slots = Vec::new();
        let mut reclaimed = false;
        for NamedEdge { name, entry, .. } in &self.edges {
            if let Some(slot) = known.get(&edge_identity(name.clone(), entry)) {
                // As it is: draining and health are not the configuration's to reset, as long as it has the Edge.
                slots.push(*slot as u16);
                continue;
            }
            if free.is_empty() && !reclaimed {
                free = reclaim(maps, known.values())?;
                reclaimed = true;
            }
            let slot = free.pop().ok_or(DatapathError::TooMany {
                what: "the number of Edges, those of living flows included,",
                limit: MAX_EDGES,
                advice: "wait until flows to Edges that were removed have ended",
            })?;
            maps.close_edge_accounts(slot as u16)?;
            maps.edges
                .set(slot, entry, 0)
                .map_err(|e| DatapathError::kernel(format!("writing Edge {name}"), e))?;
            label(maps, LabelKind::Edge, 0, slot, name)?;
            slots.push(slot as u16);
        }
        Ok(slots)
    }

    /// The number of each IP set: the one it has, else a new one. Flows refer to it for as long as they live.
    fn number_ip_sets(&self, maps: &mut Maps) -> Result<Vec<u32>, DatapathError> {
        let known: HashMap<String, u32> = maps
            .labels
            .iter()
            .filter_map(Result::ok)
            .filter(|(key, _)| key.kind == LabelKind::IpSet as u32)
            .map(|(key, label)| (label.as_str().to_owned(), key.number))
            .collect();
        let mut next = known.values().max().map_or(0, |number| number + 1);
        let mut numbers = Vec::new();
        for name in &self.ip_sets {
            let number = match known.get(name) {
                Some(number) => *number,
                None => {
                    label(maps, LabelKind::IpSet, 0, next, name)?;
                    next += 1;
                    next - 1
                }
            };
            numbers.push(number);
        }
        Ok(numbers)
    }

    fn write(
        &self,
        maps: &mut Maps,
        generation: u32,
        edges: &[u16],
        ip_sets: &[u32],
    ) -> Result<(), DatapathError> {
        maps.settings
            .set(bank(generation), self.settings, 0)
            .map_err(|e| DatapathError::kernel("writing the map SETTINGS", e))?;
        for number in 0..MAX_POOLS {
            let index = Pool::index(generation, number);
            let failed = |e| DatapathError::kernel("writing the map POOLS", e);
            match self.pools.get(number as usize) {
                Some(pool) => {
                    let (entry, table) = self.pool_entry(pool, edges);
                    maps.pools.set(index, entry, 0).map_err(failed)?;
                    maps.maglev
                        .set(index, *table, 0)
                        .map_err(|e| DatapathError::kernel("writing the map MAGLEV", e))?;
                    maps.write_available(generation, number, &entry)?;
                    label(maps, LabelKind::Pool, generation, number, &pool.name)?;
                }
                None => maps.pools.set(index, Pool::default(), 0).map_err(failed)?,
            }
        }
        for (bits, address, action) in &self.acl {
            let key = Key::new(
                AclKey::GENERATION_BITS + bits,
                AclKey {
                    generation,
                    address: *address,
                },
            );
            maps.acl
                .insert(&key, *action as u32, 0)
                .map_err(|e| DatapathError::kernel("writing the map ACL", e))?;
        }
        maps.insert_routes(generation, &self.routes)?;
        KillPoint::ReloadNames.pass();
        self.write_filter(maps)?;
        for service in &self.services {
            let failed =
                |e| DatapathError::kernel(format!("writing the service {}", service.address), e);
            let entry = |mode: Mode| Service {
                mode: mode as u8,
                flags: if mode == Mode::Vip { 0 } else { service.flags },
                padding: [0; 2],
                pool: service.pool,
                ip_set: ip_sets[service.ip_set],
            };
            let vip = ServiceKey::vip(generation, service.address);
            maps.services
                .insert(vip, entry(Mode::Vip), 0)
                .map_err(failed)?;
            for port in &service.ports {
                let key = ServiceKey::tcp(generation, service.address, port.to_be());
                maps.services
                    .insert(key, entry(service.mode), 0)
                    .map_err(failed)?;
            }
        }
        Ok(())
    }

    fn pool_entry(&self, pool: &FamilyPool, slots: &[u16]) -> (Pool, Box<MaglevTable>) {
        let mut entry = Pool {
            count: pool.members.len() as u32,
            family: if pool.v4 { 4 } else { 6 },
            ..Pool::default()
        };
        let mut members = Vec::new();
        for (place, (edge, weight)) in entry.members.iter_mut().zip(&pool.members) {
            *place = PoolMember {
                edge: slots[*edge],
                weight: *weight,
            };
            members.push(maglev::Member {
                identity: self.edges[*edge].identity,
                edge: slots[*edge],
                weight: *weight,
            });
        }
        let mut table = Box::new(MaglevTable([maglev::NO_EDGE; maglev::ENTRIES]));
        maglev::fill(&mut table.0, &mut members, self.settings.seed);
        (entry, table)
    }

    /// Sets the bits of the filter. Bits of earlier configurations stay: their flows may live on, and a bit too many costs some lookups.
    fn write_filter(&self, maps: &mut Maps) -> Result<(), DatapathError> {
        let services = self.services.iter().flat_map(|service| {
            let bit = |port: &u16| FILTER_SERVICES + filter_bit(&service.address, port.to_be());
            service.ports.iter().map(bit)
        });
        let edges = self
            .edges
            .iter()
            .map(|edge| FILTER_EDGES + filter_bit(&edge.entry.address, edge.entry.port_be));
        let mut words: HashMap<u32, u64> = HashMap::new();
        for bit in services.chain(edges) {
            *words.entry(bit / 64).or_default() |= 1 << (bit % 64);
        }
        let failed = |e| DatapathError::kernel("writing the map FILTER", e);
        for (index, word) in words {
            let old = maps.filter.get(&index, 0).map_err(failed)?;
            maps.filter.set(index, old | word, 0).map_err(failed)?;
        }
        Ok(())
    }
}

impl Maps {
    /// Removes what belongs to other generations than the one that became active, as soon as nobody reads it any more. Trouble is said; the next
    /// configuration removes what is left.
    pub fn retire_former(&mut self, activated: &Activated) {
        thread::sleep(GRACE);
        if let Err(left) = forget_states(self, &activated.edge_slots) {
            tracing::warn!(%left, "an Edge that has left the configuration keeps its state");
        }
        match retire(self, |generation| generation != activated.generation) {
            Ok(()) => self.tidy = true,
            Err(left) => {
                tracing::warn!(%left, "what is left of the old configuration is removed with the next one");
            }
        }
        KillPoint::ReloadRetired.pass();
    }
}

fn label(
    maps: &mut Maps,
    kind: LabelKind,
    generation: u32,
    number: u32,
    name: &str,
) -> Result<(), DatapathError> {
    let key = LabelKey {
        kind: kind as u32,
        generation,
        number,
    };
    maps.labels
        .insert(key, Label::new(name), 0)
        .map_err(|e| DatapathError::kernel("writing the map LABELS", e))
}

/// What makes two Edges the same one: name, address, port, and whose address it sees.
type EdgeIdentity = (String, Address, u16, u8, Address);

fn edge_identity(name: String, edge: &Edge) -> EdgeIdentity {
    (name, edge.address, edge.port_be, edge.source, edge.gateway)
}

/// Those of the slots whose Edges are in no flow and in no pool.
fn reclaim<'a>(
    maps: &Maps,
    slots: impl Iterator<Item = &'a u32>,
) -> Result<Vec<u32>, DatapathError> {
    let mut used = HashSet::new();
    for (_, flow) in maps.all_flows()?.into_iter().chain(maps.all_half_open()?) {
        used.insert(u32::from(flow.edge));
    }
    for pool in maps.pools.iter() {
        let pool = pool.map_err(|e| DatapathError::kernel("reading the map POOLS", e))?;
        used.extend(
            pool.members
                .iter()
                .take(pool.count as usize)
                .map(|member| u32::from(member.edge)),
        );
    }
    Ok(slots.copied().filter(|slot| !used.contains(slot)).collect())
}

/// What is said of an Edge goes when the configuration has it no longer: should it come back, it begins anew.
fn forget_states(maps: &mut Maps, configured: &[u16]) -> Result<(), DatapathError> {
    for slot in 0..MAX_EDGES as u16 {
        if maps.edge(slot)?.state != EdgeState::Up as u8 && !configured.contains(&slot) {
            maps.write_edge_state(slot, EdgeState::Up)?;
        }
    }
    Ok(())
}

/// Removes what belongs to generations that are gone.
fn retire(maps: &mut Maps, gone: impl Fn(u32) -> bool) -> Result<(), DatapathError> {
    let services: Vec<_> = maps
        .services
        .keys()
        .filter_map(Result::ok)
        .filter(|key| gone(key.generation))
        .collect();
    for key in services {
        maps.services
            .remove(&key)
            .map_err(|e| DatapathError::kernel("cleaning the map SERVICES", e))?;
    }
    let acl: Vec<_> = maps
        .acl
        .keys()
        .filter_map(Result::ok)
        .filter(|key| gone(key.data().generation))
        .collect();
    for key in acl {
        maps.acl
            .remove(&key)
            .map_err(|e| DatapathError::kernel("cleaning the map ACL", e))?;
    }
    maps.retire_routes(&gone)?;
    let pools = |key: &LabelKey| key.kind == LabelKind::Pool as u32 && gone(key.generation);
    let labels: Vec<_> = maps
        .labels
        .keys()
        .filter_map(Result::ok)
        .filter(pools)
        .collect();
    for key in labels {
        maps.labels
            .remove(&key)
            .map_err(|e| DatapathError::kernel("cleaning the map LABELS", e))?;
    }
    Ok(())
}
