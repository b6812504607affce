//! `Sidecar`: this workload, its tags, and how it meets its Envoy.

pub mod inbound;
pub mod inject;
pub mod observe;
pub mod source;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::metadata::Metadata;
use super::reference::BackendRef;
use super::tag::{self, Tag};
use crate::diagnostic::{Diagnostic, Span};
use crate::read::Node;
use crate::read::decode::{Report, duration, integer, one_of, parsed, port, text};
use crate::read::surroundings::Surroundings;
use inbound::Inbound;
use inject::Inject;
use observe::{AccessLogSettings, Collector};
use source::TagSource;

/// This workload. Namespace and name make up Envoy's node id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// The workload's name.
    pub name: String,
    /// Its namespace, which is also that of documents that give none.
    pub namespace: String,
    /// Its tags, sorted by key. Keys are unique as header names are: without regard to case. Those that come from the
    /// surroundings are among them once [`Sidecar::in_surroundings`] was asked.
    pub tags: Vec<Tag>,
    /// The keys of the tags that the document itself gives, which upstreams see by default.
    pub own_tags: Vec<String>,
    /// Where further tags come from.
    pub sources: Vec<TagSource>,
    /// The directory of the downward API's files.
    pub pod_info: PathBuf,
    /// Which tags go where.
    pub inject: Inject,
    /// Where the access log goes.
    pub access_log: AccessLogSettings,
    /// Where spans go.
    pub collector: Option<Collector<BackendRef>>,
    /// Where Envoy finds us.
    pub xds_socket: PathBuf,
    /// How long a push may stay unanswered before it is diagnosed and sent again.
    pub retry_timeout: Duration,
    /// The users that may connect to the socket; where it is absent, our own and root.
    pub allowed_uids: Option<Vec<u32>>,
    /// The loopback port on which Envoy takes the application's requests.
    pub outbound_port: u16,
    /// The ports on which Envoy takes requests for the application.
    pub inbound: Vec<Inbound>,
    /// Envoy's admin address.
    pub envoy_admin: SocketAddr,
    /// The statistics that Envoy keeps.
    pub stats: StatsKept,
    /// Where our own health and metrics are served.
    pub admin: Option<SocketAddr>,
}

/// The statistics that Envoy keeps. They are most of what a cluster costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatsKept {
    /// What tells about requests, connections, membership and updates, and what begins with one of these.
    Selected(Vec<String>),
    /// All of them.
    All,
}

impl Sidecar {
    /// Reads the `spec` of a `Sidecar`; all of it has defaults.
    pub fn decode(metadata: &Metadata, spec: Option<&Node>, report: &mut Report) -> Option<Self> {
        let mut sidecar = Self::new(metadata);
        match spec {
            Some(spec) => sidecar.read_spec(spec, report),
            None => Some(sidecar),
        }
    }

    /// The same with the tags that its surroundings give it now, and what is wrong with those.
    pub fn in_surroundings(&self, around: &Surroundings) -> (Self, Vec<(Span, Diagnostic)>) {
        let (mut tags, mut mistakes) = (self.tags.clone(), Vec::new());
        for source in &self.sources {
            match (source.read(&self.pod_info, around), source.span) {
                (Ok(tag), _) => tags.extend(tag),
                (Err(mistake), Some(span)) => mistakes.push((span, mistake)),
                // Nobody asked for it.
                (Err(_), None) => {}
            }
        }
        tags.sort();
        (Self { tags, ..self.clone() }, mistakes)
    }

    /// The files that its tags depend on.
    pub fn source_files(&self) -> impl Iterator<Item = PathBuf> {
        self.sources.iter().filter_map(|source| source.file(&self.pod_info))
    }

