//! snigate.

pub mod config;
