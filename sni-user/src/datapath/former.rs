//! Settings of the host as they were before the agent changed them, kept among the labels.

use std::path::Path;

use aya::maps::{HashMap, MapData};
use sni_common::contract::{Label, LabelKey, LabelKind};

use super::{DatapathError, hand_offs::gone, maps::typed};

/// What one network namespace's settings were. They outlive an agent that is killed, and go with the pins.
pub struct FormerSettings {
    labels: HashMap<MapData, LabelKey, Label>,
    namespace: u32,
}

impl FormerSettings {
    /// Those that are kept below `pin_path`, of whatever ABI; none where nothing is pinned. `namespace` is the number of the network namespace
    /// that they are of: those of another one are its own.
    ///
    /// # Errors
    /// When the map can't be opened.
    pub fn open(pin_path: &Path, namespace: u64) -> Result<Option<Self>, DatapathError> {
        match typed(pin_path, "LABELS") {
            Ok(labels) => Ok(Some(Self {
                labels,
                // Namespaces are numbered from 1 on.
                namespace: namespace as u32,
            })),
            Err(DatapathError::NotPinned { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All of them: number, and what was noted.
    pub fn all(&self) -> Vec<(u32, String)> {
        let entries = self.labels.iter().filter_map(Result::ok);
        entries
            .filter(|(key, _)| *key == self.key(key.number))
            .map(|(key, label)| (key.number, label.as_str().to_owned()))
            .collect()
    }

    /// Notes what one was.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn note(&mut self, number: u32, text: &str) -> Result<(), DatapathError> {
        self.labels
            .insert(self.key(number), Label::new(text), 0)
            .map_err(|e| DatapathError::map("LABELS", e))
    }

    /// Forgets one.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn forget(&mut self, number: u32) -> Result<(), DatapathError> {
        gone(self.labels.remove(&self.key(number)))
    }

    fn key(&self, number: u32) -> LabelKey {
        LabelKey {
            kind: LabelKind::FormerSetting as u32,
            generation: self.namespace,
            number,
        }
    }
}
