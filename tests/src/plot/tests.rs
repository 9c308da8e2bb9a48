use anyhow::Result;

use super::scale::Scale;
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
