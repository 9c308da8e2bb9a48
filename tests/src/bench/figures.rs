//! Medians and quantiles.

use std::cmp::Ordering;

/// The value that this share of all stays below, or is; `None` where there are none.
pub(super) fn quantile<T: Copy + PartialOrd>(values: &[T], share: f64) -> Option<T> {
    let sorted = sorted(values);
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

/// The middle one, or between the two in the middle.
pub(super) fn median(values: impl AsRef<[f64]>) -> Option<f64> {
    let sorted = sorted(values.as_ref());
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[middle - 1], upper))
}

fn sorted<T: Copy + PartialOrd>(values: &[T]) -> Vec<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|one, other| one.partial_cmp(other).unwrap_or(Ordering::Equal));
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn quantiles_up_to_the_longest() {
        let values = [4.0, 1.0, 3.0, 2.0, 5.0];
        assert_eq!(quantile(&values, 0.5), Some(3.0));
        assert_eq!(quantile(&values, 1.0), Some(5.0));
        assert_eq!(quantile::<f64>(&[], 0.5), None);
    }
}
