//! The three names of a request, each checked once when it is made.

use std::fmt;
use std::str::FromStr;

/// A name breaks the rule for its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} is not valid: {rule}")]
pub struct InvalidName {
    what: &'static str,
    name: String,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The name, once it has been found valid.
            ///
            /// # Errors
            /// Where the name breaks the rule.
            pub fn new(name: impl Into<String>) -> Result<Self, InvalidName> {
                let name = name.into();
                match $check(&name) {
                    Ok(()) => Ok(Self(name)),
                    Err(rule) => Err(InvalidName { what: $what, name, rule }),
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// A container's id: a letter or digit, then letters, digits, `_`, `.` and `-` (SPEC.md, "Parameters").
    /// It has at most 255 bytes, and can therefore be one component of a path, never more.
    ContainerId, "container id", plain
}

name! {
    /// A network's name, under the same rule as a [`ContainerId`].
    NetworkName, "network name", plain
}

name! {
    /// An interface's name: 1 to 15 bytes, not `.` or `..`, without `/`, `:` or white space (the kernel's
    /// `dev_valid_name`), without `%`, for the kernel takes `eth%d` for a request to number it (`dev_alloc_name`), and not `all`
    /// or `default`, which are directories of `net.ipv4.conf` (`sysctl_dev_name_is_allowed`).
    IfName, "interface name", interface
}

fn plain(name: &str) -> Result<(), &'static str> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if name.len() > 255 {
        Err("it must have at most 255 bytes")
    } else if first && rest {
        Ok(())
    } else {
        Err("it must match ^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")
    }
}

fn interface(name: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > 15 {
        Err("it must have 1 to 15 bytes")
    } else if matches!(name, "." | "..") {
        Err("it must not be . or ..")
    } else if matches!(name, "all" | "default") {
        Err("the kernel keeps all and default for the parameters that every interface has")
    } else if name.contains(|c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control()) {
        Err("it must not hold /, :, %, white space or control characters")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_the_specification() {
        for good in ["a", "0", "pod-1_x.y", "A.."] {
            assert!(ContainerId::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "-a", "a/b", "a b", "ä", "a\n", "../x", "a\0"] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?}");
        }
        assert!(ContainerId::new("c".repeat(255)).is_ok());
        assert!(ContainerId::new("c".repeat(256)).is_err());
    }

    #[test]
    fn interface_names_follow_the_rules_of_the_kernel() {
        for good in ["eth0", "a", "123456789012345", "-x", "ä"] {
            assert!(IfName::new(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\u{a0}b",
            "1234567890123456",
            "a\0",
            "eth%d",
            "all",
            "default",
        ] {
            assert!(IfName::new(bad).is_err(), "{bad:?}");
        }
    }
}
