//! Nanoseconds of a packet, by class and by the number of flows, through BPF_PROG_TEST_RUN.

use anyhow::Result;
use serde_json::{Value, json};
use sni_user::datapath::ProgramFacts;
use snigate_tests::packets::Rig;
use snigate_tests::packets::bench::{Bench, Class, Point};
use snigate_tests::packets::measure::{Times, stay_on_this_cpu};

use crate::{kernel, progress};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Measure only classes whose name contains this; "curve" is the curve over the number of flows.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Measure everything this many times, and take the median of all.
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let rig = Rig::new()?;
    let (facts, classes, curve) = rig.run(|rig| {
        stay_on_this_cpu()?;
        let mut bench = Bench::new(rig, &options.only)?;
        let facts = bench.facts()?;
        let classes = bench.classes(options.rounds, progress)?;
        let curve = bench.curve(options.rounds, progress)?;
        Ok((facts, classes, curve))
    })?;
    progress("");
    if options.json {
        println!("{:#}", as_json(&facts, &classes, &curve));
    } else {
        print_tables(&facts, &classes, &curve);
    }
    Ok(())
}

fn print_tables(facts: &ProgramFacts, classes: &[Class], curve: &[Point]) {
    println!(
        "Kernel {}; the program is {} bytes of BPF, and the verifier walked {} instructions.",
        kernel(),
        facts.translated_bytes,
        facts.verified_instructions
    );
    println!("Nanoseconds of a packet, as the kernel reports them; nothing is subtracted.\n");
    let width = classes.iter().map(|c| c.name.chars().count()).max();
    let width = width.unwrap_or_default();
    println!(
        "{:width$}  {:>6}  {:>6}  {:>6}  {:>9}  aim",
        "packet", "median", "10 %", "90 %", "packets"
    );
    let mut group = "";
    for class in classes {
        if class.group != group {
            group = class.group;
            println!("-- {group}");
        }
        println!(
            "{:width$}  {}  {}",
            class.name,
            figures(&class.times),
            class.aim.map(|ns| format!("<= {ns}")).unwrap_or_default()
        );
    }
    if !curve.is_empty() {
        println!("\nAn established IPv4 flow's packet, each of another flow at random:");
        print_curve(curve);
    }
}

fn figures(times: &Times) -> String {
    format!(
        "{:>6}  {:>6}  {:>6}  {:>9}",
        times.median(),
        times.quantile(0.1),
        times.quantile(0.9),
        times.packets
    )
}

fn print_curve(curve: &[Point]) {
    const WIDTH: u32 = 40;
    println!(
        "{:>9}  {:>6}  {:>6}  {:>6}  {:>9}",
        "flows", "median", "10 %", "90 %", "packets"
    );
    let most = curve.iter().map(|point| point.times.median()).max();
    for point in curve {
        let bar = point.times.median() * WIDTH / most.unwrap_or(1).max(1);
        println!(
            "{:>9}  {}  {}",
            point.count,
            figures(&point.times),
            "#".repeat(bar as usize)
        );
    }
}

fn as_json(facts: &ProgramFacts, classes: &[Class], curve: &[Point]) -> Value {
    let times = |times: &Times| {
        json!({
            "median": times.median(),
            "p10": times.quantile(0.1),
            "p90": times.quantile(0.9),
            "packets": times.packets,
        })
    };
    json!({
        "kernel": kernel(),
        "program": facts,
        "classes": classes.iter().map(|class| json!({
            "group": class.group,
            "name": class.name,
            "nanoseconds": times(&class.times),
            "aim": class.aim,
        })).collect::<Vec<_>>(),
        "curve": curve.iter().map(|point| json!({
            "flows": point.count,
            "nanoseconds": times(&point.times),
        })).collect::<Vec<_>>(),
    })
}
