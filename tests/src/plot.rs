//! Plots as SVG, light and dark: lines and bars, with their spread.
//!
//! A series has a colour of the palette of Okabe and Ito, which people with any kind of colour blindness tell apart, and along lines a mark of
//! its own besides.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const WIDTH: u32 = 860;
const LINES_HEIGHT: u32 = 420;
const BAR: u32 = 17;
const BETWEEN_GROUPS: u32 = 12;
const MARGIN: i32 = 14;
const TITLE: i32 = 30;
const LEGEND_ROW: i32 = 22;
const AXIS: u32 = 46;
const TEXT_SIZE: i32 = 13;
/// Without a font's own tables: what a character of this size takes, and a little more.
const CHARACTER: i32 = 7;
/// With more points the marks would hide the line.
const MARKED: usize = 32;
/// More series than this nobody tells apart.
pub const MOST_SERIES: usize = 6;

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Pixel = (i32, i32);

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

/// What it is shown on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Dark on white.
    Light,
    /// Light on black.
    Dark,
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

/// The colours of a theme.
struct Colours {
    background: RGBColor,
    text: RGBColor,
    grid: RGBColor,
    series: [RGBColor; MOST_SERIES],
}

impl Theme {
    fn colours(self) -> Colours {
        match self {
            Self::Light => Colours {
                background: RGBColor(255, 255, 255),
                text: RGBColor(31, 35, 40),
                grid: RGBColor(208, 215, 222),
                series: [
                    RGBColor(0, 114, 178),
                    RGBColor(213, 94, 0),
                    RGBColor(0, 158, 115),
                    RGBColor(204, 121, 167),
                    RGBColor(86, 180, 233),
                    RGBColor(120, 120, 120),
                ],
            },
            Self::Dark => Colours {
                background: RGBColor(13, 17, 23),
                text: RGBColor(230, 237, 243),
                grid: RGBColor(61, 68, 77),
                series: [
                    RGBColor(86, 180, 233),
                    RGBColor(230, 159, 0),
                    RGBColor(0, 178, 130),
                    RGBColor(224, 150, 192),
                    RGBColor(240, 228, 66),
                    RGBColor(160, 160, 160),
                ],
            },
        }
    }
}

impl Colours {
    fn text(&self) -> TextStyle<'static> {
        ("sans-serif", TEXT_SIZE).into_font().color(&self.text)
    }

    fn text_at(&self, horizontal: HPos) -> TextStyle<'static> {
        self.text().pos(Pos::new(horizontal, VPos::Center))
    }
}

impl Lines {
    fn svg(&self, theme: Theme) -> Result<String> {
        let names: Vec<_> = self.lines.iter().map(|line| line.name.as_str()).collect();
        let points = || self.lines.iter().flat_map(|line| &line.points);
        ensure!(points().next().is_some(), "a plot without a point");
        let x = Scale::new(self.x.logarithmic, points().map(|(x, _)| *x))?;
        let ends = points().flat_map(|(_, value)| [value.low, value.middle, value.high]);
        let y = Scale::new(self.y.logarithmic, ends)?;
        draw(
            (WIDTH, LINES_HEIGHT),
            &self.title,
            &names,
            theme,
            |canvas, colours, top| {
                let mut chart = ChartBuilder::on(canvas)
                    .margin(MARGIN)
                    .margin_top(top)
                    // Half of the last label.
                    .margin_right(36)
                    .x_label_area_size(AXIS)
                    .y_label_area_size(78)
                    .build_cartesian_2d(x.range(), y.range())?;
                chart
                    .configure_mesh()
                    .x_labels(x.labels())
                    .y_labels(y.labels())
                    .x_label_formatter(&|value| figure(x.back(*value)))
                    .y_label_formatter(&|value| figure(y.back(*value)))
                    .x_desc(&self.x.name)
                    .y_desc(&self.y.name)
                    .label_style(colours.text())
                    .axis_desc_style(colours.text())
                    .axis_style(colours.grid)
                    .bold_line_style(colours.grid)
                    .light_line_style(TRANSPARENT)
                    .draw()?;
                let area = chart.plotting_area();
                for (number, line) in self.lines.iter().enumerate() {
                    let colour = colours.series[number];
                    let at = |x_value: f64, y_value: f64| {
                        area.map_coordinate(&(x.forth(x_value), y.forth(y_value)))
                    };
                    let path: Vec<Pixel> =
                        line.points.iter().map(|(x, y)| at(*x, y.middle)).collect();
                    for (x, value) in line.points.iter().filter(|(_, value)| value.has_spread()) {
                        let ends = [at(*x, value.low), at(*x, value.high)];
                        whisker(canvas, ends, (4, 0), colour)?;
                    }
                    canvas.draw(&PathElement::new(path.clone(), colour.stroke_width(2)))?;
                    if path.len() <= MARKED {
                        path.into_iter()
                            .try_for_each(|place| mark(canvas, number, place, colour))?;
                    }
                }
                Ok(())
            },
        )
    }
}

