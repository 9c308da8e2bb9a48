//! Connections that are passed through, once their ClientHello is: what carries the bytes, and what an idle connection takes.

pub mod idle;
mod memory;
pub mod relay;
mod report;
mod stand;
mod system;

pub use self::stand::LeftOut;
pub use self::system::System;
