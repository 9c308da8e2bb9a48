//! Points at which a test has the agent killed, in the middle of what must survive that: as by SIGKILL, without a destructor. Only a line on standard error
//! tells it from any other SIGKILL.
//!
//! Only builds with debug assertions look for the variable; in any other one a point is nothing at all, so that no packaged gateway can be told to die.
//! The crate's features could not promise that: cargo unites those of all packages that are built together.

macro_rules! kill_points {
    ($($(#[$meta:meta])* $point:ident = $name:literal,)*) => {
        /// What the agent is about to do or has just done, in the order in which it does it. The hand-off's are those of its model
        /// (`sni-common/tests/hand_off/agent.rs`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum KillPoint {
            $($(#[$meta])* $point,)*
        }

        impl KillPoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point),*];

            /// As [`KillPoint::VARIABLE`] has it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)*
                }
            }
        }
    };
}

kill_points! {
    /// Both sockets have told where they stand.
    HandOffAsked = "hand-off/asked",
    /// One direction has its entry in HANDING_OFF, and none in FLOWS: the Edge's, and the next time the client's.
    HandOffGiving = "hand-off/giving",
    /// The Edge's packets are the datapath's, the client's are not.
    HandOffGaveOne = "hand-off/gave-one",
    /// Both directions are the datapath's.
    HandOffGaveBoth = "hand-off/gave-both",
    /// What had come to the sockets was read.
    HandOffRead = "hand-off/read",
    /// The datapath knows what one socket is about to send.
    HandOffNeed = "hand-off/need",
    /// The sockets have been given all.
    HandOffWritten = "hand-off/written",
    /// One socket would go without a word.
    HandOffSilentOne = "hand-off/silent-one",
    /// Both would.
    HandOffSilent = "hand-off/silent",
    /// One socket receives nothing any more.
    HandOffDeafOne = "hand-off/deaf-one",
    /// Neither does, and nothing had come.
    HandOffDeaf = "hand-off/deaf",
    /// One of the two entries of HANDING_OFF is gone.
    HandOffEnding = "hand-off/ending",
    /// Both are.
    HandOffEnded = "hand-off/ended",
    /// The sockets take what is still on its way to them.
    HandOffLingering = "hand-off/lingering",
    /// The files were read, and all is as it was.
    ReloadLoaded = "reload/loaded",
    /// What the host lacked was added.
    ReloadPrepared = "reload/prepared",
    /// Edges and IP sets have their numbers.
    ReloadPlaced = "reload/placed",
    /// Pools and server names are written, services are not.
    ReloadNames = "reload/names",
    /// All is written, and nothing of it holds.
    ReloadWritten = "reload/written",
    /// The new generation holds.
    ReloadSwitched = "reload/switched",
    /// The datapath goes by the new configuration, the proxy by the old one.
    ReloadActivated = "reload/activated",
    /// The proxy goes by it as well.
    ReloadSwapped = "reload/swapped",
    /// Nothing is left of the old one.
    ReloadRetired = "reload/retired",
    /// What is needed no longer was removed; the listener is as it was.
    ReloadSettled = "reload/settled",
    /// The listener goes by it, too.
    ReloadFollowed = "reload/followed",
}

impl KillPoint {
    /// The environment's variable with the name of a point and, after a colon, at which passing the agent dies: `hand-off/silent:3`.
    pub const VARIABLE: &str = "SNIGATE_KILL_AT";

    /// What an agent that dies here says before, in a line of its standard error.
    #[must_use]
    pub fn last_words(self) -> String {
        format!("killed at {}", self.name())
    }

    /// Dies here, if this is the point and the time for it.
    pub(crate) fn pass(self) {
        #[cfg(debug_assertions)]
        armed::pass(self);
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::{
        env,
        io::Write as _,
        sync::{
            LazyLock,
            atomic::{AtomicU32, Ordering},
        },
    };

    use super::KillPoint;

    static ARMED: LazyLock<Option<(KillPoint, u32)>> = LazyLock::new(|| {
        let value = env::var(KillPoint::VARIABLE).ok()?;
        let armed = parse(&value);
        assert!(armed.is_some(), "{} is {value:?}", KillPoint::VARIABLE);
        armed
    });

    pub(super) fn parse(value: &str) -> Option<(KillPoint, u32)> {
        let (name, time) = value.split_once(':')?;
        let mut points = KillPoint::ALL.iter();
        let point = points.find(|point| point.name() == name)?;
        Some((*point, time.parse().ok().filter(|time| *time > 0)?))
    }

    pub(super) fn pass(point: KillPoint) {
        static PASSED: AtomicU32 = AtomicU32::new(0);
        let Some((at, time)) = *ARMED else {
            return;
        };
        if at == point && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == time {
            // Whoever looks for it must find it. The agent may have nobody who hears it all the same.
            let _ = writeln!(std::io::stderr(), "{}", point.last_words());
            // All threads are marked for it before the call returns.
            let killed = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            unreachable!("a killed process goes on: {killed:?}");
        }
    }
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_its_time() {
        for point in KillPoint::ALL {
            let parsed = armed::parse(&format!("{}:7", point.name()));
            assert_eq!(parsed, Some((*point, 7)));
        }
        for nonsense in ["", "hand-off/silent", "hand-off/silent:0", "silent:1"] {
            assert_eq!(armed::parse(nonsense), None);
        }
    }
}
