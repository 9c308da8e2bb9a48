//! snigate.

mod acme;
pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
pub mod edges;
pub mod federation;
pub mod kill_point;
pub mod metrics;
pub mod net;
pub mod plan;
pub mod proxy;
pub mod tls;

mod clock;
mod connection_log;
#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;
mod descriptors;
mod hold;
mod http;
mod instance;
mod neighbours;
mod service_manager;
mod sweeper;
