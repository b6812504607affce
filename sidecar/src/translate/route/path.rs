//! Other paths and hosts: rewrites and redirects.

use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::{RedirectAction, RouteAction};
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::Frontend;
use super::matching::regex;
use crate::model::filter::{PathChange, Redirect};
use crate::model::matching::PathMatch;
use crate::translate::tags::literal;

/// What Envoy does to a path.
#[derive(Debug, PartialEq)]
enum Change {
    /// Nothing.
    None,
    /// All of it becomes this.
    Full(String),
    /// What was matched becomes this.
    Prefix(String),
    /// What the expression matches becomes a slash.
    Slash(String),
}

/// The table of HTTPPathModifier. Envoy replaces the prefix as text: what remains after it begins with a slash or is empty,
/// unless the prefix was the slash that every path begins with.
fn change(change: &PathChange, matched: &PathMatch) -> Change {
    match (change, matched) {
        (PathChange::Full(path), _) => Change::Full(path.clone()),
        (PathChange::Prefix(new), PathMatch::Prefix(old)) => match (old.as_str(), new.as_str()) {
            ("", "") => Change::None,
            ("", new) => Change::Prefix(format!("{new}/")),
            // /foo to / and /foo/bar to /bar: the slash after the prefix is the new path's first, if there is one.
            (old, "") => Change::Slash(format!("^{}/?", regex_syntax::escape(old))),
            (_, new) => Change::Prefix(new.into()),
        },
        (PathChange::Prefix(_), _) => Change::None,
    }
}

fn slash(expression: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(regex(expression)), substitution: "/".into() }
}

/// The path with which a request is forwarded.
pub(super) fn rewrite(new: &PathChange, matched: &PathMatch, forward: &mut RouteAction) {
    match change(new, matched) {
        Change::None => {}
        Change::Full(path) => forward.path_rewrite = literal(&path),
        Change::Prefix(prefix) => forward.prefix_rewrite = prefix,
        Change::Slash(expression) => forward.regex_rewrite = Some(slash(&expression)),
    }
}

/// The answer that sends a client elsewhere.
pub(super) fn redirect(redirect: &Redirect, matched: &PathMatch, at: Frontend) -> RedirectAction {
    let path = redirect.path.as_ref().map_or(Change::None, |path| change(path, matched));
    let mut action = RedirectAction {
        host_redirect: redirect.hostname.as_ref().map(ToString::to_string).unwrap_or_default(),
        port_redirect: u32::from(port(redirect, at)),
        scheme_rewrite_specifier: redirect
            .scheme
            .map(|scheme| SchemeRewriteSpecifier::SchemeRedirect(scheme.name().into())),
        path_rewrite_specifier: match path {
            Change::None => None,
            Change::Full(path) => Some(PathRewriteSpecifier::PathRedirect(path)),
            Change::Prefix(prefix) => Some(PathRewriteSpecifier::PrefixRewrite(prefix)),
            Change::Slash(expression) => Some(PathRewriteSpecifier::RegexRewrite(slash(&expression))),
        },
        ..RedirectAction::default()
    };
    action.set_response_code(match redirect.status {
        301 => RedirectResponseCode::MovedPermanently,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::Found,
    });
    action
}

/// The port that the Location must name; 0 for none. Without a port of its own a redirect has that of its scheme, and
/// without a scheme that of the listener; one that goes without saying is left out (HTTPRequestRedirectFilter.port).
///
/// Envoy keeps the port that stands in the request's Host, so that it must be told the port where that could be another one.
fn port(redirect: &Redirect, at: Frontend) -> u16 {
    let scheme = redirect.scheme.unwrap_or(at.scheme);
    let port = redirect.port.or(redirect.scheme.map(|scheme| scheme.port())).unwrap_or(at.port);
    let host_has_no_other = redirect.hostname.is_some() || at.port == at.scheme.port();
    if port == scheme.port() && host_has_no_other { 0 } else { port }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::filter::Scheme::{self, Http, Https};
    use crate::model::hostname::Hostname;

    /// What Envoy makes of `path` where `matched` is its longest prefix by elements.
    fn rewritten(path: &str, matched: &str, new: &str) -> String {
        let matched = PathMatch::prefix(matched);
        let PathMatch::Prefix(old) = &matched else { unreachable!("a prefix") };
        let new = PathChange::Prefix(new.trim_end_matches('/').into());
        match change(&new, &matched) {
            Change::None => path.into(),
            Change::Full(full) => full,
            Change::Prefix(new) if old.is_empty() => path.replacen('/', &new, 1),
            Change::Prefix(new) => path.replacen(old.as_str(), &new, 1),
            Change::Slash(expression) => {
                assert_eq!(expression, format!("^{}/?", regex_syntax::escape(old)));
                let rest = path.strip_prefix(old.as_str()).expect("the prefix");
                format!("/{}", rest.strip_prefix('/').unwrap_or(rest))
            }
        }
    }

    /// The table is that of HTTPPathModifier.replacePrefixMatch; the last rows go on where it ends.
    #[test]
    fn prefixes_are_replaced_as_the_table_of_the_gateway_api_says() {
        for (path, matched, new, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
            ("/", "/", "/xyz", "/xyz/"),
            ("/bar", "/", "", "/bar"),
            ("/f.o/bar", "/f.o", "/", "/bar"),
        ] {
            assert_eq!(rewritten(path, matched, new), expected, "{path} {matched} {new}");
        }
    }

    #[test]
    fn the_port_of_a_redirect_is_that_of_the_gateway_api() {
        let redirect = |scheme: Option<Scheme>, named: bool, port: Option<u16>| {
            let hostname = named.then(|| Hostname::parse("a.example")).flatten();
            Redirect { scheme, hostname, path: None, port, status: 302 }
        };
        for (scheme, named, given, listener, expected) in [
            (None, true, None, (Http, 80), 0),
            (None, true, None, (Http, 8080), 8080),
            (None, false, None, (Http, 8080), 8080),
            (None, true, None, (Https, 443), 0),
            (None, true, Some(80), (Http, 8080), 0),
            (None, true, Some(443), (Http, 80), 443),
            (Some(Https), true, None, (Http, 8080), 0),
            (Some(Https), false, None, (Http, 80), 0),
            (Some(Https), false, None, (Http, 8080), 443),
            (Some(Https), true, Some(443), (Http, 80), 0),
            (Some(Https), true, Some(8443), (Http, 80), 8443),
            (Some(Http), true, None, (Https, 443), 0),
            (Some(Http), true, Some(8080), (Https, 443), 8080),
        ] {
            let at = Frontend { scheme: listener.0, port: listener.1 };
            assert_eq!(
                port(&redirect(scheme, named, given), at),
                expected,
                "{scheme:?} {named} {given:?} {at:?}"
            );
        }
    }
}
