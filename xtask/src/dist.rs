//! `cargo xtask dist`: the Debian package.
//!
//! Built here: the binary, and what it prints about itself (manual pages, completions). Packed by Debian's own debhelper, from `packaging/debian`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{build, packages, process, provision, reproduce};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Pack the debug build, which the tests use: quick to make, slow to run
    #[arg(long)]
    debug: bool,
}

/// The shells that there are completions for, and the file's name in each one's directory.
const SHELLS: [(&str, &str); 3] = [
    ("bash", "snigate"),
    ("zsh", "_snigate"),
    ("fish", "snigate.fish"),
];

/// What the packages' tools and files are called.
const NAME: &str = "snigate";

pub(crate) fn run(options: &Options) -> Result<()> {
    provision::datapath_toolchain()?;
    packages::provide(&packages::PACKAGE)?;
    build::workspace(!options.debug)?;
    if !options.debug {
        let sum = reproduce::twice()?;
        eprintln!("xtask: the datapath's object is the same in two places, SHA-256 {sum}");
    }
    let package = pack(!options.debug)?;
    println!("{}", package.display());
    Ok(())
}

/// Makes the package of the built binary; returns where it is.
pub(crate) fn pack(release: bool) -> Result<PathBuf> {
    let profile = if release { "release" } else { "debug" };
    let target = process::target_dir()?;
    let program = target.join(profile).join(NAME);
    // A directory for each, so that a test's package is never taken for the other.
    let dist = target.join("dist").join(profile);
    let sources = dist.join(NAME);
    if dist.exists() {
        fs::remove_dir_all(&dist).with_context(|| format!("removing {}", dist.display()))?;
    }
    if release {
        refuse_kill_points(&program)?;
    }
    let version = version(&program)?;
    stage(&program, &sources.join("stage"))?;
    describe(&sources.join("debian"), &version)?;
    process::step(&format!("packing {NAME} {version}"), || {
        process::output(
            Command::new("dpkg-buildpackage")
                .args(["--build=binary", "--no-sign", "--no-check-builddeps"])
                .current_dir(&sources)
                // Else debhelper dates by the clock.
                .env("SOURCE_DATE_EPOCH", date_of_sources()?)
                .env("SNIGATE_COMPRESSION", if release { "" } else { "-Znone" }),
        )
    })?;
    the_package(&dist)
}

/// `KillPoint::VARIABLE` of sni-user, which would bring the whole agent into this program.
const KILL_POINTS: &[u8] = b"SNIGATE_KILL_AT";

/// No gateway of somebody's can be told to die (`sni-user/src/kill_point.rs`).
fn refuse_kill_points(program: &Path) -> Result<()> {
    let binary = fs::read(program).with_context(|| format!("reading {}", program.display()))?;
    if binary
        .windows(KILL_POINTS.len())
        .any(|bytes| bytes == KILL_POINTS)
    {
        bail!(
            "{} has points at which it can be killed: its profile has debug assertions; switch them off in Cargo.toml",
            program.display()
        );
    }
    Ok(())
}

/// The version that a built binary has.
fn version(program: &Path) -> Result<String> {
    let said = process::output(Command::new(program).arg("--version"))?;
    let version = said.split_whitespace().nth(1);
    Ok(version
        .with_context(|| format!("{} names no version: {said}", program.display()))?
        .to_owned())
}

/// What the package brings, besides the units.
fn stage(program: &Path, stage: &Path) -> Result<()> {
    let make = |directory: &Path| {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))
    };
    make(&stage.join("docs"))?;
    let binary = stage.join(NAME);
    process::output(
        Command::new("objcopy")
            .arg("--strip-unneeded")
            .arg(program)
            .arg(&binary),
    )?;
    process::output(Command::new(program).arg("man").arg(stage.join("man")))?;
    for (shell, file) in SHELLS {
        let directory = stage.join("completions").join(shell);
        make(&directory)?;
        let script = process::output(Command::new(program).args(["completions", shell]))?;
        fs::write(directory.join(file), script)?;
    }
    let workspace = process::workspace();
    copy(
        &workspace.join("packaging/snigate.toml"),
        &stage.join("snigate.toml"),
    )?;
    copy(
        &workspace.join("packaging/acme-nsupdate"),
        &stage.join("acme-nsupdate"),
    )?;
    copy(&workspace.join("README.md"), &stage.join("README.md"))?;
    copy_files(&workspace.join("docs"), &stage.join("docs"))
}

/// What debhelper goes by.
fn describe(debian: &Path, version: &str) -> Result<()> {
    let packaging = process::workspace().join("packaging");
    copy_files(&packaging.join("debian"), debian)?;
    copy_files(&packaging.join("debian/source"), &debian.join("source"))?;
    // debhelper's names: a package's unit, and another one of it.
    for (unit, name) in [
        ("snigate.service", "snigate.service"),
        (
            "snigate-datapath.service",
            "snigate.snigate-datapath.service",
        ),
    ] {
        copy(&packaging.join(unit), &debian.join(name))?;
    }
    let date = process::output(
        Command::new("date")
            .args(["--utc", "--rfc-email", "--date"])
            .arg(format!("@{}", date_of_sources()?)),
    )?;
    let entry = format!(
        "{NAME} ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md of this release.\n\n \
         -- The snigate developers <developers@snigate.example>  {date}"
    );
    fs::write(debian.join("changelog"), entry).context("writing the package's changelog")
}

/// Seconds since 1970 that the package is dated by: what a packager says, else when the commit was made that is built.
fn date_of_sources() -> Result<String> {
    if let Ok(said) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(said);
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"])
        .current_dir(process::workspace());
    Ok(process::output(&mut git)?.trim().to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Copies the files of a directory, not those of directories in it.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("reading {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn the_package(directory: &Path) -> Result<PathBuf> {
    let is_package = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        name.starts_with(&format!("{NAME}_")) && name.ends_with(".deb")
    };
    let mut found = fs::read_dir(directory)?
        .flatten()
        .map(|entry| entry.path())
        .filter(is_package);
    match (found.next(), found.next()) {
        (Some(package), None) => Ok(package),
        _ => bail!("{} has not one package of {NAME}", directory.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_the_one_that_the_agent_looks_for() {
        let points = include_str!("../../sni-user/src/kill_point.rs").as_bytes();
        let found = points
            .windows(KILL_POINTS.len())
            .any(|bytes| bytes == KILL_POINTS);
        assert!(found, "kill_point.rs has another variable");
    }
}
