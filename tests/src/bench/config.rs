//! What all benches configure: one Edge, one inspected address, one name that is passed through.

use std::net::SocketAddr;

use crate::addresses::{EDGE_A, SIP_TLS, VIP_1};

/// The domain whose connections are passed through.
pub(super) const PASSED: &str = "sip.contoso.example";

/// All addresses of partners.
pub(super) const PARTNERS: &str = "198.51.100.0/24";

pub(super) fn edge_address() -> SocketAddr {
    (EDGE_A.v4, SIP_TLS).into()
}

/// snigate's tables, with further lines of the Edge and of the IP set, and further tables.
pub(super) fn tables(edge: &str, ip_set: &str, more: &str) -> String {
    format!(
        r#"
[[edge]]
name = "edge-a"
address = "{address}"
{edge}

[[pool]]
name = "edges"
edges = ["edge-a"]

[[ip_set]]
name = "shared"
addresses = ["{vip}"]
inspect = true
{ip_set}

[[domain]]
sip_domain = "contoso.example"
pool = "edges"
{more}

[limits]
# Few partners make all connections.
allow = ["{PARTNERS}"]
"#,
        address = edge_address(),
        vip = VIP_1.v4,
    )
}
