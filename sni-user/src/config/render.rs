//! Diagnostics for people: the sentence, the line it is about, and what to write instead.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::diagnostics::{Diagnostic, Diagnostics, Severity};
use super::location::Location;

impl Diagnostics {
    /// The text for a terminal (`colour`) or for a file. It ends with a newline unless nothing was found.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut text = String::new();
        for found in self {
            text.push_str(&renderer.render(&[group(found)]));
            text.push_str("\n\n");
        }
        if !self.is_empty() {
            text.push_str(&format!("{}\n", self.summary()));
        }
        text
    }

    /// Such as `2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let count = |number: usize, what: &str| match number {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{number} {what}s")),
        };
        let parts: Vec<_> = [
            count(self.errors().count(), "error"),
            count(self.warnings().count(), "warning"),
        ]
        .into_iter()
        .flatten()
        .collect();
        if parts.is_empty() {
            "nothing to complain about".into()
        } else {
            parts.join(", ")
        }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(false))
    }
}

fn group(found: &Diagnostic) -> Group<'_> {
    let level = match found.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(found.message()));
    group = place(group, found.location(), AnnotationKind::Primary, None);
    for (location, label) in found.related_locations() {
        group = place(group, location, AnnotationKind::Context, Some(label));
    }
    match found.suggestion() {
        Some(help) => group.element(Level::HELP.message(help)),
        None => group,
    }
}

/// Shows the one line that is meant rather than the whole file: rendering stays linear however many findings there are.
fn place<'a>(
    group: Group<'a>,
    location: &'a Location,
    kind: AnnotationKind,
    label: Option<&'a str>,
) -> Group<'a> {
    let path = location.path().display().to_string();
    let (Some((text, span)), Some(line)) = (location.excerpt(), location.line()) else {
        return group.element(Origin::path(path));
    };
    group.element(
        Snippet::source(text)
            .line_start(line)
            .path(path)
            .annotation(kind.span(span).label(label)),
    )
}
