//! snigate.
