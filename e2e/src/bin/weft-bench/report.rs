//! The tables.

use std::io::{self, Write};
use std::time::Duration;

use weft_e2e::Result;

use crate::burst::Burst;
use crate::crowd::Growth;
use crate::reference::Reference;
use crate::shape;
use crate::times::{Times, millis, p50, percentile};
use crate::traffic::Traffic;
use crate::turns::Turns;
use crate::weight::Weight;

/// All that was measured.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) reference: Reference,
    pub(crate) floor: Vec<Duration>,
    pub(crate) turns: Turns,
    pub(crate) bursts: Vec<Burst>,
    pub(crate) crowds: Vec<Growth>,
    pub(crate) traffic: Vec<Traffic>,
    pub(crate) weight: Vec<Weight>,
}

impl Findings {
    /// Fails where a pod of Weft's could not be attached or detached. That the reference may fail is for it to say.
    pub(crate) fn refuse_failures(&self) -> Result<()> {
        let ours = self.bursts.iter().filter(|burst| !burst.name.starts_with("reference"));
        let failures: Vec<_> = ours.flat_map(|burst| burst.failures.iter().map(String::as_str)).collect();
        if failures.is_empty() { Ok(()) } else { Err(shape("a burst", &failures.join("\n"))) }
    }
}

const WEFT: &str = "weft-cni";

pub(crate) fn print(findings: &Findings) -> io::Result<()> {
    let out = &mut io::stdout().lock();
    writeln!(out, "IPv4 and IPv6, default routes, masquerade, one TCP host port, 100 Mbit/s both ways")?;
    writeln!(out, "{}", findings.reference.about())?;
    one_by_one(out, findings)?;
    bursts(out, &findings.bursts)?;
    crowds(out, &findings.crowds)?;
    traffic(out, &findings.traffic)?;
    weights(out, &findings.weight)?;
    targets(out, findings)
}

fn one_by_one(out: &mut impl Write, findings: &Findings) -> io::Result<()> {
    let pods = findings.turns.first().map_or(0, |(_, times)| times.add.len());
    heading(out, &format!("{pods} pods, one by one"), &TIMES)?;
    for (verb, of) in VERBS {
        let times = |(name, times): &'_ (String, Times)| (name.clone(), of(times).clone());
        time_rows(out, verb, &findings.turns.iter().map(times).collect::<Vec<_>>())?;
    }
    let (p50, p99) = (percentile(&findings.floor, 50), percentile(&findings.floor, 99));
    writeln!(out, "{:<9}{:<21}{p50:>10.2}{p99:>10.2}", "start", "an empty binary")
}

fn bursts(out: &mut impl Write, bursts: &[Burst]) -> io::Result<()> {
    let pods = bursts.first().map_or(0, |burst| burst.times.add.len() + burst.failures.len());
    heading(out, &format!("{pods} pods at once"), &TIMES)?;
    for (verb, of) in VERBS {
        let times = |burst: &Burst| (burst.name.clone(), of(&burst.times).clone());
        time_rows(out, verb, &bursts.iter().map(times).collect::<Vec<_>>())?;
    }
    heading(out, "all of them", &["ADDs, ms", "DELs, ms", "weft / it", "", "failed"])?;
    let totals = |burst: &Burst| [millis(burst.all_added), millis(burst.all_deleted)];
    let weft = bursts.iter().find(|burst| burst.name == WEFT).map_or([0.0; 2], totals);
    for burst in bursts {
        let [added, deleted] = totals(burst);
        let [of_added, of_deleted] = [ratio(weft[0], added), ratio(weft[1], deleted)];
        let (name, failed) = (&burst.name, burst.failures.len());
        writeln!(
            out,
            "{:<9}{name:<21}{added:>10.1}{deleted:>10.1}{of_added:>10}{of_deleted:>10}{failed:>10}",
            ""
        )?;
    }
    let first = bursts.iter().find_map(|burst| Some((&burst.name, burst.failures.first()?)));
    first.map_or(Ok(()), |(name, why)| writeln!(out, "the first failure of {name}: {why}"))
}

fn crowds(out: &mut impl Write, growths: &[Growth]) -> io::Result<()> {
    let most = growths.iter().max_by_key(|growth| growth.at.len());
    let sizes: Vec<_> = most.into_iter().flat_map(|growth| growth.at.iter().map(|(size, _)| *size)).collect();
    let columns: Vec<_> = sizes.iter().map(|size| format!("{size}, ms")).collect();
    let columns: Vec<_> = columns.iter().map(String::as_str).collect();
    heading(out, "p50 beside many pods", &columns)?;
    for (verb, of) in VERBS {
        for growth in growths {
            write!(out, "{verb:<9}{:<21}", growth.name)?;
            for size in &sizes {
                let times = growth.at.iter().find(|(at, _)| at == size);
                let shown =
                    times.map_or_else(|| "–".to_owned(), |(_, times)| format!("{:.2}", p50(of(times))));
                write!(out, "{shown:>10}")?;
            }
            writeln!(out)?;
        }
    }
    Ok(())
}

