//! Live control of a running agent: what it is asked over its Unix socket, and how it answers.
//!
//! `protocol` and `seen` are what crosses the socket, and `lines` reads it. The [`Server`] of the agent decides who may ask what and hands each request to its
//! [`Handler`]; the [`Client`] is the command line's side. `domains` keeps domains that were added by command in files of their own.

mod client;
pub mod domains;
mod lines;
mod peer;
mod protocol;
mod seen;
mod server;
mod socket;

pub use self::{
    client::{Client, ClientError, Watching},
    domains::DomainError,
    protocol::{
        ActiveConfiguration, AgentStatus, AttachedInterface, BindingStatus, CarriedConnection,
        Connections, DomainChanged, DomainTable, EdgeChanged, EdgeEnded, EdgeStatus, Findings,
        MAX_ANSWER, MAX_REQUEST, Notice, Refusal, RefusalKind, RefusedConfiguration, Reloaded,
        Request, RouteAdded, RouteRemoved, VERSION,
    },
    seen::{HelloSeen, WatchFilter},
    server::{Handler, Server},
    socket::ControlError,
};

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod tests;
