//! Traces through made-up tables.

mod names;
mod packets;
mod tables;
