//! Where packets are run: a network namespace with the gateway's interfaces and nothing that talks by itself.
//!
//! ```text
//!   client ──── wan0          lan0 ──── edge-a, and the Edges that are out of order
//!               wan1 (forwarding off)   (vlan0: what leaves through it is tagged, and goes out by lan0)
//!                             lan1 ──── edge-b
//! ```
//!
//! Every neighbour is permanent and every MAC address fixed, so that a forwarded frame is known to the last byte; and each interface has
//! its own MAC address, which tells in the frame where it was sent.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, Once};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{Xdp, XdpMode};
use nix::net::if_::if_nametoindex;

use super::frame::{Link, Mac};
use super::loaded::{Lent, Shelf};
use super::pass;
use crate::addresses::{
    EDGE_A, EDGE_B, GATEWAY_LAN_A, GATEWAY_LAN_B, GATEWAY_WAN, Host, PARTNER, partner,
};
use crate::leftovers;
use crate::netns::Namespace;

/// A router on the partners' link; partners in 192.0.2.0/25 and 2001:db8:2::/48 are behind it.
pub const WAN_ROUTER: Host = host([198, 51, 100, 2], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 2]);
/// A partner behind [`WAN_ROUTER`].
pub const FAR_PARTNER: Host = host([192, 0, 2, 7], [0x2001, 0xdb8, 2, 0, 0, 0, 0, 7]);
/// A partner on the link whom the neighbour table does not know.
pub const UNKNOWN_PARTNER: Host = host([198, 51, 100, 77], [0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x77]);
/// An Edge whose route has an MTU of [`NARROW_MTU`].
pub const NARROW_EDGE: Host = host([203, 0, 113, 30], [0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x30]);
/// The MTU of the route to [`NARROW_EDGE`].
pub const NARROW_MTU: usize = 1300;
/// An Edge on lan0 that the neighbour table does not know.
pub const UNKNOWN_EDGE: Host = host([203, 0, 113, 40], [0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x40]);
/// An Edge to which no route leads.
pub const UNREACHABLE_EDGE: Host = host([192, 0, 2, 200], [0x2001, 0xdb8, 0xd, 0, 0, 0, 0, 0x10]);
/// An Edge behind `vlan0`.
pub const VLAN_EDGE: Host = host([192, 0, 2, 130], [0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 0x10]);

const fn host(v4: [u8; 4], v6: [u16; 8]) -> Host {
    Host {
        v4: Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]),
        v6: Ipv6Addr::new(v6[0], v6[1], v6[2], v6[3], v6[4], v6[5], v6[6], v6[7]),
    }
}

/// An interface of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// Towards the partners.
    Wan0,
    /// Towards partners, with forwarding switched off.
    Wan1,
    /// Towards edge-a.
    Lan0,
    /// Towards edge-b.
    Lan1,
    /// A stand-in for a VLAN interface on top of lan0: routes name it, LINKS translates it.
    Vlan0,
}

impl Port {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Wan0, Self::Wan1, Self::Lan0, Self::Lan1, Self::Vlan0];

    /// The interface's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wan0 => "wan0",
            Self::Wan1 => "wan1",
            Self::Lan0 => "lan0",
            Self::Lan1 => "lan1",
            Self::Vlan0 => "vlan0",
        }
    }

    /// The gateway's MAC address on it. A VLAN interface has that of the one below.
    #[must_use]
    pub fn mac(self) -> Mac {
        let below = match self {
            Self::Vlan0 => Self::Lan0,
            other => other,
        };
        [0x02, 0, 0x5e, 0, 0x01, below as u8]
    }

    /// The MAC address of everybody on the other side.
    #[must_use]
    pub fn neighbour(self) -> Mac {
        [0x02, 0, 0x5e, 0, 0x02, self as u8]
    }

    /// The Ethernet header of a frame that arrives.
    #[must_use]
    pub fn arriving(self) -> Link {
        Link {
            source: self.neighbour(),
            destination: self.mac(),
            tags: Vec::new(),
        }
    }

    /// The Ethernet header of a frame that leaves.
    #[must_use]
    pub fn leaving(self) -> Link {
        self.arriving().reversed()
    }

    fn neighbours(self) -> Vec<Host> {
        match self {
            Self::Wan0 => vec![PARTNER, partner(1), partner(2), WAN_ROUTER],
            Self::Wan1 => Vec::new(),
            Self::Lan0 => vec![EDGE_A, NARROW_EDGE],
            Self::Lan1 => vec![EDGE_B],
            Self::Vlan0 => vec![VLAN_EDGE],
        }
    }
}

