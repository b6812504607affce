//! ADD and DEL of `weft-cni` and of the reference plugins, side by side in one run.
//!
//! Both do the same: a veth pair, an IPv4 and an IPv6 address, a default route each, masquerade. They take turns on
//! the same machine, each on a node of its own, so that what disturbs one disturbs the other. A time is what a runtime
//! waits: from before the plugin is started until it has ended and its answer is read.

#![forbid(unsafe_code)]

use std::fs::Permissions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::Value;
use weft_e2e::{Attachment, Error, Network, Node, Pod, Result, binaries, chain, output};

/// Compares ADD and DEL of weft-cni with bridge+host-local.
#[derive(Debug, Parser)]
struct Args {
    /// Pods that are attached one after the other
    #[arg(long, default_value_t = 60)]
    pods: usize,
    /// Pods that are attached at the same time
    #[arg(long, default_value_t = 50)]
    burst: usize,
    /// How often the burst is repeated
    #[arg(long, default_value_t = 3)]
    rounds: usize,
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
    let contestants = [Contestant::new(Network::reference(1))?, Contestant::new(Network::routed(2))?];
    let floor = process_start(args.pods)?;
    let one_by_one = one_by_one(&contestants, args.pods)?;
    let bursts = bursts(&contestants, args)?;
    let weight = Weight::of_weft_cni()?;
    report(args, &floor, &one_by_one, &bursts, &weight).map_err(doing("print"))
}

/// A plugin with a node of its own, on which one pod is attached already: what the first pod of a node costs on top
/// (a bridge, a table) is not what is measured.
struct Contestant {
    network: Network,
    node: Node,
    _first: Pod,
}

impl Contestant {
    fn new(network: Network) -> Result<Self> {
        let node = Node::start()?;
        let first = Pod::create(&node, "first")?;
        network.add(&node, &Attachment::of(&first))?;
        Ok(Self { network, node, _first: first })
    }

    fn pod(&self, number: usize) -> Result<Pod> {
        Pod::create(&self.node, &format!("pod-{number}"))
    }

    fn add(&self, pod: &Pod) -> Result<(Duration, Value)> {
        let start = Instant::now();
        let result = self.network.add(&self.node, &Attachment::of(pod))?;
        Ok((start.elapsed(), result))
    }

    fn del(&self, pod: &Pod, result: &Value) -> Result<Duration> {
        let start = Instant::now();
        self.network.del(&self.node, &Attachment::of(pod), result)?;
        Ok(start.elapsed())
    }
}

/// What the two contestants took, in their order.
#[derive(Default)]
struct Times {
    add: [Vec<Duration>; 2],
    del: [Vec<Duration>; 2],
    /// How long all of a burst took together.
    all_added: [Vec<Duration>; 2],
    all_deleted: [Vec<Duration>; 2],
}

fn process_start(times: usize) -> Result<Vec<Duration>> {
    let empty = binaries::system("busybox")?;
    (0..times)
        .map(|_| {
            let start = Instant::now();
            output(Command::new(&empty).arg("true")).map(|_| start.elapsed())
        })
        .collect()
}

fn one_by_one(contestants: &[Contestant; 2], pods: usize) -> Result<Times> {
    let mut times = Times::default();
    for number in 0..pods {
        progress(&format!("pod {} of {pods}", number + 1));
        for (side, contestant) in in_turn(contestants, number) {
            let pod = contestant.pod(number)?;
            let (add, result) = contestant.add(&pod)?;
            times.add.get_mut(side).into_iter().for_each(|list| list.push(add));
            let del = contestant.del(&pod, &result)?;
            times.del.get_mut(side).into_iter().for_each(|list| list.push(del));
        }
    }
    Ok(times)
}

fn bursts(contestants: &[Contestant; 2], args: &Args) -> Result<Times> {
    let mut times = Times::default();
    for round in 0..args.rounds {
        progress(&format!("burst {} of {}", round + 1, args.rounds));
        for (side, contestant) in in_turn(contestants, round) {
            let pods = (0..args.burst).map(|number| contestant.pod(number)).collect::<Result<Vec<_>>>()?;
            let (all, added) = at_once(&pods, |pod| contestant.add(pod))?;
            let (adds, results): (Vec<_>, Vec<_>) = added.into_iter().unzip();
            times.add.get_mut(side).into_iter().for_each(|list| list.extend(&adds));
            times.all_added.get_mut(side).into_iter().for_each(|list| list.push(all));
            let pairs: Vec<_> = pods.iter().zip(&results).collect();
            let (all, dels) = at_once(&pairs, |(pod, result)| contestant.del(pod, result))?;
            times.del.get_mut(side).into_iter().for_each(|list| list.extend(&dels));
            times.all_deleted.get_mut(side).into_iter().for_each(|list| list.push(all));
        }
    }
    Ok(times)
}

