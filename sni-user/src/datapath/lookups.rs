//! Single entries of the maps, as the datapath itself looks them up.

use aya::maps::lpm_trie::Key;
use sni_common::{
    Address,
    contract::{
        AclKey, BudgetKey, Edge, Flow, FlowKey, Learned, LearnedKey, Pool, Service, ServiceKey,
        Settings, bank,
    },
    token_bucket::TokenBucket,
};

use super::{DatapathError, Maps, names::found};

impl Maps {
    /// The settings of a generation.
    ///
    /// # Errors
    /// When the map can't be read; so it is with every lookup.
    pub fn settings_of(&self, generation: u32) -> Result<Settings, DatapathError> {
        let settings = found("SETTINGS", self.settings.get(&bank(generation), 0))?;
        Ok(settings.unwrap_or_default())
    }

    /// Whether a bit of FILTER is set.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn in_filter(&self, bit: u32) -> Result<bool, DatapathError> {
        let word = found("FILTER", self.filter.get(&(bit / 64), 0))?;
        Ok(word.unwrap_or_default() >> (bit % 64) & 1 != 0)
    }

    /// A service.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn service(&self, key: &ServiceKey) -> Result<Option<Service>, DatapathError> {
        found("SERVICES", self.services.get(key, 0))
    }

    /// A pool of a generation; without members where there is none.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn pool(&self, generation: u32, number: u32) -> Result<Pool, DatapathError> {
        let index = Pool::index(generation, number);
        Ok(found("POOLS", self.pools.get(&index, 0))?.unwrap_or_default())
    }

    /// The Edge in a slot of the Maglev table that new flows of a pool go by.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn maglev_slot(
        &self,
        generation: u32,
        pool: u32,
        slot: u32,
    ) -> Result<Option<u16>, DatapathError> {
        let index = Pool::available_index(generation, pool);
        let table = found("MAGLEV", self.maglev.get(&index, 0))?;
        Ok(table.and_then(|table| table.0.get(slot as usize).copied()))
    }

    /// The Edge in a slot; unset in a free one.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn edge(&self, slot: u16) -> Result<Edge, DatapathError> {
        let edge = found("EDGES", self.edges.get(&slot.into(), 0))?;
        Ok(edge.unwrap_or_default())
    }

    /// What the longest prefix of a source address says.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn acl(&self, generation: u32, source: Address) -> Result<Option<u32>, DatapathError> {
        let data = AclKey {
            generation,
            address: source,
        };
        found("ACL", self.acl.get(&Key::new(AclKey::BITS, data), 0))
    }

    /// A budget of the datapath's.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn budget(&self, key: &BudgetKey) -> Result<Option<TokenBucket>, DatapathError> {
        found("BUDGET", self.budget.get(key, 0))
    }

    /// An entry of FLOWS.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn established(&self, key: &FlowKey) -> Result<Option<Flow>, DatapathError> {
        found("FLOWS", self.flows.get(key, 0))
    }

    /// An entry of HALF_OPEN.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn half_open(&self, key: &FlowKey) -> Result<Option<Flow>, DatapathError> {
        found("HALF_OPEN", self.half_open.get(key, 0))
    }

    /// What came of a name of an IP set.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn learned(&self, key: &LearnedKey) -> Result<Option<Learned>, DatapathError> {
        found("SNI_LEARNED", self.sni_learned.get(key, 0))
    }
}
