//! The kernels: from Debian's archive, unpacked below the target directory, and kept there until the archive has a newer one.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::archive;
use crate::{
    apt::{Scratch, Suite},
    process,
};

/// A line of kernels, and the suites that carry it: the newest of all is taken.
pub(super) struct Line {
    pub(super) name: &'static str,
    suites: &'static [&'static str],
}

pub(super) static LINES: [Line; 3] = [
    Line {
        name: "6.1",
        suites: &["bookworm"],
    },
    Line {
        name: "6.12",
        suites: &["trixie"],
    },
    Line {
        name: "newest",
        suites: &["trixie-backports", "sid"],
    },
];

/// The package that depends on a suite's newest kernel, in the flavour without drivers of physical machines: all that the guest needs, at half the size.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Directories of modules that the lab may ask for.
const MODULES: &[&str] = &["arch", "crypto", "drivers/net", "lib", "net"];

/// A kernel, ready to be booted.
pub(super) struct Kernel {
    pub(super) line: &'static str,
    /// The package's version.
    pub(super) version: String,
    pub(super) image: PathBuf,
    /// Its modules, as an archive for the guest.
    pub(super) modules: PathBuf,
}

/// Sees to it that the newest kernel of a line is below `directory`; where the archive does not answer, the one that is there already will do.
pub(super) fn provide(line: &'static Line, apt: &Scratch, directory: &Path) -> Result<Kernel> {
    let directory = directory.join(line.name);
    let kept = Kernel::kept(line, &directory);
    let what = format!("asking Debian's archive for Linux {}", line.name);
    let newest = match (process::step(&what, || newest(line, apt)), kept) {
        (Ok((_, version)), Some(kept)) if kept.version == version => return Ok(kept),
        (Ok(newest), _) => newest,
        (Err(error), Some(kept)) => {
            eprintln!("xtask: {error:#}: going on with {}", kept.version);
            return Ok(kept);
        }
        (Err(error), None) => return Err(error),
    };
    let (suite, version) = newest;
    let what = format!("fetching and unpacking Linux {version}");
    process::step(&what, || fetch(&suite, &version, &directory))?;
    Kernel::kept(line, &directory).with_context(|| format!("{} has no kernel", directory.display()))
}

impl Kernel {
    /// What an earlier run has left.
    fn kept(line: &'static Line, directory: &Path) -> Option<Self> {
        let version = fs::read_to_string(directory.join(VERSION)).ok()?;
        Some(Self {
            line: line.name,
            version,
            image: directory.join(IMAGE),
            modules: directory.join(ARCHIVE),
        })
    }
}

const VERSION: &str = "version";
const IMAGE: &str = "vmlinuz";
const ARCHIVE: &str = "modules.cpio";

/// The suite of a line that has the newest kernel, and its version.
fn newest<'a>(line: &Line, apt: &'a Scratch) -> Result<(Suite<'a>, String)> {
    let mut found: Option<(Suite<'a>, String)> = None;
    let mut reasons = Vec::new();
    for name in line.suites {
        let suite = apt.suite(name)?;
        match suite.update().and_then(|()| suite.version(PACKAGE)) {
            Ok(version) => {
                let is_newer = match &found {
                    Some((_, other)) => compare(&version, other)? == Ordering::Greater,
                    None => true,
                };
                if is_newer {
                    found = Some((suite, version));
                }
            }
            Err(error) => reasons.push(format!("{name}: {error:#}")),
        }
    }
    if found.is_some() {
        for reason in &reasons {
            eprintln!("xtask: {reason}");
        }
    }
    found.with_context(|| {
        format!(
            "Debian's archive gives no kernel of the line {} ({})",
            line.name,
            reasons.join("; ")
        )
    })
}

/// Which of two packages' versions is newer, as dpkg has it.
fn compare(one: &str, other: &str) -> Result<Ordering> {
    for (relation, ordering) in [("gt", Ordering::Greater), ("eq", Ordering::Equal)] {
        let status = Command::new("dpkg")
            .args(["--compare-versions", one, relation, other])
            .status()
            .context("dpkg can't be started")?;
        if status.success() {
            return Ok(ordering);
        }
    }
    Ok(Ordering::Less)
}

/// Downloads a kernel and puts it into `directory`.
fn fetch(suite: &Suite<'_>, version: &str, directory: &Path) -> Result<()> {
    let all = suite.closure(PACKAGE)?;
    let release = release(&all)
        .with_context(|| format!("{PACKAGE} {version} depends on no kernel"))?
        .to_owned();
    let partial = directory.join("partial");
    remove(&partial)?;
    let unpacked = partial.join("unpacked");
    fs::create_dir_all(&unpacked).with_context(|| unpacked.display().to_string())?;
    // From Linux 7 on, image, modules and their index are packages of their own.
    for package in all.iter().filter(|name| is_of(name, &release)) {
        let package = suite.download(package, version)?;
        let mut unpack = Command::new("dpkg-deb");
        process::run(unpack.arg("--extract").arg(package).arg(&unpacked))?;
    }
    let image = [
        format!("boot/vmlinuz-{release}"),
        format!("usr/lib/modules/{release}/vmlinuz"),
    ];
    let image = image
        .iter()
        .map(|path| unpacked.join(path))
        .find(|path| path.is_file())
        .with_context(|| format!("the packages of Linux {release} have no image"))?;
    pack_modules(&unpacked, &release, &partial)?;
    // Without its version a kernel is none: not one half of the old and one of the new.
    let old = directory.join(VERSION);
    if old.exists() {
        fs::remove_file(&old).with_context(|| format!("{} can't be removed", old.display()))?;
    }
    fs::rename(image, directory.join(IMAGE))?;
    fs::rename(partial.join(ARCHIVE), directory.join(ARCHIVE))?;
    remove(&partial)?;
    fs::write(directory.join(VERSION), version)
        .with_context(|| format!("{} can't be written", directory.display()))
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("{} can't be removed", directory.display()))?;
    }
    Ok(())
}

