//! What the maps hold, as plain data for the views.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
};

use sni_common::contract::{
    Account, AccountKey, AccountWriter, Edge, Flow, FlowKey, LabelKey, LabelKind, Learned,
    LearnedKey, Pool, Service, ServiceKey, SniName, SniRoute, SniRouteKey, limits,
};

use crate::datapath::{DatapathError, Maps};

/// Names of things, by the labels in the maps.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// The active generation, which pools are numbered in.
    pub(super) generation: u32,
    /// The labels.
    pub(super) labels: BTreeMap<LabelKey, String>,
}

impl Names {
    /// An Edge's name, or `#slot`.
    pub(super) fn edge(&self, slot: u16) -> String {
        self.name(LabelKind::Edge, 0, slot.into())
    }

    /// The name of a pool of the active generation, or `#number`.
    pub(super) fn pool(&self, number: u32) -> String {
        self.pool_of(self.generation, number)
    }

    /// The name of a pool of some generation, or `#number`: pools of a generation that is gone have none.
    pub(super) fn pool_of(&self, generation: u32, number: u32) -> String {
        self.name(LabelKind::Pool, generation, number)
    }

    /// The numbers of the pools of this name in the active generation: one per address family.
    pub(super) fn pool_numbers(&self, name: &str) -> Vec<u32> {
        let pools = self.labels.iter().filter(|(key, label)| {
            key.kind == LabelKind::Pool as u32
                && key.generation == self.generation
                && label.as_str() == name
        });
        pools.map(|(key, _)| key.number).collect()
    }

    /// An IP set's name, or `#number`. IP sets keep their numbers through generations, as Edges keep their slots.
    pub(super) fn ip_set(&self, number: u32) -> String {
        self.name(LabelKind::IpSet, 0, number)
    }

    /// Slots of the Edges of this name; several where one was moved and flows of the old place live on.
    pub(super) fn edge_slots(&self, name: &str) -> Vec<u16> {
        let edges = self
            .labels
            .iter()
            .filter(|(key, _)| key.kind == LabelKind::Edge as u32);
        edges
            .filter(|(key, label)| label.as_str() == name || format!("#{}", key.number) == name)
            .filter_map(|(key, _)| u16::try_from(key.number).ok())
            .collect()
    }

    /// The names of all Edges.
    pub(super) fn edges(&self) -> Vec<&str> {
        let edges = self
            .labels
            .iter()
            .filter(|(key, _)| key.kind == LabelKind::Edge as u32);
        edges.map(|(_, label)| label.as_str()).collect()
    }

    fn name(&self, kind: LabelKind, generation: u32, number: u32) -> String {
        let key = LabelKey {
            kind: kind as u32,
            generation,
            number,
        };
        self.labels
            .get(&key)
            .cloned()
            .unwrap_or_else(|| format!("#{number}"))
    }
}

/// The names in LABELS.
pub(super) fn names(maps: &Maps) -> Result<Names, DatapathError> {
    let generation = maps.generation()?;
    let labels = entries("LABELS", maps.labels.iter(), limits::MAX_LABELS)?;
    Ok(Names {
        generation,
        labels: labels
            .into_iter()
            .map(|(key, label)| (key, label.as_str().to_owned()))
            .collect(),
    })
}

/// The Edges, by slot.
pub(super) fn edges(maps: &Maps) -> Result<Vec<(u16, Edge)>, DatapathError> {
    let all = entries("EDGES", maps.edges.iter(), limits::MAX_EDGES)?;
    Ok((0..)
        .zip(all)
        .filter(|(_, edge)| !edge.address.is_unset())
        .collect())
}

/// Every pool there is, by index in POOLS: both banks.
pub(super) fn pools(maps: &Maps) -> Result<Vec<(u32, Pool)>, DatapathError> {
    let all = entries("POOLS", maps.pools.iter(), 2 * limits::MAX_POOLS)?;
    Ok((0..).zip(all).filter(|(_, pool)| pool.count > 0).collect())
}

/// The pools of a generation, by number.
pub(super) fn pools_of(maps: &Maps, generation: u32) -> Result<Vec<(u32, Pool)>, DatapathError> {
    let first = Pool::index(generation, 0);
    let mut found = pools(maps)?;
    found.retain_mut(|(index, _)| {
        let number = index.wrapping_sub(first);
        *index = number;
        number < limits::MAX_POOLS
    });
    Ok(found)
}

