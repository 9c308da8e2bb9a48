//! A typed reader of TOML tables that reports every mistake with its place and goes on, where a derived decoder stops at the first.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    diagnostics::{Diagnostic, Report},
    location::Location,
    values::InvalidValue,
    wording::{list_of, nearest, quoted, shown},
};

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: Location,
}

/// The good elements of a list, and whether those were all.
#[derive(Clone, Debug)]
pub(super) struct List<T> {
    pub(super) items: Vec<Located<T>>,
    pub(super) complete: bool,
    pub(super) at: Location,
}

impl<T> List<T> {
    pub(super) fn values(self) -> Vec<T> {
        self.items.into_iter().map(|item| item.value).collect()
    }
}

/// One TOML table on its way to a typed value. Every key that is asked for is a known one; [`Section::finish`] reports the others.
pub(super) struct Section<'a> {
    /// As it is called in messages, such as `[[edge]]`.
    title: &'static str,
    table: &'a DeTable<'a>,
    at: Location,
    known: Vec<&'static str>,
    report: &'a Report,
}

/// A value and what is needed to complain about it.
pub(super) struct Input<'a> {
    /// What it is the value of, such as `idle_timeout`.
    pub(super) key: &'a str,
    pub(super) value: &'a DeValue<'a>,
    pub(super) at: Location,
    pub(super) report: &'a Report,
}

/// What can be read from a TOML value. Nothing means that the mistake has been reported.
pub(super) trait Decode: Sized {
    fn decode(input: &Input<'_>) -> Option<Self>;
}

/// The directory of a configuration file, which its relative paths start from.
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    /// A path that was written in the file.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

impl<'a> Section<'a> {
    pub(super) fn new(
        title: &'static str,
        table: &'a DeTable<'a>,
        at: Location,
        report: &'a Report,
    ) -> Self {
        Self {
            title,
            table,
            at,
            // More than most have.
            known: Vec::with_capacity(16),
            report,
        }
    }

    /// The table that a value must be, such as each element of an array of tables.
    pub(super) fn of(title: &'static str, input: &Input<'a>) -> Option<Self> {
        match input.value {
            DeValue::Table(table) => Some(Self::new(title, table, input.at.clone(), input.report)),
            _ => {
                input.mismatch("a table", &format!("write a table: {title}"));
                None
            }
        }
    }

    pub(super) fn at(&self) -> &Location {
        &self.at
    }

    pub(super) fn report(&self) -> &'a Report {
        self.report
    }

