//! snigate.

pub mod config;
pub mod datapath;
pub mod net;
