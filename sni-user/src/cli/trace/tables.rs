//! The tables that answer.

use sni_common::{
    Address,
    contract::{
        BudgetKey, Edge, Flow, FlowKey, Learned, LearnedKey, Pool, Service, ServiceKey, Settings,
        SniName, SniRoute,
    },
    token_bucket::TokenBucket,
};

use crate::{
    cli::read::Names,
    datapath::{DatapathError, Maps},
};

/// Single lookups, as the datapath makes them.
pub(super) trait Tables {
    /// Names of things; they know the active generation.
    fn names(&self) -> &Names;
    /// The datapath's clock.
    fn now_ns(&self) -> u64;
    fn settings(&self) -> Result<Settings, DatapathError>;
    fn in_filter(&self, bit: u32) -> Result<bool, DatapathError>;
    fn established(&self, key: &FlowKey) -> Result<Option<Flow>, DatapathError>;
    fn half_open(&self, key: &FlowKey) -> Result<Option<Flow>, DatapathError>;
    fn service(&self, key: &ServiceKey) -> Result<Option<Service>, DatapathError>;
    fn acl(&self, source: Address) -> Result<Option<u32>, DatapathError>;
    fn budget(&self, key: &BudgetKey) -> Result<Option<TokenBucket>, DatapathError>;
    fn has_listener(&self) -> Result<bool, DatapathError>;
    /// Whether the datapath answers SYNs itself.
    fn answers(&self) -> Result<bool, DatapathError>;
    fn route(&self, name: &SniName) -> Result<Option<SniRoute>, DatapathError>;
    fn learned(&self, key: &LearnedKey) -> Result<Option<Learned>, DatapathError>;
    fn pool(&self, number: u32) -> Result<Pool, DatapathError>;
    fn maglev(&self, pool: u32, slot: u32) -> Result<Option<u16>, DatapathError>;
    fn edge(&self, slot: u16) -> Result<Edge, DatapathError>;

    fn generation(&self) -> u32 {
        self.names().generation
    }
}

/// The pinned maps, in the generation that was active when the trace began.
pub(super) struct Pinned<'a> {
    pub(super) maps: &'a Maps,
    pub(super) names: Names,
    pub(super) now_ns: u64,
}

impl Tables for Pinned<'_> {
    fn names(&self) -> &Names {
        &self.names
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn settings(&self) -> Result<Settings, DatapathError> {
        self.maps.settings_of(self.generation())
    }

    fn in_filter(&self, bit: u32) -> Result<bool, DatapathError> {
        self.maps.in_filter(bit)
    }

    fn established(&self, key: &FlowKey) -> Result<Option<Flow>, DatapathError> {
        self.maps.established(key)
    }

    fn half_open(&self, key: &FlowKey) -> Result<Option<Flow>, DatapathError> {
        self.maps.half_open(key)
    }

    fn service(&self, key: &ServiceKey) -> Result<Option<Service>, DatapathError> {
        self.maps.service(key)
    }

    fn acl(&self, source: Address) -> Result<Option<u32>, DatapathError> {
        self.maps.acl(self.generation(), source)
    }

    fn budget(&self, key: &BudgetKey) -> Result<Option<TokenBucket>, DatapathError> {
        self.maps.budget(key)
    }

    fn has_listener(&self) -> Result<bool, DatapathError> {
        Ok(self.maps.listeners.cookie()?.is_some())
    }

    fn answers(&self) -> Result<bool, DatapathError> {
        Ok(self.maps.announced()?.is_some())
    }

    fn route(&self, name: &SniName) -> Result<Option<SniRoute>, DatapathError> {
        self.maps.route(self.generation(), name)
    }

    fn learned(&self, key: &LearnedKey) -> Result<Option<Learned>, DatapathError> {
        self.maps.learned(key)
    }

    fn pool(&self, number: u32) -> Result<Pool, DatapathError> {
        self.maps.pool(self.generation(), number)
    }

    fn maglev(&self, pool: u32, slot: u32) -> Result<Option<u16>, DatapathError> {
        self.maps.maglev_slot(self.generation(), pool, slot)
    }

    fn edge(&self, slot: u16) -> Result<Edge, DatapathError> {
        self.maps.edge(slot)
    }
}
