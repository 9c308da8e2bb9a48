//! placeholder entry point, replaced below.

fn main() {}
