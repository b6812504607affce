//! Versions of the specification.

use std::fmt;
use std::str::FromStr;

/// A version of the CNI specification that this crate speaks. Ordered from old to new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0: results with `ip4` and `ip6`.
    V0_1_0,
    /// 0.2.0: adds the VERSION verb.
    V0_2_0,
    /// 0.3.0: results with `interfaces` and `ips`, configuration lists.
    V0_3_0,
    /// 0.3.1: the same, with a spelling mended.
    V0_3_1,
    /// 0.4.0: adds CHECK, and `prevResult` for DEL.
    V0_4_0,
    /// 1.0.0: `ips` entries lose their `version`.
    V1_0_0,
    /// 1.1.0: adds GC and STATUS, and more fields for interfaces and routes.
    V1_1_0,
}

impl Version {
    /// Every version, oldest first: what VERSION advertises.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest version, used where a request does not say which one it speaks.
    pub const LATEST: Self = Self::V1_1_0;

    /// The version as it is written in JSON, such as `"1.1.0"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not one of [`Version::ALL`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cniVersion {text:?} is none of those supported: {}", Version::ALL.map(Version::as_str).join(", "))]
pub struct UnknownVersion {
    /// What stands in its place.
    pub text: String,
}

impl FromStr for Version {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        Self::ALL
            .into_iter()
            .find(|version| version.as_str() == text)
            .ok_or_else(|| UnknownVersion { text: text.to_owned() })
    }
}
