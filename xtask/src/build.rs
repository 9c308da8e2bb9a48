//! `cargo xtask build`.

use anyhow::Result;

use crate::{process, provision};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Build with optimizations
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    provision::datapath_toolchain()?;
    workspace(options.release)
}

/// Builds what `cargo build` builds: everything but the datapath, which sni-user's build script compiles.
pub(crate) fn workspace(release: bool) -> Result<()> {
    let mut cargo = process::cargo("build");
    if release {
        cargo.arg("--release");
    }
    process::run(&mut cargo)
}
