//! One look at some networks, and what can be put right of what it finds.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, SystemTime};

use ipnetwork::IpNetwork;
use weft_datapath::Nft;
use weft_ipam::lease::Attachment;
use weft_ipam::{Ipam, chain};

use super::compare::compare;
use super::{Asked, Fate, Finding, Problem, Report, Seen, living, names};
use crate::check::Node;
use crate::detach::{detach, remove_unused_table};
use crate::explain::configuration::{File, data_dirs, files};
use crate::explain::record::{Damage, Record, Remembered};
use crate::explain::{self, Namespace, Question, Subject, record};
use crate::finding::{Finding as Line, State, differing};
use crate::identity::{Identity, mark_of};
use crate::{Error, foreign, ports};

pub(super) struct Look {
    pub(super) networks: Vec<String>,
    pub(super) findings: Vec<Finding>,
    report: Report,
    /// Those that are not as planned.
    differing: Vec<Subject>,
    subnets: BTreeSet<IpNetwork>,
    records: Vec<Record>,
    seen: Vec<Seen>,
}

/// From where pods are looked at.
struct Viewpoint<'a> {
    places: &'a Question,
    files: &'a [File],
    node: &'a Node,
    /// The node as it was later, and after it was known who is at work.
    fresh: &'a Node,
    /// Marks of those at which an ADD or a DEL was at work.
    busy: HashSet<String>,
}

