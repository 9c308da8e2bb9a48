//! What goes wrong.

pub(super) mod agents;
mod floods;
mod host;
mod lines;
mod network;

use super::{Play, Scenario};

pub(super) fn all() -> Vec<Scenario> {
    [
        agents::all(),
        network::all(),
        floods::all(),
        lines::all(),
        host::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
