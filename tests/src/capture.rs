//! Packet captures of every link, for the post-mortem of a failed test.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::netns::Namespace;
use crate::process::Process;

/// Enough for every header and most of a ClientHello.
const SNAP_LENGTH: &str = "512";
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Starts a tcpdump on each interface of each machine, writing `<machine>-<interface>.pcap`.
///
/// The ends matter more than the gateway: a packet that XDP redirects never reaches the gateway's own tap.
pub(crate) fn start(machines: &[(&str, &Namespace)], directory: &Path) -> Result<Vec<Process>> {
    let mut captures = Vec::new();
    for (role, machine) in machines {
        for interface in machine.interfaces()? {
            let file = directory.join(format!("{role}-{interface}.pcap"));
            let mut command = machine.command("tcpdump");
            command
                // Immediate mode: else the last second before a failure is still in the kernel when tcpdump ends.
                .args(["-i", &interface, "--immediate-mode", "-U"])
                .args(["-n", "-p", "-s", SNAP_LENGTH])
                // It would otherwise give up root, and with it the right to write here.
                .args(["-Z", "root", "-w"])
                .arg(&file);
            captures.push(Process::spawn(
                &format!("tcpdump-{role}-{interface}"),
                command,
                directory,
            )?);
        }
    }
    for capture in &mut captures {
        capture.wait_for_line("listening on", START_TIMEOUT)?;
    }
    Ok(captures)
}
