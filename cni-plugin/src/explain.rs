//! `weft-cni explain`: what one pod should have, what it has, and where they differ.
//!
//! What ADD decided is decided anew, by the same code, from what is left of its inputs: the lease with its notes, the result
//! that the runtime keeps, the configuration. What stands is compared with it as CHECK does. An audit asks the same of every
//! pod.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnetwork::IpNetwork;
use weft_cni_spec::{AttachmentId, CheckRequest, Conf, ContainerId, IfName, Route};
use weft_datapath::HostPort;
use weft_ipam::Ipam;
use weft_ipam::lease::{Assigned, Lease};
use weft_ipam::store::local::networks_in;

use crate::check::{Node, as_reported, compare};
use crate::config::{Addressing, Config, Mode};
use crate::extras::TABLE;
use crate::finding::{Finding, Findings, State};
use crate::identity::Identity;
use crate::plan::{Inputs, Plan};
use crate::{Error, addresses, foreign, ports};

pub(crate) mod configuration;
mod kept;
pub(crate) mod record;
mod report;
mod restore;

use configuration::{Configuration, File};
use record::Record;
pub(crate) use report::{Report, Verdict};
pub(crate) use restore::{is_still_there, restore};

/// Which attachment, and where to look for what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// A container's id, or its beginning.
    pub(crate) container: Option<String>,
    /// `namespace/name`.
    pub(crate) pod: Option<String>,
    pub(crate) network: Option<String>,
    pub(crate) ifname: Option<String>,
    /// A configuration file to read instead of those that are found.
    pub(crate) config: Option<PathBuf>,
    pub(crate) conf_dir: PathBuf,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) cache_dir: PathBuf,
    /// The pod's namespace, where nothing else says where it is.
    pub(crate) netns: Option<PathBuf>,
}

/// Nothing is asked for, and everything is where it is by default.
impl Default for Question {
    fn default() -> Self {
        Self {
            container: None,
            pod: None,
            network: None,
            ifname: None,
            config: None,
            conf_dir: "/etc/cni/net.d".into(),
            data_dir: None,
            cache_dir: "/var/lib/cni".into(),
            netns: None,
        }
    }
}

/// Answers `question`.
///
/// # Errors
/// Where what ADD decided cannot be told any more, or the kernel does not tell what stands.
pub(crate) fn explain(question: &Question) -> Result<Report, Error> {
    let files = configuration::files(question)?;
    let record = record::find(question, &files)?;
    let (subject, from) = look(question, record, &files, &Node::default())?;
    let remarks = foreign::remarks(&subject.subnets(), subject.ports())?;
    Ok(subject.report(from, question, remarks))
}

/// The same of an attachment that is known, and where its configuration was found.
pub(crate) fn look(
    question: &Question,
    record: Record,
    files: &[File],
    node: &Node,
) -> Result<(Subject, String), Error> {
    let configuration = Configuration::of(&record, question, files)?;
    let requests = configuration.requests(&record)?;
    let mut subject = Subject::new(question, record);
    for request in &requests {
        subject.compare(request, node)?;
    }
    subject.look_for_extras(node)?;
    Ok((subject, configuration.from))
}

/// The attachment, and what has been found out about it.
pub(crate) struct Subject {
    record: Record,
    identity: Identity,
    netns: Namespace,
    modes: Vec<&'static str>,
    planned: Vec<Planned>,
    pub(crate) findings: Vec<Finding>,
    unknown: Vec<String>,
}

/// What one entry of the list has decided.
struct Planned {
    plan: Plan,
    /// Whether the interface is another plugin's.
    is_chained: bool,
}

/// Where the pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    There(PathBuf),
    Gone(PathBuf),
    Unknown,
}

impl Namespace {
    pub(crate) fn of(question: &Question, record: &Record) -> Self {
        let lease = record.lease.as_ref().and_then(|lease| lease.netns.as_ref());
        let path = question.netns.clone().or_else(|| lease.map(|netns| netns.path.clone()));
        match path.or_else(|| record.kept.as_ref()?.netns.clone()) {
            None => Self::Unknown,
            Some(path) if question.netns.is_none() && lease.is_some_and(|netns| netns.is_gone()) => {
                Self::Gone(path)
            }
            Some(path) if path.exists() => Self::There(path),
            Some(path) => Self::Gone(path),
        }
    }

