//! What every picture has: background, title, legend, and the marks of its series.

use anyhow::{Result, ensure};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::theme::{Colours, MOST_SERIES, Theme};

pub(super) const WIDTH: u32 = 860;
pub(super) const MARGIN: i32 = 14;
/// Beside an axis, for its labels and its name.
pub(super) const AXIS: u32 = 46;
const TITLE: i32 = 30;
const LEGEND_ROW: i32 = 22;
/// Without a font's own tables: what a character of the text takes, and a little more.
pub(super) const CHARACTER: i32 = 7;

pub(super) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(super) type Pixel = (i32, i32);

/// Background, title and legend, and then what `body` draws below `top`.
pub(super) fn draw(
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
pub(super) fn top(names: &[&str]) -> i32 {
    let last = legend(names).last().map_or(TITLE, |(_, y)| *y);
    last + MARGIN + 2
}

pub(super) fn whisker(
    canvas: &Canvas<'_>,
    ends: [Pixel; 2],
    cap: Pixel,
    colour: RGBColor,
) -> Result<()> {
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
pub(super) fn mark(
    canvas: &Canvas<'_>,
    number: usize,
    (x, y): Pixel,
    colour: RGBColor,
) -> Result<()> {
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
