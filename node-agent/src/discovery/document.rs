//! From an object of the API to the document that sidecars read: pure, and the same bytes for the same meaning.
//!
//! `weft-sidecar` names what it does not honour, because whoever wrote a file should know. What a cluster writes, and what is
//! meant for others, is not of that sort, and one such field would keep the sidecars of a namespace from starting. So:
//!
//! | left out | because |
//! |---|---|
//! | `status`, `managedFields`, `ownerReferences`, `uid`, annotations except `tags.weft.dev/`, labels except those of slices | no sidecar reads them, and most changes are of them |
//! | of a Service `sessionAffinity: ClientIP`, `internalTrafficPolicy: Local`, `trafficDistribution`, `externalIPs` | they are about how kube-proxy chooses; the first two are [noted](Document::notes), since Envoy chooses otherwise |
//! | an `appProtocol` that Weft does not know | it says that this is not plain HTTP: its bytes are passed on unopened |
//! | Services of type ExternalName without ports | nobody can tell what is spoken there |
//! | ports other than TCP, endpoints that are not ready, all addresses of an endpoint but the first | nothing is ever sent there |
//! | slices of names (`FQDN`) and slices of no Service | nothing is ever sent there |
//! | routes whose parents are neither Services nor Gateways | they are somebody else's |

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::kind::{Kind, Role};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const TAGS: &str = "tags.weft.dev/";

/// A file to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document {
    /// Its place below the directory.
    pub(super) path: String,
    /// Its content: JSON, indented, since mistakes are shown with the line they are in.
    pub(super) text: String,
    /// What the object says that does not hold for requests through a sidecar.
    pub(super) notes: Vec<&'static str>,
}

/// What becomes of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is kept in this file.
    Kept(Document),
    /// It means nothing to a sidecar. It may have had a file before, at one of these places.
    Nothing([String; 2]),
}

/// Why an object cannot be kept at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum Mistake {
    #[error("it is not as the API describes it")]
    Shape(#[from] serde_json::Error),
    #[error("{namespace:?}/{name:?} is not the name of an object in a namespace")]
    Name { namespace: String, name: String },
}

#[derive(Deserialize)]
struct Object {
    #[serde(rename = "apiVersion")]
    version: Option<String>,
    metadata: Metadata,
    spec: Option<Value>,
    #[serde(rename = "addressType")]
    address_type: Option<String>,
    ports: Option<Vec<Port>>,
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    #[serde(rename = "creationTimestamp")]
    created: Option<String>,
}

#[derive(Deserialize)]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    addresses: Vec<String>,
    conditions: Option<Conditions>,
    node_name: Option<String>,
    zone: Option<String>,
}

#[derive(Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    external_name: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    ports: Option<Vec<ServicePort>>,
    session_affinity: Option<String>,
    internal_traffic_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServicePort {
    name: Option<String>,
    protocol: Option<String>,
    port: u16,
    target_port: Option<Value>,
    app_protocol: Option<String>,
}

/// Where below a namespace a document belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// What every sidecar of the namespace reads.
    Mesh,
    /// What those that play Gateways read beside it.
    Gateways,
}

/// What a document says beside what all of them do, and where it belongs.
type Content = (Place, Map<String, Value>);

/// The document of an object of this kind.
pub(super) fn document(kind: &Kind, object: &[u8]) -> Result<Verdict, Mistake> {
    let object: Object = serde_json::from_slice(object)?;
    let paths = paths(kind, &object.metadata)?;
    let (version, metadata) = (object.version.clone(), metadata(kind.role, &object.metadata));
    let mut notes = Vec::new();
    let content = match kind.role {
        Role::Service => service(object, &mut notes)?,
        Role::EndpointSlice => slice(object),
        Role::Route => route(object, &[is_service, is_gateway]),
        Role::StreamRoute => route(object, &[is_gateway]),
        Role::BackendTls => backend_tls(object),
        Role::Whole => object.spec.map(|spec| (Place::Mesh, fields([("spec", spec)]))),
    };
    let Some((place, mut content)) = content else { return Ok(Verdict::Nothing(paths)) };
    content.insert("apiVersion".into(), version.unwrap_or_else(|| kind.version.into()).into());
    content.insert("kind".into(), kind.name.into());
    content.insert("metadata".into(), metadata);
    let [mesh, gateways] = paths;
    let path = if place == Place::Mesh { mesh } else { gateways };
    Ok(Verdict::Kept(Document { path, text: format!("{:#}\n", sorted(Value::Object(content))), notes }))
}