    /// Where it is or was.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::There(path) | Self::Gone(path) => Some(path),
            Self::Unknown => None,
        }
    }
}

impl Subject {
    fn new(question: &Question, record: Record) -> Self {
        let netns = Namespace::of(question, &record);
        let (mut findings, mut unknown) = (Findings::at("pod"), Vec::new());
        match &netns {
            Namespace::Unknown => unknown.push(
                "where the pod's namespace is: only the node's side is compared; --netns PATH says it"
                    .to_owned(),
            ),
            Namespace::There(path) => findings.note_presence("namespace", path.to_string_lossy(), true),
            Namespace::Gone(path) => findings.note_presence("namespace", path.to_string_lossy(), false),
        }
        let (identity, findings) = (Identity::derive(record.attachment.clone()), findings.into_list());
        Self { record, identity, netns, modes: Vec::new(), planned: Vec::new(), findings, unknown }
    }

    /// Compares what one plugin of the list has done.
    fn compare(&mut self, request: &CheckRequest, node: &Node) -> Result<(), Error> {
        let config = Config::try_from(request)?;
        self.modes.push(match (&config.addressing, &config.mode) {
            (Addressing::Chained, _) => "behind another plugin",
            (_, Mode::Routed) => "mode routed",
            (_, Mode::Bridge(_)) => "mode bridge",
        });
        let (addresses, routes) = self.addresses(request, &config)?;
        let (ifname, identity) = (request.id.ifname.as_str(), self.identity.clone());
        let inputs = Inputs { routes: &routes, ..Inputs::new(&config, &identity, ifname, &addresses) };
        let inputs = as_reported(request, &config, inputs);
        let netns = match &self.netns {
            Namespace::There(path) => Some(path.as_path()),
            Namespace::Gone(_) | Namespace::Unknown => None,
        };
        self.findings.extend(compare(&config, &inputs, netns, node)?);
        let is_chained = config.addressing == Addressing::Chained;
        self.planned.push(Planned { plan: Plan::new(&config.mode, inputs), is_chained });
        Ok(())
    }

    /// What ADD was given.
    fn addresses(
        &mut self,
        request: &CheckRequest,
        config: &Config,
    ) -> Result<(Vec<Assigned>, Vec<Route>), Error> {
        match &config.addressing {
            Addressing::Leases(leases) => {
                Ok((self.leased(request, &leases.data_dir)?, leases.routes.clone()))
            }
            Addressing::Nobody => Ok((Vec::new(), Vec::new())),
            Addressing::Delegate(name) => {
                self.unknown.push(format!("whether {name} still holds the addresses: CHECK asks it"));
                self.reported(request)
            }
            Addressing::Chained => self.reported(request),
        }
    }

    /// The addresses that Weft gave, by the lease, and whether it stands. The result that a runtime keeps is as good as the
    /// lease, but for the lease itself.
    fn leased(&mut self, request: &CheckRequest, data_dir: &Path) -> Result<Vec<Assigned>, Error> {
        if self.record.lease.is_none() && self.record.damage.is_none() {
            self.record.lease = lookup(&self.record, data_dir)?;
            self.record.data_dir = Some(data_dir.to_owned());
        }
        let held = self.record.lease.as_ref().map(|lease| lease.addresses.clone());
        let is_held = held.is_some();
        let addresses = match held {
            Some(held) => held,
            None if self.has_result() => of_result(request)?,
            None => return Err(self.unexplained()),
        };
        if let Some(damage) = &self.record.damage {
            self.unknown.push(format!("whether it has a lease: {damage}"));
            return Ok(addresses);
        }
        let mut findings = Findings::at("lease");
        for assigned in &addresses {
            findings.note_presence("address", assigned.address.ip().to_string(), is_held);
        }
        self.findings.extend(findings.into_list());
        Ok(addresses)
    }

    /// The addresses and routes that others gave: the result that a runtime keeps has them, or else the lease of an entry
    /// before this one.
    fn reported(&mut self, request: &CheckRequest) -> Result<(Vec<Assigned>, Vec<Route>), Error> {
        if self.has_result() {
            return Ok((of_result(request)?, request.prev_result.routes.clone()));
        }
        let why = "what the runtime asked of an entry behind another plugin, for it keeps no result";
        self.unknown.push(why.to_owned());
        let lease = self.record.lease.as_ref().ok_or_else(|| self.unexplained())?;
        Ok((lease.addresses.clone(), Vec::new()))
    }

