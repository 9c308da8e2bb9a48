//! The control socket's lines.

#[path = "../../sni-user/src/control/invariants.rs"]
pub mod invariants;
#[path = "../../sni-user/src/control/lines.rs"]
mod lines;
#[path = "../../sni-user/src/control/protocol.rs"]
#[allow(dead_code, reason = "what only the two sides themselves need")]
mod protocol;
#[path = "../../sni-user/src/control/seen.rs"]
#[allow(dead_code, reason = "what only the two sides themselves need")]
mod seen;