    fn new(metadata: &Metadata) -> Self {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone().unwrap_or_else(|| "default".into()),
            tags: Vec::new(),
            own_tags: Vec::new(),
            sources: source::usual(),
            pod_info: PathBuf::from(source::POD_INFO),
            inject: Inject::default(),
            access_log: AccessLogSettings::default(),
            collector: None,
            xds_socket: PathBuf::from("/run/weft/xds.sock"),
            retry_timeout: Duration::from_secs(2),
            allowed_uids: None,
            outbound_port: 15001,
            inbound: Vec::new(),
            envoy_admin: loopback(15000),
            stats: StatsKept::Selected(Vec::new()),
            admin: None,
        }
    }

    fn read_spec(&mut self, spec: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(spec, "Sidecar spec")?;
        self.tags = fields.optional("tags", tag::tags).unwrap_or_default();
        self.own_tags = self.tags.iter().map(|tag| tag.key.clone()).collect();
        assign(&mut self.pod_info, fields.optional("podInfo", source::absolute_path));
        let sources = fields.list("tagsFrom", source::tag_source);
        self.add_sources(sources, fields.report());
        fields.optional("xds", |node, report| self.read_xds(node, report));
        fields.optional("outbound", |node, report| self.read_outbound(node, report));
        self.inbound = fields.list("inbound", inbound::inbound);
        fields.optional("envoy", |node, report| self.read_envoy(node, report));
        fields.optional("admin", |node, report| self.read_admin(node, report));
        assign(&mut self.inject, fields.optional("inject", inject::inject));
        assign(&mut self.access_log, fields.optional("accessLog", observe::access_log));
        self.collector = fields.optional("tracing", observe::tracing);
        let key = |name: &str| spec.get(name).map(|_| fields.key_span(name));
        let spans = ["outbound", "envoy", "admin"].map(key);
        fields.finish();
        self.check_ports(spans, report);
        Some(self.clone())
    }

    /// Those that are always looked for stand back behind a tag of the same name that somebody has written.
    fn add_sources(&mut self, given: Vec<TagSource>, report: &mut Report) {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        for (at, source) in given.iter().enumerate() {
            let in_tags = self.own_tags.iter().any(|key| same(key, &source.tag));
            let earlier = given.iter().take(at).any(|other| same(&other.tag, &source.tag));
            if let Some(span) = source.span.filter(|_| in_tags || earlier) {
                report.error::<()>(span, format!("the tag {:?} is there twice", source.tag));
            }
        }
        let is_given = |key: &str| {
            self.own_tags.iter().any(|own| same(own, key))
                || given.iter().any(|source| same(&source.tag, key))
        };
        self.sources.retain(|usual| !is_given(&usual.tag));
        self.sources.extend(given);
    }

    fn read_xds(&mut self, node: &Node, report: &mut Report) -> Option<()> {
        let mut fields = report.fields(node, "xds")?;
        assign(&mut self.xds_socket, fields.optional("socket", socket_path));
        assign(&mut self.retry_timeout, fields.optional("retryTimeout", positive_duration));
        let uids = fields.list("allowedUids", integer(0, u32::MAX));
        self.allowed_uids = node.get("allowedUids").map(|_| uids);
        fields.finish();
        Some(())
    }

    fn read_outbound(&mut self, node: &Node, report: &mut Report) -> Option<()> {
        let mut fields = report.fields(node, "outbound")?;
        assign(&mut self.outbound_port, fields.optional("port", port));
        fields.finish();
        Some(())
    }

    fn read_envoy(&mut self, node: &Node, report: &mut Report) -> Option<()> {
        let mut fields = report.fields(node, "envoy")?;
        assign(&mut self.envoy_admin, fields.optional("admin", address));
        let all = fields.optional("stats", one_of(&[("selected", false), ("all", true)])).unwrap_or(false);
        let prefixes = fields.list("statsPrefixes", text);
        let span = fields.key_span("statsPrefixes");
        fields.finish();
        if all && !prefixes.is_empty() {
            report.error::<()>(span, "stats: all keeps every statistic already");
        }
        self.stats = if all { StatsKept::All } else { StatsKept::Selected(prefixes) };
        Some(())
    }

    fn read_admin(&mut self, node: &Node, report: &mut Report) -> Option<()> {
        let mut fields = report.fields(node, "admin")?;
        self.admin = fields.required("address", address);
        fields.finish();
        Some(())
    }

    /// Ports that Envoy and we listen on, each with its own place.
    fn check_ports(&self, [outbound, envoy, admin]: [Option<Span>; 3], report: &mut Report) {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let mut taken: Vec<(String, SocketAddr, Option<Span>)> =
            vec![("outbound.port".into(), SocketAddr::new(loopback, self.outbound_port), outbound)];
        taken.push(("Envoy's admin address".into(), self.envoy_admin, envoy));
        taken.extend(self.admin.map(|address| ("admin.address".into(), address, admin)));
        taken.extend(self.inbound.iter().map(|inbound| {
            let address = SocketAddr::new(inbound.address, inbound.port);
            (format!("inbound port {}", inbound.port), address, Some(inbound.span))
        }));
        for (at, (name, address, span)) in taken.iter().enumerate() {
            let earlier = taken.iter().take(at).find(|(_, other, _)| collide(*address, *other));
            // Defaults do not collide, so that one of the two was written.
            if let Some((other, _, place)) = earlier
                && let Some(span) = span.or(*place)
            {
                let mistake = format!("{name} is the same address as {other}");
                report.add::<()>(span, Diagnostic::error(mistake).help("change one of the two"));
            }
        }
    }
}

/// Whether two sockets cannot both listen. An address of all interfaces takes the port on each of its family.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same = |a: IpAddr, b: IpAddr| a == b || (a.is_unspecified() && (a.is_ipv6() || b.is_ipv4()));
    one.port() == other.port() && (same(one.ip(), other.ip()) || same(other.ip(), one.ip()))
}

/// Port 0 would be any port, which nobody could know.
fn address(node: &Node, report: &mut Report) -> Option<SocketAddr> {
    const EXPECTED: &str = "an address with a port, as 127.0.0.1:15000";
    let given = parsed::<SocketAddr>(EXPECTED)(node, report)?;
    if given.port() > 0 {
        Some(given)
    } else {
        report.error(node.span, format!("\"{given}\" is not {EXPECTED}"))
    }
}

fn assign<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// The kernel takes 107 bytes for the path of a Unix socket (`sun_path`, less the final zero). The socket is made under a
/// longer name first, which ends with a process number.
const MAX_SOCKET_PATH: usize = 107 - ".4194304".len();

fn socket_path(node: &Node, report: &mut Report) -> Option<PathBuf> {
    let given = text(node, report)?;
    if given.starts_with('/') && given.len() <= MAX_SOCKET_PATH && !given.contains('\0') {
        return Some(PathBuf::from(given));
    }
    report.error(node.span, format!("{given:?} is not an absolute path of at most {MAX_SOCKET_PATH} bytes"))
}

fn positive_duration(node: &Node, report: &mut Report) -> Option<Duration> {
    let value = duration(node, report)?;
    if value.is_zero() { report.error(node.span, "must be more than 0") } else { Some(value) }
}
