//! How a client stays with its endpoint: SessionPersistence of the Gateway API (GEP-1619).
//!
//! Envoy keeps no state about sessions: the endpoint stands in the cookie or the header. So there is no time of idleness, and
//! a session can only end where the cookie does.

use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::model::matching::is_token;
use crate::read::Node;
use crate::read::decode::{Report, duration, one_of, text};

/// How a client stays with its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Session {
    /// The client's cookie names the endpoint.
    Cookie {
        /// The name of the cookie, where the document gives one.
        name: Option<String>,
        /// How long the cookie lives.
        lifetime: Lifetime,
    },
    /// A header names the endpoint: answers have it, and the client sends it back.
    Header {
        /// The name of the header, where the document gives one.
        name: Option<String>,
    },
}

/// How long a cookie lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the client's session.
    Session,
    /// This long, after which the endpoint is forgotten.
    Permanent(Duration),
}

const MAX_NAME: usize = 128;

impl Session {
    pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(node, "sessionPersistence")?;
        let name = fields.optional("sessionName", session_name);
        let cookie = fields.optional("type", one_of(&[("Cookie", true), ("Header", false)])).unwrap_or(true);
        let absolute = fields.optional("absoluteTimeout", duration);
        let permanent = fields.optional("cookieConfig", is_permanent);
        if fields.optional("idleTimeout", duration).is_some_and(|time| !time.is_zero()) {
            let span = fields.key_span("idleTimeout");
            let mistake =
                Diagnostic::error("idleTimeout is not supported: Envoy keeps no state about sessions")
                    .help("use a Permanent cookie with an absoluteTimeout");
            fields.report().add::<()>(span, mistake);
        }
        let span = fields.key_span("absoluteTimeout");
        let cookie_span = fields.key_span("cookieConfig");
        fields.finish();
        if !cookie && permanent.is_some() {
            report.error::<()>(cookie_span, "cookieConfig goes with type Cookie");
        }
        match (permanent.unwrap_or(false), absolute.filter(|time| !time.is_zero())) {
            (true, None) => report.error(cookie_span, "a Permanent cookie needs an absoluteTimeout"),
            (true, Some(time)) => Some(Self::Cookie { name, lifetime: Lifetime::Permanent(time) }),
            (false, Some(_)) => {
                let mistake = Diagnostic::error("absoluteTimeout is supported for Permanent cookies only")
                    .help(
                        "Envoy keeps no state about sessions; add cookieConfig: { lifetimeType: Permanent }",
                    );
                report.add(span, mistake)
            }
            (false, None) if cookie => Some(Self::Cookie { name, lifetime: Lifetime::Session }),
            (false, None) => Some(Self::Header { name }),
        }
    }
}

fn is_permanent(node: &Node, report: &mut Report) -> Option<bool> {
    let mut fields = report.fields(node, "cookieConfig")?;
    let permanent = fields.optional("lifetimeType", one_of(&[("Session", false), ("Permanent", true)]));
    fields.finish();
    Some(permanent.unwrap_or(false))
}

fn session_name(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    if is_token(&given) && given.len() <= MAX_NAME {
        return Some(given);
    }
    report.error(node.span, format!("{given:?} cannot be the name of a cookie or header"))
}
