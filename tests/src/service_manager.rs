//! A systemd of the lab's own, in which the packaged units run.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use crate::{Lab, Process, deadline::Deadline, output_within};

const START: Duration = Duration::from_secs(20);
/// Longer than the agent may take until it is ready.
const COMMAND: Duration = Duration::from_secs(60);

/// What every unit depends on, and `systemd --user` starts with.
const TARGETS: [&str; 6] = [
    "basic",
    "default",
    "multi-user",
    "network-online",
    "shutdown",
    "sysinit",
];

/// A root filesystem of its own over the host's. Packages' scripts talk to the system's manager: here that is the user's.
const MACHINE: &str = r#"
    place="LAB_FILES/machine"; mkdir "$place"; mount -t tmpfs none "$place"; mkdir "$place/changes" "$place/work" "$place/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$place/changes,workdir=$place/work" "$place/root"
    cd "$place/root"
    mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev
    mount -t tmpfs none run; mount -t tmpfs none tmp
    umount -l sys/fs/bpf 2>/dev/null || true; mount -t bpf bpf sys/fs/bpf
    mkdir -p "./LAB_FILES"; mount --bind "LAB_FILES" "./LAB_FILES"
    rm -f usr/sbin/policy-rc.d
    cat > usr/local/bin/systemctl <<'SHIM'
#!/bin/sh
manager=--user
for word; do
    shift
    case $word in
    --system) continue ;;
    # Those change files and ask no manager; a user's has other files.
    preset | enable | disable | is-enabled | mask | unmask) manager=--root=/ ;;
    esac
    set -- "$@" "$word"
done
XDG_RUNTIME_DIR=/run exec /usr/bin/systemctl $manager "$@"
SHIM
    chmod 755 usr/local/bin/systemctl
    pivot_root . mnt; cd /; umount -l /mnt
"#;

/// A user's instance of systemd, which need not be the machine's first process, in the gateway's network namespace and in namespaces of its own for
/// processes and mounts. Dropping it ends it with all its services.
#[derive(Debug)]
pub struct ServiceManager<'lab> {
    lab: &'lab Lab,
    /// `XDG_RUNTIME_DIR`, below which it makes the services' `RuntimeDirectory=`.
    runtime: PathBuf,
    process: Process,
}

impl<'lab> ServiceManager<'lab> {
    /// Starts it with these units (file name and text).
    ///
    /// # Errors
    /// There is no systemd, or it does not come up.
    pub fn start(lab: &'lab Lab, units: &[(&str, String)]) -> Result<Self> {
        let directory = lab.dir().join("systemd");
        write_units(&directory.join("units"), units)?;
        let units = directory.join("units");
        Self::boot(lab, "", &directory, units.as_os_str())
    }

    /// Starts it in a machine of its own: this host's files, with changes that only the machine sees and that are gone with it, and with the
    /// units that are installed there. What the machine has in memory begins empty: `/run`, `/tmp` but for the lab's directory, and the BPF
    /// filesystem.
    ///
    /// # Errors
    /// As for [`ServiceManager::start`]; or the kernel has no overlayfs.
    pub fn start_machine(lab: &'lab Lab) -> Result<Self> {
        let units = lab.dir().join("units");
        write_units(&units, &[])?;
        let mut path = units.into_os_string();
        path.push(":/etc/systemd/system:/lib/systemd/system");
        let files = lab.dir();
        let machine = MACHINE.replace("LAB_FILES", &files.display().to_string());
        Self::boot(lab, &machine, Path::new("/run"), &path)
    }

