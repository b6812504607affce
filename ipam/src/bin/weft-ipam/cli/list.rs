//! Leases as a table and as JSON.

use std::time::SystemTime;

use serde_json::{Value, json};
use weft_ipam::Utilisation;
use weft_ipam::lease::Lease;
use weft_ipam::table::columns;

use super::lease::{self, Life};
use super::place::{self, Place, Readable};
use super::text::age;
use super::{Answer, Error, Exit, text};

/// What there is to show of a network.
struct Network {
    of: place::Network,
    ranges: Vec<Utilisation>,
    leases: Vec<(Life, Lease)>,
}

pub(super) fn run(place: &Place) -> Result<Answer, Error> {
    let networks = place.open()?;
    if networks.is_empty() && !place.json {
        return Ok(format!("no network has leases in {}\n", place.data_dir()?.display()).into());
    }
    let Readable { networks, exit } = Readable::of(&networks, Network::read);
    let text = if place.json { json(&networks) } else { table(&networks, SystemTime::now()) };
    Ok(Answer { text, exit })
}

impl Network {
    fn read(network: &place::Network) -> Result<(Self, Exit), Error> {
        let ipam = &network.ipam;
        // How full a range is, is said once: another node's leases are listed below this one's.
        let (pool, ranges_exit) = if ipam.is_here() { network.readable_pool()? } else { (None, Exit::Done) };
        let ranges = pool.map_or_else(|| Ok(Vec::new()), |pool| ipam.utilisation(&pool));
        let (leases, exit) = network.readable_leases()?;
        let leases = leases.into_iter().map(|lease| (Life::of(ipam, &lease), lease));
        let read = Self {
            of: network.clone(),
            ranges: ranges.map_err(|error| network.unreadable(error))?,
            leases: leases.collect(),
        };
        Ok((read, exit.max(ranges_exit)))
    }

    fn json(&self) -> Value {
        let ranges: Vec<_> = self.ranges.iter().map(range_json).collect();
        let leases = self.leases.iter().map(|(life, lease)| lease::json_now(&self.of, *life, lease));
        let leases: Vec<_> = leases.collect();
        json!({ "name": self.of.name, "node": self.of.node, "ranges": ranges, "leases": leases })
    }
}

/// One document: `{"networks": [{"name", "node", "ranges": [{…, "held", "size"}], "leases": […]}]}`. Counts are numbers up to 2^53 and
/// texts beyond: an IPv6 range has more addresses than many readers of JSON can count.
fn json(networks: &[Network]) -> String {
    let networks: Vec<_> = networks.iter().map(Network::json).collect();
    format!("{}\n", json!({ "networks": networks }))
}

/// For people.
fn table(networks: &[Network], now: SystemTime) -> String {
    networks.iter().map(|network| section(network, now)).collect::<Vec<_>>().join("\n")
}

fn section(network: &Network, now: SystemTime) -> String {
    let leases = text::count(network.leases.len(), "lease");
    let ranges = columns("  ", &network.ranges.iter().map(range_row).collect::<Vec<_>>());
    let mut rows =
        vec![["ADDRESSES", "POD", "CONTAINER", "INTERFACE", "STATE", "AGE"].map(str::to_owned).to_vec()];
    rows.extend(network.leases.iter().map(|(life, lease)| lease_row(*life, lease, now)));
    let leases_table = if rows.len() > 1 { format!("\n{}", columns("  ", &rows)) } else { String::new() };
    format!("{}: {leases}\n{ranges}{leases_table}", network.of.title())
}

fn range_row(usage: &Utilisation) -> Vec<String> {
    let percent = usage.held as f64 / usage.size as f64 * 100.0;
    let held = format!("{} of {} held, {percent:.1} %", usage.held, count(usage.size));
    vec![usage.range.to_string(), bar(usage), held]
}

