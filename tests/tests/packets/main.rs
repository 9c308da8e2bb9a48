//! Packet tables over the datapath, as the kernel runs it.

mod answers;
mod bind;
mod checks;
mod edges;
mod formats;
mod handed_off;
mod handing_off;
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
mod spliced;
mod untouched;
