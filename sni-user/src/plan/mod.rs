//! From a list of SIP domains to certificates, addresses and records that every partner accepts. Pure: files and the terminal are the command's.

mod configured;
mod explain;
mod former;
mod line;
mod list;
mod names;
mod packing;
mod planning;
mod records;
mod san;
mod site;
mod terms;
mod write;

pub use self::{
    configured::Findable,
    former::{Former, FormerError},
    list::{Apart, Federation, List, Listed},
    names::SipDomain,
    planning::{Certificate, Issue, Placement, Plan, PlanError, Reason},
    records::{Data, FEDERATION_PORT, Record, SERVICE, address_records, records},
    site::{EdgeGroup, Site, Way},
    terms::{Mode, Terms},
    write::{InvalidSubject, KamailioFiles, Writing},
};
