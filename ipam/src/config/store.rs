//! The key `store`: which store, and for etcd how to reach it.
//!
//! | key of `store` | meaning | default |
//! |---|---|---|
//! | `type` | `local` or `etcd` | `local` |
//! | `endpoints` | members, as `https://10.0.0.1:2379` | – |
//! | `prefix` | below which keys are | `/weft/ipam` |
//! | `cacert`, `cert`, `key` | PEM files: who signs the members' certificates; the client's own certificate and key | – |
//! | `username`, `passwordFile` | the user, and a file with the password: configurations are for everybody to read | – |
//! | `timeout` | how long an operation may take, as `5s` or `800ms` | `5s` |
//! | `attemptTimeout` | how long one member may take | a fifth of that, at most `1s` |
//! | `node` | whose leases these are | `WEFT_NODE` of the environment, else the host's name |

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Reader;
use crate::lease::check_node;
use crate::store::etcd::{DEFAULT_ATTEMPT, DEFAULT_PREFIX, DEFAULT_TIMEOUT, Machine, Settings, Tls};

const AT: &str = "ipam.store";
const KEYS: [&str; 11] = [
    "type",
    "endpoints",
    "prefix",
    "cacert",
    "cert",
    "key",
    "username",
    "passwordFile",
    "timeout",
    "attemptTimeout",
    "node",
];

/// Far longer than runtimes wait.
const LONGEST: Duration = Duration::from_secs(600);

impl Reader {
    /// The settings of etcd, where that is the store.
    pub(super) fn etcd(&mut self, section: &Map<String, Value>) -> Option<Settings> {
        let store = self.object(section.get("store").filter(|store| !store.is_null())?, AT)?;
        match self.text(store, AT, "type") {
            Some("etcd") => {}
            None | Some("local") => {
                self.refuse_unknown(store, AT, &["type"]);
                return None;
            }
            Some(other) => {
                self.note(
                    format!("{AT}.type"),
                    format!(r#""{other}" is no store: there are "local" and "etcd""#),
                );
                return None;
            }
        }
        self.refuse_unknown(store, AT, &KEYS);
        let endpoints = self.endpoints(store);
        let prefix = self.prefix(store);
        let tls = self.tls(store, &endpoints);
        let user = self.user(store);
        let timeout = self.duration(store, "timeout").unwrap_or(DEFAULT_TIMEOUT);
        let attempt = self.duration(store, "attemptTimeout").unwrap_or(DEFAULT_ATTEMPT.min(timeout / 5));
        let node = self.node(store);
        Some(Settings { endpoints, prefix, tls, user, timeout, attempt, node, machine: Machine::this() })
    }

    fn endpoints(&mut self, store: &Map<String, Value>) -> Vec<String> {
        let at = format!("{AT}.endpoints");
        let items = self.list(store.get("endpoints"), &at);
        if items.is_empty() {
            self.note(&at, "missing: name the members, such as [\"https://10.0.0.1:2379\"]");
        }
        let mut endpoints = Vec::new();
        for (at, item) in items {
            match item.as_str().filter(|text| is_endpoint(text)) {
                Some(text) => endpoints.push(text.trim_end_matches('/').to_owned()),
                None => self.note(at, format!("{item} is no endpoint, such as https://10.0.0.1:2379")),
            }
        }
        let is_tls = |one: &String| one.starts_with("https://");
        if endpoints.iter().any(is_tls) && !endpoints.iter().all(is_tls) {
            self.note(at, "some are https:// and some http://; with TLS all must have it");
        }
        endpoints
    }

    fn prefix(&mut self, store: &Map<String, Value>) -> String {
        let prefix = self.text(store, AT, "prefix").unwrap_or(DEFAULT_PREFIX).trim_end_matches('/');
        if prefix.chars().any(char::is_control) {
            self.note(format!("{AT}.prefix"), "it must not hold control characters");
        }
        prefix.to_owned()
    }

    fn tls(&mut self, store: &Map<String, Value>, endpoints: &[String]) -> Tls {
        let ca = self.path(store, AT, "cacert");
        let identity = match (self.path(store, AT, "cert"), self.path(store, AT, "key")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => self.lacks("cert", "key"),
            (None, Some(_)) => self.lacks("key", "cert"),
        };
        let is_tls = endpoints.iter().any(|one| one.starts_with("https://"));
        if is_tls && ca.is_none() {
            self.note(
                format!("{AT}.cacert"),
                "missing: https:// needs the certificate of who signed the members' own",
            );
        }
        if !is_tls && !endpoints.is_empty() && (ca.is_some() || identity.is_some()) {
            self.note(AT, "cacert, cert and key are for https:// endpoints");
        }
        Tls { ca, identity }
    }

    fn user(&mut self, store: &Map<String, Value>) -> Option<(String, PathBuf)> {
        let user = self.text(store, AT, "username").map(str::to_owned);
        match (user, self.path(store, AT, "passwordFile")) {
            (Some(user), Some(file)) => Some((user, file)),
            (None, None) => None,
            (Some(_), None) => self.lacks("username", "passwordFile"),
            (None, Some(_)) => self.lacks("passwordFile", "username"),
        }
    }

    fn lacks<T>(&mut self, has: &str, lacks: &str) -> Option<T> {
        self.note(format!("{AT}.{lacks}"), format!("missing: {has} needs it"));
        None
    }

    fn duration(&mut self, store: &Map<String, Value>, key: &str) -> Option<Duration> {
        let text = self.text(store, AT, key)?;
        let duration = parse_duration(text).filter(|duration| !duration.is_zero() && *duration <= LONGEST);
        if duration.is_none() {
            let what = "is no time from 1ms to 600s, such as 5s or 800ms";
            self.note(format!("{AT}.{key}"), format!("{text:?} {what}"));
        }
        duration
    }

    fn node(&mut self, store: &Map<String, Value>) -> String {
        let named = self.text(store, AT, "node").map(str::to_owned);
        let node = named.or_else(|| std::env::var("WEFT_NODE").ok()).or_else(host_name).unwrap_or_default();
        if let Err(error) = check_node(&node) {
            let remedy = "name it here, or in WEFT_NODE";
            self.note(format!("{AT}.node"), format!("{error}; {remedy}"));
        }
        node
    }
}

fn is_endpoint(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        let host = rest.trim_end_matches('/');
        !host.is_empty() && !host.contains(['/', '?', '#', '@', ' '])
    })
}

