//! snigate.

pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
pub mod edges;
pub mod net;
pub mod proxy;
pub mod tls;

mod clock;
mod instance;
mod neighbours;
mod sweeper;
