//! The corpus, for tests that run without libFuzzer: what once was interesting to it, or a crash.

use std::{fs, path::Path};

/// Calls a target's function with each of its inputs. The last one that is named is the one that fails.
pub(crate) fn each(target: &str, check: impl Fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no input for {target}");
    for path in paths {
        println!("{}", path.display());
        check(&fs::read(&path).expect("an input"));
    }
}
