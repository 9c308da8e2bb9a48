//! What is wrong with a configuration: where, in one sentence, and what to write instead.

use std::{cell::RefCell, fmt};

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::location::Location;

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
    pub(crate) fn error(location: Location, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            help: None,
            location,
            related: Vec::new(),
        }
    }

    pub(crate) fn warning(location: Location, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(location, message)
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Names another place that belongs to the finding, such as the first of two definitions.
    pub(crate) fn related(mut self, location: &Location, label: impl Into<String>) -> Self {
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
pub(crate) struct Report {
    found: RefCell<Vec<Diagnostic>>,
}

impl Report {
    pub(crate) fn push(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    pub(crate) fn into_diagnostics(self) -> Diagnostics {
        let mut list = self.found.into_inner();
        list.sort_by_key(|found| found.location.order());
        Diagnostics { list }
    }
}
