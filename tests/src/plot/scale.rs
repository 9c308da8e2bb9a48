//! The scale of an axis: from zero, or by powers of ten.

use std::ops::Range;

use anyhow::{Result, ensure};

/// What an axis reaches from and to.
pub(super) struct Scale {
    logarithmic: bool,
    range: Range<f64>,
}

impl Scale {
    pub(super) fn new(logarithmic: bool, values: impl Iterator<Item = f64>) -> Result<Self> {
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

    pub(super) fn range(&self) -> Range<f64> {
        self.range.clone()
    }

    /// Each power of ten has one.
    pub(super) fn labels(&self) -> usize {
        if self.logarithmic {
            (self.range.end - self.range.start) as usize + 1
        } else {
            8
        }
    }

    pub(super) fn forth(&self, value: f64) -> f64 {
        if self.logarithmic {
            value.log10()
        } else {
            value
        }
    }

    pub(super) fn back(&self, place: f64) -> f64 {
        if self.logarithmic {
            10_f64.powf(place)
        } else {
            place
        }
    }
}