fn bar(usage: &Utilisation) -> String {
    const WIDTH: u128 = 20;
    // Rounded up: a single lease is to be seen, and only a full range looks full.
    let filled = usage.held.saturating_mul(WIDTH) / usage.size;
    let filled = filled.max(u128::from(usage.held > 0)).min(WIDTH);
    (0..WIDTH).map(|cell| if cell < filled { '█' } else { '░' }).collect()
}

/// Large sizes as powers: nobody reads 18446744073709551614.
fn count(size: u128) -> String {
    if size < 1_000_000_000 { size.to_string() } else { format!("{:.1e}", size as f64) }
}

fn lease_row(life: Life, lease: &Lease, now: SystemTime) -> Vec<String> {
    let pod = lease.pod.as_ref().map_or_else(|| "-".into(), ToString::to_string);
    let container: String = lease.attachment.container().chars().take(13).collect();
    let since = lease::since(lease).map_or_else(|| "-".into(), |since| age(since, now));
    let ifname = lease.attachment.ifname().into();
    vec![lease::addresses(lease), pod, container, ifname, life.to_string(), since]
}

fn range_json(usage: &Utilisation) -> Value {
    let mut range = usage.range.to_json();
    if let Some(object) = range.as_object_mut() {
        object.insert("held".into(), count_json(usage.held));
        object.insert("size".into(), count_json(usage.size));
    }
    range
}

/// RFC 8259, section 6: beyond 2^53 readers may take a number for another.
fn count_json(count: u128) -> Value {
    match u64::try_from(count) {
        Ok(count) if count <= 1 << 53 => count.into(),
        _ => count.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn network() -> (tempfile::TempDir, Network) {
        let dir = tempfile::tempdir().unwrap();
        let ranges = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]);
        let pool = weft_ipam::config::parse_ranges(&ranges).unwrap();
        let attachment = weft_ipam::lease::Attachment::new("pods", "3f2a9c", "eth0").unwrap();
        let opened = place::Network::open("pods".into(), dir.path()).unwrap();
        opened.ipam.reserve(&pool, weft_ipam::Request::new(attachment)).unwrap().keep();
        let (network, _) = Network::read(&opened).unwrap();
        (dir, network)
    }

    #[test]
    fn the_table_shows_how_full_each_range_is_and_who_holds_what() {
        let (_dir, network) = network();
        let now = network.leases[0].1.since + Duration::from_secs(7);
        assert_eq!(
            table(&[network], now),
            "pods: 1 lease\n  \
             10.1.0.0/24  █░░░░░░░░░░░░░░░░░░░  1 of 253 held, 0.4 %\n  \
             fd00::/64    █░░░░░░░░░░░░░░░░░░░  1 of 1.8e19 held, 0.0 %\n\n  \
             ADDRESSES          POD  CONTAINER  INTERFACE  STATE    AGE\n  \
             10.1.0.2, fd00::2  -    3f2a9c     eth0       unknown  7 s\n"
        );
    }

    #[test]
    fn json_counts_in_numbers_and_in_text_where_those_are_not_exact() {
        let (_dir, network) = network();
        let document: Value = serde_json::from_str(&json(&[network])).unwrap();
        let network = &document["networks"][0];
        assert_eq!((&network["ranges"][0]["held"], &network["ranges"][0]["size"]), (&json!(1), &json!(253)));
        assert_eq!(network["ranges"][1]["size"], "18446744073709551614");
        assert_eq!(network["leases"][0]["addresses"][0]["address"], "10.1.0.2/24");
    }

    #[test]
    fn a_range_looks_full_only_when_it_is() {
        let pool = weft_ipam::config::parse_ranges(&json!([[{"subnet": "10.1.0.0/24"}]])).unwrap();
        let range = pool.ranges().next().unwrap().clone();
        let filled = |held| {
            let usage = Utilisation { range: range.clone(), held, size: 253 };
            bar(&usage).chars().filter(|cell| *cell == '█').count()
        };
        assert_eq!([0, 1, 126, 252, 253].map(filled), [0, 1, 9, 19, 20]);
    }
}
