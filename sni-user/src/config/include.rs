//! Reading the main file and those it includes.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    decode::{Directory, Located},
    diagnostics::{Diagnostic, Report},
    location::{Location, Source},
    tables::{Draft, Role},
    wording::quoted,
};

/// Everything that is read, and everything that is wrong with it so far.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) draft: Draft,
    pub(super) files: Vec<Arc<Source>>,
    /// Directories that patterns with wildcards look into.
    pub(super) directories: Vec<PathBuf>,
    pub(super) report: Report,
}

impl Reader {
    /// Reads a main file and what it includes.
    pub(super) fn read_file(&mut self, path: &Path) {
        match read(path) {
            Ok(text) => self.read_text(path, &text),
            Err(Unreadable { why, help, text }) => {
                let source = self.source(path, text);
                let at = unreadable_at(&source);
                self.draft.incomplete = true;
                self.report
                    .push(Diagnostic::error(at, format!("the configuration {why}")).help(help));
            }
        }
    }

    /// Reads a main file whose text is known, and what it includes.
    pub(super) fn read_text(&mut self, path: &Path, text: &str) {
        let source = self.source(path, text.to_owned());
        let directory = directory_of(path);
        self.draft
            .read(&source, Role::Main, &directory, &self.report);
        let Some(include) = self.draft.include.take() else {
            return;
        };
        let mut seen = HashSet::from([identity(path)]);
        for pattern in include.items {
            self.include(&pattern, &directory, &mut seen);
        }
    }

    /// Reads the files of one pattern that have not been read yet, in the order of their names.
    fn include(
        &mut self,
        pattern: &Located<String>,
        directory: &Directory,
        seen: &mut HashSet<PathBuf>,
    ) {
        let wrong = |why: String, help: &str| {
            self.report
                .push(Diagnostic::error(pattern.at.clone(), why).help(help))
        };
        // What the directory is called is not a pattern, whatever characters it has.
        let Some(directory) = directory.0.to_str() else {
            return wrong(
                "`include` does not work in a directory whose name is not UTF-8".into(),
                "rename the directory",
            );
        };
        let whole = Path::new(directory).join(&pattern.value);
        if let Some(parent) = whole.parent() {
            self.directories.push(parent.to_owned());
        }
        let absolute = Path::new(&glob::Pattern::escape(directory)).join(&pattern.value);
        let matches = match absolute.to_str().map(search) {
            Some(Ok(paths)) => paths,
            Some(Err(error)) => {
                let why = format!(
                    "`include`: {} is not a pattern: {}",
                    quoted(&pattern.value),
                    error.msg
                );
                return wrong(why, "write a path such as \"domains.d/*.toml\"");
            }
            None => {
                return wrong(
                    "`include` is not a path".into(),
                    "write a path such as \"domains.d/*.toml\"",
                );
            }
        };
        let mut paths = Vec::new();
        for path in matches {
            match path {
                Ok(path) => paths.push(path),
                Err(error) => {
                    self.draft.incomplete = true;
                    let why = format!(
                        "`include`: {} cannot be searched: {}",
                        error.path().display(),
                        error.error()
                    );
                    wrong(why, "let the user that snigate runs as read that directory");
                }
            }
        }
        // No file in `domains.d/*.toml` is a usual state; a file that is named and missing is not.
        if paths.is_empty() && !pattern.value.contains(['*', '?', '[']) {
            self.draft.incomplete = true;
            let why = format!("`include`: there is no file {}", quoted(&pattern.value));
            return wrong(
                why,
                "create it, or leave it out of `include`; a relative path starts from this file's directory",
            );
        }
        for path in paths {
            if seen.insert(identity(&path)) {
                self.read_included(&path, &pattern.at);
            }
        }
    }

    fn read_included(&mut self, path: &Path, included_at: &Location) {
        match read(path) {
            Ok(text) => {
                let source = self.source(path, text);
                self.draft
                    .read(&source, Role::Included, &directory_of(path), &self.report);
            }
            Err(Unreadable { why, help, text }) => {
                let source = self.source(path, text);
                self.draft.incomplete = true;
                self.report.push(
                    Diagnostic::error(unreadable_at(&source), format!("an included file {why}"))
                        .related(included_at, "included here")
                        .help(help),
                );
            }
        }
    }

    fn source(&mut self, path: &Path, text: String) -> Arc<Source> {
        let source = Arc::new(Source::new(self.files.len(), path.to_owned(), text));
        self.files.push(Arc::clone(&source));
        source
    }
}

struct Unreadable {
    why: String,
    help: &'static str,
    /// What could be read before the first byte that is not UTF-8.
    text: String,
}

fn read(path: &Path) -> Result<String, Unreadable> {
    let failed = |error: std::io::Error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => "create it, or name another file",
            std::io::ErrorKind::IsADirectory => {
                "name the files in it, such as \"domains.d/*.toml\""
            }
            std::io::ErrorKind::PermissionDenied => "let the user that snigate runs as read it",
            _ => "make it a readable file",
        };
        Unreadable {
            why: format!("cannot be read: {error}"),
            help,
            text: String::new(),
        }
    };
    String::from_utf8(fs::read(path).map_err(failed)?).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        Unreadable {
            why: "is not UTF-8 from here on".into(),
            help: "save it as UTF-8",
            text,
        }
    })
}

fn unreadable_at(source: &Arc<Source>) -> Location {
    let end = source.text.len();
    if end == 0 {
        Location::whole_file(source)
    } else {
        Location::new(source, end..end)
    }
}

/// The same for two names of one file. A file that does not exist has one name.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Absolute, because the agent keeps the paths for as long as it runs.
fn directory_of(path: &Path) -> Directory {
    let parent = path.parent().unwrap_or(Path::new(""));
    let start = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    // It fails only without a working directory; a relative path is then as good as any.
    Directory(std::path::absolute(start).unwrap_or_else(|_| parent.to_owned()))
}

/// Finds what a pattern of `include` stands for. Hidden files are nobody's configuration: what is on its way in or out, and what editors leave.
pub(crate) fn search(pattern: &str) -> Result<glob::Paths, glob::PatternError> {
    let options = glob::MatchOptions {
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    glob::glob_with(pattern, options)
}