fn parse_duration(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(number) => Some(Duration::from_millis(number.parse().ok()?)),
        None => Some(Duration::from_secs(text.strip_suffix('s')?.parse().ok()?)),
    }
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(store: Value) -> (Option<Settings>, Vec<String>) {
        let mut reader = Reader::default();
        let section = json!({ "store": store });
        let settings = reader.etcd(section.as_object().unwrap());
        (settings, reader.0.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let (settings, mistakes) =
            read(json!({"type": "etcd", "endpoints": ["http://127.0.0.1:2379/"], "node": "a"}));
        assert_eq!(mistakes, [""; 0]);
        let settings = settings.unwrap();
        assert_eq!(settings.endpoints, ["http://127.0.0.1:2379"]);
        assert_eq!((settings.prefix.as_str(), settings.node.as_str()), (DEFAULT_PREFIX, "a"));
        assert_eq!((settings.timeout, settings.attempt), (DEFAULT_TIMEOUT, DEFAULT_ATTEMPT));
        for local in [json!(null), json!({}), json!({"type": "local"})] {
            assert_eq!(read(local), (None, vec![]));
        }
    }

    #[test]
    fn all_mistakes_are_noted_with_their_places() {
        let store = json!({
            "type": "etcd", "endpoints": ["10.0.0.1:2379", "https://a:1", "http://b:1"], "cert": "/c", "username": "weft",
            "password": "secret", "timeout": "5", "node": "localhost"
        });
        let (_, mistakes) = read(store);
        assert_eq!(
            mistakes,
            [
                r#"ipam.store.password: unknown key; did you mean "passwordFile"?"#,
                r#"ipam.store.endpoints[0]: "10.0.0.1:2379" is no endpoint, such as https://10.0.0.1:2379"#,
                "ipam.store.endpoints: some are https:// and some http://; with TLS all must have it",
                "ipam.store.key: missing: cert needs it",
                "ipam.store.cacert: missing: https:// needs the certificate of who signed the members' own",
                "ipam.store.passwordFile: missing: username needs it",
                r#"ipam.store.timeout: "5" is no time from 1ms to 600s, such as 5s or 800ms"#,
                "ipam.store.node: node name \"localhost\" is not one: a letter or digit, then letters, digits, '_', '.' and \
                 '-', 255 bytes at most, and not what every host calls itself; name it here, or in WEFT_NODE",
            ]
        );
        for timeout in ["0ms", "601s", "18446744073709551615s"] {
            let store = json!({"type": "etcd", "endpoints": ["http://b:1"], "node": "a", "timeout": timeout});
            assert!(read(store).1[0].contains("is no time from 1ms to 600s"), "{timeout}");
        }
        assert_eq!(
            read(json!({"type": "redis"})).1,
            [r#"ipam.store.type: "redis" is no store: there are "local" and "etcd""#]
        );
    }
}
