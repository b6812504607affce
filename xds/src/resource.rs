//! One resource: its name, its version and its bytes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::canonical;

/// What a resource says, in one number: the first 64 bits of the SHA-256 of its encoded body.
///
/// Equal content has an equal version in every process, release and machine, so a client that reconnects after
/// a restart of the server is sent nothing it already has. On the wire it is written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// The version of `body`.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).iter().take(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte)))
    }

    /// Reads what [`Display`](fmt::Display) wrote. `None` for any other text: a version of another server.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let ours = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        ours.then(|| u64::from_str_radix(text, 16).ok()).flatten().map(Self)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A resource as clients receive it: encoded once, shared by every snapshot and every stream that holds it.
///
/// A clone copies two pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    name: Arc<str>,
    version: Version,
    body: Bytes,
}

impl Resource {
    /// Encodes `message` under `name`.
    ///
    /// Equal messages get equal bytes, and so equal versions, even where the message holds maps: see
    /// [`canonical`](crate::canonical) for what that covers.
    #[must_use]
    pub fn encode<M: prost::Message + prost::Name>(name: impl Into<Arc<str>>, message: &M) -> Self {
        Self::from_bytes(name, canonical::encode(message))
    }

    /// A resource whose message is encoded already. The version is that of the bytes as they are.
    #[must_use]
    pub fn from_bytes(name: impl Into<Arc<str>>, body: Bytes) -> Self {
        Self { name: name.into(), version: Version::of(&body), body }
    }

    /// The name clients subscribe to.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name, to be shared.
    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    /// The version: equal exactly when the content is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The encoded message.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_content_never_changes_between_releases() {
        // The first 8 bytes of the well-known SHA-256 of "abc" (FIPS 180-2, appendix B.1).
        assert_eq!(Version::of(b"abc").to_string(), "ba7816bf8f01cfea");
    }

    #[test]
    fn a_version_is_read_back_from_its_text_and_foreign_ones_are_not() {
        let version = Version::of(b"x");
        assert_eq!(Version::parse(&version.to_string()), Some(version));
        assert_eq!(Version::parse("7"), None);
        assert_eq!(Version::parse("BA7816BF8F01CFEA"), None);
        assert_eq!(Version::parse("+a7816bf8f01cfea"), None);
    }
}
