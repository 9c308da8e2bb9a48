//! What a command touches besides the maps: handed in, so that commands run in tests.

use std::{
    io::{self, IsTerminal as _, Write},
    os::fd::OwnedFd,
};

use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with},
    time::{ClockId, clock_gettime},
};

/// The world around a command.
pub struct Environment<'a> {
    /// Standard output: what was asked for.
    pub out: &'a mut dyn Write,
    /// Standard error: everything else.
    pub err: &'a mut dyn Write,
    /// Columns of the terminal; `None` where the output goes elsewhere and lines may be as long as they like.
    pub width: Option<u16>,
    /// Whether standard error shows colours.
    pub colour: bool,
    /// The clock that the datapath stamps flows with: monotonic, in nanoseconds.
    pub now_ns: fn() -> u64,
    /// The name of an interface in this network namespace.
    pub interface_name: fn(u32) -> Option<String>,
}

impl<'a> Environment<'a> {
    /// The process's own, writing to the given streams.
    pub fn of_process(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self {
            out,
            err,
            width: width(),
            colour: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            now_ns: monotonic_ns,
            interface_name,
        }
    }
}

/// COLUMNS, where somebody has exported it, else the terminal's width.
fn width() -> Option<u16> {
    let wanted = std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok());
    wanted.or_else(|| terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0))
}

/// The clock that the datapath stamps flows with.
pub(super) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Both are positive: the clock starts with the machine.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// By ioctl and not from /sys/class/net, which shows the namespace that /sys was mounted in.
fn interface_name(ifindex: u32) -> Option<String> {
    netdevice::index_to_name(any_socket()?, ifindex).ok()
}

/// The index of an interface in this network namespace.
pub(super) fn interface_index(name: &str) -> Option<u32> {
    netdevice::name_to_index(any_socket()?, name).ok()
}

fn any_socket() -> Option<OwnedFd> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .ok()
}