impl Bars {
    fn svg(&self, theme: Theme) -> Result<String> {
        let values = || self.groups.iter().flat_map(|group| &group.values).flatten();
        let most = values().map(|value| value.high).fold(0.0, f64::max);
        let least = values().map(|value| value.low).fold(0.0, f64::min);
        ensure!(most > least, "a plot without a bar");
        let names: Vec<_> = self.series.iter().map(String::as_str).collect();
        let rows = names.len() as u32;
        let group_height = rows * BAR + BETWEEN_GROUPS;
        let legend = if names.len() > 1 { &names[..] } else { &[] };
        let top = top(legend) as u32;
        let height = top + group_height * self.groups.len() as u32 + AXIS + MARGIN as u32;
        let longest = self.groups.iter().map(|group| group.name.chars().count());
        let longest = longest.max().unwrap_or_default() as i32;
        let beside = (longest * CHARACTER + MARGIN).min(WIDTH as i32 / 2);
        draw(
            (WIDTH, height),
            &self.title,
            legend,
            theme,
            |canvas, colours, top| {
                // Room for the figure beside the longest one.
                let room = (most - least) * 0.12;
                let left = if least < 0.0 { least - room } else { 0.0 };
                let depth = f64::from(group_height) * self.groups.len() as f64;
                let mut chart = ChartBuilder::on(canvas)
                    .margin(MARGIN)
                    .margin_top(top)
                    .x_label_area_size(AXIS)
                    .y_label_area_size(beside)
                    .build_cartesian_2d(left..most + room, depth..0.0)?;
                chart
                    .configure_mesh()
                    .disable_y_mesh()
                    .y_labels(0)
                    .x_labels(8)
                    .x_label_formatter(&|value| figure(*value))
                    .x_desc(&self.axis)
                    .label_style(colours.text())
                    .axis_desc_style(colours.text())
                    .axis_style(colours.grid)
                    .bold_line_style(colours.grid)
                    .light_line_style(TRANSPARENT)
                    .draw()?;
                let area = chart.plotting_area();
                for (number, group) in self.groups.iter().enumerate() {
                    let first =
                        number as f64 * f64::from(group_height) + f64::from(BETWEEN_GROUPS) / 2.0;
                    let middle = first + f64::from(rows * BAR) / 2.0;
                    let (edge, y) = area.map_coordinate(&(left, middle));
                    let name = Text::new(
                        group.name.clone(),
                        (edge - 8, y),
                        colours.text_at(HPos::Right),
                    );
                    canvas.draw(&name)?;
                    for (row, value) in group.values.iter().enumerate() {
                        let Some(value) = value else { continue };
                        let upper = first + row as f64 * f64::from(BAR);
                        let at = |x: f64, share: f64| {
                            area.map_coordinate(&(x, upper + share * f64::from(BAR)))
                        };
                        let colour = colours.series[row];
                        let corners = [at(0.0, 0.08), at(value.middle, 0.92)];
                        canvas.draw(&Rectangle::new(corners, colour.filled()))?;
                        if value.has_spread() {
                            let ends = [at(value.low, 0.5), at(value.high, 0.5)];
                            whisker(canvas, ends, (0, 4), colours.text)?;
                        }
                        let (x, y) = at(value.high.max(0.0), 0.5);
                        let style = colours.text_at(HPos::Left);
                        canvas.draw(&Text::new(figure(value.middle), (x + 6, y), style))?;
                    }
                }
                Ok(())
            },
        )
    }
}

