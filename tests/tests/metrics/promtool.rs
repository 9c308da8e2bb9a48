//! Prometheus' own judge.

use std::{
    env,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// promtool, where it is installed.
pub(crate) struct Promtool(PathBuf);

impl Promtool {
    /// promtool, or `None` and a sentence where it is not installed, which `cargo xtask test` sees to.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut places = env::split_paths(&path).map(|place| place.join("promtool"));
        let found = places.find(|place| place.is_file());
        if found.is_none() {
            let needed = env::var_os("SNIGATE_LAB").is_some();
            assert!(
                !needed,
                "{test} needs promtool (`apt-get install prometheus`)"
            );
            let line = format!("skipped: {test} needs promtool; run `cargo xtask test` as root\n");
            std::io::stderr().write_all(line.as_bytes()).ok()?;
        }
        found.map(Self)
    }

    /// Has it judge something, and returns what it has said.
    pub(crate) fn judge(
        &self,
        arguments: &[&str],
        input: &str,
        directory: &Path,
    ) -> Result<String> {
        let mut command = Command::new(&self.0);
        command
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said)?;
        ensure!(output.status.success(), "promtool {arguments:?}: {said}");
        Ok(said)
    }

    /// Has it look at an exposition, for which it has no word of criticism.
    pub(crate) fn lint(&self, exposition: &str) -> Result<()> {
        let said = self.judge(&["check", "metrics"], exposition, Path::new("/"))?;
        ensure!(said.is_empty(), "{said}");
        Ok(())
    }
}
