//! Lines of a list, taken apart into fields with their places.

use std::{ops::Range, sync::Arc};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use crate::config::{Diagnostic, Location, Report, Source};

/// One field of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// Without quotation marks, and without space around it.
    pub(super) text: String,
    pub(super) at: Location,
}

/// The lines that say something.
pub(super) struct Lines<'a> {
    source: &'a Arc<Source>,
    /// Where the next line starts.
    next: usize,
    /// The first line decides about the separator: Excel separates by what the country does.
    splitter: Option<Splitter>,
}

/// What Excel writes before UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

impl<'a> Lines<'a> {
    pub(super) fn new(source: &'a Arc<Source>) -> Self {
        let mark = source.text.starts_with(BYTE_ORDER_MARK);
        Self {
            source,
            next: if mark { BYTE_ORDER_MARK.len_utf8() } else { 0 },
            splitter: None,
        }
    }

    /// The fields of the next line, at least one; empty lines and such that begin with `#` are left out.
    pub(super) fn next_line(&mut self, report: &Report) -> Option<Vec<Field>> {
        loop {
            let text = &self.source.text;
            let start = self.next;
            let line = text.get(start..)?.split('\n').next()?;
            if start == text.len() {
                return None;
            }
            self.next = start + line.len() + 1;
            let line = line.trim_end();
            if line.trim_start().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            if line.matches('"').count() % 2 == 1 {
                let quote = start + line.rfind('"').unwrap_or_default();
                let at = Location::new(self.source, quote..start + line.len());
                report.push(
                    Diagnostic::error(at, "a quotation mark is not closed on this line")
                        .help("close it, and write \"\" for a mark that is part of the text"),
                );
                continue;
            }
            let splitter = self.splitter.get_or_insert_with(|| Splitter::new(line));
            return Some(fields(self.source, start, line, splitter));
        }
    }
}

fn fields(source: &Arc<Source>, start: usize, line: &str, splitter: &mut Splitter) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut from = 0;
    for text in splitter.split(line) {
        let text = text.trim();
        let place = place_of(line, from, text, splitter.separator);
        from = line[place.end..]
            .find(splitter.separator)
            .map_or(line.len(), |at| place.end + at + 1);
        fields.push(Field {
            text: text.to_owned(),
            at: Location::new(source, start + place.start..start + place.end),
        });
    }
    fields
}

/// Takes lines apart as RFC 4180 has it.
struct Splitter {
    separator: char,
    reader: Reader,
}

impl Splitter {
    /// For the separator that the line has, else a comma.
    fn new(line: &str) -> Self {
        let separator = line.bytes().find(|byte| b",;\t".contains(byte));
        let separator = separator.unwrap_or(b',');
        Self {
            separator: char::from(separator),
            reader: ReaderBuilder::new().delimiter(separator).build(),
        }
    }

    fn split(&mut self, line: &str) -> Vec<String> {
        self.reader.reset();
        let mut output = vec![0; line.len()];
        let mut ends = vec![0; line.len() + 1];
        let (mut read, mut written, mut fields) = (0, 0, 0);
        loop {
            let (result, more_read, more_written, more_fields) = self.reader.read_record(
                &line.as_bytes()[read..],
                &mut output[written..],
                &mut ends[fields..],
            );
            read += more_read;
            written += more_written;
            fields += more_fields;
            // With empty input, the reader learns that the line is complete.
            if matches!(result, ReadRecordResult::Record | ReadRecordResult::End) {
                break;
            }
        }
        let mut from = 0;
        let text = |end: &usize| {
            let field = String::from_utf8_lossy(&output[from..*end]).into_owned();
            from = *end;
            field
        };
        ends[..fields].iter().map(text).collect()
    }
}

/// Where a field's text is in the line from `from` on: itself, or, where it has doubled quotation marks, all up to the separator.
fn place_of(line: &str, from: usize, text: &str, separator: char) -> Range<usize> {
    let rest = &line[from..];
    if let Some(at) = rest.find(text).filter(|_| !text.is_empty()) {
        return from + at..from + at + text.len();
    }
    from..from + rest.find(separator).unwrap_or(rest.len())
}
