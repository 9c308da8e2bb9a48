//! What a hoster does with a list of domains, judged by the programs that take the results.

mod outbound;
mod plan;
mod rig;