/// The name that the kernel has among a package's dependencies, and gives itself: `linux-image-6.1.0-50-cloud-amd64` is of `6.1.0-50-cloud-amd64`.
fn release(packages: &[String]) -> Option<&str> {
    packages.iter().find_map(|name| {
        name.strip_prefix("linux-image-")
            .filter(|release| release.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// Whether a package has a part of a kernel.
fn is_of(package: &str, release: &str) -> bool {
    package.starts_with("linux-") && package.ends_with(&format!("-{release}"))
}

/// Packs what the lab may ask for, with an index.
fn pack_modules(unpacked: &Path, release: &str, directory: &Path) -> Result<()> {
    let all = ["lib/modules", "usr/lib/modules"]
        .map(|place| unpacked.join(place).join(release))
        .into_iter()
        .find(|path| path.join("kernel").is_dir())
        .with_context(|| format!("the packages of Linux {release} have no modules"))?;
    let tree = directory.join("modules");
    let wanted = tree.join("usr/lib/modules").join(release);
    fs::create_dir_all(&wanted).with_context(|| wanted.display().to_string())?;
    // Where kmod looks depends on its version.
    std::os::unix::fs::symlink("usr/lib", tree.join("lib"))?;
    for entry in fs::read_dir(&all)? {
        let entry = entry?;
        // Lists of what is built in, and of the order.
        if entry.file_name().to_string_lossy().starts_with("modules.") {
            fs::rename(entry.path(), wanted.join(entry.file_name()))?;
        }
    }
    for name in MODULES {
        let (from, to) = (
            all.join("kernel").join(name),
            wanted.join("kernel").join(name),
        );
        fs::create_dir_all(to.parent().unwrap_or(&wanted))?;
        fs::rename(&from, &to).with_context(|| format!("moving {}", from.display()))?;
    }
    let depmod = process::find_program("depmod").context("depmod is not installed")?;
    process::output(Command::new(depmod).arg("-b").arg(&tree).arg(release))?;
    archive::pack(&tree, &directory.join(ARCHIVE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_packages_end_in_its_release() {
        let names = [
            "linux-image-cloud-amd64",
            "linux-base-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-base",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "linux-modules-7.3.4+deb13-cloud-amd64",
            "kmod",
        ]
        .map(str::to_owned);
        let release = release(&names).unwrap();
        assert_eq!(release, "7.3.4+deb13-cloud-amd64");
        let parts: Vec<_> = names.iter().filter(|name| is_of(name, release)).collect();
        assert_eq!(parts, [&names[2], &names[4], &names[5]]);
    }

    #[test]
    #[ignore = "downloads a kernel (26 MB); run it with -- --ignored after a change here"]
    fn the_archive_has_the_oldest_kernel() {
        let directory =
            std::env::temp_dir().join(format!("snigate-kernels-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let kernel = provide(&LINES[0], &Scratch::new().unwrap(), &directory).unwrap();
        assert!(kernel.version.starts_with("6.1."), "{}", kernel.version);
        assert!(kernel.image.is_file() && kernel.modules.is_file());
        fs::remove_dir_all(directory).unwrap();
    }
}
