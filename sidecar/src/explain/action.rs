//! What a route does with a request: where it goes, and what is changed on the way.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValueOption, Metadata, address, socket_address};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::config::route::v3::route::Action as Does;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteAction};
use envoy_types::pb::google::protobuf::{Value as Field, value};
use serde_json::{Map, Value};

use super::request::Request;
use super::{Error, Named, Scope, condition, first_origin, sourced};
use crate::translate::json::{self, Names};
use crate::translate::{Resources, TAGS_NAMESPACE};

/// Envoy's namespace for what the load balancer chooses by.
const SUBSETS: &str = "envoy.lb";

/// The route that takes a request.
#[derive(Debug)]
pub struct Chosen {
    /// Which it is.
    pub named: Named,
    /// Its conditions, all of which hold.
    pub conditions: Vec<String>,
    /// The tags of the workload and of the route.
    pub tags: Vec<(String, String)>,
    /// What it does.
    pub action: Action,
    /// Everything else that it says, with the names of Envoy's documentation.
    pub settings: Value,
    /// What is done to the request's headers: `+` is added, `=` replaces, `?` only where it is absent, `-` removes.
    pub request_headers: Vec<String>,
    /// What is done to the answer's headers.
    pub response_headers: Vec<String>,
    /// The HTTP filters that the request goes through, in order.
    pub filters: Vec<String>,
    /// The filters that the route, or its virtual host, tells to do something else.
    pub overridden: Vec<String>,
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// One of these gets the request.
    Forward(Vec<Target>),
    /// Envoy answers with a redirect.
    Redirect(u32),
    /// Envoy answers itself.
    Answer(u32),
}

/// A destination and its share of the requests.
#[derive(Debug)]
pub struct Target {
    /// Its share; of a single one 1.
    pub weight: u32,
    /// Where to.
    pub destination: Destination,
}

/// A cluster and those of its endpoints that a request may reach.
#[derive(Debug)]
pub struct Destination {
    /// The cluster.
    pub cluster: Named,
    /// The tags that an endpoint must have.
    pub subset: Vec<(String, String)>,
    /// The endpoints that have them, as addresses, each with its tags.
    pub endpoints: Vec<(String, Vec<(String, String)>)>,
}

impl Chosen {
    pub(super) fn of(
        scope: &Scope<'_>,
        route: &Route,
        named: Named,
        request: &Request,
    ) -> Result<Self, Error> {
        let matching = route.r#match.clone().unwrap_or_default();
        let mut overridden: Vec<String> = scope
            .host
            .typed_per_filter_config
            .keys()
            .chain(route.typed_per_filter_config.keys())
            .chain(scope.routes.typed_per_filter_config.keys())
            .cloned()
            .collect();
        overridden.sort();
        overridden.dedup();
        let mut tags = Vec::new();
        for metadata in [&scope.routes.metadata, &scope.host.metadata, &route.metadata].into_iter().flatten()
        {
            merge(&mut tags, fields(metadata, TAGS_NAMESPACE));
        }
        let with_values = |headers: Vec<String>| -> Vec<String> {
            headers.into_iter().map(|header| tag_values(header, &tags)).collect()
        };
        Ok(Self {
            named,
            conditions: condition::described(&matching),
            request_headers: with_values(request_headers(scope, route)),
            response_headers: with_values(response_headers(scope, route)),
            tags,
            action: action(scope.resources, route, request)?,
            settings: settings(route)?,
            filters: scope.filters.to_vec(),
            overridden,
        })
    }
}

