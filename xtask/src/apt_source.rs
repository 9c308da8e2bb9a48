//! Where this machine gets Debian from, rewritten to point at another suite of the same archive.
//!
//! The project names no mirror: whatever the machine's owner configured (address, keyring, options) is taken over.

use std::{collections::BTreeMap, fs, path::Path};

/// One source in either of apt's two formats, cut down to one suite's component `main`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// apt tells its formats apart by the file's extension: `sources` (deb822) or `list` (one line each).
    pub(crate) extension: &'static str,
    pub(crate) text: String,
}

/// The first source under `etc` (usually /etc/apt) that carries the release `codename`, pointing at `suite` instead.
pub(crate) fn for_suite(etc: &Path, codename: &str, suite: &str) -> Option<Source> {
    let mut files = vec![etc.join("sources.list")];
    let parts = fs::read_dir(etc.join("sources.list.d"));
    let mut parts: Vec<_> = parts
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    parts.sort();
    files.append(&mut parts);
    files.iter().find_map(|file| {
        let extension = file.extension()?.to_str()?;
        let text = fs::read_to_string(file).ok()?;
        match extension {
            "sources" => from_deb822(&text, codename, suite),
            "list" => from_lines(&text, codename, suite),
            _ => None,
        }
    })
}

/// Sources that follow a release by its class instead of its name carry it too.
fn carries(suites: &str, codename: &str) -> bool {
    suites
        .split_whitespace()
        .any(|suite| suite == codename || ["stable", "testing", "unstable", "sid"].contains(&suite))
}

fn from_deb822(text: &str, codename: &str, suite: &str) -> Option<Source> {
    let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    without_comments
        .split(|line| line.trim().is_empty())
        .map(fields)
        .find(|stanza| {
            let field = |name: &str| stanza.get(name).map_or("", String::as_str);
            field("types").split_whitespace().any(|kind| kind == "deb")
                && !field("enabled").trim().eq_ignore_ascii_case("no")
                && carries(field("suites"), codename)
        })
        .map(|mut stanza| {
            for (name, value) in [
                ("types", " deb"),
                ("components", " main"),
                ("suites", &format!(" {suite}")),
            ] {
                stanza.insert(name.into(), value.into());
            }
            let text = stanza
                .iter()
                .map(|(name, value)| format!("{name}:{value}\n"));
            Source {
                extension: "sources",
                text: text.collect(),
            }
        })
}

/// The fields of a stanza by lower-case name; the values keep their continuation lines.
fn fields(lines: &[&str]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in lines {
        if line.starts_with([' ', '\t']) {
            if let Some(value) = last.as_ref().and_then(|name| fields.get_mut(name)) {
                *value = format!("{value}\n{line}");
            }
        } else if let Some((name, value)) = line.split_once(':') {
            let name = name.trim().to_ascii_lowercase();
            fields.insert(name.clone(), value.to_owned());
            last = Some(name);
        }
    }
    fields
}

fn from_lines(text: &str, codename: &str, suite: &str) -> Option<Source> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        // The options are in brackets and may hold spaces: [arch=amd64 signed-by=/path]
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (options, rest) = rest.split_once(']')?;
                (format!("[{options}] "), rest)
            }
            None => (String::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let uri = words.next()?;
        carries(words.next()?, codename).then(|| Source {
            extension: "list",
            text: format!("deb {options}{uri} {suite} main\n"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanza_keeps_address_and_keyring() {
        let text = "\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
# another comment
URIs: http://mirror.example/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
";
        let source = from_deb822(text, "bookworm", "sid").unwrap();
        assert_eq!(source.extension, "sources");
        assert_eq!(
            source.text,
            "components: main\n\
             signed-by:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\
             suites: sid\n\
             types: deb\n\
             uris: http://mirror.example/debian\n"
        );
    }

    #[test]
    fn disabled_and_source_only_stanzas_are_passed_over() {
        let text = "Types: deb\nEnabled: no\nURIs: http://a.example/debian\nSuites: bookworm\n\n\
                    Types: deb-src\nURIs: http://b.example/debian\nSuites: bookworm\n";
        assert_eq!(from_deb822(text, "bookworm", "sid"), None);
    }

    #[test]
    fn line_keeps_options() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb http://mirror.example/debian-security bookworm-security main\n\
                    deb [ arch=amd64 signed-by=/usr/share/keyrings/a.gpg ] http://mirror.example/debian bookworm main contrib\n";
        let source = from_lines(text, "bookworm", "trixie-backports").unwrap();
        assert_eq!(
            source.text,
            "deb [ arch=amd64 signed-by=/usr/share/keyrings/a.gpg ] http://mirror.example/debian trixie-backports main\n"
        );
        assert_eq!(from_lines(text, "trixie", "sid"), None);
    }

    #[test]
    fn a_class_of_release_counts_as_the_release() {
        assert!(carries("stable stable-updates", "bookworm"));
        assert!(!carries("stable-security", "bookworm"));
    }
}
