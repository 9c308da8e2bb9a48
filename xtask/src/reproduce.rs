//! Whether the datapath's object is the same, byte for byte, wherever it is built.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{bpf_toolchain, process, provision};

/// The object's file name (sni-ebpf's binary).
const OBJECT: &str = "snigate-datapath";

/// Builds the object here, and from a copy of its sources in another place; returns its SHA-256.
///
/// # Errors
/// A build fails, or they differ: the error says where both are.
pub(crate) fn twice() -> Result<String> {
    let linker = provision::datapath_toolchain()?;
    let target = process::target_dir()?;
    let here = object(process::workspace(), &target, &linker)?;
    let copy = target.join("reproduce");
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| format!("removing {}", copy.display()))?;
    }
    let there = process::step("building the datapath again, in another place", || {
        let workspace = copy.join("elsewhere/sources");
        copy_sources(&workspace)?;
        object(&workspace, &copy.join("target"), &linker)
    })?;
    let sums = [sum(&here)?, sum(&there)?];
    ensure!(
        sums[0] == sums[1],
        "the datapath's object depends on where it is built: compare {} and {}",
        here.display(),
        there.display()
    );
    fs::remove_dir_all(&copy).with_context(|| format!("removing {}", copy.display()))?;
    let [sum, _] = sums;
    Ok(sum)
}

fn object(workspace: &Path, target: &Path, linker: &Path) -> Result<PathBuf> {
    let arch = std::env::consts::ARCH;
    let mut build = bpf_toolchain::cargo("build", workspace, linker, target, arch);
    process::output(build.arg("--quiet"))?;
    Ok(target
        .join(bpf_toolchain::TARGET_DIR)
        .join(bpf_toolchain::TARGET)
        .join(bpf_toolchain::PROFILE)
        .join(OBJECT))
}

/// What git knows of the workspace, as it is in the work tree.
fn copy_sources(to: &Path) -> Result<()> {
    let from = process::workspace();
    let files = process::output(
        Command::new("git")
            .args(["ls-files", "-z"])
            .current_dir(from),
    )?;
    for file in files.split_terminator('\0') {
        let copy = to.join(file);
        let directory = copy.parent().unwrap_or(to);
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        fs::copy(from.join(file), &copy).with_context(|| format!("copying {file}"))?;
    }
    Ok(())
}

fn sum(file: &Path) -> Result<String> {
    let said = process::output(Command::new("sha256sum").arg(file))?;
    match said.split_whitespace().next() {
        Some(sum) => Ok(sum.to_owned()),
        None => bail!("sha256sum says nothing of {}", file.display()),
    }
}
