//! `weft-cni explain`: what one pod should have, what it has, and where they differ.
//!
//! What ADD decided is decided anew, by the same code, from what is left of its inputs: the lease with its notes, the result
//! that the runtime keeps, the configuration. What stands is compared with it as CHECK does.

use std::path::{Path, PathBuf};

use weft_cni_spec::{AddResult, AttachmentId, CheckRequest, Conf, ContainerId, IfName, Route};
use weft_datapath::Nft;
use weft_ipam::Ipam;
use weft_ipam::lease::{Assigned, Lease};
use weft_ipam::store::local::networks_in;

use crate::check::{as_reported, compare};
use crate::config::{Addressing, Config, Mode};
use crate::extras::TABLE;
use crate::finding::{Finding, Findings, State};
use crate::identity::Identity;
use crate::plan::{Extras, Inputs};
use crate::{Error, addresses, ports};

mod configuration;
mod kept;
mod record;
mod report;

use configuration::Configuration;
use record::Record;
pub(crate) use report::{Report, Verdict};

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

/// Answers `question`.
///
/// # Errors
/// Where what ADD decided cannot be told any more, or the kernel does not tell what stands.
pub(crate) fn explain(question: &Question) -> Result<Report, Error> {
    let files = configuration::files(question)?;
    let record = record::find(question, &files)?;
    let configuration = Configuration::of(&record, question, files)?;
    let requests = configuration.requests(&record)?;
    let mut subject = Subject::new(question, record);
    for request in &requests {
        subject.compare(request)?;
    }
    subject.look_for_extras()?;
    Ok(subject.report(configuration.from))
}

/// The attachment, and what has been found out about it.
struct Subject {
    record: Record,
    identity: Identity,
    netns: Namespace,
    modes: Vec<&'static str>,
    planned: Vec<Extras>,
    findings: Vec<Finding>,
    unknown: Vec<String>,
}

/// Where the pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Namespace {
    There(PathBuf),
    Gone(PathBuf),
    Unknown,
}

impl Namespace {
    fn of(question: &Question, record: &Record) -> Self {
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
    fn compare(&mut self, request: &CheckRequest) -> Result<(), Error> {
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
        self.findings.extend(compare(&config, &inputs, netns)?);
        self.planned.push(Extras::of(&inputs));
        Ok(())
    }

    /// What ADD was given. The result that a runtime keeps is as good as the lease, but for the lease itself.
    fn addresses(
        &mut self,
        request: &CheckRequest,
        config: &Config,
    ) -> Result<(Vec<Assigned>, Vec<Route>), Error> {
        let kept = self.record.kept.as_ref().and_then(|kept| kept.result.as_ref());
        let of_result = |result: &AddResult| addresses::of_interface(result, request.id.ifname.as_str());
        match &config.addressing {
            Addressing::Leases(leases) => {
                if self.record.lease.is_none() {
                    self.record.lease = lookup(&self.record, &leases.data_dir)?;
                    self.record.data_dir = Some(leases.data_dir.clone());
                }
                let held = self.record.lease.as_ref().map(|lease| lease.addresses.clone());
                let addresses = match (&held, kept) {
                    (Some(held), _) => held.clone(),
                    (None, Some(_)) => of_result(&request.prev_result)?,
                    (None, None) => return Err(self.unexplained()),
                };
                let mut findings = Findings::at("lease");
                for assigned in &addresses {
                    findings.note_presence("address", assigned.address.ip().to_string(), held.is_some());
                }
                self.findings.extend(findings.into_list());
                Ok((addresses, leases.routes.clone()))
            }
            Addressing::Nobody => Ok((Vec::new(), Vec::new())),
            Addressing::Delegate(_) | Addressing::Chained => {
                if let Addressing::Delegate(name) = &config.addressing {
                    self.unknown.push(format!("whether {name} still holds the addresses: CHECK asks it"));
                }
                if kept.is_none() {
                    self.unknown.push(
                        "what the runtime asked of an entry behind another plugin, for it keeps no result"
                            .to_owned(),
                    );
                }
                match (kept, &self.record.lease) {
                    (Some(_), _) => {
                        Ok((of_result(&request.prev_result)?, request.prev_result.routes.clone()))
                    }
                    (None, Some(lease)) => Ok((lease.addresses.clone(), Vec::new())),
                    (None, None) => Err(self.unexplained()),
                }
            }
        }
    }

    fn unexplained(&self) -> Error {
        Error::Unexplained(format!(
            "what ADD gave {} is not known: there is neither a lease nor the result that a runtime keeps; \
             `weft-cni audit` shows what stands without an owner",
            self.record.attachment
        ))
    }

    /// Elements that bear the attachment's mark and no plan has. It lists all of the node's.
    fn look_for_extras(&mut self) -> Result<(), Error> {
        let Some(nft) = Nft::open_if_any()? else { return Ok(()) };
        let mark = self.identity.mark();
        let mut findings = Findings::at(TABLE);
        for found in nft.masqueraded()?.into_iter().filter(|found| found.is_of(&mark)) {
            let planned = self.planned.iter().flat_map(|extras| &extras.masquerade);
            if !planned.into_iter().any(|planned| planned.address.ip() == found.address) {
                findings.add("masquerade", found.address.to_string(), State::Extra);
            }
        }
        for found in nft.published()?.into_iter().filter(|found| found.is_of(&mark)) {
            let planned = self.planned.iter().flat_map(|extras| &extras.published);
            if !planned.into_iter().any(|planned| planned.at == found.at) {
                findings.add("host port", ports::shown(&found), State::Extra);
            }
        }
        self.findings.extend(findings.into_list());
        Ok(())
    }

    fn report(self, from: String) -> Report {
        let Self { record, netns, modes, findings, unknown, .. } = self;
        Report { record, netns, modes, from, findings, unknown }
    }
}

fn lookup(record: &Record, dir: &Path) -> Result<Option<Lease>, Error> {
    let network = record.attachment.network();
    if !networks(dir)?.iter().any(|known| known == network) {
        return Ok(None);
    }
    Ok(Ipam::open(network, dir)?.lookup(&record.attachment)?)
}

/// The networks that have leases in `dir`.
fn networks(dir: &Path) -> Result<Vec<String>, Error> {
    networks_in(dir).map_err(|source| Error::DataDir { path: dir.to_owned(), source })
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
