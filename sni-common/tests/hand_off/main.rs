//! The hand-off of a connection, and its end, in every order in which agent, datapath on two processors, network and both ends may act: checked
//! exhaustively for small streams.
//!
//! A model is as good as what it leaves out. Streams are a byte or two and a FIN, and their offsets stand for sequence numbers: the legs differ by
//! constants (`translate` has tests of its own). What the datapath decides by is its own code: [`sni_common::tcp`] and [`sni_common::expiry`]. The agent's
//! steps are those of `sni-user/src/proxy/hand_off`, one for each system call that others can come in between. TCP at the ends and in the agent's
//! sockets is the least that is right: in order, with acknowledgements, and a repetition when nothing else can happen any more.
//!
//! Links lose, double and reorder packets; how many are lost and doubled is bounded, so that every run ends: whatever runs for ever, or gets stuck, is
//! found as a run that ends without all bytes.

mod agent;
mod datapath;
mod ends;
mod scene;

use stateright::{Checker as _, Model as _};

use self::scene::{Bounds, Scene};

/// Checks every run, and prints how many states there are.
fn check(name: &str, bounds: Bounds) {
    let checker = Scene(bounds)
        .checker()
        .threads(std::thread::available_parallelism().map_or(1, usize::from))
        .spawn_bfs()
        .join();
    println!(
        "{name}: {} states, at most {} steps",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

#[test]
fn fins_alone() {
    check("FINs alone", Bounds::default());
}

#[test]
fn a_packet_is_lost() {
    let bounds = Bounds {
        losses: 1,
        ..Bounds::default()
    };
    check("FINs alone, a packet lost", bounds);
}

#[test]
fn a_packet_arrives_twice() {
    let bounds = Bounds {
        doubles: 1,
        ..Bounds::default()
    };
    check("FINs alone, a packet doubled", bounds);
}

#[test]
fn the_agent_is_killed() {
    let bounds = Bounds {
        kill: true,
        ..Bounds::default()
    };
    check("FINs alone, the agent killed", bounds);
}

#[test]
#[ignore = "a minute with optimisation, many without: cargo test --release -p sni-common --test hand_off -- --ignored"]
fn a_byte_one_way() {
    for bytes in [[1, 0], [0, 1]] {
        let bounds = Bounds {
            bytes,
            ..Bounds::default()
        };
        check(&format!("{bytes:?} bytes"), bounds);
    }
}