/// The namespace, a BPF filesystem, and the empty program on every interface.
pub struct Rig {
    // Fields are dropped in this order: pins are removed while their filesystem is mounted, and the program leaves its
    // interfaces before they go.
    shelf: Shelf,
    pass: Xdp,
    cleanup: Cleanup,
    namespace: Namespace,
    bpffs: PathBuf,
    indices: [u32; Port::ALL.len()],
}

impl Rig {
    /// Makes it.
    ///
    /// # Errors
    /// No privilege, a missing program, or the kernel lacks something; the sentence says which.
    pub fn new() -> Result<Self> {
        leftovers::remove_own_on_signal()?;
        let cleanup = Cleanup(leftovers::next_lab_name());
        let namespace = Namespace::create(&format!("{}-gateway", cleanup.0))?;
        wire(&namespace).context("the interfaces of the packet tables")?;
        let bpffs = crate::bpffs::mount_for(&cleanup.0)?;
        let (pass, indices) = namespace.run(|| {
            let mut pass = pass::load(&bpffs.join("pass"))?;
            let mut indices = [0; Port::ALL.len()];
            for (port, index) in Port::ALL.iter().zip(&mut indices) {
                *index = if_nametoindex(port.name())
                    .with_context(|| format!("the index of {}", port.name()))?;
                pass.attach_to_if_index(*index, XdpMode::Driver)
                    .with_context(|| format!("native XDP on {}", port.name()))?;
            }
            Ok((pass, indices))
        })?;
        Ok(Self {
            shelf: Shelf::default(),
            pass,
            cleanup,
            namespace,
            bpffs,
            indices,
        })
    }

    /// One that an earlier test of this process has left in order, or a new one.
    ///
    /// # Errors
    /// As for [`Rig::new`].
    pub(super) fn idle_or_new() -> Result<Self> {
        let idle = IDLE.lock().expect("no test panics with it").pop();
        idle.map_or_else(Self::new, Ok)
    }

    /// Leaves it to the tests that follow; what is left at the end of the process is removed then.
    pub(super) fn leave(self) {
        static AT_EXIT: Once = Once::new();
        // SAFETY: the function takes nothing and does not unwind.
        AT_EXIT.call_once(|| match unsafe { libc::atexit(remove_idle) } {
            0 => {}
            error => eprintln!("rigs will be left for the next lab to remove: {error}"),
        });
        IDLE.lock().expect("no test panics with it").push(self);
    }

    /// Runs `body` inside the namespace, where the kernel looks for the interface that a test packet arrives on.
    ///
    /// # Errors
    /// The body's.
    pub fn run<T: Send>(&self, body: impl FnOnce(&Self) -> Result<T> + Send) -> Result<T> {
        self.namespace.run(|| body(self))
    }

    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.cleanup.0
    }

    /// A loaded datapath with room for so many flows.
    pub(super) fn lend(&self, max_flows: u32) -> Result<Lent<'_>> {
        self.shelf.lend(&self.bpffs, max_flows)
    }

    /// The index of an interface.
    #[must_use]
    pub fn index(&self, port: Port) -> u32 {
        self.indices[port as usize]
    }

    /// The program that passes everything.
    #[must_use]
    pub fn pass(&self) -> &Xdp {
        &self.pass
    }
}

