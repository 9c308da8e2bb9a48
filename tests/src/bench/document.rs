//! docs/benchmarks.md: a template with the words, and what a run has measured.
//!
//! In the template `{{...}}` stands for what comes from the figures:
//!
//! | | |
//! | --- | --- |
//! | `table KEY` | a table as it is, with its rows as rows |
//! | `compare PREFIX` | the tables whose keys begin so, with systems as columns |
//! | `scores PREFIX` | snigate's best beside the best peer, and who wins |
//! | `losses` | everything in which a peer wins |
//! | `ways PREFIX` | each of snigate's ways by itself, where a peer does better than it |
//! | `plot NAME` | a picture |
//! | `machine`, `programs`, `run`, `warnings`, `left-out` | what is said of the run itself |
//! | `micro` | what the benches of the agent's code have printed |

mod facts;
mod plots;
mod scores;
mod tables;

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use super::results::{Results, Table};
use crate::plot::Plot;

const TEMPLATE: &str = include_str!("document/template.md");
/// The document, and the directory of its pictures beside it.
const PAGE: &str = "benchmarks.md";
const PICTURES: &str = "benchmarks";
/// Stands where a run has left something out.
const NOTHING: &str = "*Not measured in this run.*";

/// A document and its pictures.
#[derive(Debug)]
pub struct Document {
    /// The page.
    pub markdown: String,
    /// The pictures by name.
    pub plots: Vec<(&'static str, Plot)>,
}

impl Document {
    /// What a run has measured, in the template's words.
    ///
    /// # Errors
    /// The template asks for what there is not, or says nothing of something that was measured.
    pub fn new(results: &Results) -> Result<Self> {
        Self::of_template(TEMPLATE, results)
    }

    fn of_template(template: &str, results: &Results) -> Result<Self> {
        let filling = Filling {
            results,
            shown: RefCell::default(),
            plots: RefCell::default(),
        };
        let markdown = filling.fill(template)?;
        let shown = filling.shown.into_inner();
        let is_shown = |key: &str| shown.iter().any(|prefix| key.starts_with(prefix));
        let forgotten = results.tables.iter().find(|table| !is_shown(&table.key));
        if let Some(table) = forgotten {
            bail!("the template shows no table {}", table.key);
        }
        Ok(Self {
            markdown,
            plots: filling.plots.into_inner(),
        })
    }

    /// Writes `benchmarks.md` and, in `benchmarks/`, its pictures; those of an earlier run go.
    ///
    /// # Errors
    /// A picture can't be drawn, or a file can't be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let pictures = directory.join(PICTURES);
        // All of them can be drawn before the earlier ones go.
        let drawn = directory.join(format!("{PICTURES}.new"));
        if drawn.exists() {
            // Of a run that came no further.
            fs::remove_dir_all(&drawn).with_context(|| drawn.display().to_string())?;
        }
        for directory in [&drawn, &pictures] {
            fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        }
        for (name, plot) in &self.plots {
            plot.write(&drawn, name)?;
        }
        fs::remove_dir_all(&pictures).with_context(|| pictures.display().to_string())?;
        fs::rename(&drawn, &pictures).with_context(|| drawn.display().to_string())?;
        let page = directory.join(PAGE);
        fs::write(&page, &self.markdown).with_context(|| format!("writing {}", page.display()))
    }
}

/// A template being filled.
struct Filling<'a> {
    results: &'a Results,
    /// Prefixes of the keys of all tables that the page shows.
    shown: RefCell<Vec<String>>,
    plots: RefCell<Vec<(&'static str, Plot)>>,
}

impl Filling<'_> {
    fn fill(&self, template: &str) -> Result<String> {
        let mut page = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let (directive, after) = after.split_once("}}").context("a {{ without its }}")?;
            page += before;
            let text = self.one(directive.trim());
            page += text
                .with_context(|| format!("{{{{{directive}}}}}"))?
                .trim_end();
            rest = after;
        }
        Ok(page + rest)
    }

    fn one(&self, directive: &str) -> Result<String> {
        let results = self.results;
        let (word, argument) = directive.split_once(' ').unwrap_or((directive, ""));
        let text = match word {
            "table" => {
                self.shown.borrow_mut().push(argument.to_owned());
                let mut tables = results.tables.iter();
                let table = tables.find(|table| table.key == argument);
                table.map(tables::natural)
            }
            "compare" => {
                self.shown.borrow_mut().push(argument.to_owned());
                tables::compared(&results.tables(argument).collect::<Vec<_>>())
            }
            "natural" => {
                self.shown.borrow_mut().push(argument.to_owned());
                let each =
                    |table: &Table| format!("**{}**\n\n{}", table.title, tables::natural(table));
                let all: Vec<_> = results.tables(argument).map(each).collect();
                (!all.is_empty()).then(|| all.join("\n"))
            }
            "scores" => scores::table(&results.tables(argument).collect::<Vec<_>>()),
            "losses" => Some(scores::losses(results)),
            "ways" => scores::ways(&results.tables(argument).collect::<Vec<_>>()),
            "plot" => self.plot(argument)?,
            _ => {
                ensure!(argument.is_empty(), "there is no such directive");
                Some(facts::of(results, word).context("there is no such directive")?)
            }
        };
        Ok(text.unwrap_or_else(|| NOTHING.to_owned()))
    }

    fn plot(&self, name: &str) -> Result<Option<String>> {
        let spec = plots::find(name).context("there is no such plot")?;
        let Some(plot) = spec.plot(self.results) else {
            return Ok(None);
        };
        self.plots.borrow_mut().push((spec.name, plot));
        Ok(Some(crate::plot::picture(PICTURES, spec.name, spec.title)))
    }
}

#[cfg(test)]
mod tests;
