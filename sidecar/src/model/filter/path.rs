//! Redirects and rewrites: HTTPRequestRedirectFilter, HTTPURLRewriteFilter and HTTPPathModifier of the Gateway API.

use crate::model::hostname::Hostname;
use crate::read::Node;
use crate::read::decode::{Report, integer, one_of, port, text};

/// An answer that sends the client elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// The scheme there; that of the request where it is absent.
    pub scheme: Option<Scheme>,
    /// The host there; that of the request where it is absent.
    pub hostname: Option<Hostname>,
    /// What becomes of the path; nothing where it is absent.
    pub path: Option<PathChange>,
    /// The port there; what it is where it is absent depends on the scheme and the listener.
    pub port: Option<u16>,
    /// The status of the answer: 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A scheme of URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In clear text.
    Http,
    /// With TLS.
    Https,
}

/// What is changed before a request is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewrite {
    /// The new host.
    pub hostname: Option<Hostname>,
    /// What becomes of the path.
    pub path: Option<PathChange>,
}

/// What becomes of a path. The query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// It is this one. Begins with a slash.
    Full(String),
    /// What the rule's PathPrefix matched is replaced with this. Begins with a slash and does not end with one, or is
    /// empty.
    Prefix(String),
}

const SCHEMES: &[(&str, Scheme)] = &[("http", Scheme::Http), ("https", Scheme::Https)];
const STATUS_CODES: &[u16] = &[301, 302, 303, 307, 308];

impl Scheme {
    /// As URLs have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that goes without saying.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Redirect {
    pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(node, "requestRedirect")?;
        let redirect = Self {
            scheme: fields.optional("scheme", one_of(SCHEMES)),
            hostname: fields.optional("hostname", Hostname::precise),
            path: fields.optional("path", PathChange::decode),
            port: fields.optional("port", port),
            status: fields.optional("statusCode", status).unwrap_or(302),
        };
        fields.finish();
        Some(redirect)
    }
}

impl Rewrite {
    /// This rewrite, and a `later` one after it.
    pub(super) fn then(&self, later: &Self) -> Self {
        Self {
            hostname: later.hostname.clone().or_else(|| self.hostname.clone()),
            path: later.path.clone().or_else(|| self.path.clone()),
        }
    }

    pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(node, "urlRewrite")?;
        let rewrite = Self {
            hostname: fields.optional("hostname", Hostname::precise),
            path: fields.optional("path", PathChange::decode),
        };
        fields.finish();
        Some(rewrite)
    }
}

impl PathChange {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        const TYPES: &[(&str, (&str, &str))] = &[
            ("ReplaceFullPath", ("replaceFullPath", "replacePrefixMatch")),
            ("ReplacePrefixMatch", ("replacePrefixMatch", "replaceFullPath")),
        ];
        let mut fields = report.fields(node, "path")?;
        let (field, other) = fields.required("type", one_of(TYPES))?;
        let value = fields.required(field, new_path);
        if fields.optional(other, |node, _| Some(node)).is_some() {
            let span = fields.key_span(other);
            fields
                .report()
                .error::<()>(span, format!("{other:?} does not go with this type, {field:?} does"));
        }
        fields.finish();
        let value = value?;
        Some(match field {
            "replaceFullPath" if value.is_empty() => Self::Full("/".into()),
            "replaceFullPath" => Self::Full(value),
            _ => Self::Prefix(value.trim_end_matches('/').to_owned()),
        })
    }
}

fn status(node: &Node, report: &mut Report) -> Option<u16> {
    let given = integer(0_u16, u16::MAX)(node, report)?;
    if STATUS_CODES.contains(&given) {
        return Some(given);
    }
    let codes: Vec<String> = STATUS_CODES.iter().map(ToString::to_string).collect();
    report.error(node.span, format!("{given} is not one of {}", codes.join(", ")))
}

/// A path that is absolute, since it goes into a request line; the API has no rule for it.
fn new_path(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    let fits = |c: char| c.is_ascii_graphic() && c != '#';
    if (given.is_empty() || given.starts_with('/')) && given.chars().all(fits) {
        return Some(given);
    }
    report.error(
        node.span,
        format!("the path {given:?} must begin with a slash and have the characters of a path"),
    )
}
