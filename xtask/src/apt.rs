//! A Debian package of any suite, fetched and unpacked without touching the system's apt state.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::{apt_source, process};

/// Lists, cache and downloads of an apt of its own; removed when dropped.
pub(crate) struct Scratch {
    directory: TempDir,
    /// The release that this machine runs.
    codename: String,
}

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        let os_release = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
        let codename = debian_codename(&os_release)
            .context("this is not Debian, so its packages are out of reach")?;
        let directory = tempfile::Builder::new().prefix("snigate-apt-").tempdir()?;
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = directory.path().join(part);
            fs::create_dir_all(&part)
                .with_context(|| format!("{} can't be made", part.display()))?;
        }
        Ok(Self {
            directory,
            codename: codename.to_owned(),
        })
    }

    /// Downloads `package` in the given upstream version from the first suite that has it. apt checks the signature.
    pub(crate) fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        let suites = suites(&self.codename);
        let mut reasons = Vec::new();
        for name in &suites {
            let found = self.suite(name)?;
            match found
                .update()
                .and_then(|()| found.download(package, version))
            {
                Ok(file) => return Ok(file),
                Err(error) => reasons.push(format!("{name}: {error:#}")),
            }
        }
        bail!(
            "none of Debian's suites {} has {package} {version} ({})",
            suites.join(", "),
            reasons.join("; ")
        )
    }

    /// A suite of the archive that this machine gets Debian from. Nothing is known of it before [`Suite::update`].
    pub(crate) fn suite(&self, name: &str) -> Result<Suite<'_>> {
        let codename = &self.codename;
        let source = apt_source::for_suite(Path::new("/etc/apt"), codename, name)
            .with_context(|| format!("/etc/apt names no source of Debian {codename}"))?;
        let list = self
            .directory
            .path()
            .join(format!("{name}.{}", source.extension));
        fs::write(&list, &source.text).with_context(|| list.display().to_string())?;
        Ok(Suite {
            scratch: self,
            list,
        })
    }

    /// Unpacks the `member` directory of a package; returns where it is now.
    pub(crate) fn extract(&self, package: &Path, member: &str) -> Result<PathBuf> {
        let mut archive = Command::new("dpkg-deb");
        archive.arg("--fsys-tarfile").arg(package);
        let mut reader = archive
            .stdout(Stdio::piped())
            .spawn()
            .context("dpkg-deb can't be started")?;
        let tarfile = reader.stdout.take().context("dpkg-deb has no output")?;
        let unpacked = process::run(
            Command::new("tar")
                .args(["--extract", "--directory"])
                .arg(self.directory.path())
                .arg(format!("./{member}"))
                .stdin(tarfile),
        );
        let status = reader.wait().context("dpkg-deb")?;
        unpacked?;
        if !status.success() {
            bail!("`{}` failed ({status})", process::shown(&archive));
        }
        Ok(self.directory.path().join(member))
    }
}

/// One suite, asked by an apt that knows no other one, and nothing of what is installed here.
pub(crate) struct Suite<'a> {
    scratch: &'a Scratch,
    list: PathBuf,
}