/// Where an object of this kind may have its file.
pub(super) fn paths_of(kind: &Kind, object: &[u8]) -> Result<[String; 2], Mistake> {
    #[derive(Deserialize)]
    struct Named {
        metadata: Metadata,
    }
    let Named { metadata } = serde_json::from_slice(object)?;
    paths(kind, &metadata)
}

/// In the namespace's directory, and in the one of its Gateways. A name that is none never becomes a path.
fn paths(kind: &Kind, Metadata { namespace, name, .. }: &Metadata) -> Result<[String; 2], Mistake> {
    if !is_label(namespace) || !is_subdomain(name) {
        return Err(Mistake::Name { namespace: namespace.clone(), name: name.clone() });
    }
    let file = file_name(kind.prefix, name);
    Ok([format!("{namespace}/{file}"), format!("{namespace}/gateways/{file}")])
}

/// A name may have 253 characters, and a file 255 with what is around it. A longer one is cut, and has a hash, which no
/// name can be mistaken for: `~` is in none.
fn file_name(prefix: &str, name: &str) -> String {
    const LONGEST: usize = 200;
    match name.get(..LONGEST) {
        Some(start) if name.len() > LONGEST => {
            format!("{prefix}.{start}~{:016x}.json", super::tree::hash(name.as_bytes()))
        }
        _ => format!("{prefix}.{name}.json"),
    }
}

/// A DNS label (RFC 1123).
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

fn metadata(role: Role, given: &Metadata) -> Value {
    let mut metadata =
        fields([("name", given.name.clone().into()), ("namespace", given.namespace.clone().into())]);
    let takes_tags = !matches!(role, Role::Service | Role::BackendTls);
    let tags = given.annotations.iter().flatten().filter(|(key, _)| takes_tags && key.starts_with(TAGS));
    let tags: Map<String, Value> = tags.map(|(key, value)| (key.clone(), value.clone().into())).collect();
    if !tags.is_empty() {
        metadata.insert("annotations".into(), tags.into());
    }
    if role == Role::EndpointSlice {
        metadata.insert("labels".into(), json!(given.labels));
    }
    // Which of two routes, or policies, is the older one decides between them.
    if !matches!(role, Role::Service | Role::EndpointSlice)
        && let Some(created) = &given.created
    {
        metadata.insert("creationTimestamp".into(), created.clone().into());
    }
    metadata.into()
}

fn service(object: Object, notes: &mut Vec<&'static str>) -> Result<Option<Content>, Mistake> {
    let spec: ServiceSpec = object.spec.map_or_else(|| Ok(ServiceSpec::default()), serde_json::from_value)?;
    let ports: Vec<Value> = spec.ports.into_iter().flatten().filter_map(service_port).collect();
    let mut written = fields([("ports", ports.clone().into())]);
    if spec.kind.as_deref() == Some("ExternalName") {
        let host = spec.external_name.unwrap_or_default().trim_end_matches('.').to_lowercase();
        if ports.is_empty() || host.parse::<IpAddr>().is_ok() || !is_subdomain(&host) {
            return Ok(None);
        }
        written.insert("type".into(), "ExternalName".into());
        written.insert("externalName".into(), host.into());
    } else if let Some(address) = spec.cluster_ip.filter(|address| !address.is_empty()) {
        written.insert("clusterIP".into(), address.into());
    }
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        notes.push("sessionAffinity: ClientIP does not hold for requests through a sidecar");
    }
    if spec.internal_traffic_policy.as_deref() == Some("Local") {
        notes.push("internalTrafficPolicy: Local does not hold for requests through a sidecar");
    }
    Ok(Some((Place::Mesh, fields([("spec", written.into())]))))
}

fn service_port(port: ServicePort) -> Option<Value> {
    is_tcp(port.protocol.as_deref()).then(|| {
        let mut written = fields([("port", port.port.into())]);
        written.extend(port.name.filter(|name| !name.is_empty()).map(|name| ("name".into(), name.into())));
        written.extend(port.target_port.map(|target| ("targetPort".into(), target)));
        written.extend(port.app_protocol.map(|given| ("appProtocol".into(), app_protocol(&given).into())));
        written.into()
    })
}

