//! The hand-off of a connection, and its end, in every order in which agent, datapath on two processors, network and both ends may act: checked
//! exhaustively for small streams.
//!
//! A model is as good as what it leaves out. Streams are a byte or two and a FIN, and their offsets stand for sequence numbers: the legs differ by
//! constants (`translate` has tests of its own). What the datapath decides by is its own code: [`sni_common::tcp`] and [`sni_common::expiry`]. The agent's
//! steps are those of `sni-user/src/proxy/hand_off`, one for each system call that others can come in between. TCP at the ends and in the agent's
//! sockets is the least that is right: in order, with acknowledgements, and a repetition when nothing else can happen any more.
//!
//! Each byte knows whose it is, and its place: whoever takes another one than comes next has got a foreign one. Links lose, double and reorder packets;
//! how many are lost and doubled is bounded, and so is how often TCP repeats. A second search, depth first, sees that no run goes on for ever; the first
//! one, that each of them ends with all bytes.
//!
//! Left out: windows and timestamps; more than one connection; whoever guesses a sequence number, who could reset the ends themselves; and that the
//! classifier goes for a moment when the agent is killed, where it is attached by TCX.

mod agent;
mod datapath;
mod ends;
mod scene;

use stateright::{Checker as _, Model as _};

use self::scene::{Bounds, Scene};

/// Checks every run, and prints how many states there are.
fn check(name: &str, bounds: Bounds) {
    let scene = Scene(bounds);
    let states = scene.check_that_runs_end();
    let checker = scene
        .checker()
        .threads(std::thread::available_parallelism().map_or(1, usize::from))
        .spawn_bfs()
        .join();
    println!(
        "{name}: {states} states, at most {} steps",
        checker.max_depth()
    );
    assert_eq!(checker.unique_state_count(), states);
    checker.assert_properties();
}

#[test]
fn fins_alone() {
    check("FINs alone", Bounds::FINS);
}

#[test]
fn a_packet_is_lost() {
    let bounds = Bounds {
        losses: 1,
        ..Bounds::FINS
    };
    check("FINs alone, a packet lost", bounds);
}

#[test]
fn a_packet_arrives_twice() {
    let bounds = Bounds {
        doubles: 1,
        ..Bounds::FINS
    };
    check("FINs alone, a packet doubled", bounds);
}

#[test]
fn the_agent_is_killed() {
    let bounds = Bounds {
        kill: true,
        ..Bounds::FINS
    };
    check("FINs alone, the agent killed", bounds);
}

#[test]
fn the_second_entry_is_refused() {
    let bounds = Bounds {
        refuse: true,
        ..Bounds::FINS
    };
    check("FINs alone, the second entry refused", bounds);
}

#[test]
fn an_end_resets_the_connection() {
    for (bytes, fins) in [
        ([1, 0], [false, false]),
        ([0, 1], [false, false]),
        ([0, 0], [true, false]),
        ([0, 0], [false, true]),
    ] {
        let bounds = Bounds {
            bytes,
            fins,
            abort: true,
            ..Bounds::FINS
        };
        check(&format!("{bytes:?} bytes, FINs {fins:?}, or a RST"), bounds);
    }
}

#[test]
fn a_reset_is_forged() {
    let bounds = Bounds {
        forge: true,
        ..Bounds::FINS
    };
    check("FINs alone, and a forged RST", bounds);
}

#[test]
fn bytes_without_fins() {
    for bytes in [[1, 0], [0, 1], [1, 1], [2, 0], [0, 2]] {
        let bounds = Bounds {
            bytes,
            fins: [false, false],
            ..Bounds::FINS
        };
        check(&format!("{bytes:?} bytes"), bounds);
    }
}

#[test]
fn a_byte_and_a_fin_one_way() {
    for (bytes, fins) in [([1, 0], [true, false]), ([0, 1], [false, true])] {
        let bounds = Bounds {
            bytes,
            fins,
            ..Bounds::FINS
        };
        check(&format!("{bytes:?} bytes, FINs {fins:?}"), bounds);
    }
}

/// Known, and held here: the datapath reads an entry's state, and writes it back changed. Where packets of one direction come to two processors, which they
/// do when the network card's hash changes its mind, one of them may take back the FIN that the other one has marked. Both peers have closed by then; the
/// flow is swept by its idle timeout and not after a minute.
#[test]
#[should_panic(expected = "what ends has all bytes, and leaves nothing")]
fn two_processors_write_an_entrys_state() {
    let bounds = Bounds {
        torn: true,
        ..Bounds::FINS
    };
    check("FINs alone, entries torn", bounds);
}

#[test]
fn a_byte_and_two_fins() {
    for bytes in [[1, 0], [0, 1]] {
        let bounds = Bounds {
            bytes,
            ..Bounds::FINS
        };
        check(&format!("{bytes:?} bytes, and FINs"), bounds);
    }
}

#[test]
fn two_fins_or_a_reset() {
    let bounds = Bounds {
        abort: true,
        ..Bounds::FINS
    };
    check("FINs, or a RST", bounds);
}
