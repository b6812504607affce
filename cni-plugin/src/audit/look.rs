//! One look at some networks, and what can be put right of what it finds.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use super::{Asked, Attachment, SystemTime};
use super::{
    Error, Fate, Finding, Identity, Ipam, Nft, Node, Problem, Question, Record, Report, Seen, Subject, chain,
    compare, detach, living, mark, names, ports, remove_unused_table,
};
use crate::explain::configuration::{File, data_dirs, files};
use crate::explain::{self, Namespace, record};
use crate::finding::{Finding as Line, State, differences};

pub(super) struct Look {
    pub(super) networks: Vec<String>,
    pub(super) findings: Vec<Finding>,
    report: Report,
    /// Those that are not as planned.
    differing: Vec<Subject>,
    records: Vec<Record>,
    seen: Vec<Seen>,
}

/// Those that were asked for, or else all that a lease, a configuration, a runtime or a mark tells of.
pub(super) fn networks(asked: &Asked) -> Result<Vec<String>, Error> {
    let files = files(&asked.places)?;
    let mut known: BTreeSet<String> = files.iter().filter_map(File::network).map(str::to_owned).collect();
    let dirs = data_dirs(&asked.places, &files);
    for dir in &dirs {
        known.extend(explain::networks(dir)?);
    }
    let records = record::all(&asked.places, &files)?;
    known.extend(records.iter().map(|record| record.attachment.network().to_owned()));
    let node = Node::default();
    let elements = node.elements()?;
    let owners = elements.masqueraded.iter().map(|found| &found.owner);
    let owners = owners.chain(elements.published.iter().map(|found| &found.owner));
    known.extend(owners.map(|owner| names(owner)[0].to_owned()).filter(|network| !network.is_empty()));
    let unknown: Vec<_> = asked.networks.iter().filter(|name| !known.contains(*name)).cloned().collect();
    if !unknown.is_empty() {
        return Err(Error::NoLeases { networks: unknown, path: dirs.into_iter().next().unwrap_or_default() });
    }
    Ok(if asked.networks.is_empty() { known.into_iter().collect() } else { asked.networks.clone() })
}

impl Look {
    pub(super) fn at(asked: &Asked, networks: &[String]) -> Result<Self, Error> {
        let node = Node::default();
        let seen: Vec<_> =
            networks.iter().map(|network| Seen::of(network, &node)).collect::<Result<_, _>>()?;
        let files = files(&asked.places)?;
        let mut look = Self {
            networks: networks.to_vec(),
            findings: Vec::new(),
            report: Report { networks: networks.len(), ..Report::default() },
            differing: Vec::new(),
            records: record::all(&asked.places, &files)?,
            seen: Vec::new(),
        };
        let fresh = Node::default();
        for (network, mut seen) in networks.iter().zip(seen) {
            look.at_pods(network, &mut seen, asked, &files, [&node, &fresh])?;
            seen.look_at_chains()?;
            let found = compare(network, &seen, SystemTime::now());
            let found = look.without_living(found, &fresh)?;
            look.findings.extend(found);
            look.note_unjudged(network, &asked.places, &files);
            look.seen.push(seen);
        }
        Ok(look)
    }

    pub(super) fn report(self) -> Report {
        let findings = self.findings.into_iter().map(|finding| (finding, Fate::Stands)).collect();
        Report { findings, ..self.report }
    }

    /// Whether `finding` is one of these. A pod's that has become another one has not become better.
    pub(super) fn stands(&self, finding: &Finding) -> bool {
        self.findings.contains(finding)
    }