/// As Weft knows it (KEP-3726, and what is common beside it).
fn app_protocol(given: &str) -> &'static str {
    match given.to_ascii_lowercase().as_str() {
        "http" | "http1" | "http/1.1" => "http",
        "kubernetes.io/ws" => "kubernetes.io/ws",
        "kubernetes.io/h2c" | "http2" | "h2c" => "kubernetes.io/h2c",
        "grpc" => "grpc",
        "tls" | "https" | "kubernetes.io/wss" => "tls",
        _ => "tcp",
    }
}

fn is_tcp(protocol: Option<&str>) -> bool {
    matches!(protocol, None | Some("TCP" | ""))
}

fn slice(object: Object) -> Option<Content> {
    let family = object.address_type.filter(|family| family == "IPv4" || family == "IPv6")?;
    let service = object.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    if !is_label(service) {
        return None;
    }
    let is_v4 = family == "IPv4";
    // The order of endpoints says nothing, and the API changes it.
    let endpoints: BTreeMap<IpAddr, Value> =
        object.endpoints.into_iter().flatten().filter_map(|one| endpoint(one, is_v4)).collect();
    let ports = object.ports.into_iter().flatten().filter_map(slice_port);
    Some((
        Place::Mesh,
        fields([
            ("addressType", family.into()),
            ("ports", ports.collect::<Vec<_>>().into()),
            ("endpoints", endpoints.into_values().collect::<Vec<_>>().into()),
        ]),
    ))
}

/// One that can be sent to. That it does not say whether it is ready means yes (discovery.k8s.io/v1, EndpointConditions).
fn endpoint(one: Endpoint, is_v4: bool) -> Option<(IpAddr, Value)> {
    let is_ready = one.conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let address: IpAddr = one.addresses.first()?.parse().ok()?;
    let mut written = fields([("addresses", json!([address]))]);
    written.extend(one.node_name.map(|node| ("nodeName".into(), node.into())));
    written.extend(one.zone.map(|zone| ("zone".into(), zone.into())));
    (is_ready && address.is_ipv4() == is_v4).then(|| (address, written.into()))
}

/// A port without a number stands for all ports, which no Service's port can be.
fn slice_port(port: Port) -> Option<Value> {
    let number = port.port.filter(|_| is_tcp(port.protocol.as_deref()))?;
    let mut written = fields([("port", number.into())]);
    written.extend(port.name.filter(|name| !name.is_empty()).map(|name| ("name".into(), name.into())));
    Some(written.into())
}

/// With those of its parents that are of a sort that can be ours. One that is attached to a Service is every sidecar's
/// business, one that is attached to Gateways alone is the business of those who play Gateways.
fn route(object: Object, ours: &[fn(&Value) -> bool]) -> Option<Content> {
    let mut spec = object.spec?;
    let parents = spec.get_mut("parentRefs")?.as_array_mut()?;
    parents.retain(|parent| ours.iter().any(|is_ours| is_ours(parent)));
    let place = if parents.iter().any(is_service) { Place::Mesh } else { Place::Gateways };
    let has_parents = !parents.is_empty();
    has_parents.then(|| (place, fields([("spec", spec)])))
}

fn backend_tls(object: Object) -> Option<Content> {
    let mut spec = object.spec?;
    let targets = spec.get_mut("targetRefs")?.as_array_mut()?;
    targets.retain(is_service);
    let has_targets = !targets.is_empty();
    has_targets.then(|| (Place::Mesh, fields([("spec", spec)])))
}

fn is_service(reference: &Value) -> bool {
    let says = |field: &str| reference.get(field).and_then(Value::as_str);
    matches!(says("group"), Some("" | "core")) && says("kind") == Some("Service")
}

