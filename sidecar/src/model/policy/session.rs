//! `sessionPersistence`: the requests of one session go to the endpoint that answered the first.

use std::time::Duration;

use crate::model::matching::header_name;
use crate::read::Node;
use crate::read::decode::{Report, boolean, duration, text};

/// How a session is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Where the endpoint is remembered.
    pub by: SessionBy,
    /// Whether a request fails with 503 if its endpoint is gone, rather than going to another.
    pub strict: bool,
}

/// Where the endpoint of a session is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionBy {
    /// In a cookie.
    Cookie(Cookie),
    /// In a header that the client sends back.
    Header(String),
}

/// A cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// How long it lives; 0: as long as the browser.
    pub ttl: Option<Duration>,
    /// Its path.
    pub path: Option<String>,
}

/// Reads `sessionPersistence`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Session> {
    let mut fields = report.fields(node, "sessionPersistence")?;
    let cookie = fields.optional("cookie", cookie).map(SessionBy::Cookie);
    let header = fields.optional("header", header_name).map(SessionBy::Header);
    let strict = fields.optional("strict", boolean).unwrap_or(false);
    if node.get("cookie").is_some() == node.get("header").is_some() {
        fields.error::<()>("sessionPersistence has either \"cookie\" or \"header\"");
    }
    fields.finish();
    Some(Session { by: cookie.or(header)?, strict })
}

pub(super) fn cookie(node: &Node, report: &mut Report) -> Option<Cookie> {
    let mut fields = report.fields(node, "cookie")?;
    let name = fields.required("name", name);
    let ttl = fields.optional("ttl", duration);
    let path = fields.optional("path", path);
    fields.finish();
    Some(Cookie { name: name?, ttl, path })
}

/// The name of a cookie or a query parameter.
pub(super) fn name(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    let fits = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}&#".contains(c);
    if (1..=256).contains(&given.len()) && given.chars().all(fits) {
        return Some(given);
    }
    report.error(node.span, format!("{given:?} is not a name"))
}

fn path(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    if given.starts_with('/') && given.chars().all(|c| c.is_ascii_graphic() && c != ';') {
        return Some(given);
    }
    report.error(node.span, format!("the path {given:?} must begin with a slash"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn a_session_is_in_a_cookie_or_in_a_header() {
        let session = good("{cookie: {name: session, ttl: 1h, path: /}, strict: true}", decode);
        let SessionBy::Cookie(cookie) = &session.by else { panic!("{session:?}") };
        assert_eq!((cookie.name.as_str(), cookie.ttl), ("session", Some(Duration::from_secs(3_600))));
        assert!(session.strict);
        assert_eq!(mistakes("{}", decode), ["1:4 sessionPersistence has either \"cookie\" or \"header\""]);
        assert_eq!(
            mistakes("{cookie: {name: \"a=b\", path: x}}", decode),
            ["1:20 \"a=b\" is not a name", "1:33 the path \"x\" must begin with a slash"]
        );
    }
}
