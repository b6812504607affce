//! `Service` (core/v1) and `EndpointSlice` (discovery.k8s.io/v1).

use std::net::{IpAddr, SocketAddr};

use super::hostname::Hostname;
use super::metadata::Metadata;
use crate::diagnostic::{Diagnostic, Span};
use crate::read::decode::{Fields, Report, boolean, one_of, port, text};
use crate::read::{Node, Value};

/// The label by which a slice says whose endpoints it holds.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// An annotation of this prefix is a tag.
const TAG_ANNOTATION: &str = "tags.weft.dev/";

/// Fields of a Service about how a cluster implements it; none changes where a request goes.
const OF_THE_CLUSTER: &[&str] = &[
    "allocateLoadBalancerNodePorts",
    "clusterIPs",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "ipFamilies",
    "ipFamilyPolicy",
    "loadBalancerClass",
    "loadBalancerIP",
    "loadBalancerSourceRanges",
    // The cluster says so in the slices: their endpoints are `ready`.
    "publishNotReadyAddresses",
    // Who the endpoints are is said by EndpointSlices; the selector only tells a cluster how to make them.
    "selector",
];

/// A service as its document has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// How its endpoints are found.
    pub kind: ServiceKind,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
}

/// How the endpoints of a service are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceKind {
    /// By its slices. NodePort and LoadBalancer are this, too: they only open more ways in, from outside of the cluster.
    Cluster,
    /// By its slices, or where there are none by DNS: `clusterIP: None`.
    Headless,
    /// By DNS, under a name of somebody else: `type: ExternalName`.
    External(Hostname),
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ServicePort {
    /// Its name; empty if it has none, as a service with a single port may.
    pub name: String,
    /// The number that clients use.
    pub number: u16,
    /// What is spoken on it, if the Service says so.
    pub protocol: Option<AppProtocol>,
    /// The number that the endpoints have for it, if the Service says so; a slice knows better.
    pub target: Option<u16>,
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppProtocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 in clear text with prior knowledge; gRPC without TLS.
    H2c,
    /// Bytes that Envoy passes on as they are, TLS of the application's own among them.
    Tcp,
}

/// A slice of the endpoints of one service.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointSlice {
    /// The service they belong to.
    pub service: String,
    /// Where the service is named.
    pub service_span: Span,
    /// The port numbers by port name.
    pub ports: Vec<(String, u16)>,
    /// The endpoints that are ready.
    pub ready: Vec<SliceEndpoint>,
    /// The tags that its annotations give them: `tags.weft.dev/KEY: VALUE`.
    pub tags: Vec<(String, String)>,
}

/// An endpoint that is ready.
#[derive(Debug, Clone, PartialEq)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// The zone it is in.
    pub zone: Option<String>,
    /// The node it runs on.
    pub node: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Other,
}

const TRANSPORTS: &[(&str, Transport)] =
    &[("TCP", Transport::Tcp), ("UDP", Transport::Other), ("SCTP", Transport::Other)];

/// The names of KEP-3726 and those that are common beside them.
const APP_PROTOCOLS: &[(&str, AppProtocol)] = &[
    ("http", AppProtocol::Http),
    ("kubernetes.io/ws", AppProtocol::Http),
    ("kubernetes.io/h2c", AppProtocol::H2c),
    ("grpc", AppProtocol::H2c),
    ("tcp", AppProtocol::Tcp),
    ("tls", AppProtocol::Tcp),
];

impl Service {
    /// Reads the `spec` of a `Service`. Ports other than TCP carry no HTTP and are left out.
    pub fn decode(spec: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(spec, "Service spec")?;
        let kind = service_kind(spec, &mut fields);
        let ports = fields.list("ports", service_port);
        fields.optional("sessionAffinity", no_affinity);
        fields.optional("internalTrafficPolicy", all_endpoints);
        fields.accept(OF_THE_CLUSTER);
        fields.unsupported(&["externalIPs", "sessionAffinityConfig", "trafficDistribution"]);
        let span = fields.key_span("ports");
        fields.finish();
        let ports: Vec<ServicePort> = ports.into_iter().flatten().collect();
        report_duplicate_ports(&ports, span, report);
        if matches!(kind, Some(ServiceKind::External(_))) && ports.is_empty() {
            let mistake = Diagnostic::error("a Service of type ExternalName needs ports here")
                .help("add those that its clients use, as ports: [{port: 80}]");
            report.add::<()>(spec.span, mistake);
        }
        Some(Self { kind: kind?, ports })
    }
}

