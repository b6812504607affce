//! The route configurations of Gateways: a virtual host for each host of each listener.

use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteConfiguration, VirtualHost, route::Action,
};

use super::{Frontend, matching, rule_parts, ruled};
use crate::model::Proxy;
use crate::model::hostname::Hostname;
use crate::model::ingress::{Content, Entrance, Host};
use crate::model::matching::Match;
use crate::translate::{Part, Sourced, policy, tags};

/// RFC 9110, section 15.5.20: the request came on a connection for another host.
const MISDIRECTED: u32 = 421;

/// The routes of requests that enter here, on `port`. Those for a host `astray` have another listener, and the client is to
/// ask again on a connection of its own.
pub(in crate::translate) fn gateway(
    proxy: &Proxy,
    name: String,
    port: u16,
    entrances: &[&Entrance],
    astray: &[&Hostname],
) -> Sourced<RouteConfiguration> {
    let hosts = entrances.iter().flat_map(|entrance| {
        let hosts = match &entrance.content {
            Content::Requests(hosts) => hosts.as_slice(),
            Content::Streams(_) => &[],
        };
        hosts.iter().map(move |host| (*entrance, host))
    });
    let hosts: Vec<(&Entrance, &Host)> = hosts.collect();
    let own = hosts.iter().map(|(entrance, host)| virtual_host(proxy, port, entrance, host));
    let known = |name: &&&Hostname| hosts.iter().all(|(_, host)| host.name.as_ref() != Some(**name));
    let others = astray.iter().filter(known).map(|host| misdirected(&name, host));
    let message = RouteConfiguration {
        name: name.clone(),
        virtual_hosts: own.chain(others).collect(),
        request_headers_to_add: tags::request_headers(&proxy.telemetry),
        typed_per_filter_config: tags::response_headers(&proxy.telemetry),
        // A host is the same with and without its port.
        ignore_port_in_host_matching: true,
        metadata: tags::metadata(&proxy.sidecar.tags),
        ..RouteConfiguration::default()
    };
    let parts = hosts.iter().flat_map(|(entrance, host)| parts(entrance, host)).collect();
    Sourced { name, message, parts }
}

fn virtual_host(proxy: &Proxy, port: u16, entrance: &Entrance, host: &Host) -> VirtualHost {
    let frontend = Frontend { scheme: entrance.scheme(), port };
    VirtualHost {
        name: name(entrance, host),
        domains: vec![domain(host)],
        routes: host
            .rules
            .iter()
            .flat_map(|rule| {
                policy::of_rule(ruled(&proxy.sidecar, rule, frontend).collect(), &rule.action, None)
            })
            .collect(),
        ..VirtualHost::default()
    }
}

fn misdirected(of: &str, host: &Hostname) -> VirtualHost {
    let answer = DirectResponseAction { status: MISDIRECTED, ..DirectResponseAction::default() };
    VirtualHost {
        name: format!("{of}/misdirected/{host}"),
        domains: vec![host.to_string()],
        routes: vec![Route {
            name: "misdirected".into(),
            r#match: Some(matching::route_match(&Match::default())),
            action: Some(Action::DirectResponse(answer)),
            ..Route::default()
        }],
        ..VirtualHost::default()
    }
}

fn parts(entrance: &Entrance, host: &Host) -> Vec<Part> {
    let place = Part { origin: entrance.origin.clone(), mentions: vec![name(entrance, host)] };
    std::iter::once(place).chain(rule_parts(&host.rules)).collect()
}

fn name(entrance: &Entrance, host: &Host) -> String {
    format!("{}/{}", entrance.name(), domain(host))
}

fn domain(host: &Host) -> String {
    host.name.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string)
}
