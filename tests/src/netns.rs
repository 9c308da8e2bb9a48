//! A network namespace as a guard.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sched::{CloneFlags, setns},
    unistd::Pid,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::counters::TcpCounters;
use crate::deadline::Deadline;
use crate::leftovers;
use crate::process::output_within;

/// How long `ip`, `ethtool` or `nft` may take; they are instant on an idle machine.
const TOOL_TIMEOUT: Duration = Duration::from_secs(20);

/// A network namespace, removed with everything that runs in it when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes the namespace `name` with its loopback interface up.
    ///
    /// New interfaces come up without duplicate address detection, router advertisements and reverse path filtering:
    /// the first would delay every IPv6 test by seconds, the others have no place among fixed addresses.
    ///
    /// # Errors
    /// No privilege, or a namespace of that name exists.
    pub fn create(name: &str) -> Result<Self> {
        let mut command = Command::new("ip");
        command.args(["netns", "add", name]);
        tool(&mut command).context("a lab needs root and network namespaces")?;
        let path = leftovers::netns_path(name);
        let opened = File::open(&path).with_context(|| format!("opening {}", path.display()));
        let handle = match opened {
            Ok(file) => Arc::new(OwnedFd::from(file)),
            Err(error) => {
                leftovers::remove_namespace(name)?;
                return Err(error);
            }
        };
        let namespace = Self {
            name: name.to_owned(),
            handle,
        };
        for family in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv4/conf/{family}/rp_filter"), "0")?;
            namespace.sysctl(&format!("net/ipv6/conf/{family}/accept_dad"), "0")?;
            namespace.sysctl(&format!("net/ipv6/conf/{family}/accept_ra"), "0")?;
        }
        // Lets `ping` use an unprivileged ICMP socket, for which the kernel does identifiers and checksums.
        namespace.sysctl("net/ipv4/ping_group_range", "0 0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Its name, as `ip netns list` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command whose process will run in this namespace.
    ///
    /// Only the network namespace changes. `ip netns exec` would also give the child a fresh `/sys` without the BPF
    /// filesystem; the price of keeping it is that `/sys/class/net` goes on showing the root namespace.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let handle = Arc::clone(&self.handle);
        let mut command = Command::new(program);
        // SAFETY: between fork and exec the closure makes one system call on a descriptor that it owns; it neither
        // allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || {
                setns(&*handle, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
            });
        }
        command
    }

    /// Runs `body` on a thread of its own inside the namespace; sockets opened there stay in it wherever they go.
    ///
    /// Inside, read `/proc/thread-self/net`, not `/proc/net`: that one is the main thread's namespace.
    ///
    /// # Errors
    /// The body's, or the kernel's on entering the namespace. A panic of the body is passed on.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    body()
                })
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Starts a thread inside the namespace that may outlive the caller; threads that it starts are inside too.
    ///
    /// # Errors
    /// The thread could not be started. Entering the namespace fails in the thread's own result.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let handle = Arc::clone(&self.handle);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                setns(&*handle, CloneFlags::CLONE_NEWNET).context("entering a namespace")?;
                body()
            })
            .with_context(|| format!("starting the thread {name}"))
    }

    /// Runs a short program in the namespace and returns what it prints.
    ///
    /// # Errors
    /// It is missing, fails (with what it said) or takes too long.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        tool(&mut command).with_context(|| format!("in namespace {}", self.name))
    }

    /// Runs lines of `ip` commands in one go.
    ///
    /// # Errors
    /// The first line that fails, in `ip`'s words.
    pub fn ip(&self, batch: &str) -> Result<()> {
        for line in batch.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let arguments: Vec<&str> = line.split_whitespace().collect();
            self.output("ip", &arguments)?;
        }
        Ok(())
    }

    /// Writes the setting `key` (`net/ipv4/ip_forward`) of this namespace.
    ///
    /// # Errors
    /// There is no such setting, or the value is not taken.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(|| {
            fs::write(format!("/proc/sys/{key}"), value)
                .with_context(|| format!("setting {key} = {value} in namespace {}", self.name))
        })
    }

    /// The names of its interfaces, loopback left out.
    ///
    /// # Errors
    /// The kernel's.
    pub fn interfaces(&self) -> Result<Vec<String>> {
        let text = self.read_proc("dev")?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name.trim().to_owned())
            .filter(|name| name != "lo")
            .collect())
    }

    /// Has one processor, counted from 0, work on all that its interfaces receive (RPS, Documentation/networking/scaling.rst of the kernel). A veth has no
    /// hardware that would keep to one: there, two processors put segments of one connection in another order, whoever forwards them.
    ///
    /// # Errors
    /// The kernel has no RPS.
    pub fn receive_on(&self, processor: u32) -> Result<()> {
        // `ip netns exec` because it mounts a `/sys` with this namespace's interfaces.
        let script = format!(
            "for queue in /sys/class/net/*/queues/rx-*; do echo {:x} > $queue/rps_cpus || exit 1; done",
            1 << processor
        );
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "sh", "-c", &script]);
        tool(&mut command).map(drop)
    }

    /// Has what its interfaces send wait for room at the other end, where a veth without a queueing discipline drops it: its ring of 256 packets is full
    /// when a sender writes a whole window at once, which on a real line takes longer than to read it.
    ///
    /// # Errors
    /// The kernel has no pfifo.
    pub fn queue_before_links(&self) -> Result<()> {
        for interface in self.interfaces()? {
            let mut command = Command::new("tc");
            command.args(["-netns", &self.name, "qdisc", "add", "dev", &interface]);
            command.args(["root", "pfifo", "limit", "10000"]);
            tool(&mut command)?;
        }
        Ok(())
    }

    /// How many packets its interfaces could not send, because there was no room at the other end.
    ///
    /// # Errors
    /// The kernel's table could not be read.
    pub fn unsent(&self) -> Result<u64> {
        let text = self.read_proc("dev")?;
        // Behind the name, eight numbers of what was received: bytes, packets, errs, drop, …, then as many of what was sent.
        let dropped = |line: &str| {
            let (_, numbers) = line.split_once(':')?;
            numbers.split_whitespace().nth(8 + 3)?.parse::<u64>().ok()
        };
        Ok(text.lines().filter_map(dropped).sum())
    }

    /// Its TCP counters, as `nstat` counts them.
    ///
    /// # Errors
    /// The kernel's tables could not be read.
    pub fn tcp_counters(&self) -> Result<TcpCounters> {
        Ok(TcpCounters::parse(
            &self.read_proc("snmp")?,
            &self.read_proc("netstat")?,
        ))
    }

    /// How many TCP sockets it has, listeners among them, connections in TIME_WAIT not.
    ///
    /// # Errors
    /// The kernel's tables could not be read.
    pub fn tcp_sockets(&self) -> Result<u64> {
        let in_use = |table: &str, protocol: &str| {
            let text = self.read_proc(table)?;
            // `TCP: inuse 4 orphan 0 …` and `TCP6: inuse 1`.
            let line = text.lines().find_map(|line| line.strip_prefix(protocol));
            let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            count.with_context(|| format!("{table} reads {text:?}"))
        };
        let (v4, v6): (u64, u64) = (in_use("sockstat", "TCP:")?, in_use("sockstat6", "TCP6:")?);
        Ok(v4 + v6)
    }

    /// The processes of this name (`/proc/PID/comm`) that run in it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn processes(&self, name: &str) -> Result<Vec<Pid>> {
        let mut processes = leftovers::processes_in(&self.name)?;
        processes.retain(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        });
        Ok(processes)
    }

    /// Waits until something listens on TCP `port`, without connecting: a connection would count as one.
    ///
    /// # Errors
    /// Nothing listens in time.
    pub fn wait_for_listener(&self, port: u16, timeout: Duration) -> Result<()> {
        let what = format!("a listener on port {port} in namespace {}", self.name);
        Deadline::after(timeout).poll(&what, || Ok(self.listens(port)?.then_some(())))
    }

    /// Whether something listens on TCP `port`.
    ///
    /// # Errors
    /// The kernel's tables could not be read.
    pub fn listens(&self, port: u16) -> Result<bool> {
        let suffix = format!(":{port:04X}");
        let listening = |table: String| {
            table.lines().skip(1).any(|line| {
                let mut fields = line.split_whitespace().skip(1);
                let local = fields.next().unwrap_or_default();
                // 0A is TCP_LISTEN, include/net/tcp_states.h.
                local.ends_with(&suffix) && fields.nth(1) == Some("0A")
            })
        };
        Ok(listening(self.read_proc("tcp")?) || listening(self.read_proc("tcp6")?))
    }

    /// Sends one ICMP echo request to `destination` and returns how long the answer took.
    ///
    /// # Errors
    /// No answer in time, or the kernel's reason.
    pub fn ping(&self, destination: IpAddr, timeout: Duration) -> Result<Duration> {
        self.run(|| echo(destination, timeout))
            .with_context(|| format!("ping from {} to {destination}", self.name))
    }

    fn read_proc(&self, table: &str) -> Result<String> {
        let path = format!("/proc/thread-self/net/{table}");
        self.run(|| fs::read_to_string(&path).with_context(|| format!("reading {path}")))
    }

    fn enter(&self) -> Result<()> {
        setns(&*self.handle, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering namespace {}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = leftovers::remove_namespace(&self.name) {
            eprintln!("namespace {} could not be removed: {error:#}", self.name);
        }
    }
}

fn tool(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null());
    let output = output_within(command, TOOL_TIMEOUT)?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn echo(destination: IpAddr, timeout: Duration) -> Result<Duration> {
    let (domain, protocol, request, reply) = match destination {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(&SocketAddr::new(destination, 0).into())?;
    let start = Instant::now();
    socket.send(&[request, 0, 0, 0, 0, 0, 0, 1, b's', b'n', b'i'])?;
    let mut answer = [0; 64];
    let length = io::Read::read(&mut &socket, &mut answer)?;
    if length < 8 || answer[0] != reply {
        bail!("the answer is no echo reply: {:02x?}", &answer[..length]);
    }
    Ok(start.elapsed())
}
