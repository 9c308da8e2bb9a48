//! The translation of handed-off flows: any bytes, and two TCP streams that a model keeps.

mod areas;
#[path = "../../../fuzz/corpus.rs"]
mod corpus;
mod invariants;
mod model;
mod reference;
mod segments;
mod streams;
