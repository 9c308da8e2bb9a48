//! Places in configuration files.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// One configuration file as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Position in reading order: the main file is 0, included files follow.
    pub(super) order: usize,
    pub(super) path: PathBuf,
    pub(crate) text: String,
    /// Where each line starts, so that a place is found quickly however many there are in a large file.
    lines: Vec<usize>,
}

impl Source {
    pub(crate) fn new(order: usize, path: PathBuf, text: String) -> Self {
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(newline, _)| newline + 1))
            .collect();
        Self {
            order,
            path,
            text,
            lines,
        }
    }

    /// The number of the line that has this byte, from 0.
    fn line(&self, offset: usize) -> usize {
        self.lines
            .partition_point(|start| *start <= offset)
            .saturating_sub(1)
    }

    fn line_start(&self, offset: usize) -> usize {
        self.lines
            .get(self.line(offset))
            .copied()
            .unwrap_or_default()
    }
}

/// A place in a configuration file; the whole file when it could not be read.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    source: Arc<Source>,
    span: Option<Range<usize>>,
}

impl Location {
    pub(crate) fn new(source: &Arc<Source>, span: Range<usize>) -> Self {
        let end = source.text.len();
        let start = source.text.floor_char_boundary(span.start.min(end));
        let stop = source.text.ceil_char_boundary(span.end.min(end)).max(start);
        Self {
            source: Arc::clone(source),
            span: Some(start..stop),
        }
    }

    pub(crate) fn whole_file(source: &Arc<Source>) -> Self {
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
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// The line, from 1; nothing when the whole file is meant.
    pub fn line(&self) -> Option<usize> {
        self.span
            .as_ref()
            .map(|span| 1 + self.source.line(span.start))
    }

    /// The column in characters, from 1; nothing when the whole file is meant.
    pub fn column(&self) -> Option<usize> {
        self.span.as_ref().map(|span| {
            let line = &self.source.text[self.source.line_start(span.start)..span.start];
            1 + line.chars().count()
        })
    }

    /// The text of the line and the stretch of it that is meant. A span over several lines is cut at the end of its first:
    /// the reader needs the place, not the whole of an unclosed string.
    pub(super) fn excerpt(&self) -> Option<(&str, Range<usize>)> {
        let span = self.span.as_ref()?;
        let start = self.source.line_start(span.start);
        let line = self.source.text[start..]
            .split('\n')
            .next()
            .unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let from = (span.start - start).min(line.len());
        let to = (span.end - start).clamp(from, line.len());
        Some((line, from..to))
    }

    /// Files in reading order, and places in a file from its start.
    pub(super) fn order(&self) -> (usize, usize) {
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
