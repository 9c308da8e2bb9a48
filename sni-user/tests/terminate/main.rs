//! Terminated connections, between OpenSSL and the gateway's own code on loopback: no datapath, no privileges.

mod commands;
mod mirror;
mod openssl;
mod partners;
mod pki;
mod revocation_list;
mod scene;
mod store;
mod streams;
