//! Whose memory a connection takes: of processes, of the kernel's allocator, of maps.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use sni_user::datapath::MAPS;

use super::stand::{Running, Stand};
use crate::bench::cpu::children;

/// Bytes.
pub(in crate::bench) type Bytes = u64;

/// The kernel's caches that connections live in, by how their names begin: sockets with their files, what epoll(7) keeps, packets, and the
/// sizes of kmalloc, in which entries of maps are, too. The others belong to file systems and processes, and tell what else the machine does.
const CACHES: [&str; 12] = [
    "TCP",
    "tw_sock_TCP",
    "request_sock_TCP",
    "sock_inode_cache",
    "filp",
    "bfilp",
    "dentry",
    "lsm_",
    "eventpoll_",
    "ep_head",
    "skbuff_",
    "kmalloc-",
];

/// What was in use at one time.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// The proportional set sizes of the agent's or proxy's processes.
    pub(super) processes: Bytes,
    /// Objects in use, by the kernel's cache.
    pub(super) slab: BTreeMap<String, Bytes>,
    /// What the kernel charges for the datapath's maps.
    pub(super) maps: Bytes,
    /// Of the gateway, without those that it has with no connection.
    pub(super) sockets: u64,
}

impl Reading {
    pub(super) fn of(stand: &Stand<'_>) -> Result<Self> {
        let (processes, maps) = match &stand.running {
            Running::Nothing => (0, 0),
            Running::Snigate(gateway) => {
                (of_processes(gateway.pid()?)?, of_maps(gateway.pin_path())?)
            }
            Running::Proxy(proxy) => (of_processes(proxy.process.pid())?, 0),
        };
        Ok(Self {
            processes,
            slab: slab()?,
            maps,
            sockets: stand.sockets()?,
        })
    }
}

/// The proportional set sizes of a process and its children.
pub(in crate::bench) fn of_processes(pid: u32) -> Result<Bytes> {
    let mut sum = of_process(pid)?;
    for child in children(pid)? {
        // What has ended in the meantime has no memory any more.
        sum += of_process(child).unwrap_or(0);
    }
    Ok(sum)
}

fn of_process(pid: u32) -> Result<Bytes> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let kilobytes = kilobytes(&text, "Pss:").with_context(|| format!("{path} reads {text:?}"))?;
    Ok(kilobytes * 1024)
}

/// The figure in a line such as `Pss:    12 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// What the kernel charges for the maps that are pinned there.
pub(in crate::bench) fn of_maps(pins: &Path) -> Result<Bytes> {
    let mut sum = 0;
    for (name, _) in MAPS {
        let path = pins.join(name);
        let map =
            MapData::from_pin(&path).with_context(|| format!("the map {}", path.display()))?;
        let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
        let text = fs::read_to_string(&info).with_context(|| format!("reading {info}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        let bytes = line.and_then(|bytes| bytes.trim().parse::<u64>().ok());
        sum += bytes.with_context(|| format!("{info} of {name} reads {text:?}"))?;
    }
    Ok(sum)
}

fn slab() -> Result<BTreeMap<String, Bytes>> {
    let text = fs::read_to_string("/proc/slabinfo").context("reading /proc/slabinfo")?;
    parse_slab(&text).context("/proc/slabinfo in another form than version 2")
}

/// Objects in use, and not slabs: those of an earlier system may lie empty.
///
/// Of the dentries only the sockets' are counted, of which each has one as it has an inode: every file that anybody looks at has another.
fn parse_slab(text: &str) -> Option<BTreeMap<String, Bytes>> {
    let caches: Option<BTreeMap<&str, (u64, u64)>> = text
        .lines()
        .skip_while(|line| line.starts_with("slabinfo") || line.starts_with('#'))
        .map(|line| {
            let mut fields = line.split_whitespace();
            let name = fields.next()?;
            let active = fields.next()?.parse().ok()?;
            let size = fields.nth(1)?.parse().ok()?;
            Some((name, (active, size)))
        })
        .collect();
    let mut caches = caches?;
    let (sockets, _) = *caches.get("sock_inode_cache")?;
    caches.get_mut("dentry")?.0 = sockets;
    caches.retain(|name, _| CACHES.iter().any(|counts| name.starts_with(counts)));
    let in_use = |(name, (active, size)): (&str, (u64, u64))| (name.to_owned(), active * size);
    Some(caches.into_iter().map(in_use).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_in_use_of_the_caches_that_count() {
        let text = "slabinfo - version: 2.1\n\
            # name <active_objs> <num_objs> <objsize>\n\
            ext4_inode_cache  100  200  1000  27  8 : tunables 0 0 0 : slabdata 1 1 0\n\
            TCPv6               3   12  2560  12  8 : tunables 0 0 0 : slabdata 1 1 0\n\
            sock_inode_cache    3   12   800  12  8 : tunables 0 0 0 : slabdata 1 1 0\n\
            dentry          70000 80000  192  21  1 : tunables 0 0 0 : slabdata 1 1 0\n\
            kmalloc-cg-512      2    8   512   8  1 : tunables 0 0 0 : slabdata 1 1 0\n";
        let expected = [
            ("TCPv6", 7680),
            ("sock_inode_cache", 2400),
            ("dentry", 576),
            ("kmalloc-cg-512", 1024),
        ];
        let expected = expected.map(|(name, bytes)| (name.to_owned(), bytes));
        assert_eq!(parse_slab(text), Some(expected.into()));
        assert_eq!(parse_slab("TCP three"), None);
    }

    #[test]
    fn this_process_takes_memory() -> Result<()> {
        assert_eq!(kilobytes("Rss: 9 kB\nPss:      12 kB\n", "Pss:"), Some(12));
        assert!(of_processes(std::process::id())? > 0);
        Ok(())
    }
}