    /// Every pod of `network` that somebody remembers, beside its plan or as far as its lease goes. What differs is looked
    /// at a second time: a DEL may just have been at it.
    fn at_pods(
        &mut self,
        network: &str,
        seen: &mut Seen,
        asked: &Asked,
        files: &[File],
        [node, fresh]: [&Node; 2],
    ) -> Result<(), Error> {
        let records: Vec<_> =
            self.records.iter().filter(|record| record.attachment.network() == network).cloned().collect();
        for record in records {
            let mark = mark(&record.attachment);
            let namespace = Namespace::of(&asked.places, &record);
            if let Some(lease) = &record.lease {
                let is_abandoned = ipam(&record)?.is_some_and(|ipam| ipam.is_abandoned(lease));
                seen.leases.push((lease.clone(), is_abandoned));
                if is_abandoned {
                    self.report.pods += 1;
                    continue;
                }
            } else if let Namespace::Gone(_) = namespace {
                continue;
            } else {
                seen.kept.insert(mark.clone());
            }
            self.report.pods += 1;
            let mut subject = explain::look(&asked.places, record.clone(), files, node);
            if subject.as_ref().is_ok_and(|(subject, _)| subject.differs()) {
                if !explain::is_still_there(&record)? {
                    continue;
                }
                let waited = subject.as_ref().is_ok_and(|(subject, _)| wait_for_add(subject));
                let later = Node::default();
                subject = explain::look(&asked.places, record, files, if waited { &later } else { fresh });
            }
            match subject {
                Ok((subject, _)) => {
                    seen.planned.insert(mark.clone());
                    if !matches!(namespace, Namespace::There(_)) {
                        let why = "its namespace cannot be seen from here: only the node's side was compared";
                        self.report.limited.push((mark, why.to_owned()));
                    }
                    self.note(subject);
                }
                Err(Error::Unexplained(why)) => self.report.limited.push((mark, why)),
                Err(error) => self.report.failed.push((mark, chain(&error))),
            }
        }
        Ok(())
    }