/// What the plugin weighs, on disk and at work.
struct Weight {
    bytes: u64,
    /// The most that an ADD had resident at a time, as the kernel counts it.
    resident_kib: u64,
}

impl Weight {
    fn of_weft_cni() -> Result<Self> {
        let plugin = binaries::weft("weft-cni")?;
        let bytes = std::fs::metadata(&plugin).map_err(doing("measure weft-cni"))?.len();
        let dir = tempfile::tempdir().map_err(doing("make a folder"))?;
        let (wrapper, account) = (dir.path().join("weft-cni"), dir.path().join("account"));
        let time =
            format!("{} --format %M --output {}", binaries::system("time")?.display(), account.display());
        let script = format!("#!/bin/sh\nexec {time} {}\n", plugin.display());
        std::fs::write(&wrapper, script).map_err(doing("write a wrapper"))?;
        std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755))
            .map_err(doing("write a wrapper"))?;
        Contestant::new(Network::routed(3).with_plugins_in(dir.path()))?;
        let account = std::fs::read_to_string(account).map_err(doing("read what time says"))?;
        let shape = |_not_a_number| Error::Shape { what: "what time says".to_owned(), text: account.clone() };
        Ok(Self { bytes, resident_kib: account.trim().parse().map_err(shape)? })
    }
}

/// Who goes first changes with every turn.
fn in_turn(contestants: &[Contestant; 2], turn: usize) -> impl Iterator<Item = (usize, &Contestant)> {
    let mut order: Vec<_> = contestants.iter().enumerate().collect();
    order.rotate_left(turn % 2);
    order.into_iter()
}

/// One thread for each; returns how long all of them took, and what each returned.
fn at_once<T: Sync, U: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<U> + Sync,
) -> Result<(Duration, Vec<U>)> {
    let start = Instant::now();
    let outcomes = thread::scope(|scope| {
        let running: Vec<_> = items.iter().map(|item| scope.spawn(|| work(item))).collect();
        running.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    Ok((start.elapsed(), outcomes))
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn progress(what: &str) {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        // A progress line that cannot be shown is no reason to stop measuring.
        drop(write!(stderr, "\r{what:<40}\r"));
        drop(stderr.flush());
    }
}

fn report(args: &Args, floor: &[Duration], single: &Times, burst: &Times, weight: &Weight) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "weft-cni against bridge+host-local: IPv4 and IPv6, default routes, masquerade")?;
    writeln!(out, "{} pods one by one; {} bursts of {} at once\n", args.pods, args.rounds, args.burst)?;
    writeln!(out, "{:<21}{:>29}{:>29}", "", "p50, ms", "p99, ms")?;
    let head = format!("{:>11}{:>9}{:>9}", "reference", "weft", "ratio");
    writeln!(out, "{:<21}{head}{head}", "")?;
    row(&mut out, "ADD, one by one", &single.add)?;
    row(&mut out, "DEL, one by one", &single.del)?;
    row(&mut out, &format!("ADD, {} at once", args.burst), &burst.add)?;
    row(&mut out, &format!("DEL, {} at once", args.burst), &burst.del)?;
    row(&mut out, &format!("all {} ADDs", args.burst), &burst.all_added)?;
    row(&mut out, &format!("all {} DELs", args.burst), &burst.all_deleted)?;
    let (p50, p99) = (millis(percentile(floor, 50)), millis(percentile(floor, 99)));
    writeln!(out, "\nthe start of an empty static binary: p50 {p50:.2} ms, p99 {p99:.2} ms")?;
    let (size, resident) = (mebi(weight.bytes), mebi(weight.resident_kib * 1024));
    writeln!(out, "weft-cni: {size:.2} MiB on disk, {resident:.2} MiB resident in ADD")
}

fn row(out: &mut impl Write, what: &str, [reference, weft]: &[Vec<Duration>; 2]) -> io::Result<()> {
    write!(out, "{what:<21}")?;
    for rank in [50, 99] {
        let (reference, weft) = (millis(percentile(reference, rank)), millis(percentile(weft, rank)));
        let ratio = format!("{:.3}", weft / reference);
        write!(out, "{reference:>11.2}{weft:>9.2}{ratio:>9}")?;
    }
    writeln!(out)
}

/// The nearest rank.
fn percentile(times: &[Duration], rank: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let index = (sorted.len() * rank).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn mebi(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn doing(what: &str) -> impl FnOnce(io::Error) -> Error + '_ {
    move |source| Error::Io { doing: what.to_owned(), source }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!([50, 99, 100].map(|rank| percentile(&times, rank).as_millis()), [50, 99, 100]);
        assert_eq!(percentile(&times[..1], 99), times[0]);
    }
}
