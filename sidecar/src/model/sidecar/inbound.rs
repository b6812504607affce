//! `inbound`: where requests to the application enter Envoy.

use std::net::{IpAddr, Ipv4Addr};

use crate::diagnostic::Span;
use crate::model::service::AppProtocol;
use crate::read::Node;
use crate::read::decode::{Report, one_of, parsed, port};

/// A port on which Envoy takes requests for the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// Where it stands.
    pub span: Span,
    /// The address that it listens on.
    pub address: IpAddr,
    /// The port that others connect to.
    pub port: u16,
    /// The application's port on the loopback address.
    pub to: u16,
    /// What the application speaks.
    pub protocol: AppProtocol,
    /// Whose tags the application sees.
    pub request_tags: Whose,
}

/// Whose tags a request carries on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// This workload's: what the caller says is removed, since anybody can say it.
    Own,
    /// The caller's: only where nobody but sidecars can connect.
    Caller,
}

const PROTOCOLS: &[(&str, AppProtocol)] =
    &[("http", AppProtocol::Http), ("kubernetes.io/h2c", AppProtocol::H2c), ("grpc", AppProtocol::H2c)];

/// Reads one entry of `inbound`.
pub fn inbound(node: &Node, report: &mut Report) -> Option<Inbound> {
    let mut fields = report.fields(node, "inbound entry")?;
    let address = fields.optional("address", parsed::<IpAddr>("an IP address"));
    let listening = fields.required("port", port);
    let to = fields.required("to", port);
    let protocol = fields.optional("appProtocol", one_of(PROTOCOLS));
    let whose = fields.optional("requestTags", one_of(&[("own", Whose::Own), ("caller", Whose::Caller)]));
    let span = fields.key_span("port");
    fields.finish();
    let (listening, to) = (listening?, to?);
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    if listening == to && (address.is_unspecified() || address.is_loopback()) {
        return report.error(span, format!("port {to} cannot be both Envoy's and the application's"));
    }
    Some(Inbound {
        span,
        address,
        port: listening,
        to,
        protocol: protocol.unwrap_or(AppProtocol::Http),
        request_tags: whose.unwrap_or(Whose::Own),
    })
}