fn is_gateway(reference: &Value) -> bool {
    let says = |field: &str| reference.get(field).and_then(Value::as_str);
    matches!(says("group"), None | Some("gateway.networking.k8s.io"))
        && matches!(says("kind"), None | Some("Gateway"))
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// With the keys of all mappings in order, whatever the API's order was.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let map: BTreeMap<String, Value> =
                map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(map.into_iter().collect())
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::kind::KINDS;
    use super::*;

    fn kind(name: &str) -> &'static Kind {
        KINDS.iter().find(|kind| kind.name == name).expect("a kind of this name")
    }

    fn verdict(name: &str, object: &Value) -> Verdict {
        document(kind(name), object.to_string().as_bytes()).expect("an object of the API")
    }

    fn kept(name: &str, object: &Value) -> (Document, Value) {
        match verdict(name, object) {
            Verdict::Kept(document) => {
                let content = serde_json::from_str(&document.text).expect("a document is JSON");
                (document, content)
            }
            Verdict::Nothing(_) => panic!("{object} is kept"),
        }
    }

    fn is_kept(name: &str, object: &Value) -> bool {
        matches!(verdict(name, object), Verdict::Kept(_))
    }

    /// With what a cluster adds.
    fn object(name: &str, content: Value) -> Value {
        let mut object = json!({
            "metadata": {
                "name": name, "namespace": "shop", "uid": "u", "resourceVersion": "7", "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [{"name": "x"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "tags.weft.dev/team": "a"},
                "labels": {"app": "web"},
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            },
            "status": {"loadBalancer": {}},
        });
        object.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
        object
    }

    fn slice_of(content: Value) -> Value {
        let mut slice = object("web-x", json!({"addressType": "IPv4"}));
        slice["metadata"]["labels"] = json!({SERVICE_NAME: "web", "version": "v1"});
        slice.as_object_mut().unwrap().extend(content.as_object().unwrap().clone());
        slice
    }

    #[test]
    fn of_a_service_stays_what_is_called_and_how() {
        let ports = json!([
            {"name": "web", "port": 80, "targetPort": "http", "protocol": "TCP", "nodePort": 30080},
            {"name": "db", "port": 5432, "targetPort": 5432, "protocol": "TCP", "appProtocol": "postgresql"},
            {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"},
        ]);
        let service = object(
            "web",
            json!({"spec": {
                "type": "NodePort", "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "selector": {"app": "web"},
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "internalTrafficPolicy": "Cluster", "trafficDistribution": "PreferClose", "externalIPs": ["192.0.2.1"],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": ports,
            }}),
        );
        let (document, content) = kept("Service", &service);
        assert_eq!(document.path, "shop/service.web.json");
        assert_eq!(
            content,
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"clusterIP": "10.96.0.7", "ports": [
                    {"name": "web", "port": 80, "targetPort": "http"},
                    {"name": "db", "port": 5432, "targetPort": 5432, "appProtocol": "tcp"},
                ]},
            })
        );
        assert_eq!(document.notes.len(), 1, "{:?}", document.notes);
    }

    #[test]
    fn an_external_name_is_kept_where_it_has_ports() {
        let named = |host: &str, ports: Value| {
            object("db", json!({"spec": {"type": "ExternalName", "externalName": host, "ports": ports}}))
        };
        let (_, content) = kept("Service", &named("DB.example.com.", json!([{"port": 443}])));
        assert_eq!(content["spec"]["externalName"], "db.example.com");
        assert!(!is_kept("Service", &named("db.example.com", Value::Null)));
        assert!(!is_kept("Service", &named("192.0.2.1", json!([{"port": 80}]))));
    }

    #[test]
    fn of_a_slice_stay_the_ready_endpoints_in_order() {
        let endpoint = |address: &str, ready: Value| {
            json!({
                "addresses": [address, "10.0.0.99"], "conditions": {"ready": ready, "serving": true, "terminating": false},
                "nodeName": "n1", "zone": "z1", "targetRef": {"kind": "Pod", "name": "web-0"}, "hints": {"forZones": []},
            })
        };
        let slice = slice_of(json!({
            "endpoints": [endpoint("10.0.0.9", true.into()), endpoint("10.0.0.10", Value::Null), endpoint("10.0.0.8", false.into())],
            "ports": [{"name": "", "port": 8080, "protocol": "TCP", "appProtocol": "http"}, {"name": "u", "port": 1, "protocol": "UDP"}, {"name": "any", "port": null}],
        }));
        let (document, content) = kept("EndpointSlice", &slice);
        assert_eq!(document.path, "shop/endpointslice.web-x.json");
        let written = |address: &str| json!({"addresses": [address], "nodeName": "n1", "zone": "z1"});
        assert_eq!(
            content,
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "web-x", "namespace": "shop", "annotations": {"tags.weft.dev/team": "a"},
                             "labels": {SERVICE_NAME: "web", "version": "v1"}},
                "endpoints": [written("10.0.0.9"), written("10.0.0.10")],
                "ports": [{"port": 8080}],
            })
        );
    }

    #[test]
    fn what_changes_nothing_for_a_sidecar_changes_no_byte() {
        let slice = |endpoints: [&str; 2], version: &str| {
            let endpoint = |address: &str| json!({"addresses": [address], "conditions": {"ready": true}});
            let mut slice = slice_of(json!({"endpoints": endpoints.map(endpoint), "ports": [{"port": 80}]}));
            slice["metadata"]["resourceVersion"] = version.into();
            slice["metadata"]["annotations"]["endpoints.kubernetes.io/last-change-trigger-time"] =
                version.into();
            slice
        };
        let one = kept("EndpointSlice", &slice(["10.0.0.1", "10.0.0.2"], "1")).0;
        assert_eq!(one, kept("EndpointSlice", &slice(["10.0.0.2", "10.0.0.1"], "2")).0);
    }

    #[test]
    fn slices_that_go_without_lists_are_kept_and_those_of_names_or_of_nobody_are_not() {
        assert!(is_kept("EndpointSlice", &slice_of(json!({"endpoints": null, "ports": null}))));
        assert!(!is_kept("EndpointSlice", &slice_of(json!({"addressType": "FQDN"}))));
        let mut of_nobody = slice_of(json!({}));
        of_nobody["metadata"]["labels"] = Value::Null;
        assert!(!is_kept("EndpointSlice", &of_nobody));
    }

    #[test]
    fn a_route_belongs_to_whom_its_parents_are() {
        let service = json!({"group": "", "kind": "Service", "name": "web", "port": 80});
        let gateway = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "public"});
        let short = json!({"name": "public"});
        let foreign = json!({"group": "example.com", "kind": "Mesh", "name": "all"});
        let of = |parents: &[&Value]| object("web", json!({"spec": {"parentRefs": parents, "rules": [{}]}}));
        let (document, content) = kept("HTTPRoute", &of(&[&foreign, &service, &gateway]));
        assert_eq!(document.path, "shop/httproute.web.json");
        assert_eq!(content["spec"]["parentRefs"], json!([service, gateway]));
        assert_eq!(content["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(content["metadata"]["annotations"], json!({"tags.weft.dev/team": "a"}));
        for parents in [&gateway, &short] {
            assert_eq!(kept("HTTPRoute", &of(&[parents])).0.path, "shop/gateways/httproute.web.json");
            assert_eq!(kept("TLSRoute", &of(&[parents, &service])).0.path, "shop/gateways/tlsroute.web.json");
        }
        assert!(!is_kept("GRPCRoute", &of(&[&foreign])));
        assert!(!is_kept("TCPRoute", &of(&[&service])));
        assert!(!is_kept("HTTPRoute", &object("web", json!({"spec": {"rules": []}}))));
    }

    #[test]
    fn the_version_is_the_objects_own_or_that_of_the_builtin_types() {
        let grant =
            json!({"apiVersion": "gateway.networking.k8s.io/v1beta1", "spec": {"from": [], "to": []}});
        let (_, content) = kept("ReferenceGrant", &object("g", grant));
        assert_eq!(content["apiVersion"], "gateway.networking.k8s.io/v1beta1");
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for (namespace, name) in [
            ("shop", ".."),
            ("shop", "../../etc/x"),
            ("..", "web"),
            ("", "web"),
            ("shop", ""),
            ("a/b", "web"),
            ("shop", "a\0b"),
            ("shop.x", "web"),
            ("shop", "Web"),
        ] {
            let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"ports": []}});
            let refused = document(kind("Service"), object.to_string().as_bytes());
            assert!(matches!(refused, Err(Mistake::Name { .. })), "{namespace}/{name}");
        }
    }

    #[test]
    fn the_longest_names_make_files_of_their_own() {
        let long = |last: &str| format!("{}{last}", "a.".repeat(126));
        let files = [long("x"), long("y")].map(|name| file_name("backendtlspolicy", &name));
        assert_ne!(files[0], files[1]);
        assert!(files.iter().all(|file| file.len() <= 255 && file.ends_with(".json")));
    }

    proptest! {
        #[test]
        fn no_path_leaves_the_directory(namespace in ".{0,8}|[a-z./]{0,6}", name in ".{0,8}|[a-z./]{0,6}") {
            let metadata = Metadata { namespace, name, labels: None, annotations: None, created: None };
            if let Ok(paths) = paths(kind("Service"), &metadata) {
                for path in paths {
                    let parts: Vec<_> = std::path::Path::new(&path).components().collect();
                    prop_assert!(parts.iter().all(|part| matches!(part, std::path::Component::Normal(_))), "{path}");
                    prop_assert!((2..=3).contains(&parts.len()), "{path}");
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for kind in KINDS {
                document(kind, &bytes).ok();
            }
        }
    }
}