fn traffic(out: &mut impl Write, traffic: &[Traffic]) -> io::Result<()> {
    heading(out, "pod to pod on a node, TCP", &["p50, µs", "p99, µs", "Gbit/s"])?;
    for seen in traffic {
        let [p50, p99] = [50, 99].map(|rank| percentile(&seen.answers, rank) * 1e3);
        let name = &seen.name;
        writeln!(out, "{:<9}{name:<21}{p50:>10.1}{p99:>10.1}{:>10.2}", "answer", gbits(seen))?;
    }
    Ok(())
}

fn weights(out: &mut impl Write, weights: &[Weight]) -> io::Result<()> {
    heading(out, "weight, MiB", &["on disk", "resident"])?;
    for Weight { plugin, bytes, resident_kib } in weights {
        let [bytes, resident] = [mebi(*bytes), mebi(resident_kib * 1024)];
        writeln!(out, "{:<9}{plugin:<21}{bytes:>10.2}{resident:>10.2}", "")?;
    }
    Ok(())
}

/// What is promised, and what came of it in this run.
fn targets(out: &mut impl Write, findings: &Findings) -> io::Result<()> {
    heading(out, "targets", &["here", "at most", ""])?;
    let times = |name: &str| findings.turns.iter().find(|(of, _)| of == name).map(|(_, times)| times);
    let total =
        |name: &str| findings.bursts.iter().find(|burst| burst.name == name).map(|b| millis(b.all_added));
    let weft = times(WEFT);
    let one = |name: &str, of: fn(&Times) -> &Vec<Duration>| Some(p50(of(weft?)) / p50(of(times(name)?)));
    let all = |name: &str| Some(total(WEFT)? / total(name)?);
    for reference in
        findings.reference.backends().iter().map(|backend| format!("reference, {}", backend.name()))
    {
        target(out, &format!("ADD / {reference}"), one(&reference, |times| &times.add), 1.0 / 20.0)?;
        target(out, &format!("all ADDs / {reference}"), all(&reference), 1.0 / 10.0)?;
    }
    target(out, "ADD / bare netlink", one("bare netlink", |times| &times.add), 1.3)?;
    target(out, "DEL / bare netlink", one("bare netlink", |times| &times.del), 1.3)?;
    let flat = findings.crowds.iter().find(|growth| growth.name == WEFT).and_then(|growth| {
        let [first, last] = [growth.at.first()?, growth.at.last()?];
        Some(p50(&last.1.add) / p50(&first.1.add))
    });
    target(out, "ADD beside many / beside one", flat, 1.3)?;
    let talk = match findings.traffic.as_slice() {
        [reference, weft] => {
            Some((p50(&weft.answers) / p50(&reference.answers), gbits(reference) / gbits(weft)))
        }
        _ => None,
    };
    target(out, "answer / reference's", talk.map(|(answer, _)| answer), 1.0)?;
    target(out, "reference's throughput / Weft's", talk.map(|(_, bulk)| bulk), 1.0)
}

fn target(out: &mut impl Write, what: &str, here: Option<f64>, most: f64) -> io::Result<()> {
    let Some(here) = here else { return writeln!(out, "{what:<40}not measured") };
    let verdict = if here <= most { "met" } else { "missed" };
    writeln!(out, "{what:<40}{here:>10.3}{most:>10.3}{verdict:>10}")
}

const TIMES: [&str; 4] = ["p50, ms", "p99, ms", "weft / it", "of p99"];

/// A verb, and where its times are.
type Verb = (&'static str, fn(&Times) -> &Vec<Duration>);

const VERBS: [Verb; 2] = [("ADD", |times| &times.add), ("DEL", |times| &times.del)];

fn heading(out: &mut impl Write, what: &str, columns: &[&str]) -> io::Result<()> {
    write!(out, "\n{what:<30}")?;
    columns.iter().try_for_each(|column| write!(out, "{column:>10}"))?;
    writeln!(out)
}

fn time_rows(out: &mut impl Write, verb: &str, rows: &[(String, Vec<Duration>)]) -> io::Result<()> {
    let weft = rows.iter().find(|(name, _)| name == WEFT).map_or(&[][..], |(_, times)| times);
    for (name, times) in rows {
        let [p50, p99] = [50, 99].map(|rank| percentile(times, rank));
        let [of_p50, of_p99] = [50, 99].map(|rank| ratio(percentile(weft, rank), percentile(times, rank)));
        writeln!(out, "{verb:<9}{name:<21}{p50:>10.2}{p99:>10.2}{of_p50:>10}{of_p99:>10}")?;
    }
    Ok(())
}

fn ratio(weft: f64, other: f64) -> String {
    format!("{:.3}", weft / other)
}

/// Of the median gigabyte.
fn gbits(traffic: &Traffic) -> f64 {
    const BITS: f64 = 8.0 * (1 << 30) as f64;
    BITS / p50(&traffic.bulks) / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn mebi(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