    /// Runs `prepare` in the new namespaces and then systemd.
    fn boot(lab: &'lab Lab, prepare: &str, runtime: &Path, units: &OsStr) -> Result<Self> {
        // A user's instance asks whether the machine was booted with systemd, wants its control groups at the usual place, and must not be
        // the first process.
        let script = format!(
            "set -e; mount --make-rprivate /; {prepare}
            umount -l /sys/fs/cgroup || true; mount -t cgroup2 none /sys/fs/cgroup
            mkdir -p \"/sys/fs/cgroup/$1\"; echo 0 > \"/sys/fs/cgroup/$1/cgroup.procs\"
            mkdir -p /run/systemd; mount -t tmpfs none /run/systemd; mkdir /run/systemd/system
            set +e; /usr/lib/systemd/systemd --user --log-target=console; exit $?"
        );
        let mut command = lab.gateway.command("unshare");
        command
            .args(["--fork", "--pid", "--mount", "--mount-proc", "--kill-child"])
            .args(["sh", "-c", &script, "sh", lab.name()])
            .env("XDG_RUNTIME_DIR", runtime)
            .env("SYSTEMD_UNIT_PATH", units);
        let process = lab.spawn("systemd", command)?;
        let this = Self {
            lab,
            runtime: runtime.to_owned(),
            process,
        };
        Deadline::after(START).poll("systemd to answer", || {
            Ok(this
                .systemctl(&["is-active", "default.target"])
                .is_ok()
                .then_some(()))
        })?;
        Ok(this)
    }

    /// A command among its processes, with its files.
    ///
    /// # Errors
    /// It has ended.
    pub fn command(&self, program: &str) -> Result<Command> {
        let mut command = self.lab.gateway.command("nsenter");
        command
            .args(["--target", &self.first_process()?, "--pid", "--mount"])
            .arg(program)
            .env("XDG_RUNTIME_DIR", &self.runtime);
        Ok(command)
    }

    /// Runs systemctl, and returns what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn systemctl(&self, arguments: &[&str]) -> Result<String> {
        // It wants to know who asks, and looks at its own processes for that.
        self.output("systemctl", &[&["--user"], arguments].concat())
    }

    /// Runs a command as [`ServiceManager::command`] has it, and returns what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = output_within(self.command(program)?.args(arguments), COMMAND)?;
        ensure!(
            output.status.success(),
            "{program} {arguments:?} ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// The one that unshare has started.
    fn first_process(&self) -> Result<String> {
        let pid = self.process.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        let first = children.split_whitespace().next();
        Ok(first.context("systemd has ended")?.to_owned())
    }

    /// A property of a unit.
    ///
    /// # Errors
    /// When systemctl fails.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        self.systemctl(&["show", "--value", "--property", name, unit])
    }
}

fn write_units(directory: &Path, units: &[(&str, String)]) -> Result<()> {
    fs::create_dir_all(directory)?;
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    for target in TARGETS {
        write(
            &format!("{target}.target"),
            "[Unit]\nDescription=of the lab\n",
        )?;
    }
    for (name, text) in units {
        write(name, text)?;
    }
    Ok(())
}

/// A packaged unit, with another program, and its log in a file. What confines it is left out: it is about the package's places, where the lab's are
/// not, and a user's manager of the host can do only a part of it. The package's own test has all of it.
///
/// # Errors
/// When it can't be read, or has nothing to replace.
pub fn packaged_unit(name: &str, program: &str, log: &Path) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let section = format!("[Service]\nStandardError=append:{}\n", log.display());
    let changed = unconfined(&text)
        .replace("ConditionPathExists=/etc/snigate/snigate.toml\n", "")
        .replace("/usr/bin/snigate", program)
        .replace("[Service]\n", &section);
    ensure!(changed.contains(program), "{name} starts something else");
    Ok(changed)
}

/// A unit without what follows its capabilities in `[Service]`.
fn unconfined(unit: &str) -> String {
    let mut confined = false;
    let kept = unit.lines().filter(|line| {
        confined =
            (confined && !line.starts_with('[')) || line.starts_with("CapabilityBoundingSet=");
        !confined
    });
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// Removes the control groups of a lab's systemd, which stay when it has ended.
///
/// # Errors
/// Something still runs in them.
pub(crate) fn remove_control_groups(lab: &str) -> Result<()> {
    let Some(root) = control_groups()? else {
        return Ok(());
    };
    let what = format!("the control groups of {lab} to be empty");
    Deadline::after(Duration::from_secs(5)).poll(&what, || {
        Ok(remove_groups(&root.join(lab)).is_ok().then_some(()))
    })
}

/// Children first; a group's files go with it.
fn remove_groups(group: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Where the unified hierarchy is mounted, if it is.
fn control_groups() -> Result<Option<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut places = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    });
    Ok(places.next())
}