impl Destination {
    /// The cluster of that name, and those of its endpoints that both selections select.
    pub(crate) fn of(
        resources: &Resources,
        name: &str,
        route: Option<&Metadata>,
        weighted: Option<&Metadata>,
    ) -> Result<Self, Error> {
        let mut subset = Vec::new();
        for metadata in route.into_iter().chain(weighted) {
            merge(&mut subset, fields(metadata, SUBSETS));
        }
        let cluster = sourced(&resources.clusters, name);
        let assigned =
            sourced(&resources.endpoints, cluster.map_or(name, |found| service_name(&found.message)));
        let assignment = assigned
            .map(|found| &found.message)
            .or_else(|| cluster.and_then(|found| found.message.load_assignment.as_ref()));
        let endpoints = assignment.map(|all| candidates(all, &subset)).unwrap_or_default();
        let origin = cluster.and_then(|found| first_origin(&found.parts));
        Ok(Self { cluster: Named { name: name.to_owned(), origin }, subset, endpoints })
    }
}

fn service_name(cluster: &Cluster) -> &str {
    let given = cluster.eds_cluster_config.as_ref().map(|eds| eds.service_name.as_str());
    given.filter(|name| !name.is_empty()).unwrap_or(&cluster.name)
}

/// What a route does with any request.
pub(crate) fn action_of(resources: &Resources, route: &Route) -> Result<Action, Error> {
    action(resources, route, &Request::default())
}

fn action(resources: &Resources, route: &Route, request: &Request) -> Result<Action, Error> {
    match &route.action {
        Some(Does::Route(action)) => targets(resources, action, request).map(Action::Forward),
        Some(Does::Redirect(redirect)) => Ok(Action::Redirect(match redirect.response_code {
            1 => 302,
            2 => 303,
            3 => 307,
            4 => 308,
            _ => 301,
        })),
        Some(Does::DirectResponse(answer)) => Ok(Action::Answer(answer.status)),
        _ => Err(Error::Unknown(format!("what route {:?} does", route.name))),
    }
}

fn targets(resources: &Resources, action: &RouteAction, request: &Request) -> Result<Vec<Target>, Error> {
    let metadata = action.metadata_match.as_ref();
    let single = |name: &str| {
        Ok(vec![Target { weight: 1, destination: Destination::of(resources, name, metadata, None)? }])
    };
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => single(name),
        Some(ClusterSpecifier::ClusterHeader(header)) => single(&request.header(header).unwrap_or_default()),
        Some(ClusterSpecifier::WeightedClusters(several)) => {
            let weighted = several.clusters.iter().filter(|cluster| weight(cluster) > 0);
            let targets = weighted.map(|cluster| {
                let of_cluster = cluster.metadata_match.as_ref();
                let destination = Destination::of(resources, &cluster.name, metadata, of_cluster)?;
                Ok(Target { weight: weight(cluster), destination })
            });
            targets.collect()
        }
        _ => Err(Error::Unknown("a route whose cluster a plugin chooses".to_owned())),
    }
}

fn weight(cluster: &ClusterWeight) -> u32 {
    cluster.weight.map_or(0, |weight| weight.value)
}

fn candidates(
    assignment: &ClusterLoadAssignment,
    subset: &[(String, String)],
) -> Vec<(String, Vec<(String, String)>)> {
    let all = assignment.endpoints.iter().flat_map(|locality: &LocalityLbEndpoints| &locality.lb_endpoints);
    let with_tags = all.map(|endpoint| {
        let tags = endpoint.metadata.as_ref().map(|metadata| fields(metadata, SUBSETS)).unwrap_or_default();
        (address_of(endpoint), tags)
    });
    with_tags.filter(|(_, tags)| subset.iter().all(|wanted| tags.contains(wanted))).collect()
}

fn address_of(endpoint: &LbEndpoint) -> String {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return "?".to_owned() };
    match endpoint.address.as_ref().and_then(|address| address.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => {
            let port = match socket.port_specifier {
                Some(socket_address::PortSpecifier::PortValue(port)) => port,
                _ => 0,
            };
            let bracketed = socket.address.contains(':');
            if bracketed {
                format!("[{}]:{port}", socket.address)
            } else {
                format!("{}:{port}", socket.address)
            }
        }
        Some(address::Address::Pipe(pipe)) => pipe.path.clone(),
        _ => "?".to_owned(),
    }
}

