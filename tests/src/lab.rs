//! The lab as one guard.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bpffs;
use crate::capture;
use crate::leftovers::{self, files_dir, run_dir};
use crate::netns::Namespace;
use crate::process::Process;
use crate::topology::{Machines, Topology};
use crate::vlan::StandIn;
use crate::wire::Wire;

/// A partner, a gateway and two Edges in namespaces of their own, as [`crate::addresses`] lays them out.
///
/// The gateway forwards by plain routing until a test starts something better. Dropping the lab ends everything that
/// runs in it and leaves nothing behind; if that happens in a panic, logs and captures are kept under
/// `target/lab-failures/`.
#[derive(Debug)]
pub struct Lab {
    // First, because fields are dropped in this order and everything else belongs to it.
    cleanup: Cleanup,
    test: String,
    captures: Vec<Process>,
    stand_ins: Vec<StandIn>,
    bpffs: Mutex<Option<PathBuf>>,
    /// Where connections come from.
    pub partner: Namespace,
    /// Where the datapath goes: `wan0` towards the partner, `lan0` and `lan1` towards the Edges.
    pub gateway: Namespace,
    /// The first Edge.
    pub edge_a: Namespace,
    /// The second Edge.
    pub edge_b: Namespace,
    /// The router before edge-a, if the topology has one.
    pub router: Option<Namespace>,
    /// The router before the partner, if the topology has one.
    pub wan_router: Option<Namespace>,
    /// The line to the partner, if the topology has one that can be disturbed.
    pub wan_wire: Option<Wire>,
    /// The line to edge-a, likewise.
    pub lan_a_wire: Option<Wire>,
}

/// Runs `body` as the test `name` in a lab of this topology, or skips it, saying so, where labs are not asked for.
///
/// An error of the body fails the test while the lab still stands, so that logs and captures are kept.
///
/// # Panics
/// The lab could not be made, or the body failed.
pub fn lab_test(name: &str, topology: &Topology, body: impl FnOnce(&Lab) -> Result<()>) {
    let Some(lab) = Lab::for_test(name, topology) else {
        return;
    };
    if let Err(error) = body(&lab) {
        panic!("{name}: {error:#}");
    }
}

impl Lab {
    /// The lab for the test `name`, or `None` and a sentence where it may not be made: `cargo xtask test` asks for labs
    /// by setting `SNIGATE_LAB=1`, a plain `cargo test` needs no privileges.
    ///
    /// # Panics
    /// The lab could not be made. In continuous integration (`CI=true`) a lack of privilege counts as that: a skipped
    /// test must not look like a passed one.
    #[must_use]
    pub fn for_test(name: &str, topology: &Topology) -> Option<Self> {
        if !Self::is_asked_for(name) {
            return None;
        }
        match Self::new(name, topology) {
            Ok(lab) => Some(lab),
            Err(error) => panic!("{name}: the lab could not be made: {error:#}"),
        }
    }

