//! The list of domains: one a line, or CSV with a header.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde::{Serialize, Serializer};

use super::{
    SipDomain,
    line::{Field, Lines},
};
use crate::config::{
    Diagnostic, Diagnostics, InvalidValue, Location, Name, Report, Source, list_of, nearest, quoted,
};

/// A domain of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The domain.
    pub domain: SipDomain,
    /// Whose it is; where the list does not say, the domain is its own customer.
    pub customer: Arc<str>,
    /// How partners find it.
    pub federation: Federation,
    /// With whom its customer shares no certificate.
    pub apart: Apart,
    /// The certificate that has it already, or is to have it.
    pub certificate: Option<Name>,
    /// Where.
    pub at: Location,
}

/// How partners find a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Federation {
    /// By the DNS: its name has to be in a certificate.
    #[default]
    Open,
    /// Each partner's administrator enters the provider's name for this domain.
    Explicit,
    /// Partners have an entry for the provider, whose domains are found by it.
    Provider,
}

impl Federation {
    const WORDS: [(&'static str, Self); 3] = [
        ("open", Self::Open),
        ("explicit", Self::Explicit),
        ("provider", Self::Provider),
    ];

    /// As the list has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Explicit => "explicit",
            Self::Provider => "provider",
        }
    }
}

impl Serialize for Federation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

/// With whom a customer shares no certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Apart {
    /// With nobody.
    pub alone: bool,
    /// With no other customer of these groups, in order.
    pub groups: Vec<Arc<str>>,
}

/// A list without mistakes.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// In the order of the lines; no domain twice.
    pub domains: Vec<Listed>,
    /// What is allowed but probably not meant.
    pub warnings: Diagnostics,
}

const DOMAIN: &str = "domain";
const COLUMNS: [&str; 5] = [DOMAIN, "customer", "federation", "apart", "certificate"];
/// In `apart`: shares with nobody.
const ALONE: &str = "all";

impl List {
    /// Reads a list; `path` is what messages call it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(path: &Path, text: String) -> Result<Self, Diagnostics> {
        let source = Arc::new(Source::new(0, path.to_owned(), text));
        let report = Report::default();
        let domains = read(&source, &report);
        lonely_groups(&domains, &report);
        let found = report.into_diagnostics();
        if found.errors().next().is_some() {
            return Err(found);
        }
        Ok(Self {
            domains: once_each(domains),
            warnings: found,
        })
    }
}

fn read(source: &Arc<Source>, report: &Report) -> Vec<Listed> {
    let mut lines = Lines::new(source);
    let Some(first) = lines.next_line(report) else {
        report.push(nothing(source));
        return Vec::new();
    };
    let mut columns = Columns::plain();
    let mut waiting = None;
    if first
        .iter()
        .any(|field| field.text.eq_ignore_ascii_case(DOMAIN))
    {
        columns = Columns::of_header(&first, report);
    } else if first.len() > 1 {
        report.push(
            Diagnostic::error(
                first[0].at.clone(),
                "this line has more than a domain, and no header above it says what",
            )
            .help("write the names of the columns into the first line, such as `domain,customer`"),
        );
        return Vec::new();
    } else {
        waiting = Some(first);
    }
    let mut rows = Rows {
        columns,
        report,
        known: BTreeMap::new(),
        domains: Vec::new(),
    };
    let mut any = false;
    while let Some(line) = waiting.take().or_else(|| lines.next_line(report)) {
        rows.read(&line);
        any = true;
    }
    if !any {
        report.push(nothing(source));
    }
    rows.domains
}

fn nothing(source: &Arc<Source>) -> Diagnostic {
    Diagnostic::error(
        Location::whole_file(source),
        "there is no domain in the list",
    )
    .help("write one a line, such as fabrikam.example")
}

/// Which field of a line is which; places of `COLUMNS`.
struct Columns {
    of_field: Vec<Option<usize>>,
}

impl Columns {
    fn plain() -> Self {
        Self {
            of_field: vec![Some(0)],
        }
    }

    fn of_header(header: &[Field], report: &Report) -> Self {
        let mut of_field: Vec<Option<usize>> = Vec::new();
        for field in header {
            let word = field.text.to_ascii_lowercase();
            let column = COLUMNS.iter().position(|column| *column == word);
            let again = column.is_some() && of_field.contains(&column);
            if column.is_none() {
                let help = match nearest(&word, COLUMNS) {
                    Some(near) => format!("write `{near}`"),
                    None => format!("leave it out, or write one of {}", list_of(COLUMNS)),
                };
                let message = format!("there is no column {}", quoted(&field.text));
                report.push(Diagnostic::error(field.at.clone(), message).help(help));
            } else if again {
                let message = format!("the column {} is there twice", quoted(&word));
                report.push(Diagnostic::error(field.at.clone(), message).help("leave one out"));
            }
            of_field.push(column.filter(|_| !again));
        }
        Self { of_field }
    }

    /// The fields in the order of `COLUMNS`; empty ones count as left out.
    fn sort<'a>(&self, line: &'a [Field]) -> [Option<&'a Field>; COLUMNS.len()] {
        let mut sorted = [None; COLUMNS.len()];
        for (column, field) in self.of_field.iter().zip(line) {
            if let Some(column) = column {
                sorted[*column] = Some(field).filter(|field| !field.text.is_empty());
            }
        }
        sorted
    }
}

struct Rows<'a> {
    columns: Columns,
    report: &'a Report,
    /// The first line of each domain.
    known: BTreeMap<SipDomain, usize>,
    domains: Vec<Listed>,
}

