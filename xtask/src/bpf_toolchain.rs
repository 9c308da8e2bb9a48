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

/// The directory of this user's tools for snigate, or `None` when neither `XDG_CACHE_HOME` nor `HOME` is usable.
pub(crate) fn cache_dir() -> Option<PathBuf> {
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

/// Where `cargo install --root` puts the linker when PATH has none of the right version.
pub(crate) fn linker_root() -> Option<PathBuf> {
    cache_dir().map(|cache| cache.join(format!("bpf-linker-{LINKER_VERSION}")))
}

/// The linker of the right version: from PATH, else from the cache directory.
pub(crate) fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(linker_root().map(|root| root.join("bin")))
        .map(|directory| directory.join("bpf-linker"))
        .find(|linker| linker_version(linker).as_deref() == Some(LINKER_VERSION))
}

fn linker_version(linker: &Path) -> Option<String> {
    if !linker.is_file() {
        return None;
    }
    let output = Command::new(linker).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    version_of("bpf-linker", &text).map(str::to_owned)
}

/// The version in what `<program> --version` prints: `<program> <version>`.
pub(crate) fn version_of<'a>(program: &str, text: &'a str) -> Option<&'a str> {
    let mut words = text.split_whitespace();
    (words.next()? == program).then(|| words.next())?
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
/// `target_dir` has to differ from the outer cargo's, which holds a lock on its own.
/// `arch` is the architecture that the object will run on, in Rust's spelling.
pub(crate) fn cargo(subcommand: &str, linker: &Path, target_dir: &Path, arch: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args([subcommand, "--package", "sni-ebpf", "--bins"])
        .args(["--target", TARGET, "--profile", PROFILE])
        .args(["-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(target_dir)
        // Lets the stable compiler take -Z.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", path_with(linker))
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(arch));
    // Set by an outer cargo for its own packages. RUSTC_WORKSPACE_WRAPPER would have the outer `cargo clippy` lint a
    // build; HOST makes aya-ebpf's build script look changed whenever the two users of this file take turns.
    for name in ["RUSTC_WORKSPACE_WRAPPER", "HOST", "CARGO_BUILD_TARGET"] {
        command.env_remove(name);
    }
    command
}

/// The linker is found by name, so that the flags, and with them the object, don't depend on where it is installed.
fn path_with(linker: &Path) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = linker.parent().map(Path::to_owned).into_iter();
    env::join_paths(directories.chain(env::split_paths(&path))).unwrap_or(path)
}

fn rustflags(arch: &str) -> String {
    let arch = format!("--cfg=bpf_target_arch=\"{arch}\"");
    [
        arch.as_str(),
        "-Clinker=bpf-linker",
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
    ]
    .join("\x1f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_the_word_after_the_name() {
        assert_eq!(
            version_of("bpf-linker", "bpf-linker 0.10.4\n"),
            Some("0.10.4")
        );
        assert_eq!(version_of("bpf-linker", "something 0.10.4"), None);
        assert_eq!(version_of("bpf-linker", ""), None);
    }
}
