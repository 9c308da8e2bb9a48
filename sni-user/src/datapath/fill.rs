//! How full the maps are whose entries come and go.

use super::{
    DatapathError, Maps, batch,
    maps::{map_kind, open},
};

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Its name.
    pub map: &'static str,
    /// Kernel map type, as [`super::MapKind`] has it.
    pub kind: String,
    /// Entries in use; `None` where they are not counted here.
    pub entries: Option<u64>,
    /// Entries that fit.
    pub max_entries: u32,
}

/// FLOWS, which the sweep counts: reading two million entries takes too long to be done for a number.
const SWEPT: &str = "FLOWS";

/// What is counted: hash maps that configurations, connections or clients fill.
const COUNTED: &[&str] = &[
    "SERVICES",
    "SNI_ROUTES",
    "SNI_LEARNED",
    "HALF_OPEN",
    "HANDING_OFF",
    "CLIENT_SYNS",
    "EDGE_SYN_ACKS",
    "ACCOUNTS",
    "BUDGET",
    "LABELS",
    "PENDING",
    "HELLOS",
];

impl Maps {
    /// How full these maps are. FLOWS is among them, and not counted.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn fill(&self) -> Result<Vec<Fill>, DatapathError> {
        let all = std::iter::once(&SWEPT).chain(COUNTED);
        all.map(|name| self.fill_of(name)).collect()
    }

    fn fill_of(&self, map: &'static str) -> Result<Fill, DatapathError> {
        let kind = map_kind(self.pin_path(), map, "")?;
        let entries = if map == SWEPT {
            None
        } else {
            Some(batch::count(map, &open(self.pin_path(), map)?)?)
        };
        Ok(Fill {
            map,
            kind: kind.kind,
            entries,
            max_entries: kind.max_entries,
        })
    }
}
