//! The datapath's tables, as far as a configuration alone decides about them.

#[path = "../../sni-user/src/datapath/error.rs"]
#[allow(dead_code, reason = "errors of what is not here")]
mod error;
#[path = "../../sni-user/src/datapath/invariants.rs"]
pub(crate) mod invariants;
#[path = "../../sni-user/src/datapath/tables.rs"]
#[allow(dead_code, reason = "what is written into maps")]
mod tables;

use self::{error::DatapathError, tables::Tables};
