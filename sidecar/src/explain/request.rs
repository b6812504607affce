//! A request as somebody describes it.

use thiserror::Error;

/// What Envoy looks at to route a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Whether it comes over TLS.
    pub tls: bool,
    /// The `Host` header or `:authority`, in lower case.
    pub authority: String,
    /// The path with the query.
    pub path: String,
    /// The other headers, names in lower case, in order.
    pub headers: Vec<(String, String)>,
}

/// Why this is no request.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadRequest {
    /// The method is no token.
    #[error("{0:?} is not a method")]
    Method(String),
    /// Neither a URL nor a path.
    #[error("{0:?} is neither a URL as http://web/cart nor a path as /cart")]
    Url(String),
    /// A path alone needs to be told whose.
    #[error("a path alone needs a Host: add -H 'host: NAME'")]
    NoHost,
    /// A header without a colon, or with a name that is none.
    #[error("{0:?} is not a header as 'name: value'")]
    Header(String),
}

impl Request {
    /// The request for `url`: `http://…`, `https://…`, or a path if there is a `host` among the headers, which counts
    /// before the URL's.
    pub fn new(method: &str, url: &str, headers: &[(String, String)]) -> Result<Self, BadRequest> {
        if !is_token(method) {
            return Err(BadRequest::Method(method.to_owned()));
        }
        let (tls, authority, path) = split(url)?;
        let mut headers = lower_case(headers)?;
        let host = headers.iter().position(|(name, _)| name == "host" || name == ":authority");
        let host = host.map(|at| headers.remove(at).1);
        let authority = host.or(authority).ok_or(BadRequest::NoHost)?.to_ascii_lowercase();
        Ok(Self { method: method.to_owned(), tls, authority, path, headers })
    }

    /// A header as matchers see it: several of one name are one, joined by commas.
    pub fn header(&self, name: &str) -> Option<String> {
        match name.to_ascii_lowercase().as_str() {
            ":method" => Some(self.method.clone()),
            ":path" => Some(self.path.clone()),
            ":authority" | "host" => Some(self.authority.clone()),
            ":scheme" | "x-forwarded-proto" => Some(if self.tls { "https" } else { "http" }.to_owned()),
            name => {
                let values: Vec<&str> = self
                    .headers
                    .iter()
                    .filter(|(known, _)| known == name)
                    .map(|(_, value)| value.as_str())
                    .collect();
                (!values.is_empty()).then(|| values.join(","))
            }
        }
    }

    /// The path without the query.
    pub fn path_alone(&self) -> &str {
        self.path.split(['?', '#']).next().unwrap_or_default()
    }

    /// The first value of a query parameter, as it stands in the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.path.split('#').next()?.split_once('?')?;
        query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }
}

/// TLS or not, authority, and path with the query; what follows `#` stays with the client.
fn split(url: &str) -> Result<(bool, Option<String>, String), BadRequest> {
    let sent = url.split('#').next().unwrap_or_default();
    if sent.starts_with('/') {
        return Ok((false, None, sent.to_owned()));
    }
    let (tls, rest) = match (sent.strip_prefix("http://"), sent.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err(BadRequest::Url(url.to_owned())),
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = authority.rsplit('@').next().unwrap_or_default();
    if authority.is_empty() || authority.contains(char::is_whitespace) {
        return Err(BadRequest::Url(url.to_owned()));
    }
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok((tls, Some(authority.to_owned()), format!("{slash}{path}")))
}

fn lower_case(headers: &[(String, String)]) -> Result<Vec<(String, String)>, BadRequest> {
    let checked = headers.iter().map(|(name, value)| match name.strip_prefix(':').unwrap_or(name) {
        token if is_token(token) => Ok((name.to_ascii_lowercase(), value.trim().to_owned())),
        _ => Err(BadRequest::Header(format!("{name}: {value}"))),
    });
    checked.collect()
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str, headers: &[(&str, &str)]) -> Result<Request, BadRequest> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Request::new("GET", url, &headers)
    }

    #[test]
    fn a_url_is_taken_apart_as_clients_do() {
        for (url, authority, path) in [
            ("http://web", "web", "/"),
            ("http://Web:80/a?b=c#d", "web:80", "/a?b=c"),
            ("http://web?b", "web", "/?b"),
            ("https://u:p@web.shop/a/../b", "web.shop", "/a/../b"),
        ] {
            let request = request(url, &[]).expect(url);
            assert_eq!((request.authority.as_str(), request.path.as_str()), (authority, path), "{url}");
        }
        let named = request("/a", &[("Host", "web")]).expect("named");
        assert_eq!((named.authority.as_str(), named.headers.len()), ("web", 0));
        assert_eq!(request("/a", &[]), Err(BadRequest::NoHost));
        assert_eq!(request("web/a", &[]), Err(BadRequest::Url("web/a".into())));
        assert_eq!(request("/", &[("a b", "c")]), Err(BadRequest::Header("a b: c".into())));
    }

    #[test]
    fn headers_are_joined_and_the_first_query_parameter_counts() {
        let request = request("http://web/a?b=1&c&b=2", &[("X-A", "1"), ("x-a", "2")]).expect("a request");
        assert_eq!(request.header("x-A").as_deref(), Some("1,2"));
        assert_eq!(request.header("x-b"), None);
        assert_eq!((request.query("b"), request.query("c"), request.query("d")), (Some("1"), Some(""), None));
        assert_eq!(request.path_alone(), "/a");
    }
}
