//! The alert rules, judged by Prometheus: that they are rules, and that they fire when they should and not when they should not.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::{promtool::Promtool, repository};

#[test]
fn the_alert_rules_are_rules() -> Result<()> {
    let Some(promtool) = Promtool::find("the_alert_rules_are_rules") else {
        return Ok(());
    };
    let arguments = ["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"];
    promtool.judge(&arguments, "", &repository("packaging"))?;
    Ok(())
}

#[test]
fn alerts_fire_when_they_should() -> Result<()> {
    let Some(promtool) = Promtool::find("alerts_fire_when_they_should") else {
        return Ok(());
    };
    let directory = repository("tests/tests/metrics");
    promtool.judge(&["test", "rules", "alerts.test.yml"], "", &directory)?;
    Ok(())
}

/// A rule that no row is about might never fire, and nobody would know.
#[test]
fn every_alert_is_tried() -> Result<()> {
    let rules = fs::read_to_string(repository("packaging/alerts.yml"))?;
    let tried = fs::read_to_string(repository("tests/tests/metrics/alerts.test.yml"))?;
    let mut alerts = rules
        .lines()
        .filter_map(|it| it.trim().strip_prefix("- alert: "));
    let first = alerts.next().context("no alert")?;
    for alert in std::iter::once(first).chain(alerts) {
        ensure!(tried.contains(&format!("alertname=\"{alert}\"")), "{alert}");
    }
    Ok(())
}
