//! Connections that are passed through: what it takes until they stand, what carries the bytes afterwards, and what an idle one takes.

pub mod idle;
pub(super) mod memory;
pub mod relay;
mod report;
mod rounds;
pub mod setup;
mod stand;
mod system;
mod work;

pub use self::report::{as_json, left_out, print, tables};
pub use self::rounds::{AFTERWARDS, Measured, Options};
pub use self::stand::LeftOut;
pub use self::system::System;
