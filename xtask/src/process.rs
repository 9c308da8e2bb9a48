//! Child processes and the lines that tell about them.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::bpf_toolchain;

/// The workspace's root directory.
pub(crate) fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where this program was built, and with it the rest of the workspace.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let task = env::current_exe().context("this program's own path is unknown")?;
    bpf_toolchain::outer_target_dir(&task)
        .map(Path::to_owned)
        .with_context(|| format!("{} is not in a target directory of cargo's", task.display()))
}

/// The cargo that started this task, in the workspace's root.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg(subcommand).current_dir(workspace());
    command
}

/// Runs `command` with its output going where ours goes; an error says what failed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("`{}` can't be started", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs `command` and returns its standard output; an error carries what it wrote to standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("`{}` can't be started", shown(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` failed ({}): {}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something other than UTF-8", shown(command)))
}

/// Becomes `command`: it gets our terminal, signals (Ctrl-C) and exit status. Returns only if it can't be started.
pub(crate) fn replace_by(command: &mut Command) -> anyhow::Error {
    let error = command.exec();
    anyhow::Error::new(error).context(format!("`{}` can't be started", shown(command)))
}

/// The command as one would type it: without directories of programs, and without our environment.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A step that takes long enough to be announced: one line when it starts, one with the seconds when it is done.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("xtask: {what} ...");
    let start = Instant::now();
    let result = work();
    let seconds = start.elapsed().as_secs_f64();
    let ended = if result.is_ok() { "done" } else { "FAILED" };
    eprintln!("xtask: {what}: {ended} in {seconds:.1} s");
    result
}

/// Where `program` is, also when PATH leaves out the administrator's directories, as an ordinary user's does on Debian.
pub(crate) fn find_program(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path: OsString = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program.as_ref()))
        .find(|candidate| candidate.is_file())
}

/// Whether this process has the superuser's identity.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user.
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
