//! Cross-origin requests: HTTPCORSFilter of the Gateway API.

use super::path::Scheme;
use crate::diagnostic::Diagnostic;
use crate::model::matching::{METHODS_OR_ALL, is_token};
use crate::read::Node;
use crate::read::decode::{Report, boolean, integer, one_of, text};

/// Which pages of other origins may read the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// The pages' origins.
    pub origins: Vec<Origin>,
    /// Whether requests may carry cookies and the like.
    pub credentials: bool,
    /// The methods; `*` means all. Browsers ask for no permission for GET, HEAD and POST.
    pub methods: Vec<&'static str>,
    /// The request headers; `*` means all.
    pub headers: Vec<String>,
    /// The response headers that pages see beside the harmless ones; `*` means all.
    pub exposed: Vec<String>,
    /// How many seconds a browser may remember the answer to a preflight.
    pub max_age: u32,
}

/// An allowed origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `*`.
    Any,
    /// Those of a scheme, a host and a port. A `*` in the host stands for any number of characters, dots among them.
    Pattern {
        /// The scheme.
        scheme: Scheme,
        /// The host, in lower case.
        host: String,
        /// The port.
        port: u16,
    },
}

/// `Access-Control-Max-Age` where the document has none.
const MAX_AGE: u32 = 5;

impl Cors {
    pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(node, "cors")?;
        let cors = Self {
            origins: fields.list("allowOrigins", Origin::decode),
            credentials: fields.optional("allowCredentials", boolean).unwrap_or(false),
            methods: fields.list("allowMethods", one_of(METHODS_OR_ALL)),
            headers: fields.list("allowHeaders", name),
            exposed: fields.list("exposeHeaders", name),
            max_age: fields.optional("maxAge", integer(1, i32::MAX.cast_unsigned())).unwrap_or(MAX_AGE),
        };
        fields.finish();
        cors.report_mixed_wildcards(node, report);
        Some(cors)
    }

    fn report_mixed_wildcards(&self, node: &Node, report: &mut Report) {
        let mixed = |has_all: bool, count: usize| has_all && count > 1;
        let lists = [
            ("allowOrigins", mixed(self.origins.contains(&Origin::Any), self.origins.len())),
            ("allowMethods", mixed(self.methods.contains(&"*"), self.methods.len())),
            ("allowHeaders", mixed(self.headers.iter().any(|name| name == "*"), self.headers.len())),
        ];
        for (list, _) in lists.iter().filter(|(_, mixed)| *mixed) {
            let span = node.get(list).map_or(node.span, |list| list.span);
            report.error::<()>(span, format!("{list:?} cannot have \"*\" beside others"));
        }
        let exposes_all = self.exposed.iter().any(|name| name == "*");
        if self.credentials && exposes_all {
            let span = node.get("exposeHeaders").map_or(node.span, |list| list.span);
            let mistake =
                Diagnostic::error("with allowCredentials, \"*\" in \"exposeHeaders\" means the header \"*\"")
                    .help("name the headers");
            report.add::<()>(span, mistake);
        }
    }
}

impl Origin {
    fn decode(node: &Node, report: &mut Report) -> Option<Self> {
        let given = text(node, report)?;
        Self::parse(&given).or_else(|| {
            let mistake = Diagnostic::error(format!("{given:?} is not an origin"))
                .help("an origin is \"*\" or as https://www.example.com, https://*.example.com:8443");
            report.add(node.span, mistake)
        })
    }

    fn parse(given: &str) -> Option<Self> {
        if given == "*" {
            return Some(Self::Any);
        }
        let (scheme, rest) = given.split_once("://")?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok().filter(|port| *port > 0)?),
            _ => (rest, scheme.port()),
        };
        let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-.*".contains(&byte);
        let fits = !host.is_empty() && host.bytes().all(in_host);
        fits.then(|| Self::Pattern { scheme, host: host.to_ascii_lowercase(), port })
    }
}

fn name(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    if is_token(&given) {
        Some(given)
    } else {
        report.error(node.span, format!("{given:?} is not a header name"))
    }
}