/// Rigs that no test uses.
static IDLE: Mutex<Vec<Rig>> = Mutex::new(Vec::new());

extern "C" fn remove_idle() {
    if let Ok(mut idle) = IDLE.lock() {
        idle.clear();
    }
}

/// The gateway's own address toward an Edge of `family`'s family, as `source = "gateway"` uses it.
#[must_use]
pub(super) fn gateway_toward(edge: IpAddr) -> IpAddr {
    let host = if edge == EDGE_B.v4 || edge == EDGE_B.v6 {
        GATEWAY_LAN_B
    } else {
        GATEWAY_LAN_A
    };
    match edge {
        IpAddr::V4(_) => host.v4.into(),
        IpAddr::V6(_) => host.v6.into(),
    }
}

fn wire(namespace: &Namespace) -> Result<()> {
    namespace.sysctl("net/ipv4/ip_forward", "1")?;
    namespace.sysctl("net/ipv6/conf/all/forwarding", "1")?;
    namespace.sysctl("net/ipv6/conf/default/forwarding", "1")?;
    batch(namespace, &links())?;
    for port in Port::ALL {
        // The other end has neither addresses nor IPv6: it says nothing by itself.
        let far = format!("net/ipv6/conf/{}-far/disable_ipv6", port.name());
        namespace.sysctl(&far, "1")?;
    }
    batch(namespace, &addresses())?;
    namespace.sysctl("net/ipv4/conf/wan1/forwarding", "0")?;
    namespace.sysctl("net/ipv6/conf/wan1/forwarding", "0")
}

/// Runs many `ip` commands in one process.
fn batch(namespace: &Namespace, commands: &str) -> Result<()> {
    let mut command = namespace.command("ip");
    let mut ip = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting ip")?;
    let mut input = ip.stdin.take().context("the standard input of ip")?;
    input.write_all(commands.as_bytes())?;
    drop(input);
    let output = ip.wait_with_output()?;
    ensure!(
        output.status.success(),
        "ip -batch: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn links() -> String {
    Port::ALL
        .map(|port| {
            let (name, mac) = (port.name(), text(port.mac()));
            format!("link add {name} address {mac} type veth peer name {name}-far\n")
        })
        .concat()
}

fn addresses() -> String {
    let mut commands = String::new();
    for port in Port::ALL {
        let name = port.name();
        commands += &format!("link set {name}-far up\nlink set {name} up\n");
    }
    let vlan = host([192, 0, 2, 129], [0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 1]);
    for (port, Host { v4, v6 }, short) in [
        (Port::Wan0, GATEWAY_WAN, 24),
        (Port::Lan0, GATEWAY_LAN_A, 25),
        (Port::Lan1, GATEWAY_LAN_B, 25),
        (Port::Vlan0, vlan, 28),
    ] {
        let name = port.name();
        commands +=
            &format!("addr add {v4}/{short} dev {name}\naddr add {v6}/64 dev {name} nodad\n");
    }
    for port in Port::ALL {
        let (name, mac) = (port.name(), text(port.neighbour()));
        for address in port.neighbours().iter().flat_map(Host::both) {
            commands += &format!("neigh add {address} lladdr {mac} dev {name} nud permanent\n");
        }
    }
    // A forwarding host goes by a route's MTU only where that is locked (ip_forward_use_pmtu).
    commands
        + &format!(
            "route add 192.0.2.0/25 via {}\n\
             route add 2001:db8:2::/48 via {}\n\
             route add {}/32 dev lan0 mtu lock {NARROW_MTU}\n\
             route add {}/128 dev lan0 mtu lock {NARROW_MTU}\n",
            WAN_ROUTER.v4, WAN_ROUTER.v6, NARROW_EDGE.v4, NARROW_EDGE.v6
        )
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Removes the namespace and the BPF filesystem when dropped, however far they had come.
struct Cleanup(String);

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Err(error) = leftovers::remove_lab(&self.0) {
            eprintln!("lab {} is not removed completely: {error:#}", self.0);
        }
    }
}
