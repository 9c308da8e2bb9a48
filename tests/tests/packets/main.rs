//! Packet tables over the datapath, as the kernel runs it.

mod answers;
mod checks;
mod edges;
mod formats;
mod handshake;
mod icmp;
mod inspect;
mod limits;
mod malformed;
mod names;
mod random;
mod recovery;
mod resets;
mod routes;
mod source;
mod untouched;
