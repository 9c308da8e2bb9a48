//! Every structure that crosses the kernel boundary, in one place.
//!
//! Fields are integers with explicit padding and sizes asserted at compile time; enums exist only on this side of `TryFrom`, because the
//! other side's bytes may be anything. Addresses are [`crate::Address`]; ports are in network byte order wherever they come from a
//! packet, and say so in their names.

mod account;
mod capture;
mod control;
mod event;
mod filter;
mod flow;
mod label;
pub mod limits;
mod link;
mod pending;
mod service;
mod sni;
mod socket;
pub mod stats;

pub use account::{Account, AccountKey, AccountKind, AccountWriter};
pub use capture::{CAPTURE_LEASE_NS, Captured, Capturing, Fate, Hook, MAX_SNAP, Prefix};
pub use control::{
    Announced, CONTROL_ABI, CONTROL_ANNOUNCED, CONTROL_CAPTURE, CONTROL_FLAGS, CONTROL_GENERATION,
    CONTROL_LISTENER_PORT, CONTROL_SLOTS, CONTROL_TELL, FLAG_LOG, Settings, TELL_FLOWS,
    TELL_HELLOS, bank,
};
pub use event::{Event, EventKind, HelloEvent};
pub use filter::{FILTER_BITS, FILTER_EDGES, FILTER_SERVICES, filter_bit};
pub use flow::{Direction, Flow, FlowKey, HandingOff, NextHop, SynSeen, VlanTag, Way};
pub use label::{Label, LabelKey, LabelKind};
pub use link::Link;
pub use pending::{HELLO_ROOM, HelloBytes, Pending, Stage, client_options};
pub use service::{
    AclAction, AclKey, BudgetKey, BudgetKind, Edge, EdgeState, Mode, Pool, PoolMember,
    SERVICE_BIND, Service, ServiceKey, SourceMode,
};
pub use sni::{
    InvalidSniName, Learned, LearnedKey, MAX_SNI_NAME, Matched, NO_POOL, ROUTE_AGENT,
    ROUTE_CONDITIONAL, RouteAction, SniName, SniRoute, SniRouteKey, candidates,
};
pub use socket::{LISTENER, TRANSPARENT_MARK};
pub use stats::{Counter, DropReason, Stats};

/// Version of everything in this module and of the maps' types; raised with every change that an agent could misread.
///
/// An agent adopts pinned maps of its own version only.
pub const ABI_VERSION: u64 = 6;

/// A byte that is no value of the enum it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown(pub u32);

impl core::fmt::Display for Unknown {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "unknown value {}", self.0)
    }
}

impl core::error::Error for Unknown {}

/// An enum whose values cross the boundary as integers: names for people, `TryFrom` for bytes.
macro_rules! wire_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident: $int:ty { $( $(#[$vmeta:meta])* $variant:ident = $value:expr, $text:literal; )* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $( $(#[$vmeta])* $variant = $value, )* }

        impl $name {
            /// Every value, in numeric order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The value's name as commands and metrics show it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl TryFrom<$int> for $name {
            type Error = $crate::contract::Unknown;

            fn try_from(value: $int) -> Result<Self, Self::Error> {
                $( if value == Self::$variant as $int { return Ok(Self::$variant); } )*
                Err($crate::contract::Unknown(u32::from(value)))
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}
pub(crate) use wire_enum;

/// Asserts size and alignment, and marks the type as plain old data for the agent's typed maps.
macro_rules! wire_struct {
    ($name:ty, $size:literal) => {
        const _: () = assert!(core::mem::size_of::<$name>() == $size);
        const _: () = assert!(core::mem::align_of::<$name>() <= 8);
        // SAFETY: `repr(C)`, integers only, no implicit padding (the size is the sum of the fields), any bit pattern valid.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
}
pub(crate) use wire_struct;
