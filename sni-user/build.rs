//! Compiles the datapath for the BPF target and hands the object to the library, which embeds it.
//!
//! Not with aya-build: it reports every line of the inner cargo as a warning, and it compiles `core` again for each profile
//! of the outer build. Here the inner build stays quiet, and its target directory is shared by all profiles.

use std::{env, fs, io::Write as _, path::PathBuf, process::ExitCode};

#[path = "../xtask/src/bpf_toolchain.rs"]
mod bpf_toolchain;

/// The name of sni-ebpf's binary, and of the object in `OUT_DIR`.
const OBJECT: &str = "snigate-datapath";

fn main() -> ExitCode {
    // The root manifest carries the profile and the dependencies' versions.
    for input in [
        "sni-ebpf/src",
        "sni-ebpf/Cargo.toml",
        "sni-common/src",
        "sni-common/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed=../{input}");
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            println!("cargo::error={sentence}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let linker = bpf_toolchain::find_tool(bpf_toolchain::LINKER, bpf_toolchain::LINKER_VERSION).ok_or_else(|| {
        format!(
            "bpf-linker {} is needed to link the datapath and is neither in PATH nor in snigate's cache directory: \
             run `cargo xtask build`, which installs it",
            bpf_toolchain::LINKER_VERSION
        )
    })?;
    let library = bpf_toolchain::library_sources()?;
    if !bpf_toolchain::has_sources(&library) {
        return Err(format!(
            "the standard library's sources are needed to compile the datapath and are not in {}: \
             run `cargo xtask build`, which installs them",
            library.display()
        ));
    }

    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let target_dir = bpf_toolchain::outer_target_dir(&out_dir).ok_or_else(|| {
        format!(
            "{} is not in one of cargo's target directories",
            out_dir.display()
        )
    })?;
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().unwrap_or(&manifest);
    let output = bpf_toolchain::cargo("build", workspace, &linker, target_dir, &arch)
        .arg("--quiet")
        .output()
        .map_err(|error| format!("cargo can't be started for the datapath: {error}"))?;

    // A quiet cargo writes compiler messages only.
    if !output.status.success() {
        std::io::stderr()
            .write_all(&output.stderr)
            .map_err(|error| error.to_string())?;
        return Err("the datapath (sni-ebpf) does not compile, see below".into());
    }
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        println!("cargo::warning={line}");
    }

    let object = target_dir
        .join(bpf_toolchain::TARGET_DIR)
        .join(bpf_toolchain::TARGET)
        .join(bpf_toolchain::PROFILE)
        .join(OBJECT);
    fs::copy(&object, out_dir.join(OBJECT))
        .map(drop)
        .map_err(|error| {
            format!(
                "the datapath's object {} can't be copied: {error}",
                object.display()
            )
        })
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}, which cargo sets, is unusable: {error}"))
}
