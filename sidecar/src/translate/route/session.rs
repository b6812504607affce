//! How Envoy keeps a client at its endpoint.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override,
};
use envoy_types::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use envoy_types::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use envoy_types::pb::envoy::r#type::http::v3::{Cookie, CookieAttribute};
use envoy_types::pb::google::protobuf::Any;

use crate::model::Rule;
use crate::model::matching::PathMatch;
use crate::model::route::{Lifetime, Session};
use crate::translate::listener::STATEFUL_SESSION;
use crate::translate::{any, duration};

const BY_COOKIE: &str = "envoy.http.stateful_session.cookie";
const BY_HEADER: &str = "envoy.http.stateful_session.header";

/// What the filter does for a route. An endpoint that is gone is replaced.
pub(super) fn per_route(session: &Session, rule: &Rule) -> (String, Any) {
    let state = match session {
        Session::Cookie { name, lifetime } => {
            let cookie = cookie(name.as_deref(), *lifetime, rule);
            extension(BY_COOKIE, any(&CookieBasedSessionState { cookie: Some(cookie) }))
        }
        Session::Header { name } => {
            let name = name.clone().unwrap_or_else(|| default_name(rule));
            extension(BY_HEADER, any(&HeaderBasedSessionState { name }))
        }
    };
    let session = StatefulSession { session_state: Some(state), ..StatefulSession::default() };
    let config = StatefulSessionPerRoute { r#override: Some(Override::StatefulSession(session)) };
    (STATEFUL_SESSION.into(), any(&config))
}

fn extension(name: &str, config: Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.into(), typed_config: Some(config) }
}

/// Envoy adds HttpOnly by itself.
fn cookie(name: Option<&str>, lifetime: Lifetime, rule: &Rule) -> Cookie {
    let ttl = match lifetime {
        Lifetime::Session => Duration::ZERO,
        Lifetime::Permanent(time) => time,
    };
    Cookie {
        name: name.map_or_else(|| default_name(rule), str::to_owned),
        ttl: Some(duration(ttl)),
        path: cookie_path(&rule.matching.path),
        attributes: vec![CookieAttribute { name: "SameSite".into(), value: "Strict".into() }],
    }
}

/// Unique for each rule: `weft.namespace.route.rule`.
fn default_name(rule: &Rule) -> String {
    let of_rule = rule.name.rsplit_once('/').map_or(rule.name.as_str(), |(of_rule, _)| of_rule);
    format!("weft.{}", of_rule.replace('/', "."))
}

/// The path that was matched; of an expression the elements before anything that is one (GEP-1619, "Path").
fn cookie_path(matched: &PathMatch) -> String {
    let path = match matched {
        PathMatch::Exact(path) | PathMatch::Prefix(path) => path.as_str(),
        PathMatch::Regex(expression) => {
            let special =
                expression.find(|c: char| r"\.+*?()|[]{}^$".contains(c)).unwrap_or(expression.len());
            let literal = expression.get(..special).unwrap_or_default();
            literal.rfind('/').and_then(|end| literal.get(..end)).unwrap_or_default()
        }
        PathMatch::Rpc(_) => "",
    };
    if path.starts_with('/') { path.into() } else { "/".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_cookie_is_what_was_matched() {
        for (matched, path) in [
            (PathMatch::prefix("/"), "/"),
            (PathMatch::prefix("/a/"), "/a"),
            (PathMatch::Exact("/a/b".into()), "/a/b"),
            (PathMatch::Regex("/p1/p2/[^/]+/p3".into()), "/p1/p2"),
            (PathMatch::Regex("/p1/p2.*".into()), "/p1"),
            (PathMatch::Regex(".*".into()), "/"),
            (PathMatch::Regex("/a/b".into()), "/a"),
        ] {
            assert_eq!(cookie_path(&matched), path, "{matched:?}");
        }
    }
}
