//! Plots as SVG, light and dark: lines and bars, with their spread.
//!
//! Whoever has something to show fills in a [`Plot`]; `lines` and `bars` draw it on a `canvas`, in the colours of a `theme`.

mod bars;
mod canvas;
mod lines;
mod scale;
#[cfg(test)]
mod tests;
mod theme;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

pub use theme::{MOST_SERIES, Theme};

/// A figure and its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// Where the line goes, or the bar ends.
    pub middle: f64,
    /// The lowest of it.
    pub low: f64,
    /// The highest of it.
    pub high: f64,
}

impl Value {
    /// A figure without spread.
    #[must_use]
    pub fn exact(middle: f64) -> Self {
        Self {
            middle,
            low: middle,
            high: middle,
        }
    }

    fn has_spread(&self) -> bool {
        self.high > self.low
    }
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What it shows, with the unit: "time, minutes".
    pub name: String,
    /// Powers of ten instead of a scale from zero; values above zero only.
    pub logarithmic: bool,
}

impl Axis {
    /// From zero.
    #[must_use]
    pub fn linear(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            logarithmic: false,
        }
    }

    /// By powers of ten.
    #[must_use]
    pub fn logarithmic(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            logarithmic: true,
        }
    }
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, Value)>,
}

/// Lines over a common axis.
#[derive(Clone, Debug)]
pub struct Lines {
    /// What it shows.
    pub title: String,
    /// To the right.
    pub x: Axis,
    /// Upwards.
    pub y: Axis,
    /// At most [`MOST_SERIES`].
    pub lines: Vec<Line>,
}

/// Some bars, one for each series.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they are about.
    pub name: String,
    /// One for each series; `None` leaves a gap.
    pub values: Vec<Option<Value>>,
}

/// Groups of bars, from top to bottom: names of any length fit beside them.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What it shows.
    pub title: String,
    /// What the bars' length is, with the unit; from zero.
    pub axis: String,
    /// At most [`MOST_SERIES`]; without a legend if there is one alone.
    pub series: Vec<String>,
    /// From top to bottom.
    pub groups: Vec<Group>,
}

/// A plot.
#[derive(Clone, Debug)]
pub enum Plot {
    /// Lines over a common axis.
    Lines(Lines),
    /// Groups of bars.
    Bars(Bars),
}

impl Plot {
    /// The picture.
    ///
    /// # Errors
    /// There is nothing to show, or there are more series than can be told apart.
    pub fn svg(&self, theme: Theme) -> Result<String> {
        match self {
            Self::Lines(lines) => lines.svg(theme),
            Self::Bars(bars) => bars.svg(theme),
        }
    }

    /// Writes `NAME-light.svg` and `NAME-dark.svg` into a directory, which is made if it is not there; [`picture`] shows them.
    ///
    /// # Errors
    /// As for [`Plot::svg`], or the files can't be written.
    pub fn write(&self, directory: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        for (theme, suffix) in [(Theme::Light, "light"), (Theme::Dark, "dark")] {
            let path = directory.join(format!("{name}-{suffix}.svg"));
            let svg = self.svg(theme).with_context(|| format!("plot {name}"))?;
            fs::write(&path, svg).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }
}

/// What shows a plot in a Markdown file that has it in `directory`: the one that suits the reader's screen.
#[must_use]
pub fn picture(directory: &str, name: &str, description: &str) -> String {
    format!(
        "<picture>\n  <source media=\"(prefers-color-scheme: dark)\" srcset=\"{directory}/{name}-dark.svg\">\n  \
         <img alt=\"{}\" src=\"{directory}/{name}-light.svg\">\n</picture>",
        description.replace('"', "&quot;")
    )
}

/// A figure for people: thousands set apart, and three digits at least.
#[must_use]
pub fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "none".to_owned();
    }
    let digits = match value.abs() {
        size if size >= 99.95 => return thousands(value),
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    // 3.00 is 3, and -0.00 is 0.
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "-0" | "" => "0".to_owned(),
        text => text.to_owned(),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 {
        format!("-{text}")
    } else {
        text
    }
}