/// Every service, of any generation.
pub(super) fn services(maps: &Maps) -> Result<Vec<(ServiceKey, Service)>, DatapathError> {
    entries("SERVICES", maps.services.iter(), limits::MAX_SERVICES)
}

/// Every configured server name, of any generation.
pub(super) fn routes(maps: &Maps) -> Result<Vec<(SniRouteKey, SniRoute)>, DatapathError> {
    let mut entries = Vec::new();
    maps.for_each_route(|key, route| {
        entries.push((key, route));
        Ok(())
    })?;
    Ok(entries)
}

/// The configured server names by the numbers that flows and accounts refer to them by.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteNames(HashMap<u64, SniName>);

impl RouteNames {
    #[cfg(test)]
    pub(super) fn new(names: impl IntoIterator<Item = SniName>) -> Self {
        Self(
            names
                .into_iter()
                .map(|name| (name.number(), name))
                .collect(),
        )
    }

    /// The name; `None` for one that no configuration in the maps has any longer.
    pub(super) fn name(&self, number: u64) -> Option<String> {
        self.0.get(&number).map(ToString::to_string)
    }

    /// The name, or its number; `None` for 0, where the address decided.
    pub(super) fn shown(&self, number: u64) -> Option<String> {
        (number != 0).then(|| {
            self.name(number)
                .unwrap_or_else(|| format!("#{number:016x}"))
        })
    }
}

/// The names of SNI_ROUTES, of any generation: a flow may be older than the active one.
pub(super) fn route_names(maps: &Maps) -> Result<RouteNames, DatapathError> {
    let mut names = HashMap::new();
    maps.for_each_route(|key, _| {
        names.insert(key.name.number(), key.name);
        Ok(())
    })?;
    Ok(RouteNames(names))
}

/// What ended flows and the agent's connections have carried, whoever has written it.
pub(super) type Accounts = HashMap<AccountKey, Account>;

/// ACCOUNTS, summed.
pub(super) fn accounts(maps: &Maps) -> Result<Accounts, DatapathError> {
    let mut sums = Accounts::new();
    for (key, account) in accounts_by_writer(maps)? {
        let whole = key.by(AccountWriter::Datapath);
        sums.entry(whole).or_default().add(&account);
    }
    Ok(sums)
}

/// ACCOUNTS as it is.
pub(super) fn accounts_by_writer(maps: &Maps) -> Result<Vec<(AccountKey, Account)>, DatapathError> {
    entries("ACCOUNTS", maps.accounts.iter(), limits::MAX_ACCOUNTS)
}

/// Every server name that clients asked for.
pub(super) fn learned(maps: &Maps) -> Result<Vec<(LearnedKey, Learned)>, DatapathError> {
    let mut entries = Vec::new();
    maps.for_each_learned(|key, learned| {
        entries.push((key, learned));
        Ok(())
    })?;
    Ok(entries)
}

/// Entries of FLOWS and of HALF_OPEN.
#[derive(Clone, Debug, Default)]
pub(super) struct FlowTables {
    /// FLOWS.
    pub(super) established: Vec<(FlowKey, Flow)>,
    /// HALF_OPEN.
    pub(super) half_open: Vec<(FlowKey, Flow)>,
}

/// The flow tables.
pub(super) fn flows(maps: &Maps) -> Result<FlowTables, DatapathError> {
    // In the order in which a flow moves, so that one on its way from the first to the second is seen at least once.
    let half_open = maps.all_half_open()?;
    Ok(FlowTables {
        established: maps.all_flows()?,
        half_open,
    })
}

/// What an iterator over a map yields; at most `limit`, because the kernel starts again from the front when the key that it stopped at is
/// gone, and a map under churn would be read for ever.
pub(super) fn entries<T, E>(
    map: &'static str,
    iterator: impl Iterator<Item = Result<T, E>>,
    limit: u32,
) -> Result<Vec<T>, DatapathError>
where
    E: Error + Send + Sync + 'static,
{
    iterator
        .take(limit as usize)
        .collect::<Result<_, _>>()
        .map_err(|error| DatapathError::Kernel {
            what: format!("reading the map {map}"),
            source: Box::new(error),
        })
}
