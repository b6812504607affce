//! `healthCheck`: endpoints are asked how they are.

use std::time::Duration;

use super::value::some_time;
use crate::model::matching::header_value;
use crate::read::decode::{Report, Shape, integer, one_of, port, text};
use crate::read::{Node, Value};

/// How endpoints are asked. Envoy takes one kind of check for a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is sent, and what is expected.
    pub probe: Probe,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Bad answers in a row until an endpoint is taken for unhealthy; any answer of 503 counts as all of them.
    pub unhealthy_threshold: u32,
    /// Good answers in a row until it is healthy again.
    pub healthy_threshold: u32,
    /// Another port than that of the requests.
    pub port: Option<u16>,
}

/// What is sent, and what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A request.
    Http {
        /// Its path.
        path: String,
        /// Its Host; the name of the service if not given.
        host: Option<String>,
        /// Its method.
        method: &'static str,
        /// The status codes that are good, each range with both ends; 200 if empty.
        expected: Vec<(u16, u16)>,
    },
    /// A call of `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service that is asked for; empty means the server.
        service: String,
        /// The authority of the call.
        authority: Option<String>,
    },
    /// A connection.
    Tcp {
        /// What is sent, if anything.
        send: Option<String>,
        /// What must come back, in this order.
        receive: Vec<String>,
    },
}

const METHODS: &[(&str, &str)] = &[
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("DELETE", "DELETE"),
    ("OPTIONS", "OPTIONS"),
    ("TRACE", "TRACE"),
    ("PATCH", "PATCH"),
];

/// Reads `healthCheck`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<HealthCheck> {
    let mut fields = report.fields(node, "healthCheck")?;
    let http = fields.optional("http", http);
    let grpc = fields.optional("grpc", grpc);
    let tcp = fields.optional("tcp", tcp);
    let interval = fields.optional("interval", some_time).unwrap_or(Duration::from_secs(5));
    let timeout = fields.optional("timeout", some_time).unwrap_or(Duration::from_secs(1));
    let unhealthy_threshold = fields.optional("unhealthyThreshold", integer(1, 1_000)).unwrap_or(3);
    let healthy_threshold = fields.optional("healthyThreshold", integer(1, 1_000)).unwrap_or(2);
    let port = fields.optional("port", port);
    if ["http", "grpc", "tcp"].iter().filter(|kind| node.get(kind).is_some()).count() != 1 {
        fields.error::<()>("healthCheck has one of http, grpc and tcp");
    }
    fields.finish();
    let probe = http.or(grpc).or(tcp)?;
    Some(HealthCheck { probe, interval, timeout, unhealthy_threshold, healthy_threshold, port })
}

fn http(node: &Node, report: &mut Report) -> Option<Probe> {
    let mut fields = report.fields(node, "http")?;
    let path = fields.required("path", header_value);
    let host = fields.optional("host", header_value);
    let method = fields.optional("method", one_of(METHODS)).unwrap_or("GET");
    let expected = fields.list("expectedStatuses", statuses);
    let span = fields.key_span("path");
    fields.finish();
    let path = path?;
    if !path.starts_with('/') {
        return report.error(span, format!("the path {path:?} must begin with a slash"));
    }
    Some(Probe::Http { path, host, method, expected })
}

/// A status code, or a range of them as `200-299`.
fn statuses(node: &Node, report: &mut Report) -> Option<(u16, u16)> {
    if report.saw(|| Shape::Any) {
        return None;
    }
    let Value::Text(given) = &node.value else {
        return integer(100, 599)(node, report).map(|one| (one, one));
    };
    let ends = given.split_once('-').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    ends.filter(|(from, to)| (100..=*to).contains(from) && *to <= 599)
        .or_else(|| report.error(node.span, "a status code or a range as \"200-299\" is expected"))
}

fn grpc(node: &Node, report: &mut Report) -> Option<Probe> {
    let mut fields = report.fields(node, "grpc")?;
    let service = fields.optional("service", text).unwrap_or_default();
    let authority = fields.optional("authority", header_value);
    fields.finish();
    Some(Probe::Grpc { service, authority })
}

fn tcp(node: &Node, report: &mut Report) -> Option<Probe> {
    let mut fields = report.fields(node, "tcp")?;
    let some_text = |node: &Node, report: &mut Report| {
        text(node, report)
            .filter(|given| !given.is_empty())
            .or_else(|| report.error(node.span, "the text is empty"))
    };
    let send = fields.optional("send", some_text);
    let receive = fields.list("receive", some_text);
    fields.finish();
    Some(Probe::Tcp { send, receive })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn each_kind_of_probe_is_read() {
        let check =
            good("{http: {path: /healthz, expectedStatuses: [204, \"200-299\"]}, interval: 1s}", decode);
        let Probe::Http { expected, method, .. } = check.probe else { panic!("{check:?}") };
        assert_eq!((expected, method), (vec![(204, 204), (200, 299)], "GET"));
        assert_eq!(good("{grpc: {}}", decode).probe, Probe::Grpc { service: String::new(), authority: None });
        let probe = Probe::Tcp { send: Some("PING\n".into()), receive: vec!["PONG".into()] };
        assert_eq!(good("{tcp: {send: \"PING\\n\", receive: [PONG]}}", decode).probe, probe);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(mistakes("{}", decode), ["1:4 healthCheck has one of http, grpc and tcp"]);
        assert_eq!(
            mistakes("{http: {path: healthz, expectedStatuses: [\"299-200\", 99]}}", decode),
            [
                "1:46 a status code or a range as \"200-299\" is expected",
                "1:57 a whole number from 100 to 599 is expected, this is the number 99",
                "1:12 the path \"healthz\" must begin with a slash",
            ]
        );
    }
}
