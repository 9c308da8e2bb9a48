use super::*;
use crate::bench::results::{Better, Metric, Role, Row, Table};

fn fixture() -> Results {
    serde_json::from_str(include_str!("fixture.json")).expect("the fixture is what a run keeps")
}

fn page(template: &str, results: &Results) -> String {
    // Whatever the template leaves out is no matter here.
    let all: String = results
        .tables
        .iter()
        .map(|table| format!("{{{{table {}}}}}\n", table.key))
        .collect();
    let whole = format!("{template}\n---\n{all}");
    let document = Document::of_template(&whole, results).expect("a page");
    let (page, _) = document.markdown.split_once("\n---\n").expect("the page");
    page.to_owned()
}

#[test]
fn the_page_is_whole_and_tells_the_same_figures_the_same_way() {
    let document = Document::new(&fixture()).expect("a page");
    let page = &document.markdown;
    assert!(!page.contains("{{") && !page.contains("}}"), "{page}");
    for text in [
        "2 CPUs (A Processor), 15.6 GiB of memory, Linux 6.1.0",
        "HAProxy 2.6.12, snigate 0.1.0",
        "Made on 2026-01-02 from commit 0123abc in 47 minutes: 3 rounds of 2000 ms",
        "2.0 % of the CPUs' time was used (at most 3.0 %)",
        "- nftables, flowtable (offloads-on): no such thing",
        "```text\nroutes  fastest │ median\n```",
        "| UDP | 27 (26 to 30) | 40 |",
        "srcset=\"benchmarks/flows-dark.svg\"",
        "srcset=\"benchmarks/reload-memory-dark.svg\"",
        "| failed connections | 0 (0 to 0) | 0 (0 to 0) | 3 (0 to 5) |",
    ] {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(!page.contains("No figures to rely on"), "{page}");
    let again = Document::new(&fixture()).expect("a page");
    assert_eq!(*page, again.markdown);
    // What was not measured is said to be so, and has no picture.
    assert!(page.contains(NOTHING), "{page}");
    assert!(!page.contains("benchmarks/edges-"), "{page}");
}

#[test]
fn every_picture_can_be_drawn_and_is_named_once() {
    let document = Document::new(&fixture()).expect("a page");
    let mut names: Vec<_> = document.plots.iter().map(|(name, _)| *name).collect();
    assert!(names.len() > 10, "{names:?}");
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
    for (name, plot) in &document.plots {
        let svg = plot.svg(crate::plot::Theme::Dark);
        assert!(svg.is_ok(), "{name}: {svg:?}");
    }
}

#[test]
fn a_page_and_its_pictures_replace_those_of_an_earlier_run() {
    let directory = std::env::temp_dir().join(format!("snigate-page-{}", std::process::id()));
    let pictures = directory.join(PICTURES);
    fs::create_dir_all(&pictures).expect("a directory");
    fs::write(pictures.join("gone-dark.svg"), "").expect("a file");
    let document = Document::new(&fixture()).expect("a page");
    document.write(&directory).expect("files");
    let page = fs::read_to_string(directory.join(PAGE)).expect("a page");
    let shown = page.matches("srcset=\"").count() + page.matches("src=\"").count();
    let files = fs::read_dir(&pictures).expect("pictures").count();
    assert!(!pictures.join("gone-dark.svg").exists());
    fs::remove_dir_all(&directory).expect("a directory");
    assert_eq!(page, document.markdown);
    assert_eq!(shown, files);
}

#[test]
fn who_wins_is_told_by_the_figures() {
    let results = fixture();
    let scores = page("{{scores setup/offloads-on/parallel-1}}", &results);
    let line = |name: &str| {
        let found = scores.lines().find(|line| line.contains(name));
        found
            .unwrap_or_else(|| panic!("{name}: {scores}"))
            .to_owned()
    };
    assert!(
        line("| rate, conn/s |").ends_with("| 1.6 | **snigate** |"),
        "{scores}"
    );
    // Ranges overlap.
    assert!(
        line("| p99, µs |").ends_with("| can't be told |"),
        "{scores}"
    );
    // One of the rounds came out below zero, and there is no ratio of that sign.
    assert!(
        line("| CPU over routing, µs/conn |").ends_with("| 10.9 | **snigate** |"),
        "{scores}"
    );
    assert!(!scores.contains("both ends included"), "{scores}");

    let losses = page("{{losses}}", &results);
    assert!(
        losses.contains(
            "nginx is better at rate, MiB/s: 646 (640 to 652), and snigate (hand-off, TCX) 557"
        ),
        "{losses}"
    );
    assert!(!losses.contains("relay"), "{losses}");
    let ways = page("{{ways setup/offloads-on/parallel-1}}", &results);
    assert!(
        ways.contains("- relay, connections, one after the other; offloads on: rate, conn/s 3,000, nginx 5,000;"),
        "{ways}"
    );
    assert!(!ways.contains("binding"), "{ways}");
}

#[test]
fn the_best_stands_out_and_routing_does_not_compete() {
    let table = page("{{compare setup/offloads-on/parallel-1}}", &fixture());
    let rate = table.lines().find(|line| line.starts_with("| rate,"));
    let rate = rate.unwrap_or_else(|| panic!("{table}"));
    assert!(
        rate.starts_with(
            "| rate, conn/s | 9,000 (8,820 to 9,180) | **8,000 (7,840 to 8,160)** | 3,000"
        ),
        "{rate}"
    );
    // One after the other, and 16 at once.
    assert_eq!(table.matches("**8,000").count(), 2);
    assert!(!table.contains("**9,000"), "{table}");
}

#[test]
fn one_round_tells_nobody_s_victory() {
    let mut results = fixture();
    for row in results.tables.iter_mut().flat_map(|table| &mut table.rows) {
        for cell in &mut row.cells {
            cell.truncate(1);
        }
    }
    results.how.quick = true;
    let page = page("{{losses}} {{warnings}} {{compare setup/}}", &results);
    assert!(
        page.contains("clearly better in 0 and the best peer in 0"),
        "{page}"
    );
    assert!(
        page.contains("No figures to rely on: a quick run"),
        "{page}"
    );
    assert!(!page.contains("**8,"), "{page}");
}

#[test]
fn what_was_measured_is_shown() {
    let mut results = fixture();
    results.tables.push(Table {
        key: "new/one".to_owned(),
        title: "something new".to_owned(),
        metrics: vec![Metric::new("rate", "1/s", Better::Higher)],
        rows: vec![Row {
            name: "snigate".to_owned(),
            role: Role::Ours,
            x: None,
            cells: vec![vec![1.0]],
        }],
    });
    let error = Document::new(&results).expect_err("a table that nobody shows");
    assert!(error.to_string().contains("new/one"), "{error}");
    for wrong in [
        "{{tables all}}",
        "{{plot nothing}}",
        "{{machine now}}",
        "{{run",
    ] {
        assert!(Document::of_template(wrong, &fixture()).is_err(), "{wrong}");
    }
}
