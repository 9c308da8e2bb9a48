//! Colours. A series has one of the palette of Okabe and Ito, which people with any kind of colour blindness tell apart.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const TEXT_SIZE: i32 = 13;
/// More series than this nobody tells apart.
pub const MOST_SERIES: usize = 6;

/// What it is shown on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Theme {
    /// Dark on white.
    Light,
    /// Light on black.
    Dark,
}

/// The colours of a theme.
pub(super) struct Colours {
    pub(super) background: RGBColor,
    pub(super) text: RGBColor,
    pub(super) grid: RGBColor,
    pub(super) series: [RGBColor; MOST_SERIES],
}

impl Theme {
    pub(super) fn colours(self) -> Colours {
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
    pub(super) fn text(&self) -> TextStyle<'static> {
        ("sans-serif", TEXT_SIZE).into_font().color(&self.text)
    }

    pub(super) fn text_at(&self, horizontal: HPos) -> TextStyle<'static> {
        self.text().pos(Pos::new(horizontal, VPos::Center))
    }
}
