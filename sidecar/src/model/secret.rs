//! `Secret` and `ConfigMap` (core/v1), as far as they hold certificates. What is secret in them is never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::object::COMMON_FIELDS;
use crate::diagnostic::Span;
use crate::read::decode::{Fields, Report, Shape, text};
use crate::read::{Node, Value};

/// The certificate chain of a Secret of type `kubernetes.io/tls`.
pub const TLS_CERTIFICATE: &str = "tls.crt";
/// Its private key.
pub const TLS_KEY: &str = "tls.key";
/// Certificates of authorities, in a ConfigMap or a Secret.
pub const CA_CERTIFICATE: &str = "ca.crt";

/// Only these are kept: nobody has a use for what else is in there.
const KEPT: &[&str] = &[TLS_CERTIFICATE, TLS_KEY, CA_CERTIFICATE];

/// What a document of certificates holds, by key. Shown, it is the keys alone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    data: BTreeMap<String, Arc<[u8]>>,
}

/// A certificate chain and its private key, both in PEM. Shown, it is nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The chain, the server's own certificate first.
    pub chain: Arc<[u8]>,
    /// The private key.
    pub key: Arc<[u8]>,
}

impl Secret {
    /// Reads a `Secret`, whose fields stand beside its metadata, without a `spec`.
    pub fn decode(document: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(document, "Secret")?;
        fields.accept(COMMON_FIELDS);
        fields.accept(&["immutable"]);
        fields.optional("type", text);
        let mut secret = Self::default();
        secret.read(&mut fields, "data", from_base64);
        // Goes before what `data` has under the same key (core/v1, Secret.stringData).
        secret.read(&mut fields, "stringData", |text| Some(text.as_bytes().to_vec()));
        fields.finish();
        Some(secret)
    }

    /// Reads a `ConfigMap`.
    pub fn decode_config_map(document: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(document, "ConfigMap")?;
        fields.accept(COMMON_FIELDS);
        fields.accept(&["immutable"]);
        let mut map = Self::default();
        map.read(&mut fields, "data", |text| Some(text.as_bytes().to_vec()));
        map.read(&mut fields, "binaryData", from_base64);
        fields.finish();
        Some(map)
    }

    /// The certificate and key of a server, or what is wrong with them.
    pub fn key_pair(&self) -> Result<KeyPair, String> {
        let chain = self.pem(TLS_CERTIFICATE, "CERTIFICATE")?;
        let key = self.pem(TLS_KEY, "PRIVATE KEY")?;
        Ok(KeyPair { chain, key })
    }

    /// The certificates of authorities, or what is wrong with them.
    pub fn authorities(&self) -> Result<Arc<[u8]>, String> {
        self.pem(CA_CERTIFICATE, "CERTIFICATE")
    }

    fn pem(&self, key: &str, what: &str) -> Result<Arc<[u8]>, String> {
        let value = self.data.get(key).ok_or_else(|| format!("it has no {key:?}"))?;
        let text = String::from_utf8_lossy(value);
        let is_one = text.contains("-----BEGIN ") && text.contains(&format!("{what}-----"));
        if is_one { Ok(Arc::clone(value)) } else { Err(format!("{key:?} in it is no {what} in PEM")) }
    }

    /// A mistake is told without the value.
    fn read(
        &mut self,
        fields: &mut Fields<'_, '_>,
        name: &'static str,
        bytes: impl Fn(&str) -> Option<Vec<u8>>,
    ) {
        let values = fields.optional(name, |node, report| values(node, report, &bytes));
        self.data.extend(values.unwrap_or_default());
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.data.keys()).finish()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair")
    }
}

fn values(
    node: &Node,
    report: &mut Report,
    bytes: impl Fn(&str) -> Option<Vec<u8>>,
) -> Option<BTreeMap<String, Arc<[u8]>>> {
    report.saw(|| Shape::Texts);
    let Value::Map(entries) = &node.value else {
        return report.error(node.span, "a mapping of keys to texts is expected");
    };
    let mut read = BTreeMap::new();
    for entry in entries {
        let Value::Text(text) = &entry.value.value else {
            report.error::<()>(value_span(entry.value.span), format!("{:?} must be a text", entry.key));
            continue;
        };
        match bytes(text) {
            Some(bytes) if KEPT.contains(&entry.key.as_str()) => {
                read.insert(entry.key.clone(), bytes.into());
            }
            Some(_) => {}
            None => {
                report.error::<()>(entry.key_span, format!("the value of {:?} is not base64", entry.key));
            }
        }
    }
    Some(read)
}

fn value_span(span: Span) -> Span {
    Span { width: 1, ..span }
}

/// Kubernetes wraps no lines, but people do.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_is_not_in_what_is_shown() {
        let data = BTreeMap::from([(TLS_KEY.to_owned(), Arc::from(&b"-----BEGIN PRIVATE KEY-----"[..]))]);
        let secret = Secret { data };
        assert_eq!(format!("{secret:?}"), r#"{"tls.key"}"#);
        let pair = KeyPair { chain: Arc::from(&b""[..]), key: Arc::from(&b"PRIVATE"[..]) };
        assert_eq!(format!("{pair:?}"), "KeyPair");
    }
}
