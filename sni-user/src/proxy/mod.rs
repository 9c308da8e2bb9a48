//! The agent's half of the gateway: what happens to a connection whose ClientHello decides.

pub mod hello;
