//! How far a resource is known.

use std::fmt::Write;

use serde::Deserialize;

/// As many objects are asked for at once: client-go's number.
const PAGE: usize = 500;

/// How far a resource is known.
///
/// ```text
/// Listing ──page with a token──▶ Listing ──last page──▶ Watching ──event, bookmark──▶ Watching
///    ▲  ▲                          │ 410                    │ 410
///    │  └──────────────────────────┘                        │
///    └──────────────────────────────────────────────────────┘
/// ```
///
/// Every other failure leaves it as it is: a list goes on with its page, a watch from the last version that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// A page of a list comes next: the first, if there is no token.
    Listing {
        /// The API's `continue`.
        token: Option<String>,
    },
    /// What comes after this version.
    Watching {
        /// The API's `resourceVersion`.
        version: String,
    },
}

/// The `metadata` of a list.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ListMeta {
    #[serde(rename = "resourceVersion", default)]
    version: String,
    #[serde(rename = "continue", default)]
    token: String,
}

impl Default for Position {
    fn default() -> Self {
        Self::Listing { token: None }
    }
}

impl Position {
    /// The query to ask the API with. A watch is to last for `seconds`.
    pub fn query(&self, seconds: u64) -> String {
        match self {
            Self::Listing { token: None } => format!("limit={PAGE}"),
            Self::Listing { token: Some(token) } => format!("limit={PAGE}&continue={}", encoded(token)),
            Self::Watching { version } => format!(
                "watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={}",
                encoded(version)
            ),
        }
    }

    /// Whether the next thing is the first page of a list.
    pub fn is_at_the_start(&self) -> bool {
        *self == Self::default()
    }

    /// A page has come. `None` if it says neither how to go on nor which version it is of: no answer of this API.
    pub(super) fn listed(&self, page: ListMeta) -> Option<Self> {
        match page {
            ListMeta { token, .. } if !token.is_empty() => Some(Self::Listing { token: Some(token) }),
            ListMeta { version, .. } if !version.is_empty() => Some(Self::Watching { version }),
            ListMeta { .. } => None,
        }
    }

    /// An event of a watch has come, which may be a bookmark.
    pub(super) fn saw(&mut self, version: &str) {
        if let Self::Watching { version: last } = self
            && last != version
        {
            version.clone_into(last);
        }
    }
}

/// As a value of a query. Tokens and versions are opaque, so that any character may be in them.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").ok();
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(version: &str, token: &str) -> ListMeta {
        ListMeta { version: version.into(), token: token.into() }
    }

    #[test]
    fn a_list_of_pages_ends_in_a_watch_from_its_version() {
        let first = Position::default();
        assert_eq!(first.query(9), "limit=500");
        let second = first.listed(page("7", "a/b=")).unwrap();
        assert_eq!(second.query(9), "limit=500&continue=a%2Fb%3D");
        let mut watching = second.listed(page("7", "")).unwrap();
        watching.saw("8");
        assert_eq!(
            watching.query(9),
            "watch=true&allowWatchBookmarks=true&timeoutSeconds=9&resourceVersion=8"
        );
    }

    #[test]
    fn an_answer_without_a_version_is_none() {
        assert_eq!(Position::default().listed(page("", "")), None);
    }
}