    fn note(&mut self, subject: Subject) {
        let mark = subject.mark();
        let host = subject.host_ifname().to_owned();
        let is_nodes = |line: &&Line| {
            line.what == "chain" || line.place.starts_with("node") && !line.place.contains(&host)
        };
        let is_namespace = |line: &&Line| line.place == "pod" && line.what == "namespace";
        let (of_node, of_pod): (Vec<&Line>, Vec<&Line>) =
            subject.findings.iter().filter(|line| !is_namespace(line)).partition(is_nodes);
        let of_node: Vec<_> = of_node.into_iter().cloned().collect();
        let of_pod: Vec<_> = of_pod.into_iter().cloned().collect();
        let network = names(&mark)[0];
        for what in differences(&of_node) {
            let finding = Finding { mark: format!("{network}/-/-"), problem: Problem::Node { what } };
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
        for line in of_pod.iter().filter(|line| line.differs()) {
            // What goes with a link that is missing is not worth a word.
            for what in differences(&of_pod).into_iter().filter(|what| *what == line.to_string()) {
                let is_mendable = line.state != State::Extra && subject.is_restorable();
                self.findings
                    .push(Finding { mark: mark.clone(), problem: Problem::Differs { what, is_mendable } });
            }
        }
        if subject.differs() {
            self.differing.push(subject);
        }
    }

    /// Elements of somebody who is not remembered are a finding only where their addresses are surely nobody's.
    fn without_living(&mut self, found: Vec<Finding>, fresh: &Node) -> Result<Vec<Finding>, Error> {
        let strays: HashSet<IpAddr> = found.iter().filter_map(Finding::address).collect();
        if strays.is_empty() {
            return Ok(found);
        }
        let node = fresh.observed()?;
        let living = living::living(&strays, node);
        let has_pair = |finding: &Finding| {
            let [network, container, ifname] = names(&finding.mark);
            let attachment = Attachment::new(network, container, ifname).ok()?;
            let name = Identity::derive(attachment).host_ifname;
            node.link(&name).map(|_| format!("its pair {name} is there"))
        };
        let mut garbage = Vec::new();
        for finding in found {
            let holder = finding.address().and_then(|ip| {
                has_pair(&finding).or_else(|| Some(living.get(&ip)?.clone())).map(|holder| (ip, holder))
            });
            match holder {
                None => garbage.push(finding),
                Some((ip, holder)) => {
                    let what = finding.problem.detail();
                    let why =
                        format!("neither lease nor result tells of {what} ({ip}), but {holder}: it stays");
                    self.report.limited.push((finding.mark, why));
                }
            }
        }
        Ok(garbage)
    }

    /// What other plugins give addresses to can be judged only by what a runtime keeps.
    fn note_unjudged(&mut self, network: &str, places: &Question, files: &[File]) {
        let is_known = self.records.iter().any(|record| record.attachment.network() == network);
        let file = files.iter().find(|file| file.network() == Some(network));
        if is_known || file.is_none_or(File::has_leases) {
            return;
        }
        let why = format!(
            "other plugins give its addresses, and no runtime keeps results of it below {}",
            places.cache_dir.display()
        );
        self.report.unjudged.push((network.to_owned(), why));
    }

    /// Puts `finding` right if that is possible, or says why it failed.
    pub(super) fn mend(&self, finding: &Finding) -> Option<(Finding, String)> {
        let network = names(&finding.mark)[0];
        let mended = match &finding.problem {
            // There is a pod behind these, for a pair goes with its namespace. Only its runtime can give it a new interface;
            // and an interface without a lease may have its addresses from another IPAM plugin.
            Problem::NoPair { .. } | Problem::NoLease { .. } | Problem::Unshaped { .. } => Ok(()),
            Problem::Differs { is_mendable, .. } => {
                let meant = self.differing.iter().find(|subject| subject.mark() == finding.mark);
                meant.filter(|_| *is_mendable).map_or(Ok(()), Subject::restore)
            }
            Problem::Node { .. } => {
                let mut standing = self
                    .differing
                    .iter()
                    .filter(|subject| subject.is_restorable() && names(&subject.mark())[0] == network);
                standing.try_for_each(Subject::restore)
            }
            Problem::Abandoned { .. } => self.detach(&finding.mark),
            Problem::Element { element } => {
                withdraw(|nft| Ok(nft.stop_masquerading(&element.owner, &[element.address])?))
            }
            Problem::Port { port } => {
                withdraw(|nft| Ok(ports::withdraw(nft, &port.owner, &[], std::slice::from_ref(port))?))
            }
            Problem::Source { source } => withdraw(|nft| Ok(nft.unpin_source(&source.port)?)),
            Problem::Chain { chain } => {
                let seen = self.networks.iter().position(|known| known == network);
                seen.and_then(|index| self.seen.get(index)).map_or(Ok(()), |seen| restore(chain.family, seen))
            }
        };
        mended.err().map(|error| (finding.clone(), chain(&error)))
    }

    fn detach(&self, mark: &str) -> Result<(), Error> {
        let is_meant = |record: &&Record| super::mark(&record.attachment) == mark;
        let Some(record) = self.records.iter().filter(is_meant).find(|record| record.lease.is_some()) else {
            return Ok(());
        };
        let Some(ipam) = ipam(record)? else { return Ok(()) };
        detach(&ipam, &Identity::derive(record.attachment.clone()))?;
        remove_unused_table(&ipam)
    }
}

impl Finding {
    /// The address that somebody may live on.
    fn address(&self) -> Option<IpAddr> {
        match &self.problem {
            Problem::Element { element } => Some(element.address),
            Problem::Port { port } => Some(port.to.ip()),
            _ => None,
        }
    }
}

/// A lease is made before its pair: where that is missing, an ADD may just be happening.
fn wait_for_add(subject: &Subject) -> bool {
    const AN_ADD_TAKES: Duration = Duration::from_secs(2);
    let age = subject.since().and_then(|since| since.elapsed().ok()).filter(|_| subject.lacks_pair());
    let left = age.and_then(|age| AN_ADD_TAKES.checked_sub(age));
    left.map(thread::sleep).is_some()
}

fn ipam(record: &Record) -> Result<Option<Ipam>, Error> {
    let open = |dir| Ipam::open(record.attachment.network(), dir);
    Ok(record.data_dir.as_deref().map(open).transpose()?)
}

fn withdraw(remove: impl Fn(&Nft) -> Result<(), Error>) -> Result<(), Error> {
    let nft = Nft::open()?;
    remove(&nft)?;
    Ok(nft.remove_unused_table()?)
}

fn restore(family: &str, seen: &Seen) -> Result<(), Error> {
    let nft = Nft::open()?;
    let restored = match family {
        "bridge" => nft.restore_bridge_chains(),
        _ => nft.restore_chains(&seen.masquerade(), &seen.unplanned_ports()),
    };
    Ok(restored?)
}
