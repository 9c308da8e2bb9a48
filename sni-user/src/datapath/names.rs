//! SNI_ROUTES and SNI_LEARNED: the configured server names, and those that clients asked for.

use sni_common::contract::{Learned, LearnedKey, SniName, SniRoute, SniRouteKey};

use super::{DatapathError, Maps, batch, maps::open};

const ROUTES: &str = "SNI_ROUTES";
const LEARNED: &str = "SNI_LEARNED";

impl Maps {
    /// Hands every configured name to `each`, of any generation, in no order.
    ///
    /// # Errors
    /// When the map can't be read, or what `each` returns.
    pub fn for_each_route(
        &self,
        each: impl FnMut(SniRouteKey, SniRoute) -> Result<(), DatapathError>,
    ) -> Result<(), DatapathError> {
        // SAFETY: the types of SNI_ROUTES, as Maps opens it.
        unsafe { batch::for_each(ROUTES, &open(self.pin_path(), ROUTES)?, each) }
    }

    /// Hands every name that clients asked for to `each`, in no order.
    ///
    /// # Errors
    /// When the map can't be read, or what `each` returns.
    pub fn for_each_learned(
        &self,
        each: impl FnMut(LearnedKey, Learned) -> Result<(), DatapathError>,
    ) -> Result<(), DatapathError> {
        // SAFETY: the types of SNI_LEARNED, as Maps opens it.
        unsafe { batch::for_each(LEARNED, &open(self.pin_path(), LEARNED)?, each) }
    }

    /// The configured route of exactly this name, a wildcard included; see [`sni_common::contract::candidates`] for those of a client's name.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn route(
        &self,
        generation: u32,
        name: &SniName,
    ) -> Result<Option<SniRoute>, DatapathError> {
        let key = SniRouteKey {
            generation,
            name: *name,
        };
        found(ROUTES, self.sni_routes.get(&key, 0))
    }

    /// Notes what came of connections to a name of an IP set. `what` says it; its hits are added to those that there are, and its times do not count. A
    /// client without a server name asks for [`SniName::EMPTY`].
    ///
    /// Read, then written. The datapath counts connections that it binds by the entry, and one that it counts in between is lost: a number for people,
    /// which is not worth a lock of the datapath's. `now_ns` is the monotonic clock's.
    ///
    /// # Errors
    /// When the map can't be read or written.
    pub fn learn(
        &mut self,
        ip_set: u32,
        name: &SniName,
        what: Learned,
        now_ns: u64,
    ) -> Result<(), DatapathError> {
        let key = LearnedKey {
            ip_set,
            name: *name,
        };
        let before = found(LEARNED, self.sni_learned.get(&key, 0))?;
        let value = Learned {
            hits: before
                .map_or(0, |before| before.hits)
                .saturating_add(what.hits),
            first_seen_ns: before.map_or(now_ns, |before| before.first_seen_ns),
            last_seen_ns: now_ns,
            ..what
        };
        self.sni_learned
            .insert(key, value, 0)
            .map_err(|e| DatapathError::map(LEARNED, e))
    }

    /// Writes configured names under a generation.
    pub(super) fn insert_routes(
        &self,
        generation: u32,
        routes: &[(SniName, SniRoute)],
    ) -> Result<(), DatapathError> {
        let entries = routes.iter().map(|(name, route)| {
            (
                SniRouteKey {
                    generation,
                    name: *name,
                },
                *route,
            )
        });
        // SAFETY: the types of SNI_ROUTES, as Maps opens it.
        unsafe { batch::insert(ROUTES, &open(self.pin_path(), ROUTES)?, entries) }
    }

    /// Removes the configured names of generations that are gone.
    pub(super) fn retire_routes(&self, gone: impl Fn(u32) -> bool) -> Result<(), DatapathError> {
        let mut keys = Vec::new();
        self.for_each_route(|key, _| {
            if gone(key.generation) {
                keys.push(key);
            }
            Ok(())
        })?;
        // SAFETY: the type of SNI_ROUTES' keys, as Maps opens it.
        unsafe { batch::remove(ROUTES, &open(self.pin_path(), ROUTES)?, &keys) }
    }
}

/// What a lookup has found, if anything.
pub(super) fn found<V>(
    map: &str,
    result: Result<V, aya::maps::MapError>,
) -> Result<Option<V>, DatapathError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(aya::maps::MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(DatapathError::kernel(
            format!("reading the map {map}"),
            error,
        )),
    }
}
