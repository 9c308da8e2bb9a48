//! From a list of SIP domains to certificates, addresses and records that every partner accepts. Pure: files and the terminal are the command's.

mod names;
mod records;

pub use self::{
    names::SipDomain,
    records::{Data, FEDERATION_PORT, Record, SERVICE, address_records, records},
};
