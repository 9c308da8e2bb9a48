//! Groups of bars.

use anyhow::{Result, ensure};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{AXIS, CHARACTER, MARGIN, WIDTH, draw, top, whisker};
use super::{Bars, Theme, figure};

const BAR: u32 = 17;
const BETWEEN_GROUPS: u32 = 12;

impl Bars {
    pub(super) fn svg(&self, theme: Theme) -> Result<String> {
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
