//! The documentation, the dashboard and the alert rules: what they say of the metrics is so.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sni_user::metrics::{FAMILIES, Family, Kind};

use crate::{promtool::Promtool, repository};

fn families() -> impl Iterator<Item = &'static Family> {
    FAMILIES.iter().copied().flatten().copied()
}

/// Every name that a query may use.
fn names() -> BTreeSet<String> {
    let ends = |family: &Family| -> &[&str] {
        match family.kind {
            Kind::Histogram(_) => &["_bucket", "_sum", "_count"],
            _ => &[""],
        }
    };
    let of = |family: &'static Family| {
        let name = family.name;
        ends(family).iter().map(move |end| format!("{name}{end}"))
    };
    families().flat_map(of).collect()
}

/// The names of ours that a query uses.
fn used(query: &str) -> BTreeSet<&str> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("snigate_") || word.starts_with("process_"))
        .collect()
}

/// A query without Grafana's variables.
fn plain(query: &str) -> String {
    let query = query.replace("$__rate_interval", "5m");
    query.replace("$instance", ".*").replace("$job", ".*")
}

/// Every query of the dashboard, with the title that it is under.
fn dashboard() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(repository("packaging/grafana.json"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        let title = panel["title"].as_str().context("a title")?;
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().context("an expression")?;
            queries.push((title.to_owned(), query.to_owned()));
        }
    }
    for list in ["annotations", "templating"] {
        for entry in dashboard[list]["list"].as_array().context("a list")? {
            let title = entry["name"].as_str().context("a name")?;
            let query = entry["expr"].as_str().or(entry["definition"].as_str());
            queries.extend(query.map(|query| (title.to_owned(), query.to_owned())));
        }
    }
    Ok(queries)
}

#[test]
fn the_documentation_has_every_metric_and_no_other() -> Result<()> {
    let text = fs::read_to_string(repository("docs/metrics.md"))?;
    let rows: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    let of = |family: &Family| {
        let labels: Vec<_> = family.labels.iter().map(|it| format!("`{it}`")).collect();
        format!(
            "| `{}` | {} | {} | {} |",
            family.name,
            family.kind.name(),
            labels.join(", "),
            family.help
        )
    };
    let expected: Vec<_> = families().map(of).collect();
    ensure!(
        rows == expected,
        "docs/metrics.md has\n{}\nand not\n{}",
        rows.join("\n"),
        expected.join("\n")
    );
    Ok(())
}

#[test]
fn the_dashboard_asks_for_what_there_is() -> Result<()> {
    let (names, queries) = (names(), dashboard()?);
    for (title, query) in &queries {
        let used = used(query);
        ensure!(
            !used.is_empty(),
            "{title:?} asks for nothing of ours: {query}"
        );
        for name in used {
            ensure!(names.contains(name), "{title:?}: there is no {name}");
        }
    }
    let shown: BTreeSet<_> = queries.iter().flat_map(|(_, query)| used(query)).collect();
    for name in names
        .iter()
        .filter(|it| !it.ends_with("_sum") && !it.ends_with("_count"))
    {
        ensure!(shown.contains(&**name), "{name} is on no panel");
    }
    Ok(())
}

#[test]
fn the_dashboard_asks_in_promql() -> Result<()> {
    let Some(promtool) = Promtool::find("the_dashboard_asks_in_promql") else {
        return Ok(());
    };
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    // label_values() is Grafana's own.
    let queries = dashboard()?.into_iter();
    for (number, (title, query)) in queries
        .filter(|(_, it)| !it.contains("label_values"))
        .enumerate()
    {
        let query = serde_json::to_string(&plain(&query))?;
        let _ = write!(
            rules,
            "  # {title}\n  - record: panel:{number}\n    expr: {query}\n"
        );
    }
    let directory = std::env::temp_dir().join(format!("snigate-dashboard-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("rules.yml"), &rules)?;
    let judged = promtool.judge(&["check", "rules", "rules.yml"], "", &directory);
    fs::remove_dir_all(&directory)?;
    judged.map(drop).context(rules)
}

#[test]
fn the_alert_rules_ask_for_what_there_is() -> Result<()> {
    let text = fs::read_to_string(repository("packaging/alerts.yml"))?;
    let used: BTreeSet<_> = used(&text);
    ensure!(used.len() > 10, "{used:?}");
    let names = names();
    for name in used {
        ensure!(names.contains(name), "there is no {name}");
    }
    Ok(())
}
