//! The fuzz targets have a lock file of their own: what they fuzz must be what the gateway is made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use anyhow::{Context as _, Result, bail};

use crate::process;

const OURS: &str = "Cargo.lock";
const FUZZED: &str = "fuzz/Cargo.lock";

/// Fails if the fuzz targets have a package in another version than the workspace.
pub(crate) fn check() -> Result<()> {
    let read = |path: &str| {
        let text = fs::read_to_string(process::workspace().join(path));
        text.with_context(|| format!("{path} can't be read"))
    };
    let other = differences(&read(OURS)?, &read(FUZZED)?);
    if other.is_empty() {
        return Ok(());
    }
    bail!(
        "{FUZZED} has other versions than {OURS}, so that something else is fuzzed than what runs:\n{}\nrun \
         `cargo update --manifest-path fuzz/Cargo.toml --package NAME --precise VERSION` for each",
        other.join("\n")
    )
}

/// Packages of both that the second one has in a version that the first one does not have.
fn differences(ours: &str, fuzzed: &str) -> Vec<String> {
    let (ours, fuzzed) = (versions(ours), versions(fuzzed));
    let shared = fuzzed
        .iter()
        .filter_map(|(name, versions)| Some((name, versions, ours.get(name)?)));
    shared
        .filter(|(_, fuzzed, ours)| !fuzzed.is_subset(ours))
        .map(|(name, fuzzed, ours)| format!("{name} {fuzzed:?} instead of {ours:?}"))
        .collect()
}

/// The versions of each package.
fn versions(lock: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let mut lines = package.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
            value.map(|value| value.trim_matches('"'))
        };
        if let (Some(name), Some(version)) = (field("name"), field("version")) {
            all.entry(name).or_default().insert(version);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fuzzed_is_what_runs() {
        check().unwrap();
    }

    #[test]
    fn another_version() {
        let lock = |packages: &[(&str, &str)]| -> String {
            let package = |(name, version): &(&str, &str)| {
                format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\n")
            };
            packages.iter().map(package).collect()
        };
        let ours = lock(&[("a", "1.0.0"), ("a", "2.0.0"), ("b", "1.0.0")]);
        let fuzzed = lock(&[("a", "2.0.0"), ("b", "1.0.1"), ("c", "1.0.0")]);
        assert_eq!(
            differences(&ours, &fuzzed),
            ["b {\"1.0.1\"} instead of {\"1.0.0\"}"]
        );
        assert!(differences(&ours, &ours).is_empty());
    }
}
