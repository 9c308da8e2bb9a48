//! Durations, sizes and shares as people read them.

use std::time::Duration;

use bytesize::ByteSize;

pub(super) use crate::datapath::endpoint;

/// The two largest units, such as `2h 5m`; below a second, milliseconds.
pub(super) fn duration(duration: Duration) -> String {
    let rounded = if duration < Duration::from_secs(1) {
        Duration::from_millis(duration.as_millis() as u64)
    } else {
        Duration::from_secs(duration.as_secs())
    };
    let text = humantime::format_duration(rounded).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Such as `3.4 kB`.
pub(super) fn bytes(bytes: u64) -> String {
    ByteSize::b(bytes).display().si().to_string()
}

/// With separators between the thousands.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Such as `12.5%`.
pub(super) fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    format!("{:.1}%", part as f64 * 100.0 / whole as f64)
}

/// A noun with its number, such as `1 flow` and `2 flows`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units_at_most() {
        let cases = [
            (Duration::ZERO, "0s"),
            (Duration::from_micros(7), "0s"),
            (Duration::from_millis(250), "250ms"),
            (Duration::from_millis(3700), "3s"),
            (Duration::from_secs(125), "2m 5s"),
            (Duration::from_secs(7325), "2h 2m"),
            (Duration::from_secs(90_000), "1day 1h"),
        ];
        for (given, text) in cases {
            assert_eq!(duration(given), text);
        }
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_000), "1,000");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "flow"), "1 flow");
        assert_eq!(counted(0, "flow"), "0 flows");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(3_400), "3.4 kB");
        assert_eq!(share(1, 8), "12.5%");
        assert_eq!(share(0, 0), "-");
    }
}
