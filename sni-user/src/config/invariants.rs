//! What holds for any text that is taken for a configuration. The fuzz target `config` runs this very file.

use std::path::Path;

use crate::{
    config::{Config, Diagnostics, Severity},
    datapath,
};

/// Panics if a text is neither a configuration, whose tables are then coherent, nor refused with sentences about places in it.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    // Patterns of files would search this machine's disk; tests with files of their own have those.
    if text.contains("include") {
        return;
    }
    match Config::parse(Path::new(FILE), text) {
        Ok(loaded) => {
            assert!(loaded.warnings.errors().next().is_none());
            check_findings(&loaded.warnings, text);
            datapath::invariants::check(&loaded.config);
        }
        Err(found) => {
            assert!(found.errors().next().is_some());
            check_findings(&found, text);
        }
    }
}

const FILE: &str = "fuzzed.toml";

/// Each finding is a sentence about a place, for people and for programs.
fn check_findings(found: &Diagnostics, text: &str) {
    let lines = text.lines().count() + 1;
    for finding in found {
        assert!(!finding.message().is_empty());
        assert!(finding.suggestion().is_none_or(|help| !help.is_empty()));
        let places = finding.related_locations().map(|(location, _)| location);
        for place in places.chain([finding.location()]) {
            assert_eq!(place.path(), Path::new(FILE));
            if let (Some(line), Some(column)) = (place.line(), place.column()) {
                assert!((1..=lines).contains(&line) && column > 0, "{place}");
            }
        }
        let severity = match finding.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let line = finding.to_string();
        assert!(
            line.starts_with(FILE) && line.contains(severity) && line.contains(finding.message())
        );
    }
    let rendered = found.render(false);
    assert_eq!(rendered.contains(FILE), !found.is_empty());
    let json = serde_json::to_value(found).expect("texts and numbers");
    assert_eq!(json.as_array().map(Vec::len), Some(found.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpus() {
        crate::corpus::each("config", check);
    }
}
