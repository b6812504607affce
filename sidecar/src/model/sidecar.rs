//! `Sidecar`: this workload, its tags, and how it meets its Envoy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::metadata::Metadata;
use crate::diagnostic::{Diagnostic, Span};
use crate::read::decode::{Report, duration, parsed, port, text, texts};
use crate::read::{Node, Value};

/// Every injected header starts with this.
pub const TAG_HEADER_PREFIX: &str = "x-weft-tag-";

const MAX_TAG_VALUE: usize = 1_024;

/// This workload. Namespace and name make up Envoy's node id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// The workload's name.
    pub name: String,
    /// Its namespace, which is also that of documents that give none.
    pub namespace: String,
    /// Its tags, sorted by key. Keys are unique as header names are: without regard to case.
    pub tags: Vec<Tag>,
    /// The tags that upstreams see as request headers, by key.
    pub request_headers: Vec<String>,
    /// Where Envoy finds us.
    pub xds_socket: PathBuf,
    /// How long a push may stay unanswered before it is diagnosed and sent again.
    pub retry_timeout: Duration,
    /// The loopback port on which Envoy takes the application's requests.
    pub outbound_port: u16,
    /// Envoy's admin address.
    pub envoy_admin: SocketAddr,
}

/// A tag. The key makes a header name, the value goes unchanged into a header.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// Letters, digits, `.`, `_` and `-`; at most 63.
    pub key: String,
    /// No control characters, no space at either end; at most 1 024 bytes.
    pub value: String,
}

impl Tag {
    /// The request header that carries this tag.
    pub fn header(&self) -> String {
        format!("{TAG_HEADER_PREFIX}{}", self.key.to_ascii_lowercase())
    }
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

    fn new(metadata: &Metadata) -> Self {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        Self {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone().unwrap_or_else(|| "default".into()),
            tags: Vec::new(),
            request_headers: Vec::new(),
            xds_socket: PathBuf::from("/run/weft/xds.sock"),
            retry_timeout: Duration::from_secs(2),
            outbound_port: 15001,
            envoy_admin: loopback(15000),
        }
    }

    fn read_spec(&mut self, spec: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(spec, "Sidecar spec")?;
        self.tags = fields.optional("tags", tags).unwrap_or_default();
        self.request_headers = self.tags.iter().map(|tag| tag.key.clone()).collect();
        fields.optional("xds", |node, report| self.read_xds(node, report));
        fields.optional("outbound", |node, report| self.read_outbound(node, report));
        fields.optional("envoy", |node, report| self.read_envoy(node, report));
        fields.optional("inject", |node, report| self.read_inject(node, report));
        fields.unsupported(&["admin"]);
        let span = fields.key_span("outbound");
        fields.finish();
        let admin = self.envoy_admin.ip();
        let same_host = admin.is_unspecified() || admin == IpAddr::V4(Ipv4Addr::LOCALHOST);
        if same_host && self.outbound_port == self.envoy_admin.port() {
            let taken = format!("outbound.port {} is the port of Envoy's admin address", self.outbound_port);
            return report.add(span, Diagnostic::error(taken).help("change one of the two"));
        }
        Some(self.clone())
    }

    fn read_xds(&mut self, node: &Node, report: &mut Report) -> Option<()> {
        let mut fields = report.fields(node, "xds")?;
        assign(&mut self.xds_socket, fields.optional("socket", socket_path));
        assign(&mut self.retry_timeout, fields.optional("retryTimeout", positive_duration));
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
        fields.finish();
        Some(())
    }

    fn read_inject(&mut self, node: &Node, report: &mut Report) -> Option<()> {
        let mut fields = report.fields(node, "inject")?;
        let some = node.get("requestHeaders").is_some_and(|node| node.value != Value::Null);
        let headers = fields.list("requestHeaders", |node, report| known_tag(&self.tags, node, report));
        assign(&mut self.request_headers, some.then_some(headers));
        fields.unsupported(&["accessLog", "stats", "tracing", "responseHeaders"]);
        fields.finish();
        Some(())
    }
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

fn known_tag(tags: &[Tag], node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    if tags.iter().any(|tag| tag.key == given) {
        return Some(given);
    }
    let mistake = Diagnostic::error(format!("there is no tag {given:?}"));
    report.add(node.span, mistake.nearest(&given, tags.iter().map(|tag| tag.key.as_str())))
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

fn tags(node: &Node, report: &mut Report) -> Option<Vec<Tag>> {
    let mut tags: Vec<Tag> = Vec::new();
    for (entry, value) in texts(node, report)? {
        let key = &entry.key;
        check_key(key, entry.key_span, report);
        check_value(key, &value, entry.value.span, report);
        if let Some(same) = tags.iter().find(|tag| tag.key.eq_ignore_ascii_case(key)) {
            let message = format!("tags {:?} and {key:?} would be the same header", same.key);
            report.error::<()>(entry.key_span, message);
        }
        tags.push(Tag { key: key.clone(), value });
    }
    tags.sort();
    Some(tags)
}

fn check_key(key: &str, span: Span, report: &mut Report) {
    let in_key = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if key.is_empty() || key.len() > 63 || !key.bytes().all(in_key) {
        let mistake = Diagnostic::error(format!("{key:?} cannot be a tag"))
            .help("use at most 63 letters, digits, dots, underscores and dashes");
        report.add::<()>(span, mistake);
    }
}

fn check_value(key: &str, value: &str, span: Span, report: &mut Report) {
    if value.len() > MAX_TAG_VALUE || value.chars().any(char::is_control) || value.trim() != value {
        let mistake = Diagnostic::error(format!("the value of tag {key:?} cannot be carried in a header"))
            .help("use at most 1024 bytes, no control characters and no space at either end");
        report.add::<()>(span, mistake);
    }
}
