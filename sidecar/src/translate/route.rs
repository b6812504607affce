//! The route configuration: a virtual host for each port of each service.

use std::collections::BTreeSet;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, HeaderMatcher, QueryParameterMatcher, Route, RouteAction, RouteConfiguration,
    RouteMatch, VirtualHost, WeightedCluster, route,
};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher};
use envoy_types::pb::google::protobuf::UInt32Value;

use super::{OUTBOUND, Part, PortOf, Sourced, duration, tags};
use crate::model::http_route::{Match, PathMatch, ValueMatch};
use crate::model::{Action, Mesh, Routing, Rule};

pub(super) fn outbound(mesh: &Mesh, ports: &[PortOf<'_>]) -> Sourced<RouteConfiguration> {
    let metadata = tags::metadata(&mesh.sidecar);
    let message = RouteConfiguration {
        name: OUTBOUND.into(),
        virtual_hosts: ports.iter().map(|port| virtual_host(mesh, *port, metadata.as_ref())).collect(),
        request_headers_to_add: tags::request_headers(&mesh.sidecar),
        metadata: metadata.clone(),
        ..RouteConfiguration::default()
    };
    let parts = ports.iter().flat_map(|port| parts(*port)).collect();
    Sourced { name: OUTBOUND.into(), message, parts }
}

fn virtual_host(mesh: &Mesh, of: PortOf<'_>, metadata: Option<&Metadata>) -> VirtualHost {
    let routes = match &of.port.routing {
        Routing::Direct => vec![straight(of)],
        Routing::Rules(rules) => rules.iter().map(ruled).collect(),
    };
    VirtualHost {
        name: of.cluster_name(),
        domains: domains(mesh, of),
        routes: routes.into_iter().map(|route| Route { metadata: metadata.cloned(), ..route }).collect(),
        ..VirtualHost::default()
    }
}

/// The names by which clients know the port, as a resolver in the workload's namespace would complete them. Names without
/// a port mean port 80, or the first port where there is no 80.
fn domains(mesh: &Mesh, of: PortOf<'_>) -> Vec<String> {
    let (name, namespace) = (&of.key.name, &of.key.namespace);
    let mut names = Vec::new();
    if *namespace == mesh.sidecar.namespace {
        names.push(name.clone());
    }
    names.push(format!("{name}.{namespace}"));
    names.push(format!("{name}.{namespace}.svc"));
    names.push(format!("{name}.{namespace}.svc.cluster.local"));
    let with_port: Vec<String> = names.iter().map(|name| format!("{name}:{}", of.port.number)).collect();
    if !is_default(of) {
        return with_port;
    }
    names.into_iter().chain(with_port).collect()
}

fn is_default(of: PortOf<'_>) -> bool {
    let numbers: Vec<u16> = of.service.ports.iter().map(|port| port.number).collect();
    let default = if numbers.contains(&80) { Some(80) } else { numbers.first().copied() };
    default == Some(of.port.number)
}

fn straight(of: PortOf<'_>) -> Route {
    Route {
        name: of.cluster_name(),
        r#match: Some(route_match(&Match::default())),
        action: Some(forward(ClusterSpecifier::Cluster(of.cluster_name()))),
        ..Route::default()
    }
}

fn ruled(rule: &Rule) -> Route {
    Route {
        name: rule.name.clone(),
        r#match: Some(route_match(&rule.matching)),
        action: Some(action(&rule.action)),
        ..Route::default()
    }
}

fn action(action: &Action) -> route::Action {
    match action {
        Action::NoBackend => {
            route::Action::DirectResponse(DirectResponseAction { status: 500, ..Default::default() })
        }
        Action::Forward(backends) => match backends.as_slice() {
            [(only, _)] => forward(ClusterSpecifier::Cluster(only.to_string())),
            several => {
                let clusters = several.iter().map(|(backend, weight)| ClusterWeight {
                    name: backend.to_string(),
                    weight: Some(UInt32Value { value: weight.get() }),
                    ..ClusterWeight::default()
                });
                let weighted = WeightedCluster { clusters: clusters.collect(), ..WeightedCluster::default() };
                forward(ClusterSpecifier::WeightedClusters(weighted))
            }
        },
    }
}

/// Envoy ends a request after 15 s unless told otherwise; the Gateway API knows no such limit where none is given.
fn forward(to: ClusterSpecifier) -> route::Action {
    route::Action::Route(RouteAction {
        cluster_specifier: Some(to),
        timeout: Some(duration(Duration::ZERO)),
        ..RouteAction::default()
    })
}

fn route_match(matching: &Match) -> RouteMatch {
    let method = matching.method.map(|method| header_matcher(":method", method, false));
    let headers =
        matching.headers.iter().map(|header| header_matcher(&header.name, &header.value, header.regex));
    RouteMatch {
        path_specifier: Some(path(&matching.path)),
        headers: method.into_iter().chain(headers).collect(),
        query_parameters: matching.query.iter().map(query_matcher).collect(),
        ..RouteMatch::default()
    }
}

fn path(path: &PathMatch) -> PathSpecifier {
    match path {
        PathMatch::Exact(value) => PathSpecifier::Path(value.clone()),
        PathMatch::Prefix(value) if value.is_empty() => PathSpecifier::Prefix("/".into()),
        // By elements, as the Gateway API has it: /foo is /foo and /foo/bar, not /foobar.
        PathMatch::Prefix(value) => PathSpecifier::PathSeparatedPrefix(value.clone()),
        PathMatch::Regex(value) => PathSpecifier::SafeRegex(regex(value)),
    }
}

fn header_matcher(name: &str, value: &str, is_regex: bool) -> HeaderMatcher {
    HeaderMatcher {
        name: name.into(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string_matcher(value, is_regex))),
        ..HeaderMatcher::default()
    }
}

fn query_matcher(query: &ValueMatch) -> QueryParameterMatcher {
    let matcher = string_matcher(&query.value, query.regex);
    QueryParameterMatcher {
        name: query.name.clone(),
        query_parameter_match_specifier: Some(QueryParameterMatchSpecifier::StringMatch(matcher)),
    }
}

fn string_matcher(value: &str, is_regex: bool) -> StringMatcher {
    let pattern =
        if is_regex { MatchPattern::SafeRegex(regex(value)) } else { MatchPattern::Exact(value.into()) };
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

fn regex(value: &str) -> RegexMatcher {
    RegexMatcher { regex: value.into(), ..RegexMatcher::default() }
}

fn parts(of: PortOf<'_>) -> Vec<Part> {
    let host = Part { origin: of.service.origin.clone(), mentions: vec![of.cluster_name()] };
    let rules = match &of.port.routing {
        Routing::Direct => &[][..],
        Routing::Rules(rules) => rules,
    };
    let rules = rules.iter().map(|rule| Part { origin: rule.origin.clone(), mentions: mentions(rule) });
    std::iter::once(host).chain(rules).collect()
}

fn mentions(rule: &Rule) -> Vec<String> {
    let path = match &rule.matching.path {
        PathMatch::Regex(value) => Some(value.clone()),
        PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
    };
    let values = rule.matching.headers.iter().chain(&rule.matching.query);
    let expressions = values.filter(|value| value.regex).map(|value| value.value.clone());
    let all: BTreeSet<String> = path.into_iter().chain(expressions).chain([rule.name.clone()]).collect();
    all.into_iter().collect()
}