impl Suite<'_> {
    /// Fetches what the archive says of it.
    pub(crate) fn update(&self) -> Result<()> {
        process::output(self.apt("apt-get").args(["update", "-qq"])).map(drop)
    }

    /// The newest version of a package.
    pub(crate) fn version(&self, package: &str) -> Result<String> {
        let shown =
            process::output(
                self.apt("apt-cache")
                    .args(["show", "--no-all-versions", package]),
            )?;
        let version = shown
            .lines()
            .find_map(|line| line.strip_prefix("Version: "));
        version
            .map(|version| version.trim().to_owned())
            .with_context(|| format!("apt-cache names no version of {package}"))
    }

    /// A package, and all that it depends on.
    pub(crate) fn closure(&self, package: &str) -> Result<Vec<String>> {
        let tree = process::output(self.apt("apt-cache").args([
            "depends",
            "--recurse",
            "--important",
            package,
        ]))?;
        Ok(packages_of(&tree))
    }

    /// Downloads a package, in this version or one that begins with it. apt checks the signature.
    pub(crate) fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        let wanted = format!("{package}={version}*");
        process::output(self.apt("apt-get").args(["download", "-qq", &wanted]))?;
        let files = fs::read_dir(self.scratch.directory.path())?.flatten();
        // NAME_VERSION_ARCHITECTURE.deb
        let beginning = format!("{package}_");
        files
            .map(|entry| entry.path())
            .find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&beginning) && name.ends_with(".deb")
            })
            .with_context(|| format!("apt-get downloaded no {wanted}"))
    }

    fn apt(&self, program: &str) -> Command {
        let option = |name: &str, path: &Path| {
            let mut option = OsString::from(name);
            option.push("=");
            option.push(path);
            option
        };
        let directory = self.scratch.directory.path();
        let mut command = Command::new(program);
        command
            .current_dir(directory)
            .env("LC_ALL", "C")
            .arg("-o")
            .arg(option("Dir::Etc::SourceList", &self.list))
            .args(["-o", "Dir::Etc::SourceParts=-"])
            // Neither pinned nor installed packages decide what the suite's newest is.
            .args(["-o", "Dir::Etc::Preferences=/dev/null"])
            .args(["-o", "Dir::Etc::PreferencesParts=/dev/null"])
            .args(["-o", "Dir::State::status=/dev/null"])
            .arg("-o")
            .arg(option("Dir::State::Lists", &directory.join("lists")))
            .arg("-o")
            .arg(option("Dir::Cache", &directory.join("cache")))
            // The lists of another suite stay for it.
            .args(["-o", "APT::Get::List-Cleanup=0"])
            // apt would drop root's rights for downloading and then can't write here.
            .args(["-o", "APT::Sandbox::User="])
            // An incomplete answer is a failure of this suite, not something to go on with.
            .args(["-o", "APT::Update::Error-Mode=any"]);
        command
    }
}

/// The packages in the output of `apt-cache depends --recurse`: each begins a line; what is said of it is indented.
fn packages_of(tree: &str) -> Vec<String> {
    let is_package = |line: &&str| line.starts_with(|c: char| c.is_ascii_alphanumeric());
    tree.lines().filter(is_package).map(str::to_owned).collect()
}

/// The release's name, if `os_release` is Debian's.
fn debian_codename(os_release: &str) -> Option<&str> {
    let value = |name: &str| {
        os_release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
    };
    (value("ID")? == "debian").then(|| value("VERSION_CODENAME"))?
}

/// Where a recent compiler's package may be, the smallest index first. trixie-backports keeps several versions at once.
fn suites(codename: &str) -> Vec<String> {
    let mut suites = vec![format!("{codename}-backports")];
    for suite in ["trixie-backports", "testing", "sid"] {
        if !suites.iter().any(|known| known == suite) {
            suites.push(suite.into());
        }
    }
    suites
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codename_of_debian_only() {
        let debian = "NAME=\"Debian GNU/Linux\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(debian_codename(debian), Some("bookworm"));
        let other = "ID=fedora\nID_LIKE=debian\nVERSION_CODENAME=x\n";
        assert_eq!(debian_codename(other), None);
    }

    #[test]
    fn packages_begin_a_line() {
        let tree = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-50-cloud-amd64\n\
                    linux-image-6.1.0-50-cloud-amd64\n |Depends: initramfs-tools\n  Depends: <linux-initramfs-tool>\n\
                    kmod\n<linux-initramfs-tool>\n";
        assert_eq!(
            packages_of(tree),
            [
                "linux-image-cloud-amd64",
                "linux-image-6.1.0-50-cloud-amd64",
                "kmod"
            ]
        );
    }

    #[test]
    fn no_suite_is_tried_twice() {
        assert_eq!(suites("trixie"), ["trixie-backports", "testing", "sid"]);
        assert_eq!(suites("bookworm").len(), 4);
    }
}