    /// Whether the key was written, be its value right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some()
    }

    /// Where the key was written.
    pub(super) fn key_at(&self, key: &str) -> Option<Location> {
        self.entry(key).map(|(key, _)| self.at.at(key.span()))
    }

    /// Tables are small, and most keys that are asked for are not there: to look at each is faster than to hash.
    fn entry(&self, key: &str) -> Option<(&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        let mut entries = self.table.iter();
        entries.find(|(written, _)| written.get_ref() == key)
    }

    pub(super) fn input(&mut self, key: &'static str) -> Option<Input<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let (_, value) = self.entry(key)?;
        Some(Input {
            key,
            value: value.get_ref(),
            at: self.at.at(value.span()),
            report: self.report,
        })
    }

    pub(super) fn optional<T: Decode>(&mut self, key: &'static str) -> Option<Located<T>> {
        let input = self.input(key)?;
        Some(Located {
            value: T::decode(&input)?,
            at: input.at,
        })
    }

    /// An optional value without its place.
    pub(super) fn value<T: Decode>(&mut self, key: &'static str) -> Option<T> {
        self.optional(key).map(|located| located.value)
    }

    /// A path, resolved.
    pub(super) fn path(&mut self, key: &'static str, directory: &Directory) -> Option<PathBuf> {
        let written = self.optional::<String>(key)?;
        self.resolved(key, &written, directory)
    }

    /// A list of paths, resolved; empty without the key.
    pub(super) fn paths(&mut self, key: &'static str, directory: &Directory) -> Vec<PathBuf> {
        let written = self.list::<String>(key);
        written
            .iter()
            .flat_map(|list| &list.items)
            .filter_map(|path| self.resolved(key, path, directory))
            .collect()
    }

    fn resolved(
        &self,
        key: &str,
        Located { value, at }: &Located<String>,
        directory: &Directory,
    ) -> Option<PathBuf> {
        if value.is_empty() || value.contains('\0') {
            let message = format!("`{key}`: {} is not a path", quoted(value));
            self.report.push(
                Diagnostic::error(at.clone(), message)
                    .help("write a path; a relative one starts from this file's directory"),
            );
            return None;
        }
        Some(directory.resolve(value))
    }

    /// A value that must be there; `example` is how it could be written.
    pub(super) fn required<T: Decode>(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Located<T>> {
        self.require(key, example);
        self.optional(key)
    }

    pub(super) fn list<T: Decode>(&mut self, key: &'static str) -> Option<List<T>> {
        let input = self.input(key)?;
        let DeValue::Array(array) = input.value else {
            let help = match input.value {
                DeValue::String(text) => format!("write `{key} = [{}]`", quoted(text)),
                DeValue::Integer(number) => {
                    format!("write `{key} = [{}]`", shown(&number.to_string()))
                }
                _ => format!("write `{key} = [ … ]`"),
            };
            input.mismatch("a list", &help);
            return None;
        };
        let items: Vec<_> = array
            .iter()
            .filter_map(|element| {
                let at = self.at.at(element.span());
                let input = Input {
                    key,
                    value: element.get_ref(),
                    at: at.clone(),
                    report: self.report,
                };
                Some(Located {
                    value: T::decode(&input)?,
                    at,
                })
            })
            .collect();
        Some(List {
            complete: items.len() == array.len(),
            items,
            at: input.at,
        })
    }

    /// A list that must be there and have an element; `example` is how it could be written.
    pub(super) fn filled_list<T: Decode>(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<List<T>> {
        self.require(key, example);
        self.non_empty_list(key, example)
    }

    /// A list that must have an element if it is there.
    pub(super) fn non_empty_list<T: Decode>(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<List<T>> {
        let list = self.list(key)?;
        if list.items.is_empty() && list.complete {
            self.report.push(
                Diagnostic::error(
                    list.at.clone(),
                    format!("`{key}` of {} is empty", self.title),
                )
                .help(format!("write `{key} = {example}`")),
            );
        }
        Some(list)
    }

    /// A whole number in a range.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let input = self.input(key)?;
        number_in(&input, range)
    }

    /// A duration in a range; `why` tells why it may not be shorter, if that may surprise.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        why: &str,
    ) -> Option<Duration> {
        let Located { value, at } = self.optional::<Duration>(key)?;
        if range.contains(&value) {
            return Some(value);
        }
        let [given, shortest, longest] = [value, *range.start(), *range.end()].map(compact);
        let message = if value < *range.start() {
            format!("`{key}` is {given}, shorter than {shortest}{why}")
        } else {
            format!("`{key}` is {given}, longer than {longest}")
        };
        let help = format!("write a duration from \"{shortest}\" to \"{longest}\"");
        self.report.push(Diagnostic::error(at, message).help(help));
        None
    }

    /// Reports each key that was not asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            if self.known.iter().any(|known| *known == key.get_ref()) {
                continue;
            }
            let word = key.get_ref();
            let help = match nearest(word, self.known.iter().copied()) {
                Some(known) => format!("write `{known}`"),
                None => format!(
                    "the keys of {} are {}",
                    self.title,
                    list_of(self.known.iter().copied())
                ),
            };
            let at = self.at.at(key.span());
            self.report.push(
                Diagnostic::error(at, format!("{} has no key `{}`", self.title, shown(word)))
                    .help(help),
            );
        }
    }

    fn require(&self, key: &'static str, example: &str) {
        if !self.has(key) {
            self.report.push(
                Diagnostic::error(self.at.clone(), format!("{} needs `{key}`", self.title))
                    .help(format!("write `{key} = {example}`")),
            );
        }
    }
}

impl Input<'_> {
    pub(super) fn mismatch(&self, wanted: &str, help: &str) {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.report.push(
            Diagnostic::error(
                self.at.clone(),
                format!("`{}` takes {wanted}, and this is {found}", self.key),
            )
            .help(help),
        );
    }

    /// The text of a string that must be `wanted`, such as `example`.
    pub(super) fn text(&self, wanted: &str, example: &str) -> Option<&str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => {
                self.mismatch(wanted, &format!("write a string such as {example}"));
                None
            }
        }
    }

    pub(super) fn accept<T>(&self, result: Result<T, InvalidValue>) -> Option<T> {
        result
            .map_err(|InvalidValue { message, help }| {
                self.report.push(
                    Diagnostic::error(self.at.clone(), format!("`{}`: {message}", self.key))
                        .help(help),
                );
            })
            .ok()
    }
}

/// A whole number in a range.
pub(super) fn number_in(input: &Input<'_>, range: RangeInclusive<u32>) -> Option<u32> {
    let bounds = format!("write a number from {} to {}", range.start(), range.end());
    let DeValue::Integer(number) = input.value else {
        input.mismatch("a number", &bounds);
        return None;
    };
    let value = u32::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|value| range.contains(value));
    if value.is_none() {
        let message = format!("`{}` cannot be {}", input.key, shown(&number.to_string()));
        input
            .report
            .push(Diagnostic::error(input.at.clone(), message).help(bounds));
    }
    value
}

fn compact(duration: Duration) -> String {
    humantime::format_duration(duration)
        .to_string()
        .replace(' ', "")
}
