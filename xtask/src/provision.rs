//! Installs what a task needs and the machine lacks. Looking is quick, and silent when nothing is missing.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{bpf_toolchain, process, rust_src};

/// The datapath's linker and the standard library's sources; returns where the linker is.
pub(crate) fn datapath_toolchain() -> Result<PathBuf> {
    let linker = match bpf_toolchain::find_linker() {
        Some(linker) => linker,
        None => install_linker()?,
    };
    rust_src::provide()?;
    Ok(linker)
}

fn install_linker() -> Result<PathBuf> {
    let version = bpf_toolchain::LINKER_VERSION;
    let root = bpf_toolchain::linker_root().context(
        "there is no directory to install bpf-linker into: set HOME or XDG_CACHE_HOME to an absolute path",
    )?;
    process::step(
        &format!("installing bpf-linker {version} (about 90 s of work)"),
        || cargo_install("bpf-linker", version, &root),
    )?;
    bpf_toolchain::find_linker().with_context(|| {
        format!(
            "bpf-linker was installed into {} and does not start: run its bin/bpf-linker --version to see why",
            root.display()
        )
    })
}

/// Builds a released program and puts it into `root`/bin.
fn cargo_install(package: &str, version: &str, root: &Path) -> Result<()> {
    let mut cargo = process::cargo("install");
    cargo
        .args([package, "--version", version, "--locked", "--root"])
        .arg(root)
        // The tool's build must not depend on flags that are meant for snigate.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR");
    let command = process::shown(&cargo);
    process::run(&mut cargo).with_context(|| {
        format!(
            "{package} {version} can't be had: \
             when the package registry can be reached, run `{command}`"
        )
    })
}