/// Background, title and legend, and then what `body` draws below `top`.
fn draw(
    size: (u32, u32),
    title: &str,
    names: &[&str],
    theme: Theme,
    body: impl FnOnce(&Canvas<'_>, &Colours, i32) -> Result<()>,
) -> Result<String> {
    ensure!(
        names.len() <= MOST_SERIES,
        "{} series in one plot, and {MOST_SERIES} can be told apart",
        names.len()
    );
    let mut svg = String::new();
    {
        let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let colours = theme.colours();
        canvas.fill(&colours.background)?;
        let style = ("sans-serif", 16, FontStyle::Bold);
        let style = style.into_font().color(&colours.text);
        canvas.draw(&Text::new(title.to_owned(), (MARGIN, 10), style))?;
        for (number, (name, (x, y))) in names.iter().zip(legend(names)).enumerate() {
            mark(&canvas, number, (x, y), colours.series[number])?;
            let style = colours.text_at(HPos::Left);
            canvas.draw(&Text::new((*name).to_owned(), (x + 10, y), style))?;
        }
        body(&canvas, &colours, top(names))?;
        canvas.present()?;
    }
    Ok(svg)
}

/// Where each name of the legend begins, in as many rows as it takes.
fn legend(names: &[&str]) -> Vec<Pixel> {
    let first = (MARGIN + 6, TITLE + 14);
    let (mut x, mut y) = first;
    let mut places = Vec::new();
    for name in names {
        let width = 30 + name.chars().count() as i32 * CHARACTER;
        if x + width > WIDTH as i32 && x > first.0 {
            (x, y) = (first.0, y + LEGEND_ROW);
        }
        places.push((x, y));
        x += width;
    }
    places
}

/// Below title and legend.
fn top(names: &[&str]) -> i32 {
    let last = legend(names).last().map_or(TITLE, |(_, y)| *y);
    last + MARGIN + 2
}

fn whisker(canvas: &Canvas<'_>, ends: [Pixel; 2], cap: Pixel, colour: RGBColor) -> Result<()> {
    let stroke = |from: Pixel, to: Pixel| {
        canvas.draw(&PathElement::new(vec![from, to], colour.stroke_width(1)))
    };
    stroke(ends[0], ends[1])?;
    for (x, y) in ends {
        stroke((x - cap.0, y - cap.1), (x + cap.0, y + cap.1))?;
    }
    Ok(())
}

/// The mark of the series of this number.
fn mark(canvas: &Canvas<'_>, number: usize, (x, y): Pixel, colour: RGBColor) -> Result<()> {
    let polygon = |corners: &[Pixel]| {
        let corners: Vec<_> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        canvas.draw(&Polygon::new(corners, colour.filled()))
    };
    match number {
        0 => canvas.draw(&Circle::new((x, y), 5, colour.filled()))?,
        1 => polygon(&[(-4, -4), (4, -4), (4, 4), (-4, 4)])?,
        2 => polygon(&[(0, -6), (6, 5), (-6, 5)])?,
        3 => polygon(&[(0, -6), (6, 0), (0, 6), (-6, 0)])?,
        4 => polygon(&[(0, 6), (6, -5), (-6, -5)])?,
        _ => polygon(&[(-6, -2), (6, -2), (6, 2), (-6, 2)])?,
    }
    Ok(())
}

/// What an axis reaches from and to.
struct Scale {
    logarithmic: bool,
    range: Range<f64>,
}

impl Scale {
    fn new(logarithmic: bool, values: impl Iterator<Item = f64>) -> Result<Self> {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            ensure!(value.is_finite(), "{value} can't be drawn");
            ensure!(
                !logarithmic || value > 0.0,
                "{value} on an axis of powers of ten"
            );
            (least, most) = (least.min(value), most.max(value));
        }
        let range = if logarithmic {
            let (first, last) = (least.log10().floor(), most.log10().ceil());
            first..last.max(first + 1.0)
        } else {
            let (first, last) = (least.min(0.0), most.max(0.0) * 1.05);
            first..if last > first { last } else { first + 1.0 }
        };
        Ok(Self { logarithmic, range })
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }

    /// Each power of ten has one.
    fn labels(&self) -> usize {
        if self.logarithmic {
            (self.range.end - self.range.start) as usize + 1
        } else {
            8
        }
    }

    fn forth(&self, value: f64) -> f64 {
        if self.logarithmic {
            value.log10()
        } else {
            value
        }
    }

    fn back(&self, place: f64) -> f64 {
        if self.logarithmic {
            10_f64.powf(place)
        } else {
            place
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize) -> Plot {
        let line = |n: usize| Line {
            name: format!("line {n}"),
            points: vec![
                (1.0, Value::exact(10.0 + n as f64)),
                (
                    1000.0,
                    Value {
                        middle: 30.0,
                        low: 20.0,
                        high: 45.0,
                    },
                ),
            ],
        };
        Plot::Lines(Lines {
            title: "lines".to_owned(),
            x: Axis::logarithmic("flows"),
            y: Axis::linear("time, ns"),
            lines: (0..count).map(line).collect(),
        })
    }

    fn bars() -> Plot {
        let value = Value {
            middle: 5_000.0,
            low: 4_000.0,
            high: 6_000.0,
        };
        Plot::Bars(Bars {
            title: "bars".to_owned(),
            axis: "rate, connections/s".to_owned(),
            series: vec!["ours".to_owned(), "theirs".to_owned()],
            groups: vec![
                Group {
                    name: "first <group>".to_owned(),
                    values: vec![Some(value), None],
                },
                Group {
                    name: "second".to_owned(),
                    values: vec![Some(value), Some(Value::exact(-100.0))],
                },
            ],
        })
    }

    #[test]
    fn axes_legend_and_figures_are_in_the_picture() -> Result<()> {
        let svg = lines(3).svg(Theme::Light)?;
        for text in ["flows", "time, ns", "line 0", "line 2", "1,000", "100"] {
            assert!(svg.contains(&format!("\n{text}\n")), "{text}: {svg}");
        }
        let svg = bars().svg(Theme::Dark)?;
        for text in ["ours", "theirs", "rate, connections/s", "5,000", "-100"] {
            assert!(svg.contains(&format!("\n{text}\n")), "{text}: {svg}");
        }
        assert!(svg.contains("first &lt;group&gt;"), "{svg}");
        Ok(())
    }

    #[test]
    fn themes_differ_in_colours_alone() -> Result<()> {
        let skeleton = |theme: Theme| -> Result<String> {
            let svg = bars().svg(theme)?;
            let pieces = svg.split('#').enumerate();
            let without = pieces.map(|(n, piece)| if n == 0 { piece } else { &piece[6..] });
            Ok(without.collect())
        };
        assert_eq!(skeleton(Theme::Light)?, skeleton(Theme::Dark)?);
        assert_ne!(bars().svg(Theme::Light)?, bars().svg(Theme::Dark)?);
        Ok(())
    }

    #[test]
    fn what_can_t_be_shown_is_refused() {
        assert!(lines(MOST_SERIES).svg(Theme::Light).is_ok());
        assert!(lines(MOST_SERIES + 1).svg(Theme::Light).is_err());
        assert!(lines(0).svg(Theme::Light).is_err());
        assert!(Scale::new(true, [1.0, 0.0].into_iter()).is_err());
        assert!(Scale::new(false, [f64::NAN].into_iter()).is_err());
    }

    #[test]
    fn figures_for_people() {
        for (value, text) in [
            (1_234_567.0, "1,234,567"),
            (-1_000.4, "-1,000"),
            (123.4, "123"),
            (12.34, "12.3"),
            (10.0, "10"),
            (1.234, "1.23"),
            (-0.001, "0"),
            (0.0, "0"),
            (f64::NAN, "none"),
        ] {
            assert_eq!(figure(value), text);
        }
    }
}
