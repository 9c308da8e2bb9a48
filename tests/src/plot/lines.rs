//! Lines over a common axis.

use anyhow::{Result, ensure};
use plotters::prelude::*;

use super::canvas::{AXIS, MARGIN, Pixel, WIDTH, draw, mark, whisker};
use super::scale::Scale;
use super::{Lines, Theme, figure};

const HEIGHT: u32 = 420;
/// With more points the marks would hide the line.
const MARKED: usize = 32;

impl Lines {
    pub(super) fn svg(&self, theme: Theme) -> Result<String> {
        let names: Vec<_> = self.lines.iter().map(|line| line.name.as_str()).collect();
        let points = || self.lines.iter().flat_map(|line| &line.points);
        ensure!(points().next().is_some(), "a plot without a point");
        let x = Scale::new(self.x.logarithmic, points().map(|(x, _)| *x))?;
        let ends = points().flat_map(|(_, value)| [value.low, value.middle, value.high]);
        let y = Scale::new(self.y.logarithmic, ends)?;
        draw(
            (WIDTH, HEIGHT),
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
