//! What a pod's network costs with `weft-cni`, with the reference plugins, and at the least, side by side in one run.
//!
//! All do the same: a veth pair, an IPv4 and an IPv6 address, default routes, masquerade, one TCP host port, and shaping
//! both ways. They take turns on the same machine, each on a node of its own, so that what disturbs one disturbs the
//! others. A time is what a runtime waits for plugins: of each from before it is started until it has ended and its answer is
//! read. What this program does before, between and after them is in no time.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use weft_e2e::{Error, Result, chain};

mod burst;
mod contestant;
mod crowd;
mod objects;
mod progress;
mod reference;
mod report;
mod times;
mod traffic;
mod turns;
mod weight;

use contestant::Contestant;
use progress::Progress;
use reference::Reference;
use report::Findings;

/// Compares weft-cni with the reference plugins, and with the least that it takes.
///
/// REFERENCE_CNI_PATH names the folder of the reference plugins; else they are those of the system.
#[derive(Debug, Parser)]
struct Args {
    /// Less of everything: shows that it works, and not much more
    #[arg(long)]
    quick: bool,
    /// Pods that are attached one after the other
    #[arg(long, default_value_t = 40, default_value_if("quick", "true", "10"))]
    pods: u16,
    /// Pods that are attached in one burst
    #[arg(long, default_value_t = 100, default_value_if("quick", "true", "20"))]
    burst: u16,
    /// How many of a burst are under way at the same time
    #[arg(long, default_value_t = 50, default_value_if("quick", "true", "10"))]
    at_once: usize,
    /// Pods on a node at the most, where it is measured how the cost grows with them
    #[arg(long, default_value_t = 1000, default_value_if("quick", "true", "100"))]
    standing: u16,
    /// The same for the reference, which takes its time
    #[arg(long, default_value_t = 100, default_value_if("quick", "true", "10"))]
    reference_standing: u16,
    /// Rounds in which pods talk to each other
    #[arg(long, default_value_t = 5, default_value_if("quick", "true", "1"))]
    rounds: u16,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-bench: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let progress = Progress::start();
    let reference = Reference::find()?;
    let weight = weight::measure(&reference)?;
    let floor = turns::process_start(args.pods)?;

    let (weft, bare) = (Contestant::weft()?, Contestant::bare()?);
    objects::compare(&weft, &bare)?;
    let references = reference.contestants()?;
    let all: Vec<_> = references.iter().chain([&bare, &weft]).collect();
    let before = [weft.inventory()?, bare.inventory()?];
    let turns = turns::measure(&all, args.pods, &progress)?;
    let bursts = burst::measure(&all, args.burst, args.at_once, &progress)?;
    for (contestant, before) in [&weft, &bare].into_iter().zip(&before) {
        contestant.refuse_remains(before)?;
    }
    let traffic = traffic::measure(&references, &weft, args.rounds, &progress)?;
    let crowds = crowd::measure(&reference, args.standing, args.reference_standing, &progress)?;
    drop(progress);

    let findings = Findings { reference, floor, turns, bursts, crowds, traffic, weight };
    report::print(&findings).map_err(doing("print"))?;
    findings.refuse_failures()
}

fn doing(what: &str) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Io { doing: what.to_owned(), source }
}

fn shape(what: &str, text: &str) -> Error {
    Error::Shape { what: what.to_owned(), text: text.to_owned() }
}
