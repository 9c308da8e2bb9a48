//! What compiling the datapath takes: where its linker and core's sources are, and the cargo command that uses them.
//!
//! One definition for two users: the task runner provisions and checks with it, and `sni-user/build.rs` includes this
//! very file, so that a plain `cargo build` finds exactly what `cargo xtask build` installed.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The linker's program, and its package in the registry.
pub(crate) const LINKER: &str = "bpf-linker";

/// The linker's release: the last one that loads the Rust toolchain's own LLVM instead of asking for a system LLVM.
pub(crate) const LINKER_VERSION: &str = "0.10.4";

/// The target triple; it has no prebuilt `core`. The datapath shares the host's byte order.
pub(crate) const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// The workspace's profile for the datapath (see the root Cargo.toml).
pub(crate) const PROFILE: &str = "bpf";

/// The datapath's target directory below the outer build's: one for all of its profiles, as the datapath is the same in
/// each, and not the outer one itself, which the outer cargo holds locked.
pub(crate) const TARGET_DIR: &str = "bpf";

/// The directory of this user's tools for snigate, or `None` when neither `XDG_CACHE_HOME` nor `HOME` is usable.
fn cache_dir() -> Option<PathBuf> {
    // The XDG base directory specification says that a relative path is to be ignored.
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("snigate"))
}

/// Where `cargo install --root` puts a tool when PATH has none of the right version.
pub(crate) fn tool_root(program: &str, version: &str) -> Option<PathBuf> {
    cache_dir().map(|cache| cache.join(format!("{program}-{version}")))
}

/// A tool of exactly this version: from PATH, else from the cache directory.
pub(crate) fn find_tool(program: &str, version: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(tool_root(program, version).map(|root| root.join("bin")))
        .map(|directory| directory.join(program))
        .find(|candidate| is_version(candidate, version))
}

fn is_version(tool: &Path, version: &str) -> bool {
    tool.is_file()
        && Command::new(tool)
            .arg("--version")
            .output()
            .is_ok_and(|output| names_version(&String::from_utf8_lossy(&output.stdout), version))
}

/// Whether what a tool prints for `--version` (`name 1.2.3`, or the number alone) names this version.
fn names_version(text: &str, version: &str) -> bool {
    text.split_whitespace().any(|word| word == version)
}

/// The compiler that cargo uses: `RUSTC` where it is set (cargo sets it for build scripts), else the one in PATH.
pub(crate) fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Where the compiler expects the standard library's sources, whether they are there or not.
pub(crate) fn library_sources() -> Result<PathBuf, String> {
    let output = rustc()
        .args(["--print", "sysroot"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("rustc can't be started ({error}): install Rust with rustup"))?;
    let sysroot = String::from_utf8(output.stdout)
        .ok()
        .filter(|path| output.status.success() && !path.trim().is_empty())
        .ok_or("`rustc --print sysroot` failed: reinstall the toolchain with rustup")?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library"))
}

/// Whether `library` holds what `-Z build-std=core` needs; cargo looks for the same lock file.
pub(crate) fn has_sources(library: &Path) -> bool {
    library.join("Cargo.lock").is_file() && library.join("core/src/lib.rs").is_file()
}

/// A cargo command on the datapath: `cargo <subcommand> --package sni-ebpf` for the BPF target.
///
/// `arch` is the architecture that the object will run on, in Rust's spelling.
pub(crate) fn cargo(
    subcommand: &str,
    workspace: &Path,
    linker: &Path,
    outer_target: &Path,
    arch: &str,
) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args([subcommand, "--package", "sni-ebpf", "--bins"])
        .args(["--target", TARGET, "--profile", PROFILE])
        .args(["-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(outer_target.join(TARGET_DIR))
        // Lets the stable compiler take -Z.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", path_with(linker))
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(workspace, arch))
        .current_dir(workspace);
    // Set by an outer cargo for its own packages. RUSTC_WORKSPACE_WRAPPER would have the outer `cargo clippy` lint a
    // build; HOST makes aya-ebpf's build script look changed whenever the two users of this file take turns.
    for name in ["RUSTC_WORKSPACE_WRAPPER", "HOST", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    command
}

/// The target directory of the outer build, in which `inside` is. Cargo names it to nobody, but marks it as a cache.
pub(crate) fn outer_target_dir(inside: &Path) -> Option<&Path> {
    inside
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file())
}

/// The linker is found by name, so that the flags, and with them the object, don't depend on where it is installed.
fn path_with(linker: &Path) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = linker.parent().map(Path::to_owned).into_iter();
    env::join_paths(directories.chain(env::split_paths(&path))).unwrap_or(path)
}

fn rustflags(workspace: &Path, arch: &str) -> String {
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Clinker=bpf-linker".into(),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
    ];
    // BTF has the sources' names in it: the object is to be the same wherever it is built.
    let remapped = [
        (Some(workspace.to_owned()), "snigate"),
        (cargo_home(), "cargo"),
        (library_sources().ok(), "rust"),
    ];
    flags.extend(remapped.into_iter().filter_map(|(from, to)| {
        let from = from?;
        Some(format!("--remap-path-prefix={}={to}", from.display()))
    }));
    flags.join("\x1f")
}

/// Where cargo keeps the sources of dependencies.
fn cargo_home() -> Option<PathBuf> {
    let set = env::var_os("CARGO_HOME").map(PathBuf::from);
    set.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_compared_as_a_word() {
        assert!(names_version("bpf-linker 0.10.4\n", "0.10.4"));
        assert!(names_version("0.10.4", "0.10.4"));
        assert!(!names_version("bpf-linker 0.10.40", "0.10.4"));
        assert!(!names_version("", "0.10.4"));
    }
}
