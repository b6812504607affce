//! What was seen of a network, held against its leases.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use weft_datapath::{Chain, Masqueraded, PinnedSource, Published};
use weft_ipam::lease::Lease;

use super::{Finding, Problem, Seen};
use crate::asked;
use crate::identity::mark_of;

/// A lease is made before its pair. A younger one may belong to an ADD that is just happening.
const AN_ADD_TAKES_AT_MOST: Duration = Duration::from_secs(60);

/// Every difference, leases first.
pub(super) fn compare(network: &str, seen: &Seen, now: SystemTime) -> Vec<Finding> {
    let known = Known::of(seen);
    let mut found = Vec::new();
    found.extend(known.leases_without_their_pod(now));
    found.extend(known.pairs_without_lease());
    found.extend(known.unshaped());
    found.extend(known.stray_elements());
    found.extend(known.stray_ports());
    found.extend(known.stray_sources());
    found.extend(seen.chains.iter().map(|chain| of_chain(network, chain)));
    found
}

/// What was seen, and by whose marks.
struct Known<'a> {
    seen: &'a Seen,
    /// Each with its mark, and whether it is abandoned.
    leases: Vec<(String, &'a Lease, bool)>,
    /// The same marks.
    leased: HashSet<String>,
    /// The marks of those who hold an address by their leases.
    holders: HashMap<IpAddr, Vec<String>>,
    /// Links by the marks on them.
    pairs: HashMap<&'a str, &'a str>,
    /// Marks of those whose elements are judged otherwise: with a pair that has no lease, by a runtime's result or by a plan.
    judged: Vec<&'a str>,
}

impl<'a> Known<'a> {
    fn of(seen: &'a Seen) -> Self {
        let marked = |(lease, abandoned): &'a (Lease, bool)| (mark_of(&lease.attachment), lease, *abandoned);
        let leases: Vec<_> = seen.leases.iter().map(marked).collect();
        let leased: HashSet<_> = leases.iter().map(|(mark, ..)| mark.clone()).collect();
        let mut holders: HashMap<IpAddr, Vec<String>> = HashMap::new();
        for (mark, lease, _) in &leases {
            for assigned in &lease.addresses {
                holders.entry(assigned.address.ip()).or_default().push(mark.clone());
            }
        }
        let pairs: HashMap<_, _> =
            seen.pairs.iter().rev().map(|(mark, link)| (mark.as_str(), link.as_str())).collect();
        let without_lease = pairs.keys().copied().filter(|mark| !leased.contains(*mark));
        let judged = without_lease.chain(seen.kept.iter().chain(&seen.planned).map(String::as_str)).collect();
        Self { seen, leases, leased, holders, pairs, judged }
    }

    fn leases_without_their_pod(&self, now: SystemTime) -> impl Iterator<Item = Finding> {
        self.leases.iter().filter_map(move |(mark, lease, abandoned)| {
            let settled = now.duration_since(lease.since).is_ok_and(|age| age > AN_ADD_TAKES_AT_MOST);
            let is_bare = !self.pairs.contains_key(mark.as_str()) && !self.seen.planned.contains(mark);
            let addresses = addresses(lease);
            let problem = match abandoned {
                true => Problem::Abandoned { addresses },
                false if is_bare && settled => Problem::NoPair { addresses },
                false => return None,
            };
            Some(Finding::new(mark, problem))
        })
    }

    fn pairs_without_lease(&self) -> impl Iterator<Item = Finding> {
        let strays = self.seen.without_lease().filter(|_| !self.seen.has_unknown);
        strays.map(|(mark, link)| Finding::new(mark, Problem::NoLease { link: link.clone() }))
    }

    /// Pairs that do not slow down what goes to their pods, though the runtime asked for it. What the configuration asks
    /// for is not known here.
    fn unshaped(&self) -> impl Iterator<Item = Finding> {
        let is_limited = |lease: &Lease| asked::bandwidth(&lease.notes).ingress.is_some();
        let unplanned = self.leases.iter().filter(|(mark, ..)| !self.seen.planned.contains(mark));
        unplanned.filter(move |(_, lease, _)| is_limited(lease)).filter_map(|(mark, ..)| {
            let link = (*self.pairs.get(mark.as_str())?).to_owned();
            let is_shaped = self.seen.shaped.contains(&link);
            (!is_shaped).then(|| Finding::new(mark, Problem::Unshaped { link }))
        })
    }

    fn stray_elements(&self) -> impl Iterator<Item = Finding> {
        let is_stray = |found: &&Masqueraded| self.is_stray(found.address, &|mark| found.is_of(mark));
        let strays = self.seen.elements.iter().filter(is_stray);
        strays.map(|found| Finding::new(&found.owner, Problem::Element { element: found.clone() }))
    }

    fn stray_ports(&self) -> impl Iterator<Item = Finding> {
        let is_stray = |found: &&Published| self.is_stray(found.to.ip(), &|mark| found.is_of(mark));
        let strays = self.seen.ports.iter().filter(is_stray);
        strays.map(|found| Finding::new(&found.owner, Problem::Port { port: found.clone() }))
    }

    fn stray_sources(&self) -> impl Iterator<Item = Finding> {
        let is_stray = |found: &&PinnedSource| {
            let is_of = |mark: &str| found.is_of(mark);
            let is_leased = || self.leased.iter().any(|mark| is_of(mark));
            !self.seen.links.contains(&found.port) && !is_leased() && !self.is_judged(&is_of)
        };
        let strays = self.seen.sources.iter().filter(is_stray);
        strays.map(|found| Finding::new(&found.owner, Problem::Source { source: found.clone() }))
    }

    /// Whether what leads to `address` is of nobody who holds it. What belongs to a pair is judged with it, and what a pod's
    /// plan does not have, with the pod.
    fn is_stray(&self, address: IpAddr, is_of: &dyn Fn(&str) -> bool) -> bool {
        let holders = self.holders.get(&address);
        !holders.is_some_and(|marks| marks.iter().any(|mark| is_of(mark))) && !self.is_judged(is_of)
    }

    fn is_judged(&self, is_of: &dyn Fn(&str) -> bool) -> bool {
        self.judged.iter().any(|mark| is_of(mark))
    }
}

fn of_chain(network: &str, chain: &Chain) -> Finding {
    Finding::new(&format!("{network}/-/-"), Problem::Chain { chain: chain.clone() })
}

fn addresses(lease: &Lease) -> String {
    let addresses = lease.addresses.iter().map(|assigned| assigned.address.ip().to_string());
    addresses.collect::<Vec<_>>().join(", ")
}