impl EndpointSlice {
    /// Reads an `EndpointSlice`, whose fields stand beside its metadata, without a `spec`.
    pub fn decode(metadata: &Metadata, document: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(document, "EndpointSlice")?;
        fields.accept(super::object::COMMON_FIELDS);
        let address_type = fields
            .required("addressType", |node, report| one_of(&[("IPv4", true), ("IPv6", false)])(node, report));
        let ports = fields.list("ports", slice_port);
        let ready = fields.list("endpoints", |node, report| endpoint(node, report, address_type?));
        let service = metadata.label(SERVICE_NAME_LABEL).map(str::to_owned);
        if service.is_none() {
            let mistake = Diagnostic::error("the EndpointSlice does not say whose endpoints it holds")
                .help(format!("add the label {SERVICE_NAME_LABEL}: NAME-OF-THE-SERVICE"));
            fields.report().add::<()>(metadata.span, mistake);
        }
        fields.finish();
        let service_span = label_span(document).unwrap_or(metadata.span);
        let ports = ports.into_iter().flatten().collect();
        let mut ready: Vec<SliceEndpoint> = ready.into_iter().flatten().collect();
        ready.shrink_to_fit();
        Some(Self { service: service?, service_span, ports, ready, tags: annotated(document) })
    }

    /// The value of a tag of its endpoints: an annotation, or else a label, which is the slice's own.
    pub fn tag<'a>(&'a self, metadata: &'a Metadata, key: &str) -> Option<&'a str> {
        let annotated = self.tags.iter().find(|(tag, _)| tag == key).map(|(_, value)| value.as_str());
        annotated.or_else(|| metadata.label(key))
    }

