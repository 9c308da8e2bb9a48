//! Packet tables over the datapath, as the kernel runs it.

mod handshake;
