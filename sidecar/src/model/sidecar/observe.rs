//! `accessLog` and `tracing`: where what is observed goes. What is observed, `inject` says.

use std::path::PathBuf;

use super::inject::{Share, share};
use super::source::absolute_path;
use crate::diagnostic::Span;
use crate::model::reference::{BackendRef, object_ref};
use crate::read::Node;
use crate::read::decode::{Report, one_of, text};

/// Where the lines of the access log go, and which share of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// The share of the selected requests that is written.
    pub sample: Share,
    /// Where to. Never empty.
    pub sinks: Vec<Sink<BackendRef>>,
}

/// A place for the access log; `B` is how a service is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink<B> {
    /// Envoy's standard output, as JSON.
    Stdout,
    /// A file, as JSON. Envoy appends to it, and opens it again at SIGUSR1.
    File(PathBuf),
    /// An access log service (`envoy.service.accesslog.v3`).
    Grpc {
        /// The service.
        to: B,
        /// How the service tells logs apart.
        log_name: String,
    },
}

/// Where spans go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector<B> {
    /// The service.
    pub to: B,
    /// How they are sent.
    pub protocol: Otlp,
    /// Where it stands.
    pub span: Span,
}

/// A transport of the OpenTelemetry protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otlp {
    /// gRPC.
    Grpc,
    /// Protobuf over HTTP, to this path.
    Http(String),
}

/// The path that the OpenTelemetry protocol has for traces.
const TRACES: &str = "/v1/traces";

impl Default for AccessLogSettings {
    fn default() -> Self {
        Self { sample: Share::ALL, sinks: vec![Sink::Stdout] }
    }
}

/// Reads `accessLog`.
pub fn access_log(node: &Node, report: &mut Report) -> Option<AccessLogSettings> {
    let mut fields = report.fields(node, "accessLog")?;
    let sample = fields.optional("sample", share).unwrap_or(Share::ALL);
    let empty = node.get("to").is_some_and(Node::is_empty);
    let sinks = fields.list("to", sink);
    let span = fields.key_span("to");
    fields.finish();
    if empty {
        return report
            .error(span, "\"to\" names no place for the access log; inject.accessLog: none turns it off");
    }
    let sinks = if sinks.is_empty() { vec![Sink::Stdout] } else { sinks };
    Some(AccessLogSettings { sample, sinks })
}

fn sink(node: &Node, report: &mut Report) -> Option<Sink<BackendRef>> {
    let mut fields = report.fields(node, "accessLog destination")?;
    let given =
        [fields.optional("stdout", stdout), fields.optional("file", file), fields.optional("grpc", grpc)];
    let absent = node.get("stdout").or(node.get("file")).or(node.get("grpc")).is_none();
    fields.finish();
    let mut given = given.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(sink), None) => Some(sink),
        (None, _) if !absent => None,
        _ => report.error(node.span, "a destination of the access log is one of stdout, file and grpc"),
    }
}

fn stdout(node: &Node, report: &mut Report) -> Option<Sink<BackendRef>> {
    report.fields(node, "stdout")?.finish();
    Some(Sink::Stdout)
}

fn file(node: &Node, report: &mut Report) -> Option<Sink<BackendRef>> {
    let mut fields = report.fields(node, "file")?;
    let path = fields.required("path", absolute_path);
    fields.finish();
    path.map(Sink::File)
}

fn grpc(node: &Node, report: &mut Report) -> Option<Sink<BackendRef>> {
    let mut fields = report.fields(node, "grpc")?;
    let to = fields.required("backendRef", object_ref);
    let log_name = fields.optional("logName", not_empty).unwrap_or_else(|| "weft".into());
    fields.finish();
    Some(Sink::Grpc { to: to?, log_name })
}

fn not_empty(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    if given.is_empty() { report.error(node.span, "must not be empty") } else { Some(given) }
}

/// Reads `tracing`.
pub fn tracing(node: &Node, report: &mut Report) -> Option<Collector<BackendRef>> {
    let mut fields = report.fields(node, "tracing")?;
    let collector = fields.required("collector", collector);
    fields.finish();
    collector
}

fn collector(node: &Node, report: &mut Report) -> Option<Collector<BackendRef>> {
    let mut fields = report.fields(node, "collector")?;
    let to = fields.required("backendRef", object_ref);
    let http = fields.optional("protocol", one_of(&[("grpc", false), ("http", true)])).unwrap_or(false);
    let path = fields.optional("path", url_path);
    let span = fields.key_span("path");
    fields.finish();
    if path.is_some() && !http {
        report.error::<()>(span, "only protocol: http has a path");
    }
    let protocol = if http { Otlp::Http(path.unwrap_or_else(|| TRACES.into())) } else { Otlp::Grpc };
    let to = to?;
    Some(Collector { span: to.span, to, protocol })
}

fn url_path(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    let fits = given.starts_with('/') && given.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if fits { Some(given) } else { report.error(node.span, format!("{given:?} is not a path of a URL")) }
}
