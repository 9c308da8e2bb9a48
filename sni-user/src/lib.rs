//! snigate.

pub mod config;
pub mod datapath;
