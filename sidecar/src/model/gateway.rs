//! `Gateway` and `GatewayClass` (gateway.networking.k8s.io/v1): where requests from outside enter.

mod allowed;
mod listener;

use std::net::IpAddr;

pub use allowed::{AllowedRoutes, Expression, LabelSelector, Namespaces, Operator, RouteGroupKind};
pub use listener::{Listener, Protocol, SecretRef, Tls};

use crate::diagnostic::{Diagnostic, Span};
use crate::read::Node;
use crate::read::decode::{Report, one_of, text};

/// A gateway as its document has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// The name of its class.
    pub class: String,
    /// Where the class is named.
    pub class_span: Span,
    /// Its listeners, whose names differ. Never empty.
    pub listeners: Vec<Listener>,
    /// The addresses that it asks for; none means loopback.
    pub addresses: Vec<Address>,
}

/// GatewaySpecAddress.
#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    /// Where it stands.
    pub span: Span,
    /// The address; `None` if it is none that can be listened on, as a host name.
    pub ip: Option<IpAddr>,
}

/// Who plays the Gateways of a class in a cluster; the Gateways in the files of a sidecar are played by that, whatever their
/// class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayClass {
    /// The controller's name.
    pub controller: String,
}

impl Gateway {
    /// Reads the `spec` of a `Gateway`.
    pub fn decode(spec: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(spec, "Gateway spec")?;
        let class = fields.required("gatewayClassName", text);
        let class_span = spec.get("gatewayClassName").map_or(spec.span, |class| class.span);
        let listeners = fields.list("listeners", Listener::decode);
        if spec.get("listeners").is_none_or(Node::is_empty) {
            fields.error::<()>("the Gateway listens nowhere: it has no \"listeners\"");
        }
        let addresses = fields.list("addresses", address);
        // What a cluster makes for a Gateway; nothing is made here.
        fields.accept(&["infrastructure"]);
        fields.unsupported(&["allowedListeners", "defaultScope", "tls"]);
        fields.finish();
        report_repeated(&listeners, report);
        Some(Self { class: class?, class_span, listeners, addresses })
    }
}

impl GatewayClass {
    /// Reads the `spec` of a `GatewayClass`.
    pub fn decode(spec: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(spec, "GatewayClass spec")?;
        let controller = fields.required("controllerName", text);
        fields.accept(&["description", "parametersRef"]);
        fields.finish();
        Some(Self { controller: controller? })
    }
}

fn address(node: &Node, report: &mut Report) -> Option<Address> {
    let mut fields = report.fields(node, "address")?;
    let kinds = [("IPAddress", true), ("Hostname", false), ("NamedAddress", false)];
    let is_ip = fields.optional("type", one_of(&kinds)).unwrap_or(true);
    let value = fields.optional("value", text);
    fields.finish();
    let span = node.get("value").map_or(node.span, |value| value.span);
    let ip = value.as_ref().filter(|_| is_ip).and_then(|value| value.parse().ok());
    match value {
        Some(given) if is_ip && ip.is_none() => report.error(span, format!("{given:?} is not an IP address")),
        _ => Some(Address { span, ip }),
    }
}

/// The API's own validation of the listeners of a Gateway (GatewaySpec.listeners).
fn report_repeated(listeners: &[Listener], report: &mut Report) {
    for (at, listener) in listeners.iter().enumerate() {
        let mut earlier = listeners.iter().take(at);
        if earlier.clone().any(|other| other.name == listener.name) {
            report.error::<()>(listener.span, format!("two listeners are called {:?}", listener.name));
        } else if earlier.any(|other| other.is_like(listener)) {
            let mistake = Diagnostic::error("two listeners have the same port, protocol and hostname")
                .help("attach all routes to one of them");
            report.add::<()>(listener.span, mistake);
        }
    }
}
