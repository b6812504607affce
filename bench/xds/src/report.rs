//! What is printed.

use std::error::Error;
use std::time::Duration;

use crate::contestant::Contestant;
use crate::scenario::{Measured, Scenario};

pub fn preface() {
    println!("weft-xds beside rust-control-plane 0.1.2 and nebucloud-xds 0.1.0.");
    println!("- rust-control-plane has no incremental variant (`unimplemented!()`).");
    println!("- nebucloud-xds tells its clients of no change: here they ask again, at once (marked with *).");
    println!("- In brackets: how many times what weft-xds needs in the incremental variant.");
}

pub fn table(scenario: &Scenario, measured: &[(Contestant, Result<Measured, Box<dyn Error>>)]) {
    let Scenario { clusters, streams, rounds, changes } = scenario;
    println!(
        "\nOne endpoint changed among {clusters} clusters, {streams} streams; the middle of {rounds} rounds of {changes}"
    );
    println!(
        "{:<40}{:>22}{:>24}{:>22}{:>14}{:>20}{:>14}",
        "",
        "CPU of the server",
        "bytes, all streams",
        "last has it after",
        "first build",
        "next build",
        "a stream"
    );
    let best = measured.iter().find_map(|(_, measured)| measured.as_ref().ok());
    for (contestant, measured) in measured {
        let mark = if contestant.pushes() { "" } else { " *" };
        let name = format!("{}{mark}", contestant.name());
        match (measured, best) {
            (Ok(measured), Some(best)) => println!("{name:<40}{}", row(measured, best)),
            (Err(error), _) => println!("{name:<40}  {error}"),
            (Ok(_), None) => {}
        }
    }
}

fn row(measured: &Measured, best: &Measured) -> String {
    let times = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64().max(1e-9);
    format!(
        "{:>22}{:>24}{:>22}{:>14}{:>20}{:>14}",
        format!("{} ({:.1})", time(measured.cpu), times(measured.cpu, best.cpu)),
        format!("{} ({:.1})", measured.bytes, measured.bytes as f64 / best.bytes.max(1) as f64),
        format!("{} ({:.1})", time(measured.latency), times(measured.latency, best.latency)),
        time(measured.build),
        format!("{} ({:.1})", time(measured.rebuild), times(measured.rebuild, best.rebuild)),
        format!("{} KiB", measured.per_stream / 1024),
    )
}

fn time(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    if micros < 10_000.0 { format!("{micros:.0} µs") } else { format!("{:.1} ms", micros / 1e3) }
}
