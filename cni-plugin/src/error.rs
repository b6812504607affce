//! Everything that can go wrong, and the codes it is answered with.

use std::path::PathBuf;

use nix::errno::Errno;
use weft_cni_spec::{self as spec, Code};
use weft_ipam::config::{Mistake, Mistakes};

use crate::delegate;

/// A verb failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration has mistakes: all of them.
    #[error("invalid network configuration: {0}")]
    Config(Mistakes),
    /// The configuration asks for things that Weft knows of and does not do.
    #[error("unsupported field: {0}")]
    Unsupported(Mistakes),
    /// `CNI_ARGS` has unknown keys.
    #[error(transparent)]
    Args(#[from] spec::ArgsError),
    /// The configuration holds something that is no result.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// A name cannot be that of an attachment.
    #[error(transparent)]
    Name(#[from] weft_ipam::lease::NameError),
    /// The leases could not be read or changed.
    #[error(transparent)]
    Ipam(#[from] weft_ipam::Error),
    /// Another IPAM plugin did not do what it was asked.
    #[error(transparent)]
    Delegate(#[from] delegate::Error),
    /// The kernel refused.
    #[error(transparent)]
    Datapath(#[from] weft_datapath::Error),
    /// What `CNI_NETNS` names is no network namespace.
    #[error(transparent)]
    UnusableNetns(weft_datapath::Error),
    /// The namespace could not be identified.
    #[error("cannot identify the network namespace {path}", path = path.display())]
    Netns {
        /// `CNI_NETNS`.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The networks below a data directory could not be listed.
    #[error("cannot list the networks in {path}", path = path.display())]
    DataDir {
        /// `dataDir`.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An audit was asked of networks that have no leases.
    #[error("no leases of {} are kept in {path}: an audit compares with leases", networks.join(", "), path = path.display())]
    NoLeases {
        /// Their names.
        networks: Vec<String>,
        /// `dataDir`.
        path: PathBuf,
    },
    /// There is not enough left to explain an attachment by.
    #[error("{0}")]
    Unexplained(String),
    /// A configuration that was named could not be read.
    #[error("cannot read the configuration {path}", path = path.display())]
    ConfigFile {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The name service could not be read.
    #[error("cannot read ipam.resolvConf {path}", path = path.display())]
    ResolvConf {
        /// `ipam.resolvConf`.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The operator's list of parameters could not be read.
    #[error("cannot read the allow list {path}", path = path.display())]
    AllowList {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What goes to an interface is to be shaped, and there is no place for it on the node.
    #[error("cannot shape what goes to {ifname}: it is not one end of a pair that has the other on the node")]
    NoPair {
        /// `CNI_IFNAME`.
        ifname: String,
    },
    /// A link that another entry or plugin shapes already.
    #[error("{link} is shaped already: of all entries of a list only one may ask for rates")]
    Shaped {
        /// Its name.
        link: String,
    },
    /// The interface that is to be tuned is not there.
    #[error("there is no {ifname} in the container")]
    NoInterface {
        /// `CNI_IFNAME`.
        ifname: String,
    },
    /// What an interface was like could not be kept.
    #[error("cannot keep in {path} what an interface was like", path = path.display())]
    Backup {
        /// The file, below `dataDir`.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An address of the reference's host-local could not be freed.
    #[error("cannot free {path} of host-local", path = path.display())]
    HostLocal {
        /// The file that holds it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The interface's name is taken in the container.
    #[error("{ifname} exists in {netns} already: it must be removed before an ADD may create it", netns = netns.display())]
    InterfaceExists {
        /// `CNI_IFNAME`.
        ifname: String,
        /// `CNI_NETNS`.
        netns: PathBuf,
    },
    /// A port of the node leads into another pod.
    #[error("host port {port} is taken by {owner}")]
    PortTaken {
        /// The port, as it stands.
        port: weft_datapath::HostPort,
        /// The other's mark.
        owner: String,
    },
    /// An address of the pod is somebody else's on the node.
    #[error(
        "{address} is routed to {link} already: `ip -d link show {link}` says whose it is, and `weft-cni audit` whether anybody's"
    )]
    Routed {
        /// The address.
        address: std::net::IpAddr,
        /// The link.
        link: String,
    },
    /// The pod is on a network with the same gateway already.
    #[error(
        "the pod reaches {destination} through its {link} already, and without a bridge a pod can have a gateway but once: give the second \
         network another subnet, or name a bridge in both"
    )]
    RoutedInPod {
        /// The gateway, or where else a route leads.
        destination: ipnetwork::IpNetwork,
        /// The pod's interface.
        link: String,
    },
    /// A link with a derived name carries the mark of somebody else.
    #[error("{link} on the host belongs to {owner:?}, not to {attachment}: it stays")]
    ForeignLink {
        /// The link.
        link: String,
        /// Its alias.
        owner: String,
        /// Whose the name would be.
        attachment: String,
    },
    /// CHECK for an attachment that has no lease.
    #[error("{attachment} holds no lease")]
    NoLease {
        /// Which.
        attachment: String,
    },
    /// CHECK found differences.
    #[error("{attachment} is not as ADD left it: {}", differences.join("; "))]
    Drift {
        /// Which.
        attachment: String,
        /// What differs.
        differences: Vec<String>,
    },
    /// Some things could not be removed. All the others have been.
    #[error("cannot remove all of {what}: {}", failures.join("; "))]
    Incomplete {
        /// What was being removed.
        what: String,
        /// What failed, each with its cause.
        failures: Vec<String>,
    },
    /// STATUS: nothing is known within the time for it.
    #[error("whether an ADD would succeed could not be told within {} ms", limit.as_millis())]
    Unanswered {
        /// How long it was waited.
        limit: std::time::Duration,
    },
    /// STATUS: something of the node is in the way.
    #[error("{0}")]
    Obstacle(String),
    /// STATUS: no lease could be kept.
    #[error("cannot write to ipam.dataDir {path}", path = path.display())]
    Unwritable {
        /// `ipam.dataDir`.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No thread could be started.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// STATUS: an ADD would fail.
    #[error("an ADD would fail")]
    NotReady(#[source] Box<Error>),
}

/// Weft's own codes; the specification leaves those from 100 on to plugins. `docs/errors.md` lists them for operators.
pub(crate) mod code {
    use weft_cni_spec::Code;

    /// ADD for what exists already. `weft-ipam` answers an attachment with a lease so too.
    pub(crate) const EXISTS: Code = Code(100);
    /// CHECK found differences.
    pub(crate) const DRIFT: Code = Code(101);
    /// The kernel refused.
    pub(crate) const KERNEL: Code = Code(102);
    /// DEL or GC left something, which the next one will find.
    pub(crate) const INCOMPLETE: Code = Code(103);
    /// Another IPAM plugin could not be run to its end, or printed something that is no answer.
    pub(crate) const DELEGATE: Code = Code(104);
    /// A port of the node is another pod's.
    pub(crate) const PORT_TAKEN: Code = Code(105);
}

impl Error {
    /// The error as the runtime gets it.
    #[must_use]
    pub fn answer(self) -> spec::Error {
        match self {
            Self::Spec(error) | Self::Delegate(delegate::Error::Refused(error)) => error,
            other => {
                let answer = spec::Error::caused(other.code(), &other);
                match other.hint() {
                    Some(hint) => answer.clone().with_details(format!("{}: {hint}", answer.details)),
                    None => answer,
                }
            }
        }
    }

    /// What the kernel's words leave out.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Datapath(error) | Self::UnusableNetns(error) if error.errno() == Errno::EPERM => {
                Some("it takes root, or CAP_NET_ADMIN and CAP_SYS_ADMIN")
            }
            _ => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Config(_) | Self::Name(_) => Code::INVALID_CONFIG,
            Self::Unsupported(_) => Code::UNSUPPORTED_FIELD,
            Self::Args(_) => Code::INVALID_ENVIRONMENT,
            Self::Spec(error) => error.code,
            Self::Ipam(error) => error.code(),
            Self::Delegate(error) => error.code(),
            Self::UnusableNetns(_) | Self::Netns { .. } => Code::INVALID_NETNS,
            Self::ResolvConf { .. }
            | Self::AllowList { .. }
            | Self::DataDir { .. }
            | Self::Backup { .. }
            | Self::HostLocal { .. }
            | Self::NoLeases { .. }
            | Self::Unexplained(_)
            | Self::ConfigFile { .. }
            | Self::Unwritable { .. }
            | Self::Thread(_) => Code::IO,
            Self::InterfaceExists { .. } | Self::ForeignLink { .. } => code::EXISTS,
            Self::Datapath(_)
            | Self::Routed { .. }
            | Self::RoutedInPod { .. }
            | Self::NoPair { .. }
            | Self::NoInterface { .. }
            | Self::Shaped { .. } => code::KERNEL,
            Self::NoLease { .. } | Self::Drift { .. } => code::DRIFT,
            Self::Incomplete { .. } => code::INCOMPLETE,
            Self::PortTaken { .. } => code::PORT_TAKEN,
            // Only who looks after the addresses of running containers knows that they are in trouble.
            Self::NotReady(cause) if cause.code() == Code::LIMITED_CONNECTIVITY => Code::LIMITED_CONNECTIVITY,
            Self::NotReady(_) | Self::Unanswered { .. } | Self::Obstacle(_) => Code::NOT_AVAILABLE,
        }
    }
}

impl From<Mistakes> for Error {
    fn from(mistakes: Mistakes) -> Self {
        Self::Config(mistakes)
    }
}

/// A mistake at a place of the configuration.
pub(crate) fn mistake(at: impl Into<String>, what: impl Into<String>) -> Mistake {
    Mistake { at: at.into(), what: what.into() }
}
