//! The standard library's sources, from which `-Z build-std=core` makes the BPF target's `core`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{apt, bpf_toolchain, process};

/// Leaves the sources where the compiler looks for them: already there, from rustup, or from Debian's package.
pub(crate) fn provide() -> Result<()> {
    let library = bpf_toolchain::library_sources().map_err(anyhow::Error::msg)?;
    if bpf_toolchain::has_sources(&library) {
        return Ok(());
    }
    let Err(rustup_error) = process::step("adding rust-src with rustup", || {
        rustup_component()?;
        verify(&library)
    }) else {
        return Ok(());
    };
    eprintln!("xtask: rustup has no rust-src for us: {rustup_error:#}");
    process::step("fetching Debian's package rust-src", || {
        debian_package(&library)?;
        verify(&library)
    })
    .with_context(|| {
        format!(
            "the standard library's sources are missing from {}: \
             run `rustup component add rust-src` where rustup's server can be reached",
            library.display()
        )
    })
}

fn verify(library: &Path) -> Result<()> {
    if !bpf_toolchain::has_sources(library) {
        bail!(
            "{} is still incomplete: is that the toolchain in use?",
            library.display()
        );
    }
    Ok(())
}

fn rustup_component() -> Result<()> {
    let rustup = process::find_program("rustup").context("rustup is not installed")?;
    process::run(std::process::Command::new(rustup).args(["component", "add", "rust-src"]))
}

/// Puts the sources in Debian's package of exactly our compiler's version into `library`.
fn debian_package(library: &Path) -> Result<()> {
    if library.starts_with("/usr") {
        bail!("the compiler belongs to the distribution: install its package rust-src");
    }
    let verbose = process::output(bpf_toolchain::rustc().arg("-vV"))?;
    let version = release(&verbose).context("`rustc -vV` names no release")?;
    if version.contains('-') {
        bail!("Debian has no sources of a pre-release compiler ({version})");
    }
    let scratch = apt::Scratch::new()?;
    let package = scratch.download("rust-src", version)?;
    let sources = scratch.extract(&package, &format!("usr/src/rustc-{version}/library"))?;
    install(&sources, library)
}

/// Copies `from` to `library` so that an interruption leaves no half of it.
fn install(from: &Path, library: &Path) -> Result<()> {
    let parent = library
        .parent()
        .context("the library has no parent directory")?;
    fs::create_dir_all(parent)
        .with_context(|| format!("{} can't be made: is it writable?", parent.display()))?;
    let partial = parent.join("library.partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .with_context(|| format!("{} can't be removed", partial.display()))?;
    }
    // cp, because renaming does not cross file systems and std has no recursive copy.
    process::run(
        std::process::Command::new("cp")
            .args(["-R", "--"])
            .arg(from)
            .arg(&partial),
    )?;
    fs::rename(&partial, library)
        .with_context(|| format!("{} can't be put in place", library.display()))
}

/// The compiler's version in the output of `rustc -vV`.
fn release(verbose: &str) -> Option<&str> {
    verbose
        .lines()
        .find_map(|line| line.strip_prefix("release: "))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_is_read_from_the_compiler() {
        let verbose = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(release(verbose), Some("1.95.0"));
        assert_eq!(release("rustc"), None);
    }

    #[test]
    #[ignore = "downloads Debian's package (45 MB); run it with -- --ignored after a change here"]
    fn debian_package_has_what_the_build_needs() {
        let sysroot = std::env::temp_dir().join(format!("snigate-sysroot-{}", std::process::id()));
        let library = sysroot.join("lib/rustlib/src/rust/library");
        debian_package(&library).unwrap();
        assert!(bpf_toolchain::has_sources(&library));
        fs::remove_dir_all(sysroot).unwrap();
    }
}
