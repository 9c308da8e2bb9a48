//! `cargo xtask test`: the one test command.

use std::{env, ffi::OsString};

use anyhow::{Result, bail};

use crate::{build, dist, packages, process, provision};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Arguments for the test programs: a part of the tests' names, --nocapture, ...
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    provision::datapath_toolchain()?;
    let lab = process::is_root();
    if lab {
        packages::provide(&packages::LAB)?;
        packages::provide(&packages::PACKAGE)?;
    } else if env::var_os("CI").is_some_and(|ci| ci == "true") {
        // A run that skips half of the tests must not look like one that passed them.
        bail!("the tests in CI include the lab, which needs root: run this as root");
    } else {
        eprintln!("xtask: not root, so tests that need the lab are skipped");
        if let Some(sentence) = packages::missing(&packages::LAB) {
            eprintln!("xtask: {sentence}");
        }
    }
    // The lab starts the binary, which `cargo test` alone would not build for another package.
    build::workspace(false)?;
    if lab {
        dist::pack(false)?;
    }
    let mut test = process::cargo("test");
    test.args([
        "--workspace",
        "--exclude",
        "sni-ebpf",
        "--no-fail-fast",
        "--",
    ])
    .args(&options.arguments);
    if lab {
        test.env("SNIGATE_LAB", "1");
    }
    Err(process::replace_by(&mut test))
}
