//! A Debian package of any suite, fetched and unpacked without touching the system's apt state.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{apt_source, process};

/// Lists, cache and downloads of an apt of its own; removed when dropped.
pub(crate) struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        let directory = env::temp_dir().join(format!("snigate-apt-{}", std::process::id()));
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))
                .with_context(|| format!("{} can't be made", directory.display()))?;
        }
        Ok(Self { directory })
    }

    /// Downloads `package` in the given upstream version from the first suite that has it. apt checks the signature.
    pub(crate) fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        let os_release = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
        let codename = debian_codename(&os_release)
            .context("this is not Debian, so its packages are out of reach")?;
        let suites = suites(codename);
        let mut reasons = Vec::new();
        for suite in &suites {
            let source = apt_source::for_suite(Path::new("/etc/apt"), codename, suite)
                .with_context(|| format!("/etc/apt names no source of Debian {codename}"))?;
            match self.download_from(&source, package, version) {
                Ok(file) => return Ok(file),
                Err(error) => reasons.push(format!("{suite}: {error:#}")),
            }
        }
        bail!(
            "none of Debian's suites {} has {package} {version} ({})",
            suites.join(", "),
            reasons.join("; ")
        )
    }

    fn download_from(
        &self,
        source: &apt_source::Source,
        package: &str,
        version: &str,
    ) -> Result<PathBuf> {
        let list = self.directory.join(format!("source.{}", source.extension));
        fs::write(&list, &source.text).with_context(|| list.display().to_string())?;
        process::output(self.apt_get(&list).args(["update", "-qq"]))?;
        let wanted = format!("{package}={version}*");
        process::output(self.apt_get(&list).args(["download", "-qq", &wanted]))?;
        let files = fs::read_dir(&self.directory)?.flatten();
        files
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get downloaded no {wanted}"))
    }

    fn apt_get(&self, list: &Path) -> Command {
        let option = |name: &str, path: &Path| {
            let mut option = OsString::from(name);
            option.push("=");
            option.push(path);
            option
        };
        let mut command = Command::new("apt-get");
        command
            .current_dir(&self.directory)
            .env("LC_ALL", "C")
            .arg("-o")
            .arg(option("Dir::Etc::SourceList", list))
            .args(["-o", "Dir::Etc::SourceParts=-"])
            .arg("-o")
            .arg(option("Dir::State::Lists", &self.directory.join("lists")))
            .arg("-o")
            .arg(option("Dir::Cache", &self.directory.join("cache")))
            // apt would drop root's rights for downloading and then can't write here.
            .args(["-o", "APT::Sandbox::User="])
            // An incomplete answer is a failure of this suite, not something to go on with.
            .args(["-o", "APT::Update::Error-Mode=any"]);
        command
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
                .arg(&self.directory)
                .arg(format!("./{member}"))
                .stdin(tarfile),
        );
        let status = reader.wait().context("dpkg-deb")?;
        unpacked?;
        if !status.success() {
            bail!("`{}` failed ({status})", process::shown(&archive));
        }
        Ok(self.directory.join(member))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!(
                "xtask: {} is left behind: {error}",
                self.directory.display()
            );
        }
    }
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
    fn no_suite_is_tried_twice() {
        assert_eq!(suites("trixie"), ["trixie-backports", "testing", "sid"]);
        assert_eq!(suites("bookworm").len(), 4);
    }
}
