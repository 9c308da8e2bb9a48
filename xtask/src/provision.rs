//! Installs what a task needs and the machine lacks. Looking is quick, and silent when nothing is missing.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    bpf_toolchain::{self, LINKER, LINKER_VERSION},
    process, rust_src,
};

/// The datapath's linker and the standard library's sources; returns where the linker is.
pub(crate) fn datapath_toolchain() -> Result<PathBuf> {
    let linker = tool(LINKER, LINKER_VERSION)?;
    rust_src::provide()?;
    Ok(linker)
}

/// A program from the package registry in exactly this version; it has its package's name. Built if it is missing.
pub(crate) fn tool(package: &str, version: &str) -> Result<PathBuf> {
    if let Some(program) = bpf_toolchain::find_tool(package, version) {
        return Ok(program);
    }
    let root = bpf_toolchain::tool_root(package, version).with_context(|| {
        format!("there is no directory to install {package} into: set HOME or XDG_CACHE_HOME to an absolute path")
    })?;
    let mut install = cargo_install(package, version);
    install.arg("--root").arg(&root);
    process::step(
        &format!("building {package} {version} (minutes, once)"),
        || {
            process::run(&mut install).with_context(|| {
                format!(
                    "{package} {version} can't be had: where the package registry can be reached, run `{}`",
                    process::shown(&install)
                )
            })
        },
    )?;
    bpf_toolchain::find_tool(package, version).with_context(|| {
        format!(
            "{package} was built and does not start: run {}/bin/{package} --version to see why",
            root.display()
        )
    })
}

fn cargo_install(package: &str, version: &str) -> Command {
    let mut cargo = process::cargo("install");
    cargo.args([package, "--version", version, "--locked"]);
    // A tool that runs for seconds is not worth minutes of optimization.
    for (name, value) in [
        ("LTO", "off"),
        ("OPT_LEVEL", "1"),
        ("CODEGEN_UNITS", "16"),
        ("DEBUG", "0"),
    ] {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{name}"), value);
    }
    // Flags and directories that are meant for snigate.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    cargo
}
