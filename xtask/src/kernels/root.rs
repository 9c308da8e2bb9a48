//! What the guests run: this build's programs and those of this machine that the lab starts, with their libraries.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::archive;
use crate::process;

/// This machine's programs: a shell and what it needs to bring the guest up, and what the lab starts for the packet tables and the main job.
const PROGRAMS: &[&str] = &[
    "sh", "mount", "modprobe", "ip", "tc", "ethtool", "nft", "openssl",
];

/// Debian's layout, with the directories that are mounted over.
const DIRECTORIES: &[&str] = &[
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "usr/lib64",
    "dev",
    "etc",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
];
const LINKS: &[&str] = &["bin", "sbin", "lib", "lib64"];

/// Collects everything in `directory` and packs it; `own` are this build's programs by the names that they have in the guest.
pub(super) fn build(own: &[(&str, PathBuf)], directory: &Path) -> Result<PathBuf> {
    let root = directory.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| root.display().to_string())?;
    }
    for name in DIRECTORIES {
        fs::create_dir_all(root.join(name)).with_context(|| root.display().to_string())?;
    }
    for name in LINKS {
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    let init = root.join("init");
    fs::write(&init, include_str!("init.sh"))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    for name in PROGRAMS {
        let program = process::find_program(name)
            .with_context(|| format!("{name}, which the guests need, is not installed"))?;
        copy(&program, &root)?;
        copy_libraries(&program, &root)?;
    }
    for (name, program) in own {
        strip(program, &root.join("usr/bin").join(name))?;
        copy_libraries(program, &root)?;
    }
    let packed = directory.join("root.cpio");
    archive::pack(&root, &packed)?;
    fs::remove_dir_all(&root).with_context(|| root.display().to_string())?;
    Ok(packed)
}

/// To the same place in the guest.
fn copy(file: &Path, root: &Path) -> Result<()> {
    let target = root.join(file.strip_prefix("/")?);
    let directory = target.parent().unwrap_or(root);
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    fs::copy(file, &target).with_context(|| format!("copying {}", file.display()))?;
    Ok(())
}

/// Debug information would be most of what the guest has to hold in its memory.
fn strip(program: &Path, target: &Path) -> Result<()> {
    let mut strip = Command::new("strip");
    strip
        .arg("--strip-debug")
        .arg("-o")
        .arg(target)
        .arg(program);
    process::output(&mut strip).map(drop)
}

fn copy_libraries(program: &Path, root: &Path) -> Result<()> {
    let listed = process::output(Command::new("ldd").arg(program))?;
    for library in libraries(&listed)? {
        copy(Path::new(library), root)?;
    }
    Ok(())
}

/// The files in the output of ldd: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn libraries(listed: &str) -> Result<Vec<&str>> {
    let mut files = Vec::new();
    for line in listed.lines() {
        if line.ends_with("not found") {
            bail!("a library is missing:{line}");
        }
        files.extend(line.split_whitespace().find(|word| word.starts_with('/')));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let listed = "\tlinux-vdso.so.1 (0x00007fa007741000)\n\
                      \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fa006e1e000)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007fa007743000)\n";
        assert_eq!(
            libraries(listed).unwrap(),
            [
                "/lib/x86_64-linux-gnu/libc.so.6",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        libraries("\tlibodd.so.1 => not found\n").unwrap_err();
    }
}
