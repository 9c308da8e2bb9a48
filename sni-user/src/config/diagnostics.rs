//! What is wrong with a configuration: where, in one sentence, and what to write instead.

use std::{cell::RefCell, fmt, ops::Range, path::PathBuf, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

/// One configuration file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Position in reading order: the main file is 0, included files follow.
    pub(super) order: usize,
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// A place in a configuration file; the whole file when it could not be read.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    source: Arc<Source>,
    span: Option<Range<usize>>,
}

impl Location {
    pub(super) fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let end = source.text.len();
        let start = source.text.floor_char_boundary(span.start.min(end));
        let stop = source.text.ceil_char_boundary(span.end.min(end)).max(start);
        Self {
            source: Arc::clone(source),
            span: Some(start..stop),
        }
    }

    pub(super) fn whole_file(source: &Arc<Source>) -> Self {
        Self {
            source: Arc::clone(source),
            span: None,
        }
    }

    /// The same file, another stretch of it.
    pub(super) fn at(&self, span: Range<usize>) -> Self {
        Self::new(&self.source, span)
    }

    /// The file, as its name was given or found by `include`.
    pub fn path(&self) -> &std::path::Path {
        &self.source.path
    }

    /// The line, from 1; nothing when the whole file is meant.
    pub fn line(&self) -> Option<usize> {
        self.span
            .as_ref()
            .map(|span| 1 + self.source.text[..span.start].matches('\n').count())
    }

    /// The column in characters, from 1; nothing when the whole file is meant.
    pub fn column(&self) -> Option<usize> {
        self.span.as_ref().map(|span| {
            let line = &self.source.text[self.line_start(span.start)..span.start];
            1 + line.chars().count()
        })
    }

    fn line_start(&self, offset: usize) -> usize {
        self.source.text[..offset]
            .rfind('\n')
            .map_or(0, |newline| newline + 1)
    }

    /// The text of the line and the stretch of it that is meant. A span over several lines is cut at the end of its first:
    /// the reader needs the place, not the whole of an unclosed string.
    pub(super) fn excerpt(&self) -> Option<(&str, Range<usize>)> {
        let span = self.span.as_ref()?;
        let start = self.line_start(span.start);
        let line = self.source.text[start..]
            .split('\n')
            .next()
            .unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let from = (span.start - start).min(line.len());
        let to = (span.end - start).clamp(from, line.len());
        Some((line, from..to))
    }

    fn order(&self) -> (usize, usize) {
        (
            self.source.order,
            self.span.as_ref().map_or(0, |span| span.start),
        )
    }
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.path().display())?;
        if let (Some(line), Some(column)) = (self.line(), self.column()) {
            write!(formatter, ":{line}:{column}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but probably does not do what was meant.
    Warning,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    severity: Severity,
    message: String,
    help: Option<String>,
    location: Location,
    related: Vec<(Location, String)>,
}

impl Diagnostic {
    pub(super) fn error(location: Location, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            help: None,
            location,
            related: Vec::new(),
        }
    }

    pub(super) fn warning(location: Location, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(location, message)
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Names another place that belongs to the finding, such as the first of two definitions.
    pub(super) fn related(mut self, location: &Location, label: impl Into<String>) -> Self {
        self.related.push((location.clone(), label.into()));
        self
    }

    /// Error or warning.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to write instead.
    pub fn suggestion(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// Where.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Other places that belong to it, each with what is there.
    pub fn related_locations(&self) -> impl Iterator<Item = (&Location, &str)> {
        self.related
            .iter()
            .map(|(location, label)| (location, label.as_str()))
    }
}

impl fmt::Display for Diagnostic {
    /// One line, in the `path:line:column: sentence` form that editors jump to.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(formatter, "{}: {severity}: {}", self.location, self.message)?;
        for (location, label) in &self.related {
            write!(formatter, " ({label}: {location})")?;
        }
        match &self.help {
            Some(help) => write!(formatter, "; {help}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Related<'a> {
            file: String,
            line: Option<usize>,
            column: Option<usize>,
            message: &'a str,
        }
        let related: Vec<_> = self
            .related
            .iter()
            .map(|(location, label)| Related {
                file: location.path().display().to_string(),
                line: location.line(),
                column: location.column(),
                message: label,
            })
            .collect();
        let mut fields = serializer.serialize_struct("Diagnostic", 7)?;
        fields.serialize_field("severity", &self.severity)?;
        fields.serialize_field("file", &self.location.path().display().to_string())?;
        fields.serialize_field("line", &self.location.line())?;
        fields.serialize_field("column", &self.location.column())?;
        fields.serialize_field("message", &self.message)?;
        fields.serialize_field("help", &self.help)?;
        fields.serialize_field("related", &related)?;
        fields.end()
    }
}

/// Everything that was found, in the order of the files and of the lines in them.
///
/// As an error it prints without colours; [`Diagnostics::render`] has them.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// All of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Those that make the configuration unusable.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.iter()
            .filter(|found| found.severity == Severity::Error)
    }

    /// Those that do not.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.iter()
            .filter(|found| found.severity == Severity::Warning)
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_list()
            .entries(self.list.iter().map(ToString::to_string))
            .finish()
    }
}

/// Where the reading, decoding and checking put what they find, so that each can go on.
#[derive(Default)]
pub(super) struct Report {
    found: RefCell<Vec<Diagnostic>>,
}

impl Report {
    pub(super) fn push(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    pub(super) fn into_diagnostics(self) -> Diagnostics {
        let mut list = self.found.into_inner();
        list.sort_by_key(|found| found.location.order());
        Diagnostics { list }
    }
}

/// A value put into a message: in quotes, on one line, harmless to a terminal, and not longer than a reader needs.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    let shown: String = text.chars().take(LONGEST).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("\"{}{more}\"", shown.escape_debug())
}

/// The known word that a wrong one was probably meant to be.
pub(super) fn nearest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A third of the letters may be wrong: enough for a slip or a swap, too little to suggest something unrelated.
    // The bound on the length keeps the comparison of a pasted file out of the quadratic algorithm.
    let allowed = (wrong.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|candidate| {
            candidate.len().abs_diff(wrong.len()) <= 4 * (allowed + 1) && wrong.len() <= 512
        })
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&wrong.to_lowercase(), &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