    /// The ready endpoints of the port called `name`.
    pub fn endpoints<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (SocketAddr, &'a SliceEndpoint)> + 'a {
        let numbers = self.ports.iter().filter(move |(port, _)| port == name).map(|(_, number)| *number);
        numbers.flat_map(|number| {
            self.ready.iter().map(move |ready| (SocketAddr::new(ready.address, number), ready))
        })
    }
}

fn label_span(document: &Node) -> Option<Span> {
    Some(document.get("metadata")?.get("labels")?.get(SERVICE_NAME_LABEL)?.span)
}

fn annotated(document: &Node) -> Vec<(String, String)> {
    let annotations = document.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let Some(Value::Map(entries)) = annotations.map(|annotations| &annotations.value) else {
        return Vec::new();
    };
    let tags = entries.iter().filter_map(|entry| {
        match (&entry.value.value, entry.key.strip_prefix(TAG_ANNOTATION)) {
            (Value::Text(value), Some(tag)) => Some((tag.to_owned(), value.clone())),
            _ => None,
        }
    });
    tags.collect()
}

/// An `externalName` beside another type means nothing to Kubernetes; neither does a `clusterIP` beside ExternalName.
fn service_kind(spec: &Node, fields: &mut Fields<'_, '_>) -> Option<ServiceKind> {
    let types = [("ClusterIP", false), ("NodePort", false), ("LoadBalancer", false), ("ExternalName", true)];
    let is_external = fields.optional("type", one_of(&types)).unwrap_or(false);
    let name = fields.optional("externalName", Hostname::precise);
    let cluster_ip = fields.optional("clusterIP", text);
    if is_external {
        if spec.get("externalName").is_none_or(|name| name.value == Value::Null) {
            fields.error::<()>("a Service of type ExternalName has no \"externalName\"");
        }
        return name.map(ServiceKind::External);
    }
    Some(if cluster_ip.as_deref() == Some("None") { ServiceKind::Headless } else { ServiceKind::Cluster })
}

fn no_affinity(node: &Node, report: &mut Report) -> Option<()> {
    match one_of(&[("None", true), ("ClientIP", false)])(node, report)? {
        true => Some(()),
        false => report.error(node.span, "sessionAffinity ClientIP is not supported yet"),
    }
}

fn all_endpoints(node: &Node, report: &mut Report) -> Option<()> {
    match one_of(&[("Cluster", true), ("Local", false)])(node, report)? {
        true => Some(()),
        false => report.error(node.span, "internalTrafficPolicy Local is not supported yet"),
    }
}

/// The outer `Option` is the decoder's; the inner is `None` for a port that carries no HTTP.
fn service_port(node: &Node, report: &mut Report) -> Option<Option<ServicePort>> {
    let mut fields = report.fields(node, "Service port")?;
    let name = fields.optional("name", text).unwrap_or_default();
    let number = fields.required("port", port);
    let transport = fields.optional("protocol", one_of(TRANSPORTS)).unwrap_or(Transport::Tcp);
    let protocol = fields.optional("appProtocol", app_protocol);
    let target = fields.optional("targetPort", target_port).flatten();
    fields.accept(&["nodePort"]);
    fields.finish();
    Some((transport == Transport::Tcp).then_some(ServicePort { name, number: number?, protocol, target }))
}

/// The name of a port is for slices to resolve.
fn target_port(node: &Node, report: &mut Report) -> Option<Option<u16>> {
    match node.value {
        Value::Integer(_) => port(node, report).map(Some),
        _ => Some(None),
    }
}

fn app_protocol(node: &Node, report: &mut Report) -> Option<AppProtocol> {
    let given = text(node, report)?;
    let found = APP_PROTOCOLS.iter().find(|(name, _)| *name == given).map(|(_, protocol)| *protocol);
    let known: Vec<&str> = APP_PROTOCOLS.iter().map(|(name, _)| *name).collect();
    let mistake = || {
        Diagnostic::error(format!("appProtocol {given:?} is not supported yet"))
            .help(format!("supported are {}", known.join(", ")))
    };
    found.or_else(|| report.add(node.span, mistake()))
}

fn report_duplicate_ports(ports: &[ServicePort], span: Span, report: &mut Report) {
    for (at, port) in ports.iter().enumerate() {
        let earlier = ports.iter().take(at);
        if earlier.clone().any(|other| other.number == port.number) {
            report.error::<()>(span, format!("port {} is there twice", port.number));
        } else if earlier.clone().any(|other| other.name == port.name) {
            let message = if port.name.is_empty() {
                "of several ports each must have a name".into()
            } else {
                format!("two ports are called {:?}", port.name)
            };
            report.error::<()>(span, message);
        }
    }
}

fn slice_port(node: &Node, report: &mut Report) -> Option<Option<(String, u16)>> {
    let mut fields = report.fields(node, "EndpointSlice port")?;
    let name = fields.optional("name", text).unwrap_or_default();
    let number = fields.required("port", port);
    let transport = fields.optional("protocol", one_of(TRANSPORTS)).unwrap_or(Transport::Tcp);
    // A copy of what the Service says.
    fields.accept(&["appProtocol"]);
    fields.finish();
    Some((transport == Transport::Tcp).then_some((name, number?)))
}

/// An endpoint that does not say whether it is ready counts as ready (discovery.k8s.io/v1, EndpointConditions).
fn endpoint(node: &Node, report: &mut Report, ipv4: bool) -> Option<Option<SliceEndpoint>> {
    let mut fields = report.fields(node, "endpoint")?;
    let addresses = fields.list("addresses", |node, report| address(node, report, ipv4));
    let ready = fields.optional("conditions", conditions).unwrap_or(true);
    let zone = fields.optional("zone", text);
    let node_name = fields.optional("nodeName", text);
    // Hints which endpoints are near: Kubernetes writes them, and any ready endpoint is a right one.
    fields.accept(&["hostname", "hints", "targetRef", "deprecatedTopology"]);
    if node.get("addresses").is_none_or(Node::is_empty) {
        fields.error::<()>("endpoint has no \"addresses\"");
    }
    fields.finish();
    // All addresses of an endpoint lead to the same place; consumers use the first (discovery.k8s.io/v1).
    let address = addresses.into_iter().next()?;
    Some(ready.then_some(SliceEndpoint { address, zone, node: node_name }))
}

fn conditions(node: &Node, report: &mut Report) -> Option<bool> {
    let mut fields = report.fields(node, "conditions")?;
    let ready = fields.optional("ready", boolean).unwrap_or(true);
    fields.optional("serving", boolean);
    fields.optional("terminating", boolean);
    fields.finish();
    Some(ready)
}

fn address(node: &Node, report: &mut Report, ipv4: bool) -> Option<IpAddr> {
    let given = text(node, report)?;
    let kind = if ipv4 { "IPv4" } else { "IPv6" };
    match given.parse::<IpAddr>() {
        Ok(address) if address.is_ipv4() == ipv4 => Some(address),
        _ => report.error(node.span, format!("{given:?} is not an {kind} address")),
    }
}
