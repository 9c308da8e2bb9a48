//! Packet tables: bytes in, bytes out, through the datapath as the kernel runs it (BPF_PROG_TEST_RUN).
//!
//! A [`Row`] is a configuration, packets in sequence, and for each of them its verdict, the whole frame that comes out, every counter that
//! rises, and what is in the flow tables afterwards. `SNIGATE_PACKETS_PCAP=directory` writes each row's packets as pcapng.

pub mod bench;
mod capture;
mod flows;
pub mod frame;
mod icmp;
mod loaded;
pub mod measure;
pub mod pass;
pub mod plan;
mod rig;
mod row;
mod scene;

pub use flows::{FlowState, Flows, Leg, key};
pub use icmp::Icmp;
pub use rig::{
    FAR_PARTNER, NARROW_EDGE, NARROW_MTU, Port, Rig, UNKNOWN_EDGE, UNKNOWN_PARTNER,
    UNREACHABLE_EDGE, VLAN_EDGE, WAN_ROUTER,
};
pub use row::{Fate, Row, Step, packet_table, packet_test, same_frame};
pub use scene::{Action, Besides, OWNED_PORTS, Outcome, Program, SHORTEST_FRAME, Scene, context};
