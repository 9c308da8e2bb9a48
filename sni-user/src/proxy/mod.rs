//! Inspected connections: the ClientHello decides where each goes.
//!
//! The life of a connection is told in `connection`: `accept` takes it, `proxy_header` asks a load balancer who the client is, `budget` and
//! `peek` wait for the ClientHello that `hello` reads, `routing` says where it goes, `connect` finds an Edge, and `pass` passes it through, which
//! `hand_off` leaves to the datapath and `relay` does where that can't be, or `terminate` ends its TLS. What can't be carried ends with a `refusal` and a `farewell`.
//!
//! `check` and `options` are connections of the gateway's own: whether an Edge is well.

mod accept;
mod bound;
mod budget;
mod canonical;
mod carried;
mod check;
mod connect;
mod connection;
mod counters;
mod farewell;
mod hand_off;
pub mod hello;
mod options;
mod pass;
mod peek;
mod port;
mod proxy_header;
mod refusal;
mod relay;
mod routing;
mod shared;
mod socket;
mod stamp;
mod story;
pub mod terminate;
mod uses;

pub(crate) use self::stamp::stamp;
pub use self::{
    carried::Progress,
    check::{CheckError, check},
    routing::{Decision, Routing, Service, Target, Verdict},
    shared::{Active, Lesson, Numbers, Proxy},
    socket::NotAdopted,
    uses::Uses,
};
