//! Archives of which the kernel makes its first file system.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// Packs all that is below `root`, as root's.
pub(super) fn pack(root: &Path, archive: &Path) -> Result<()> {
    let mut files = Vec::new();
    list(root, root, &mut files)?;
    let output = File::create(archive).with_context(|| archive.display().to_string())?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--format=newc", "--owner=+0:+0"])
        .args(["--quiet", "--null", "--directory"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(output);
    let mut packing = cpio.spawn().context("cpio can't be started")?;
    let mut names = packing.stdin.take().context("cpio has no input")?;
    for file in files {
        names.write_all(file.as_os_str().as_encoded_bytes())?;
        names.write_all(b"\0")?;
    }
    drop(names);
    let status = packing.wait().context("cpio")?;
    if !status.success() {
        bail!("`{}` failed ({status})", process::shown(&cpio));
    }
    Ok(())
}

/// Several archives in a row, which the kernel unpacks one after the other.
pub(super) fn join(archives: &[&Path], joined: &Path) -> Result<()> {
    let mut output = File::create(joined).with_context(|| joined.display().to_string())?;
    for archive in archives {
        let mut input = File::open(archive).with_context(|| archive.display().to_string())?;
        std::io::copy(&mut input, &mut output)
            .with_context(|| format!("{} can't be written", joined.display()))?;
    }
    Ok(())
}

/// What is below `directory`, each directory before its files, relative to `root`.
fn list(root: &Path, directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        files.push(path.strip_prefix(root)?.to_owned());
        if entry.file_type()?.is_dir() {
            list(root, &path, files)?;
        }
    }
    Ok(())
}