    /// Whether the test `name` may make labs; says so where it may not.
    ///
    /// # Panics
    /// As for [`Lab::for_test`], in continuous integration.
    #[must_use]
    pub fn is_asked_for(name: &str) -> bool {
        let root = nix::unistd::geteuid().is_root();
        let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|v| v == value);
        assert!(
            root || !is("CI", "true"),
            "{name} cannot run: the lab makes network namespaces and needs root; run this job as root"
        );
        if !(root && is("SNIGATE_LAB", "1")) {
            // Past the test harness, which hides what a passing test prints.
            let line = format!("skipped: {name} needs the lab; run `cargo xtask test` as root\n");
            // Nobody to tell is no reason to run.
            let _ = std::io::stderr().write_all(line.as_bytes());
            return false;
        }
        true
    }

    /// Makes a lab; `purpose` names it in messages and in the directory kept after a failure.
    ///
    /// Also removes what labs of dead processes left behind, and sees to it that Ctrl-C leaves nothing either.
    ///
    /// # Errors
    /// No privilege, a missing program, or the kernel lacks something; the sentence says which.
    pub fn new(purpose: &str, topology: &Topology) -> Result<Self> {
        leftovers::remove_own_on_signal()?;
        if let Err(error) = leftovers::remove_orphans() {
            // Somebody else's lab is no reason to refuse this one.
            eprintln!("an older lab stays behind: {error:#}");
        }
        let cleanup = Cleanup(leftovers::next_lab_name());
        let name = cleanup.0.as_str();
        for directory in [run_dir(name), files_dir(name)] {
            fs::create_dir(&directory)
                .with_context(|| format!("making {}", directory.display()))?;
        }
        let machines = topology.build(name)?;
        let captures = if topology.capture {
            capture::start(&roles(&machines), &files_dir(name))?
        } else {
            Vec::new()
        };
        let Machines {
            partner,
            gateway,
            edge_a,
            edge_b,
            router,
            wan_router,
            wan_wire,
            lan_a_wire,
            stand_ins,
        } = machines;
        Ok(Self {
            cleanup,
            test: purpose.to_owned(),
            captures,
            stand_ins,
            bpffs: Mutex::new(None),
            partner,
            gateway,
            edge_a,
            edge_b,
            router,
            wan_router,
            wan_wire,
            lan_a_wire,
        })
    }

    /// Its unique name, `sng-<pid>-<n>`, with which the names of its namespaces begin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.cleanup.0
    }

    /// The directory for files of this lab: logs, captures, certificates, configuration. Gone with the lab.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        files_dir(self.name())
    }

    /// Whether the kernel knows the lab's VLAN interfaces as such. Where it was built without them, stand-ins carry the
    /// tags, but netlink tells nothing about a parent or a VLAN id, so an agent cannot learn how to send there.
    #[must_use]
    pub fn has_kernel_vlans(&self) -> bool {
        self.stand_ins.is_empty()
    }

    /// A BPF filesystem of this lab's own, mounted at the first call; its pins go with the lab.
    ///
    /// # Errors
    /// It could not be mounted.
    pub fn bpffs(&self) -> Result<PathBuf> {
        let mut mounted = self
            .bpffs
            .lock()
            .expect("no thread panics while it holds the lock");
        match &*mounted {
            Some(path) => Ok(path.clone()),
            None => Ok(mounted.insert(bpffs::mount_for(self.name())?).clone()),
        }
    }

    /// Starts a program (made by [`Namespace::command`]) with its logs in the lab's directory.
    ///
    /// # Errors
    /// It could not be started.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        Process::spawn(name, command, &self.dir())
    }

    /// Writes a file into the lab's directory and returns its path.
    ///
    /// # Errors
    /// It could not be written.
    pub fn write_file(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.dir().join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// How to look around in it: one command per machine.
    #[must_use]
    pub fn guide(&self) -> String {
        let mut machines = vec![&self.partner, &self.gateway, &self.edge_a, &self.edge_b];
        machines.extend(&self.router);
        machines.extend(&self.wan_router);
        let mut guide = format!("The lab {} is up. Look around with\n", self.name());
        for machine in machines {
            guide += &format!("  ip netns exec {} bash\n", machine.name());
        }
        guide += &format!("Its files are in {}.", self.dir().display());
        guide
    }

    /// Leaves the lab and everything in it standing after this process; `leftovers::remove_kept` takes it away.
    ///
    /// # Errors
    /// The mark that protects it could not be written, or its VLANs need this process; then it is removed as ever.
    pub fn keep(mut self) -> Result<()> {
        ensure!(
            self.wan_wire.is_none() && self.lan_a_wire.is_none(),
            "the lab's wires are threads of this process and end with it; leave this one running"
        );
        ensure!(
            self.stand_ins.is_empty(),
            "this kernel has no VLAN interfaces (CONFIG_VLAN_8021Q), and the lab's stand-ins for them end with it; \
             keep a lab without VLANs, or leave this one running"
        );
        leftovers::keep(self.name())?;
        self.captures.clear();
        std::mem::forget(self);
        Ok(())
    }

    /// Copies the lab's files, less keys, to where a developer or a CI job finds them.
    pub(crate) fn save_files(&self) -> Result<PathBuf> {
        let failures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab-failures");
        let target = failures.join(format!("{}-{}", self.test, self.name()));
        fs::create_dir_all(&target).with_context(|| format!("making {}", target.display()))?;
        for entry in fs::read_dir(self.dir())? {
            let entry = entry?;
            let is_key = entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "key");
            if entry.file_type()?.is_file() && entry.metadata()?.len() > 0 && !is_key {
                fs::copy(entry.path(), target.join(entry.file_name()))?;
            }
        }
        Ok(target.canonicalize()?)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        if !self.captures.is_empty() {
            // For the packets that tcpdump has been given and not yet written.
            std::thread::sleep(Duration::from_millis(100));
        }
        self.captures.clear();
        match self.save_files() {
            Ok(path) => eprintln!("{}: logs and captures are in {}", self.test, path.display()),
            Err(error) => eprintln!("{}: logs and captures are lost: {error:#}", self.test),
        }
    }
}

/// Removes the lab of that name when dropped, however far it had come.
#[derive(Debug)]
struct Cleanup(String);

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Err(error) = leftovers::remove_lab(&self.0) {
            eprintln!("lab {} is not removed completely: {error:#}", self.0);
        }
    }
}

fn roles(machines: &Machines) -> Vec<(&'static str, &Namespace)> {
    let mut roles = vec![
        ("partner", &machines.partner),
        ("gateway", &machines.gateway),
        ("edge-a", &machines.edge_a),
        ("edge-b", &machines.edge_b),
    ];
    roles.extend(
        machines
            .wan_router
            .as_ref()
            .map(|router| ("wan-router", router)),
    );
    roles.extend(machines.router.as_ref().map(|router| ("router", router)));
    roles
}
