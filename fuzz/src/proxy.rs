//! The PROXY protocol's header.

#[path = "../../sni-user/src/proxy/canonical.rs"]
mod canonical;
#[path = "../../sni-user/src/proxy/proxy_header/header.rs"]
mod header;
#[path = "../../sni-user/src/proxy/proxy_header/invariants.rs"]
pub mod invariants;
