//! What a saved file costs: until Envoy serves it, through `weft-sidecar` and with Envoy's own watching of files, side by side in
//! one run; and what a mesh of a thousand services costs to read, to hold, and to change at one place.
//!
//! Both Envoys have the same clusters and the same routes, each in a pod of its own. They take turns, so that what disturbs one
//! disturbs the other. A change counts as served with the first answer from the new upstream; requests follow one
//! another without a pause, so that it is seen some tenths of a millisecond late, in both cases. Between saves are 30 ms.

#![forbid(unsafe_code)]

mod files;
mod saves;
mod thousand;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use weft_e2e::bench;

/// People do not save twice within this; what is saved at once after a change is gathered by the sidecar for 20 ms.
const BETWEEN_SAVES: Duration = Duration::from_millis(30);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Measures how soon a saved file is served, and what a large mesh costs.
#[derive(Debug, Parser)]
struct Args {
    /// Saves of one route, for each of the two
    #[arg(long, default_value_t = 200)]
    saves: usize,
    /// Services of the large mesh, with ten endpoints each
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// Changes of one endpoint in it
    #[arg(long, default_value_t = 100)]
    changes: usize,
}

fn main() -> ExitCode {
    bench::finish(measure(&Args::parse()))
}

fn measure(args: &Args) -> Result<String> {
    let saves = saves::measure(args.saves)?;
    let thousand = thousand::measure(args.services, args.changes)?;
    Ok(format!("{saves}\n{thousand}"))
}

fn pause() {
    std::thread::sleep(BETWEEN_SAVES);
}

/// Median and 99th percentile, in milliseconds, by the nearest rank.
fn spread(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |rank: usize| {
        let index = (sorted.len() * rank).div_ceil(100).saturating_sub(1);
        sorted.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    format!("p50 {:6.2} ms   p99 {:6.2} ms", at(50), at(99))
}
