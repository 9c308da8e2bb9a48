//! The command line on a datapath without an agent, and on one with traffic.

mod check;
mod flows;
mod kill;
mod made_up;
mod maps;
mod rig;
mod status;
mod top;
mod trace;
