//! `make bench-xds`: weft-xds beside the other ways to feed an Envoy, in one run on one machine.
//!
//! Every server is a process of its own with one thread, so that its CPU time and memory are the kernel's account of it. All
//! have the same clients, over TCP, which count what arrives. Servers that do not tell their clients of a change by
//! themselves are asked again by each client, and the table says so.

mod client;
mod contestant;
mod process;
mod report;
mod resources;
mod scenario;
mod server;

use std::error::Error;

use self::contestant::Contestant;
use self::scenario::{Scenario, measure};

const HELP: &str = "\
weft-bench-xds: weft-xds, rust-control-plane and nebucloud-xds, side by side

usage: weft-bench-xds [--quick]

  --quick   a tenth of everything, for a first look; ratios then say little

It takes some minutes. `make bench` does not include it.
";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &*words {
        [] => compare(1),
        ["--quick"] => compare(10),
        ["serve", contestant, clusters, streams] => {
            server::serve(Contestant::named(contestant)?, clusters.parse()?, streams.parse()?)
        }
        _ => {
            eprint!("{HELP}");
            Err("what is asked for is not known".into())
        }
    }
}

/// Runs all scenarios with a `part`-th of what they are about.
fn compare(part: usize) -> Result<(), Box<dyn Error>> {
    let scenarios = [
        Scenario { clusters: 10_000 / part, streams: 1, rounds: 15, changes: 10 },
        Scenario { clusters: 100, streams: 1_000 / part, rounds: 9, changes: 1 },
    ];
    report::preface();
    for scenario in &scenarios {
        let measured: Vec<_> = Contestant::ALL
            .into_iter()
            .map(|contestant| (contestant, measure(contestant, scenario)))
            .collect();
        report::table(scenario, &measured);
    }
    Ok(())
}
