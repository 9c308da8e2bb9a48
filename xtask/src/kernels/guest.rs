//! A guest under QEMU: a kernel, the archive of programs, and what it tells at its second serial port.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    archive,
    release::Kernel,
    steps::{Progress, Step},
};
use crate::process;

/// For what is unpacked into it, and the lab.
const MEMORY_MIB: u32 = 2048;
/// How long a kernel may take to its first step.
const START: Duration = Duration::from_secs(300);
/// The same where the processor runs it itself: after this, KVM counts as broken.
const QUICK_START: Duration = Duration::from_secs(60);

/// How the guest's code is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// By the processor.
    Kvm,
    /// By QEMU's translation.
    Tcg,
}

impl Accelerator {
    /// The best that this machine seems to have.
    pub(super) fn detect() -> Self {
        let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
        if opened.is_ok() { Self::Kvm } else { Self::Tcg }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Where guests are put together, and how long each of them may run.
pub(super) struct Bench<'a> {
    /// The archive of programs.
    pub(super) root: &'a Path,
    /// For files of this run.
    pub(super) directory: &'a Path,
    pub(super) deadline: Duration,
}

/// The logs of a guest.
pub(super) struct Logs {
    /// What its kernel says.
    pub(super) console: PathBuf,
    /// What its steps print.
    pub(super) steps: PathBuf,
}

impl Logs {
    fn new(directory: &Path, kernel: &Kernel) -> Self {
        let file = |what: &str| directory.join(format!("{}.{what}.log", kernel.line));
        Self {
            console: file("console"),
            steps: file("steps"),
        }
    }
}

/// Boots a kernel and returns what came of its steps. Where KVM brings no guest up, it is not asked again.
pub(super) fn boot(
    kernel: &Kernel,
    bench: &Bench<'_>,
    accelerator: &mut Accelerator,
) -> Result<(Vec<Step>, Logs)> {
    let archive = bench.directory.join("initrd");
    archive::join(&[bench.root, &kernel.modules], &archive)?;
    let logs = Logs::new(bench.directory, kernel);
    let mut steps = watch(kernel, &archive, bench, &logs, *accelerator)?;
    if steps.is_empty() && *accelerator == Accelerator::Kvm {
        eprintln!("xtask: KVM brings no guest up here; QEMU translates instead");
        *accelerator = Accelerator::Tcg;
        steps = watch(kernel, &archive, bench, &logs, *accelerator)?;
    }
    fs::remove_file(&archive).with_context(|| archive.display().to_string())?;
    Ok((steps, logs))
}

/// One attempt, from the first line to the end, or to the deadline.
fn watch(
    kernel: &Kernel,
    archive: &Path,
    bench: &Bench<'_>,
    logs: &Logs,
    accelerator: Accelerator,
) -> Result<Vec<Step>> {
    let mut log =
        fs::File::create(&logs.steps).with_context(|| logs.steps.display().to_string())?;
    let mut qemu = qemu(kernel, archive, &logs.console, accelerator);
    let mut guest = Guest(
        qemu.spawn()
            .with_context(|| format!("`{}` can't be started", process::shown(&qemu)))?,
    );
    let lines = guest.lines()?;
    let mut progress = Progress::new(&kernel.version);
    let start = Instant::now();
    let first = match accelerator {
        Accelerator::Kvm => QUICK_START,
        Accelerator::Tcg => START,
    };
    loop {
        let limit = if progress.has_begun() {
            bench.deadline
        } else {
            first
        };
        match lines.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(line) => {
                writeln!(log, "{line}")?;
                progress.hear(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                progress.give_up(limit);
                break;
            }
        }
    }
    drop(guest);
    Ok(progress.end())
}

fn qemu(kernel: &Kernel, archive: &Path, console: &Path, accelerator: Accelerator) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-no-reboot", "-machine", "q35", "-cpu", "max", "-smp", "2"])
        .args(["-accel", accelerator.name()])
        .args(["-m", &MEMORY_MIB.to_string()])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(archive)
        // Nobody attacks the guest, and what guards against it is dear where it is emulated.
        .args(["-append", "console=ttyS0 panic=-1 mitigations=off"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    qemu
}

/// A running QEMU, ended when dropped.
struct Guest(Child);

impl Guest {
    /// The lines of the second serial port, as they come.
    fn lines(&mut self) -> Result<mpsc::Receiver<String>> {
        let output = self.0.stdout.take().context("QEMU has no output")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            // A serial line is no place to rely on UTF-8.
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                if sender.send(line.trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It has ended, or is to.
        let _ = self.0.kill();
        let mut said = String::new();
        if let Some(mut errors) = self.0.stderr.take() {
            let _ = errors.read_to_string(&mut said);
        }
        for line in said.lines() {
            eprintln!("xtask: QEMU: {line}");
        }
        let _ = self.0.wait();
    }
}
