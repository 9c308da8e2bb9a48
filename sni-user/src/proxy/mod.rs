//! What the agent does with connections of inspected addresses.

pub mod terminate;