impl Viewpoint<'_> {
    /// A pod beside its plan, unless it is gone by now: what differs is looked at a second time, for an ADD or a DEL may just
    /// have been at it.
    fn look(&self, record: Record) -> Result<Option<Result<Subject, Error>>, Error> {
        let first = self.look_at(record.clone(), self.node);
        let Some(differing) = first.as_ref().ok().filter(|subject| subject.differs()) else {
            return Ok(Some(first));
        };
        if !explain::is_still_there(&record)? {
            return Ok(None);
        }
        let waited = wait_for_add(differing).then(Node::default);
        let second = self.look_at(record.clone(), waited.as_ref().unwrap_or(self.fresh));
        let is_only_gone_now = second.as_ref().is_ok_and(Subject::differs)
            && (is_at_work(&record)? || !explain::is_still_there(&record)?);
        Ok((!is_only_gone_now).then_some(second))
    }

    fn look_at(&self, record: Record, node: &Node) -> Result<Subject, Error> {
        explain::look(self.places, record, self.files, node).map(|(subject, _)| subject)
    }
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
    known.extend(records.records.iter().map(|record| record.attachment.network().to_owned()));
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
        let Remembered { records, damages } = record::all(&asked.places, &files)?;
        let mut look = Self {
            networks: networks.to_vec(),
            findings: Vec::new(),
            report: Report { networks: networks.len(), ..Report::default() },
            differing: Vec::new(),
            subnets: BTreeSet::new(),
            records,
            seen: Vec::new(),
        };
        let fresh = Node::default();
        let busy = busy(&look.records)?;
        let from = Viewpoint { places: &asked.places, files: &files, node: &node, fresh: &fresh, busy };
        for (network, mut seen) in networks.iter().zip(seen) {
            look.at_pods(network, &mut seen, &from)?;
            look.note_damages(&damages, &mut seen, network);
            seen.look_at_chains()?;
            let found = compare(network, &seen, SystemTime::now());
            let found = look.without_living(found, &fresh)?;
            look.findings.extend(found);
            look.note_unjudged(network, &asked.places, &files);
            look.seen.push(seen);
        }
        let ports = look.seen.iter().flat_map(|seen| &seen.ports).map(|port| port.at);
        look.report.remarks = foreign::remarks(&look.subnets, ports)?;
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

    /// Every pod of `network` that somebody remembers, beside its plan or as far as its lease goes.
    fn at_pods(&mut self, network: &str, seen: &mut Seen, from: &Viewpoint<'_>) -> Result<(), Error> {
        let of_network = |record: &&Record| record.attachment.network() == network;
        let records: Vec<_> = self.records.iter().filter(of_network).cloned().collect();
        records.into_iter().try_for_each(|record| self.at_pod(record, seen, from))
    }

    fn at_pod(&mut self, record: Record, seen: &mut Seen, from: &Viewpoint<'_>) -> Result<(), Error> {
        let mark = mark_of(&record.attachment);
        let namespace = Namespace::of(from.places, &record);
        let is_abandoned = match (&record.lease, &namespace) {
            (None, Namespace::Gone(_)) => return Ok(()),
            (None, Namespace::There(_) | Namespace::Unknown) => {
                seen.kept.insert(mark.clone());
                false
            }
            (Some(lease), _) if from.busy.contains(&mark) => {
                seen.leases.push((lease.clone(), false));
                seen.planned.insert(mark);
                return Ok(());
            }
            (Some(lease), _) => {
                let is_abandoned = ipam(&record)?.is_some_and(|ipam| ipam.is_abandoned(lease));
                self.subnets.extend(lease.addresses.iter().filter_map(|held| explain::subnet(held.address)));
                seen.leases.push((lease.clone(), is_abandoned));
                is_abandoned
            }
        };
        self.report.pods += 1;
        if is_abandoned {
            return Ok(());
        }
        if record.lease.as_ref().is_some_and(|lease| lease.is_from_host_local() && !seen.has_pair(&mark)) {
            let why = "another plugin attached it, and Weft has taken over its addresses: it stays with that plugin until it is made anew";
            seen.planned.insert(mark.clone());
            self.report.limited.push((mark, why.to_owned()));
            return Ok(());
        }
        match from.look(record)? {
            None => drop(seen.planned.insert(mark)),
            Some(Ok(subject)) => {
                seen.planned.insert(mark.clone());
                if !matches!(namespace, Namespace::There(_)) {
                    let why = "its namespace cannot be seen from here: only the node's side was compared";
                    self.report.limited.push((mark, why.to_owned()));
                }
                self.note(subject);
            }
            Some(Err(Error::Unexplained(why))) => self.report.limited.push((mark, why)),
            Some(Err(error)) => self.report.failed.push((mark, chain(&error))),
        }
        Ok(())
    }

    /// Of a pod whose lease cannot be read nothing that it has may count as nobody's.
    fn note_damages(&mut self, damages: &[Damage], seen: &mut Seen, network: &str) {
        for damage in damages.iter().filter(|damage| damage.network == network) {
            let mark = damage.attachment.as_ref().map(mark_of);
            seen.has_unknown |= mark.is_none();
            seen.kept.extend(mark.clone());
            self.report.failed.push((mark.unwrap_or_else(|| network.to_owned()), damage.to_string()));
        }
        if seen.has_unknown {
            let of_nobody = seen.without_lease().map(|(mark, link)| {
                (mark.clone(), format!("its pair {link} has no lease, or one that cannot be read"))
            });
            self.report.limited.extend(of_nobody);
        }
    }

    fn note(&mut self, subject: Subject) {
        self.subnets.extend(subject.subnets());
        let mark = subject.mark();
        let host = subject.host_ifname().to_owned();
        let is_nodes = |line: &Line| {
            line.what == "chain" || line.place.starts_with("node") && !line.place.contains(&host)
        };
        let is_namespace = |line: &&Line| line.place == "pod" && line.what == "namespace";
        let lines = subject.findings.iter().filter(|line| !is_namespace(line)).cloned();
        let (of_node, of_pod): (Vec<Line>, Vec<Line>) = lines.partition(is_nodes);
        let network = names(&mark)[0];
        for line in differing(&of_node) {
            // A bridge that is gone has lost its ports.
            let is_mendable = line.state != State::Missing || line.what != "link";
            let problem = Problem::Node { what: line.to_string(), is_mendable };
            let finding = Finding::new(&format!("{network}/-/-"), problem);
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
        for line in differing(&of_pod) {
            let is_mendable = line.state != State::Extra && subject.is_restorable();
            let problem = Problem::Differs { what: line.to_string(), is_mendable };
            self.findings.push(Finding::new(&mark, problem));
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

    /// Puts right what can be, and says of which findings that failed, and why.
    pub(super) fn mend(&self) -> Vec<(Finding, String)> {
        let restorable: Vec<_> = self.differing.iter().filter(|subject| subject.is_restorable()).collect();
        let failed = explain::restore(&restorable);
        let failure = |finding: &Finding| Some((finding.clone(), self.mend_one(finding, &failed)?));
        self.findings.iter().filter_map(failure).collect()
    }

    /// Why that failed. Pods that differ have been restored, unless they have `failed`.
    fn mend_one(&self, finding: &Finding, failed: &[(String, String)]) -> Option<String> {
        let network = names(&finding.mark)[0];
        let why = |is_meant: &dyn Fn(&str) -> bool| {
            failed.iter().find(|(mark, _)| is_meant(mark)).map(|(_, why)| why.clone())
        };
        let mended = match &finding.problem {
            // There is a pod behind these, for a pair goes with its namespace. Only its runtime can give it a new interface;
            // and an interface without a lease may have its addresses from another IPAM plugin.
            Problem::NoPair { .. } | Problem::NoLease { .. } | Problem::Unshaped { .. } => Ok(()),
            Problem::Differs { is_mendable: false, .. } => Ok(()),
            Problem::Differs { .. } => return why(&|mark| mark == finding.mark),
            Problem::Node { .. } => return why(&|mark| names(mark)[0] == network),
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
        mended.err().map(|error| chain(&error))
    }

    fn detach(&self, mark: &str) -> Result<(), Error> {
        let is_meant = |record: &&Record| mark_of(&record.attachment) == mark;
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

/// The marks of those at which an ADD or a DEL is at work.
fn busy(records: &[Record]) -> Result<HashSet<String>, Error> {
    let mut busy = HashSet::new();
    for record in records.iter().filter(|record| record.lease.is_some()) {
        if is_at_work(record)? {
            busy.insert(mark_of(&record.attachment));
        }
    }
    Ok(busy)
}

fn is_at_work(record: &Record) -> Result<bool, Error> {
    Ok(ipam(record)?.is_some_and(|ipam| ipam.is_at_work(&record.attachment)))
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
