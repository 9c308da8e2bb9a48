//! Programs that run in the lab, as guards.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::deadline::Deadline;
use crate::netns::Namespace;

/// How long a program may take to end after SIGTERM before it gets SIGKILL.
pub(crate) const TERMINATE_TIMEOUT: Duration = Duration::from_secs(3);
/// How much of a log an error message quotes.
const QUOTED_LINES: usize = 15;

/// A running program whose output goes to files; ended when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `directory`, as `<name>.stdout` and `<name>.stderr`.
    ///
    /// Standard input is a pipe that stays open until the guard is dropped, because some programs end when it closes.
    /// The program gets a process group of its own, so that Ctrl-C at a terminal reaches the lab's owner first.
    ///
    /// # Errors
    /// The program or the files could not be opened.
    pub fn spawn(name: &str, mut command: Command, directory: &Path) -> Result<Self> {
        let (stdout, stderr) = log_paths(name, directory)?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(create(&stdout)?)
            .stderr(create(&stderr)?)
            .process_group(0)
            .spawn()
            .with_context(|| missing_program(&command))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has written to standard output so far.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn stdout(&self) -> Result<String> {
        read_log(&self.stdout)
    }

    /// Everything it has written to standard error so far.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn stderr(&self) -> Result<String> {
        read_log(&self.stderr)
    }

    /// Its standard input, to write to or to close; given out once.
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits until a line of its output contains `text` and returns that line.
    ///
    /// # Errors
    /// It ends first, or no such line appears in time; the message quotes the end of its output.
    pub fn wait_for_line(&mut self, text: &str, timeout: Duration) -> Result<String> {
        let what = format!("a line with {text:?} from {}", self.name);
        let found = Deadline::after(timeout).poll(&what, || {
            // Looked at before the output, so that a last line written just before the end is not missed.
            let ended = self.child.try_wait()?;
            let output = self.stdout()? + "\n" + &self.stderr()?;
            match (output.lines().find(|line| line.contains(text)), ended) {
                (Some(line), _) => Ok(Some(line.to_owned())),
                (None, Some(status)) => bail!("{} ended with {status} before {what}", self.name),
                (None, None) => Ok(None),
            }
        });
        found.map_err(|error| self.explain(error))
    }

    /// Waits until it, or anything else, listens on TCP `port` in `namespace`.
    ///
    /// # Errors
    /// It ends first, or nothing listens in time; the message quotes the end of its output.
    pub fn wait_for_listener(
        &mut self,
        namespace: &Namespace,
        port: u16,
        timeout: Duration,
    ) -> Result<()> {
        let what = format!("{} to listen on port {port}", self.name);
        let listens = Deadline::after(timeout).poll(&what, || {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended with {status} before it listened on port {port}",
                    self.name
                );
            }
            Ok(namespace.listens(port)?.then_some(()))
        });
        listens.map_err(|error| self.explain(error))
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// It does not in time; the message quotes the end of its output.
    pub fn wait_for_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        let ended = Deadline::after(timeout).poll(&what, || Ok(self.child.try_wait()?));
        ended.map_err(|error| self.explain(error))
    }

    /// Whether it is still running.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends it a signal; SIGKILL for the crash that tests are made of.
    ///
    /// # Errors
    /// It has ended and been waited for, or the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.raw_pid(), signal).with_context(|| format!("sending {signal} to {}", self.name))
    }

    /// Asks it to end with SIGTERM, makes it with SIGKILL, and returns how it ended.
    ///
    /// # Errors
    /// It survives even that.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.terminate_within(TERMINATE_TIMEOUT)
    }

    /// Likewise; after SIGTERM, and after SIGKILL, it may take so long.
    ///
    /// # Errors
    /// As for [`Process::terminate`].
    pub fn terminate_within(&mut self, timeout: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            self.signal_group(Signal::SIGKILL)?;
            return Ok(status);
        }
        self.signal_group(Signal::SIGTERM)?;
        if let Ok(status) = self.wait_for_exit(timeout) {
            // Its children may have stayed behind.
            self.signal_group(Signal::SIGKILL)?;
            return Ok(status);
        }
        self.signal_group(Signal::SIGKILL)?;
        self.wait_for_exit(timeout)
    }

    fn signal_group(&self, signal: Signal) -> Result<()> {
        match killpg(self.raw_pid(), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("sending {signal} to {}", self.name)),
        }
    }

    fn raw_pid(&self) -> Pid {
        Pid::from_raw(
            i32::try_from(self.child.id()).expect("the kernel's process ids are positive i32"),
        )
    }

    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let quote = |path: &Path| read_log(path).map_or_else(|error| format!("{error:#}"), tail);
        anyhow!(
            "{error:#}\n--- {name} stdout ---\n{}\n--- {name} stderr ---\n{}",
            quote(&self.stdout),
            quote(&self.stderr),
            name = self.name
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.terminate() {
            eprintln!("{} could not be ended: {error:#}", self.name);
        }
    }
}

/// Runs a short program to its end and returns its output; standard input is as the command says.
///
/// # Errors
/// It could not be started, or it takes longer than `timeout` and is killed. A failure status is no error here.
pub fn output_within(command: &mut Command, timeout: Duration) -> Result<Output> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| missing_program(command))?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let ended =
        Deadline::after(timeout).poll(&format!("{command:?} to end"), || Ok(child.try_wait()?));
    let status = match ended {
        Ok(status) => status,
        Err(error) => {
            child
                .kill()
                .context("killing a program that took too long")?;
            child.wait().context("waiting for a killed program")?;
            return Err(error);
        }
    };
    Ok(Output {
        status,
        stdout: collect(stdout)?,
        stderr: collect(stderr)?,
    })
}

type Reader = thread::JoinHandle<std::io::Result<Vec<u8>>>;

fn drain(pipe: Option<impl Read + Send + 'static>) -> Reader {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

fn collect(reader: Reader) -> Result<Vec<u8>> {
    let read = reader
        .join()
        .map_err(|_| anyhow!("the reader of a program's output panicked"))?;
    read.context("reading a program's output")
}

/// A second program of the same name gets `-2` and so on, so that a restart does not overwrite the first log.
fn log_paths(name: &str, directory: &Path) -> Result<(PathBuf, PathBuf)> {
    for attempt in 1..1000 {
        let stem = if attempt == 1 {
            name.to_owned()
        } else {
            format!("{name}-{attempt}")
        };
        let stdout = directory.join(format!("{stem}.stdout"));
        if !stdout.exists() {
            return Ok((stdout, directory.join(format!("{stem}.stderr"))));
        }
    }
    bail!("a thousand logs of {name} in {}", directory.display())
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("creating {}", path.display()))
}

fn read_log(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn tail(text: String) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n")
}

fn missing_program(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    format!(
        "starting {program}; if it is missing, `cargo xtask test` as root installs all that the lab needs"
    )
}
