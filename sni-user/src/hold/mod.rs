//! The listener outlives its agent: connections that arrive while none runs wait in its queue, and the next agent serves them.
//!
//! A socket lives for as long as somebody has it open, and a sockmap is nobody in this sense (`sock_map_close` of net/core/sock_map.c), so
//! somebody must. Where a service manager runs the agent, that is its store of descriptors. Elsewhere it is the `holder`, a small process of
//! the agent's own that does nothing else. The `keeper` is the agent's side of both.
//!
//! A holder waits two minutes for the next agent if nothing else is said. What waits longer has given up: partners allow a handshake about
//! half a minute, and the queue would be full of the dead. From then on connections are refused, so that partners can turn to another gateway
//! at once.

mod door;
mod holder;
mod keeper;
mod messages;

pub(crate) use self::{
    holder::hold,
    keeper::{Keeper, release},
};
