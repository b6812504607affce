//! The network configuration on standard input (SPEC.md, "Network configuration format").

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::{AddResult, Code, Error, NetworkName, Version, capabilities};

/// A plugin's configuration: what every plugin has in common, and the document itself for its own keys.
#[derive(Clone, Debug)]
pub struct Conf {
    /// The version the runtime speaks; results are given in it.
    pub version: Version,
    /// The network.
    pub name: NetworkName,
    /// The document as it was given, with all its keys; those of the capability conventions in the conventions' spelling.
    pub document: Map<String, Value>,
}

impl Conf {
    /// Decodes and validates `stdin` in the order of the reference: JSON, version, name.
    ///
    /// A configuration without `cniVersion` speaks 0.1.0, as the reference library takes it.
    ///
    /// # Errors
    /// [`Code::DECODE`], [`Code::INVALID_CONFIG`] or [`Code::INCOMPATIBLE_VERSION`].
    pub fn parse(stdin: &[u8]) -> Result<Self, Error> {
        object(stdin).and_then(Self::read)
    }

    /// The same for a document that has been decoded.
    pub(crate) fn read(mut document: Map<String, Value>) -> Result<Self, Error> {
        capabilities::spell(&mut document);
        let name = network(&document)?;
        let version = version(&document)?;
        refuse_list(&document)?;
        Ok(Self { version, name, document })
    }

    /// The result of the plugins before this one, where there is one.
    ///
    /// # Errors
    /// [`Code::DECODE`] where it is no result.
    pub fn prev_result(&self) -> Result<Option<AddResult>, Error> {
        let present = self.document.get("prevResult").filter(|value| !value.is_null());
        present
            .map(|value| AddResult::from_json(value, self.version))
            .transpose()
            .map_err(|e| Error::new(Code::DECODE, "cannot read prevResult").with_details(e.to_string()))
    }
}

/// Decodes `stdin`.
pub(crate) fn object(stdin: &[u8]) -> Result<Map<String, Value>, Error> {
    let undecodable =
        |why: String| Error::new(Code::DECODE, "cannot decode the configuration").with_details(why);
    match serde_json::from_slice(stdin) {
        Ok(Value::Object(document)) => Ok(document),
        Ok(_) => Err(undecodable("it is not a JSON object".to_owned())),
        Err(e) => Err(undecodable(e.to_string())),
    }
}

fn network(document: &Map<String, Value>) -> Result<NetworkName, Error> {
    match document.get("name") {
        None | Some(Value::Null) => Err(Error::new(Code::INVALID_CONFIG, "missing network name")),
        Some(Value::String(name)) if name.is_empty() => {
            Err(Error::new(Code::INVALID_CONFIG, "missing network name"))
        }
        Some(Value::String(name)) => {
            NetworkName::new(name.as_str()).map_err(|e| Error::caused(Code::INVALID_CONFIG, &e))
        }
        Some(other) => {
            Err(Error::new(Code::DECODE, format!("the network name must be a string, not {other}")))
        }
    }
}

/// What stands in the runtime's directory is a list; a person who runs a plugin by hand gives it that.
fn refuse_list(document: &Map<String, Value>) -> Result<(), Error> {
    if !document.get("plugins").is_some_and(Value::is_array) || document.contains_key("type") {
        return Ok(());
    }
    let msg = "this is a configuration list: a plugin is given one entry of its plugins, with the list's name and cniVersion";
    Err(Error::new(Code::INVALID_CONFIG, msg))
}

/// The version that `document` speaks: errors are answered in it too, also where all else is wrong.
pub(crate) fn version(document: &Map<String, Value>) -> Result<Version, Error> {
    match document.get("cniVersion") {
        None | Some(Value::Null) => Ok(Version::V0_1_0),
        Some(Value::String(text)) if text.is_empty() => Ok(Version::V0_1_0),
        Some(Value::String(text)) if !is_version(text) => {
            Err(Error::new(Code::DECODE, format!("cniVersion {text:?} is not a version")))
        }
        Some(Value::String(text)) => Version::from_str(text).map_err(|e| {
            Error::new(Code::INCOMPATIBLE_VERSION, "incompatible CNI versions").with_details(e.to_string())
        }),
        Some(other) => Err(Error::new(Code::DECODE, format!("cniVersion must be a string, not {other}"))),
    }
}

fn is_version(text: &str) -> bool {
    let parts: Vec<_> = text.split('.').collect();
    (1..=3).contains(&parts.len()) && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(stdin: &str) -> u32 {
        Conf::parse(stdin.as_bytes()).unwrap_err().code.0
    }

    #[test]
    fn bad_configurations_are_refused_with_the_codes_of_the_reference() {
        for (stdin, expected) in [
            ("", 6),
            ("[]", 6),
            ("{", 6),
            ("{}", 7),
            (r#"{"name":""}"#, 7),
            (r#"{"name":"a/b"}"#, 7),
            (r#"{"name":7}"#, 6),
            (r#"{"name":"n","cniVersion":"a.b"}"#, 6),
            (r#"{"name":"n","cniVersion":"1.0.0.0"}"#, 6),
            (r#"{"name":"n","cniVersion":1}"#, 6),
            (r#"{"name":"n","cniVersion":"9.9.9"}"#, 1),
            (r#"{"name":"n","cniVersion":"1.0.0","plugins":[{"type":"t"}]}"#, 7),
        ] {
            assert_eq!(code(stdin), expected, "{stdin}");
        }
    }

    #[test]
    fn a_configuration_without_a_version_speaks_the_first() {
        assert_eq!(Conf::parse(br#"{"name":"n"}"#).unwrap().version, Version::V0_1_0);
    }
}