    fn has_result(&self) -> bool {
        self.record.kept.as_ref().is_some_and(|kept| kept.result.is_some())
    }

    fn unexplained(&self) -> Error {
        Error::Unexplained(format!(
            "what ADD gave {} is not known: there is neither a lease nor the result that a runtime keeps; \
             `weft-cni audit` shows what stands without an owner",
            self.record.attachment
        ))
    }

    /// Elements that bear the attachment's mark and no plan has. It lists all of the node's.
    fn look_for_extras(&mut self, node: &Node) -> Result<(), Error> {
        let elements = node.elements()?;
        let mark = self.identity.mark();
        let mut findings = Findings::at(TABLE);
        for found in elements.masqueraded.iter().filter(|found| found.is_of(&mark)) {
            let planned = self.planned.iter().flat_map(|planned| &planned.plan.extras.masquerade);
            if !planned.into_iter().any(|planned| planned.address.ip() == found.address) {
                findings.add("masquerade", found.address.to_string(), State::Extra);
            }
        }
        for found in elements.published.iter().filter(|found| found.is_of(&mark)) {
            let planned = self.planned.iter().flat_map(|planned| &planned.plan.extras.published);
            if !planned.into_iter().any(|planned| planned.at == found.at) {
                findings.add("host port", ports::shown(found), State::Extra);
            }
        }
        self.findings.extend(findings.into_list());
        Ok(())
    }

    /// Those of its addresses.
    pub(crate) fn subnets(&self) -> BTreeSet<IpNetwork> {
        let leased = self.record.lease.iter().flat_map(|lease| &lease.addresses).map(|held| held.address);
        let planned = self.planned.iter().flat_map(|planned| &planned.plan.veth.pod.addresses).copied();
        leased.chain(planned).filter_map(subnet).collect()
    }

    fn ports(&self) -> impl Iterator<Item = HostPort> {
        self.planned.iter().flat_map(|planned| &planned.plan.extras.published).map(|port| port.at)
    }

    fn report(self, from: String, question: &Question, remarks: Vec<String>) -> Report {
        let (is_restorable, places) = (self.is_restorable(), question.clone());
        let Self { record, netns, modes, findings, unknown, .. } = self;
        Report { record, netns, modes, from, places, is_restorable, findings, unknown, remarks }
    }
}

/// The subnet of an address.
pub(crate) fn subnet(address: IpNetwork) -> Option<IpNetwork> {
    IpNetwork::new(address.network(), address.prefix()).ok()
}

fn of_result(request: &CheckRequest) -> Result<Vec<Assigned>, Error> {
    addresses::of_interface(&request.prev_result, request.id.ifname.as_str())
}

fn lookup(record: &Record, dir: &Path) -> Result<Option<Lease>, Error> {
    let network = record.attachment.network();
    if !networks(dir)?.iter().any(|known| known == network) {
        return Ok(None);
    }
    Ok(Ipam::open(network, dir)?.lookup(&record.attachment)?)
}

/// The networks that have leases in `dir`.
pub(crate) fn networks(dir: &Path) -> Result<Vec<String>, Error> {
    let unlisted = |source| Error::DataDir { path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    // What may not be entered would look as if it had none.
    let is_denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    let denied = |path: PathBuf| path.join("leases.log").try_exists().err().filter(is_denied);
    entries.filter_map(|entry| denied(entry.path())).next().map_or(Ok(()), |denied| Err(unlisted(denied)))?;
    networks_in(dir).map_err(unlisted)
}

/// A request as CHECK gets it, of which nothing is asked but what it says.
fn request(conf: Conf, record: &Record) -> Result<CheckRequest, Error> {
    let attachment = &record.attachment;
    let invalid = |what: String| Error::Unexplained(what);
    let container = ContainerId::new(attachment.container()).map_err(|e| invalid(e.to_string()))?;
    let ifname = IfName::new(attachment.ifname()).map_err(|e| invalid(e.to_string()))?;
    Ok(CheckRequest {
        prev_result: conf.prev_result()?.unwrap_or_default(),
        conf,
        id: AttachmentId { container, ifname },
        netns: PathBuf::new(),
        args: record.kept.as_ref().map(|kept| kept.args.clone()).unwrap_or_default(),
        path: Vec::new(),
    })
}