impl Rows<'_> {
    fn read(&mut self, line: &[Field]) {
        let columns = self.columns.of_field.len();
        if let Some(more) = line.get(columns) {
            let help = match columns {
                1 => "write one domain a line".to_owned(),
                _ => "put text that has the separator in it into quotation marks".to_owned(),
            };
            let message = format!(
                "this line has {} fields, and there are {columns} columns",
                line.len()
            );
            self.report
                .push(Diagnostic::error(more.at.clone(), message).help(help));
        }
        let [domain, customer, federation, apart, certificate] = self.columns.sort(line);
        // All of them, so that every mistake of the line is reported.
        let federation = federation.map(|field| self.accept(field, read_federation(&field.text)));
        let apart = apart.map(|field| self.accept(field, read_apart(&field.text)));
        let certificate = certificate.map(|field| self.accept(field, field.text.parse()));
        let Some(field) = domain else {
            self.report.push(
                Diagnostic::error(line[0].at.clone(), "this line names no domain")
                    .help("write the SIP domain, such as fabrikam.example, or leave the line out"),
            );
            return;
        };
        let Some(domain) = self.accept(field, field.text.parse::<SipDomain>()) else {
            return;
        };
        let listed = Listed {
            customer: customer.map_or(domain.as_str(), |field| &field.text).into(),
            federation: federation.flatten().unwrap_or_default(),
            apart: apart.flatten().unwrap_or_default(),
            certificate: certificate.flatten(),
            at: field.at.clone(),
            domain,
        };
        self.keep(listed);
    }

    fn keep(&mut self, listed: Listed) {
        let Some(first) = self.known.get(&listed.domain) else {
            self.known.insert(listed.domain.clone(), self.domains.len());
            self.domains.push(listed);
            return;
        };
        let first = &self.domains[*first];
        let same = Listed {
            at: first.at.clone(),
            ..listed.clone()
        } == *first;
        let message = format!("{} is there twice", listed.domain);
        let diagnostic = if same {
            Diagnostic::warning(listed.at, message)
        } else {
            Diagnostic::error(listed.at, format!("{message}, and the lines differ"))
        };
        self.report.push(
            diagnostic
                .related(&first.at, "the first one")
                .help("leave one out"),
        );
    }

    fn accept<T>(&self, field: &Field, value: Result<T, InvalidValue>) -> Option<T> {
        value
            .map_err(|InvalidValue { message, help }| {
                self.report
                    .push(Diagnostic::error(field.at.clone(), message).help(help));
            })
            .ok()
    }
}

fn read_federation(text: &str) -> Result<Federation, InvalidValue> {
    let words = Federation::WORDS.map(|(word, _)| word);
    let found = Federation::WORDS
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(text));
    found.map(|(_, federation)| *federation).ok_or_else(|| {
        let help = match nearest(text, words) {
            Some(near) => format!("write `{near}`"),
            None => format!("write one of {}, or nothing for `open`", list_of(words)),
        };
        InvalidValue::new(format!("{} is no kind of federation", quoted(text)), help)
    })
}

fn read_apart(text: &str) -> Result<Apart, InvalidValue> {
    let mut apart = Apart::default();
    for word in text.split_whitespace() {
        if word.eq_ignore_ascii_case(ALONE) {
            apart.alone = true;
            continue;
        }
        word.parse::<Name>().map_err(|invalid| {
            InvalidValue::new(
                invalid.message,
                "write `all`, or names of groups with spaces between them, such as `banks`",
            )
        })?;
        apart.groups.push(word.into());
    }
    apart.groups.sort();
    apart.groups.dedup();
    Ok(apart)
}

/// A group of one keeps nobody apart from anybody: most likely its name is mistyped.
fn lonely_groups(domains: &[Listed], report: &Report) {
    let mut groups: BTreeMap<&str, (Vec<&str>, &Location)> = BTreeMap::new();
    for listed in domains {
        for group in &listed.apart.groups {
            let (customers, _) = groups
                .entry(group)
                .or_insert_with(|| (Vec::new(), &listed.at));
            if customers.len() < 2 && !customers.contains(&&*listed.customer) {
                customers.push(&listed.customer);
            }
        }
    }
    let known: Vec<_> = groups.keys().copied().collect();
    for (group, (customers, at)) in &groups {
        if customers.len() < 2 {
            let others = known.iter().copied().filter(|other| other != group);
            let help = match nearest(group, others) {
                Some(near) => format!("was `{near}` meant?"),
                None => "write the same group to the customers that must not share with this one, or `all` to share with nobody".to_owned(),
            };
            let message = format!(
                "{} is the only customer of the group {}",
                customers[0],
                quoted(group)
            );
            report.push(Diagnostic::warning((*at).clone(), message).help(help));
        }
    }
}

/// What a customer asks for on one line holds for all of its domains.
fn once_each(mut domains: Vec<Listed>) -> Vec<Listed> {
    let mut wishes: BTreeMap<Arc<str>, Apart> = BTreeMap::new();
    for listed in domains
        .iter()
        .filter(|listed| listed.apart != Apart::default())
    {
        let wish = wishes.entry(Arc::clone(&listed.customer)).or_default();
        wish.alone |= listed.apart.alone;
        wish.groups.extend(listed.apart.groups.iter().cloned());
    }
    for wish in wishes.values_mut() {
        wish.groups.sort();
        wish.groups.dedup();
    }
    for listed in &mut domains {
        if let Some(wish) = wishes.get(&listed.customer) {
            listed.apart = wish.clone();
        }
    }
    domains
}

#[cfg(test)]
mod tests;
