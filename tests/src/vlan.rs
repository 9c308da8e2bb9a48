//! VLAN interfaces: the kernel's own, or a stand-in where the kernel was built without them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{SockFilter, Socket};

use crate::line;
use crate::netns::Namespace;
use crate::topology::{Tag, Tags};

/// How long the stand-in may sleep before it looks whether it shall end.
const STOP_MILLISECONDS: u8 = 50;
/// Where the tags stand: behind the two Ethernet addresses.
const TAG_OFFSET: usize = 12;
const TAG_LENGTH: usize = 4;
/// Larger than any MTU of the lab.
const LARGEST_FRAME: usize = 16 * 1024;

/// Makes the interface that carries `tags` over `device`, which is up, and brings it up.
///
/// # Errors
/// The interface could be made neither way.
pub(crate) fn add(
    machine: &Namespace,
    device: &str,
    tags: Tags,
    mtu: u32,
) -> Result<Option<StandIn>> {
    let name = tags.device(device);
    let made = match tags {
        Tags::None => return Ok(None),
        Tags::Vlan(id) => machine.ip(&format!(
            "link add link {device} name {name} type vlan id {id}"
        )),
        Tags::QinQ { outer, inner } => machine.ip(&format!(
            "link add link {device} name {device}.{outer} type vlan proto 802.1ad id {outer}
             link set {device}.{outer} up
             link add link {device}.{outer} name {name} type vlan id {inner}"
        )),
    };
    let stand_in = match made {
        Ok(()) => None,
        // `ip`'s words for a kernel without CONFIG_VLAN_8021Q.
        Err(error) if format!("{error:#}").contains("Unknown device type") => {
            Some(StandIn::start(machine, device, tags)?)
        }
        Err(error) => return Err(error),
    };
    machine.ip(&format!("link set {name} mtu {mtu} up"))?;
    Ok(stand_in)
}

/// A TAP interface and a thread that carries its frames, tagged, over a parent interface.
///
/// To the datapath and the stack it looks like a VLAN interface, less what netlink says about it: it has no parent and
/// no VLAN id there. It lives as long as this guard.
#[derive(Debug)]
pub(crate) struct StandIn {
    stop: Arc<AtomicBool>,
    carrier: Option<JoinHandle<Result<()>>>,
}

impl StandIn {
    fn start(machine: &Namespace, device: &str, tags: Tags) -> Result<Self> {
        let name = tags.device(device);
        let (tap, wire) = machine
            .run(|| {
                Ok((
                    open_tap(&name)?,
                    line::open(device, &filter(tags.on_the_wire()[0].id))?,
                ))
            })
            .with_context(|| format!("the stand-in for the VLAN interface {name}"))?;
        // The address of the parent, as a VLAN interface has it.
        let parent = machine.output("ip", &["-o", "link", "show", "dev", device])?;
        let address = parent
            .split_whitespace()
            .skip_while(|word| *word != "link/ether")
            .nth(1)
            .with_context(|| format!("no Ethernet address in {parent:?}"))?;
        machine.ip(&format!("link set {name} address {address}"))?;

        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let tags = tags.on_the_wire();
        let carrier = machine.thread("vlan", move || carry(&tap, &wire, &tags, &stopping))?;
        Ok(Self {
            stop,
            carrier: Some(carrier),
        })
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        match self.carrier.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => eprintln!("a VLAN stand-in failed: {error:#}"),
            Some(Err(_)) => eprintln!("a VLAN stand-in panicked"),
        }
    }
}

fn open_tap(name: &str) -> Result<File> {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("opening /dev/net/tun")?;
    // SAFETY: ifreq is a plain structure, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).context("the flags of a TAP interface")?;
    // SAFETY: the kernel reads and writes one ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("making the TAP interface {name}"));
    }
    Ok(tap)
}

/// Accepts received frames of one VLAN. The kernel has taken the outer tag out of a frame before a packet socket sees
/// it (`skb_vlan_untag` in `__netif_receive_skb_core`); the filter can still ask for it.
fn filter(vlan: u16) -> [SockFilter; 7] {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    const JUMP_IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    let ancillary = |what: i32| (libc::SKF_AD_OFF + what).cast_unsigned();
    let step = |code: u32, jt, jf, k| SockFilter::new(code as u16, jt, jf, k);
    [
        step(LOAD, 0, 0, ancillary(libc::SKF_AD_PKTTYPE)),
        step(JUMP_IF_EQUAL, 4, 0, u32::from(libc::PACKET_OUTGOING)),
        // Frames without a tag have 0 here, which is no VLAN (IEEE 802.1Q table 9-2).
        step(LOAD, 0, 0, ancillary(libc::SKF_AD_VLAN_TAG)),
        step(AND, 0, 0, 0xfff),
        step(JUMP_IF_EQUAL, 0, 1, u32::from(vlan)),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ]
}

fn carry(tap: &File, parent: &Socket, tags: &[Tag], stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [
            PollFd::new(tap.as_fd(), PollFlags::POLLIN),
            PollFd::new(parent.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut ready, PollTimeout::from(STOP_MILLISECONDS))?;
        while let Some(frame) = line::receive(LARGEST_FRAME, |buffer| (&mut &*tap).read(buffer))
            .context("the TAP side")?
        {
            line::deliver(parent.send(&tagged(frame, tags))).context("the line")?;
        }
        while let Some(frame) = line::receive(LARGEST_FRAME, |buffer| (&mut &*parent).read(buffer))
            .context("the line")?
        {
            if let Some(frame) = untagged(frame, &tags[1..]) {
                line::deliver((&mut &*tap).write(&frame)).context("the TAP side")?;
            }
        }
    }
    Ok(())
}

fn tagged(mut frame: Vec<u8>, tags: &[Tag]) -> Vec<u8> {
    let bytes: Vec<u8> = tags.iter().flat_map(Tag::bytes).collect();
    frame.splice(TAG_OFFSET..TAG_OFFSET, bytes);
    frame
}

/// The frame without the tags that are still in it, or `None` if they are others.
fn untagged(mut frame: Vec<u8>, inner: &[Tag]) -> Option<Vec<u8>> {
    for tag in inner {
        let found = frame.get(TAG_OFFSET..TAG_OFFSET + TAG_LENGTH)?;
        // The upper four bits of the second half are priority and drop eligibility.
        let same = found[..2] == tag.bytes()[..2]
            && u16::from_be_bytes([found[2], found[3]]) & 0xfff == tag.id;
        if !same {
            return None;
        }
        frame.drain(TAG_OFFSET..TAG_OFFSET + TAG_LENGTH);
    }
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_and_go() {
        let tags = Tags::QinQ {
            outer: 200,
            inner: 100,
        }
        .on_the_wire();
        let frame: Vec<u8> = (0..60).collect();
        let on_the_wire = tagged(frame.clone(), &tags);
        assert_eq!(on_the_wire[12..20], [0x88, 0xa8, 0, 200, 0x81, 0, 0, 100]);
        assert_eq!(untagged(on_the_wire.clone(), &tags), Some(frame));
        assert_eq!(untagged(on_the_wire[..13].to_vec(), &tags), None);
        assert_eq!(untagged(on_the_wire, &tags[1..]), None);
    }
}
