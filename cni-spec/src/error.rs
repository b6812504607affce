//! Errors as the specification wants them printed (SPEC.md, "Error").

use std::error::Error as StdError;
use std::fmt;

use serde_json::{Value, json};

use crate::Version;

/// An error code of the specification, or, from 100 on, of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u32);

impl Code {
    /// 1: the configuration speaks a version that does not allow what was asked.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// 2: a field is known but not supported; the message holds its key and value.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// 3: the container is unknown or gone; the runtime need not call DEL.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// 4: environment variables are missing or malformed; the message names them.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// 5: reading or writing failed.
    pub const IO: Self = Self(5);
    /// 6: JSON or a version could not be decoded.
    pub const DECODE: Self = Self(6);
    /// 7: the network configuration is not valid.
    pub const INVALID_CONFIG: Self = Self(7);
    /// 8: the namespace cannot be used (the reference library's code; SPEC.md does not list it).
    pub const INVALID_NETNS: Self = Self(8);
    /// 11: a passing condition; the runtime should try again later.
    pub const TRY_AGAIN: Self = Self(11);
    /// 50: STATUS only: the plugin cannot serve ADD.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// 51: STATUS only: as 50, and containers that exist may have limited connectivity.
    pub const LIMITED_CONNECTIVITY: Self = Self(51);
}

/// What a verb answers when it fails: printed on standard output, with exit status 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of failure, for the runtime.
    pub code: Code,
    /// What failed, for a person: one line.
    pub msg: String,
    /// Why, cause by cause; empty where the message says it all.
    pub details: String,
}

impl Error {
    /// An error whose message says it all.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// An error with `cause` as its message and the chain of sources below it as the details.
    pub fn caused(code: Code, cause: &dyn StdError) -> Self {
        Self { code, msg: cause.to_string(), details: chain(cause.source()) }
    }

    /// The same error with `details`.
    #[must_use]
    pub fn with_details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// The document that the specification asks for. libcni shows it as `msg; details`.
    #[must_use]
    pub fn to_json(&self, version: Version) -> Value {
        let (code, msg, version) = (self.code.0, &self.msg, version.as_str());
        if self.details.is_empty() {
            json!({ "cniVersion": version, "code": code, "msg": msg })
        } else {
            json!({ "cniVersion": version, "code": code, "msg": msg, "details": self.details })
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}

impl StdError for Error {}

fn chain(first: Option<&dyn StdError>) -> String {
    std::iter::successors(first, |&cause| cause.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot add the address")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_causes_of_an_error_become_its_details() {
        let error = Error::caused(Code::IO, &Outer(std::io::Error::other("device busy")));
        assert_eq!(error.msg, "cannot add the address");
        assert_eq!(error.details, "device busy");
        assert_eq!(
            error.to_json(Version::V0_4_0),
            json!({"cniVersion": "0.4.0", "code": 5, "msg": "cannot add the address", "details": "device busy"})
        );
    }
}