/// The texts of a namespace of metadata, sorted.
fn fields(metadata: &Metadata, namespace: &str) -> Vec<(String, String)> {
    let Some(fields) = metadata.filter_metadata.get(namespace) else { return Vec::new() };
    let text = |field: &Field| match &field.kind {
        Some(value::Kind::StringValue(text)) => Some(text.clone()),
        Some(value::Kind::BoolValue(value)) => Some(value.to_string()),
        Some(value::Kind::NumberValue(value)) => Some(value.to_string()),
        _ => None,
    };
    let mut texts: Vec<(String, String)> =
        fields.fields.iter().filter_map(|(key, field)| Some((key.clone(), text(field)?))).collect();
    texts.sort();
    texts
}

/// Adds `more`, which counts before what is there.
fn merge(into: &mut Vec<(String, String)>, more: Vec<(String, String)>) {
    into.retain(|(key, _)| more.iter().all(|(other, _)| other != key));
    into.extend(more);
    into.sort();
}

/// What a route says beside its match, name, destination, tags and headers.
fn settings(route: &Route) -> Result<Value, json::Error> {
    let mut all = json::message(route, Names::Proto)?;
    let Some(fields) = all.as_object_mut() else { return Ok(all) };
    for shown in ["name", "match", "metadata"] {
        fields.remove(shown);
    }
    for direction in ["request", "response"] {
        fields.remove(&format!("{direction}_headers_to_add"));
        fields.remove(&format!("{direction}_headers_to_remove"));
    }
    if let Some(action) = fields.get_mut("route").and_then(Value::as_object_mut) {
        for shown in ["cluster", "weighted_clusters", "metadata_match"] {
            action.remove(shown);
        }
        // Without the limit of 15 s that Envoy has where nothing is said.
        if action.get("timeout").is_some_and(|timeout| timeout == "0s") {
            action.remove("timeout");
        }
    }
    fields.retain(|_, value| value.as_object().is_none_or(|fields: &Map<String, Value>| !fields.is_empty()));
    Ok(all)
}

/// A header that carries a tag names it; its value comes from the route.
fn tag_values(header: String, tags: &[(String, String)]) -> String {
    let place = |key: &str| format!("%METADATA(ROUTE:{TAGS_NAMESPACE}:{key})%");
    tags.iter().fold(header, |header, (key, value)| header.replace(&place(key), value))
}

fn request_headers(scope: &Scope<'_>, route: &Route) -> Vec<String> {
    changes([
        (&route.request_headers_to_add, &route.request_headers_to_remove),
        (&scope.host.request_headers_to_add, &scope.host.request_headers_to_remove),
        (&scope.routes.request_headers_to_add, &scope.routes.request_headers_to_remove),
    ])
}

fn response_headers(scope: &Scope<'_>, route: &Route) -> Vec<String> {
    changes([
        (&route.response_headers_to_add, &route.response_headers_to_remove),
        (&scope.host.response_headers_to_add, &scope.host.response_headers_to_remove),
        (&scope.routes.response_headers_to_add, &scope.routes.response_headers_to_remove),
    ])
}

/// From the route outwards, as Envoy goes.
fn changes(levels: [(&Vec<HeaderValueOption>, &Vec<String>); 3]) -> Vec<String> {
    let of_level = |(add, remove): (&Vec<HeaderValueOption>, &Vec<String>)| {
        let removed = remove.iter().map(|name| format!("- {name}")).collect::<Vec<_>>();
        removed.into_iter().chain(add.iter().filter_map(change)).collect::<Vec<_>>()
    };
    levels.into_iter().flat_map(of_level).collect()
}

fn change(option: &HeaderValueOption) -> Option<String> {
    let header = option.header.as_ref()?;
    let sign = match option.append_action() {
        HeaderAppendAction::AppendIfExistsOrAdd => '+',
        HeaderAppendAction::AddIfAbsent => '?',
        HeaderAppendAction::OverwriteIfExistsOrAdd | HeaderAppendAction::OverwriteIfExists => '=',
    };
    Some(format!("{sign} {}: {}", header.key, header.value))
}
