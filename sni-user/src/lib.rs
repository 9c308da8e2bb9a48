//! snigate.

pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod datapath;
pub mod net;
pub mod proxy;

mod instance;
mod neighbours;
mod sweeper;
