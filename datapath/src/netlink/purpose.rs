//! What a request does, for the error that says so.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::HostPort;

/// What a request does, as it completes "cannot …". It is put into words where the request fails: nearly none does, and the
/// words of all would be a tenth of what a program computes that makes a pod's network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Purpose(Box<[Part; 3]>);

/// Words, and what they are about.
#[derive(Clone, Debug, Default)]
struct Part(&'static str, Object);

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Object {
    #[default]
    Nothing,
    Name(Box<str>),
    Index(u32),
    Address(IpAddr),
    Network(IpNetwork),
    Port(HostPort),
}

impl Purpose {
    /// As `Purpose::of("add route", to).and("through", name)`.
    pub(crate) fn of(words: &'static str, object: impl Into<Object>) -> Self {
        Self::default().with(words, object.into())
    }

    /// Up to two may follow the first.
    pub(crate) fn and(self, words: &'static str, object: impl Into<Object>) -> Self {
        self.with(words, object.into())
    }

    /// Once in the program: nearly every request has a purpose.
    #[inline(never)]
    fn with(mut self, words: &'static str, object: Object) -> Self {
        if let Some(free) = self.0.iter_mut().find(|part| part.is_empty()) {
            *free = Part(words, object);
        }
        self
    }
}

impl Part {
    const fn is_empty(&self) -> bool {
        self.0.is_empty() && matches!(self.1, Object::Nothing)
    }
}

impl Display for Purpose {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let parts = self.0.iter().filter(|part| !part.is_empty());
        for (index, Part(words, object)) in parts.enumerate() {
            let before = if index == 0 { "" } else { " " };
            let between = if words.is_empty() || matches!(object, Object::Nothing) { "" } else { " " };
            write!(f, "{before}{words}{between}{object}")?;
        }
        Ok(())
    }
}

impl Display for Object {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Name(name) => f.write_str(name),
            Self::Index(index) => write!(f, "interface {index}"),
            Self::Address(address) => address.fmt(f),
            Self::Network(network) => network.fmt(f),
            Self::Port(port) => write!(f, "host port {port}"),
        }
    }
}

impl From<&'static str> for Purpose {
    fn from(words: &'static str) -> Self {
        Self::of(words, Object::Nothing)
    }
}

impl From<String> for Purpose {
    fn from(words: String) -> Self {
        Self::of("", Object::Name(words.into()))
    }
}

impl From<&Purpose> for String {
    fn from(purpose: &Purpose) -> Self {
        purpose.to_string()
    }
}

impl From<&str> for Object {
    #[inline(never)]
    fn from(name: &str) -> Self {
        Self::Name(name.into())
    }
}

impl From<&String> for Object {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}

impl From<IpAddr> for Object {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl From<IpNetwork> for Object {
    fn from(network: IpNetwork) -> Self {
        Self::Network(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_reads_as_a_sentence_goes_on() {
        let address: IpAddr = [10, 0, 0, 2].into();
        let route = Purpose::of("add route", IpNetwork::from(address)).and("through", "eth0");
        assert_eq!(route.to_string(), "add route 10.0.0.2/32 through eth0");
        let way = Purpose::from("open").and("the way of", address).and("to itself", Object::Nothing);
        assert_eq!(way.to_string(), "open the way of 10.0.0.2 to itself");
        assert_eq!(Purpose::of("look up", Object::Index(7)).to_string(), "look up interface 7");
        assert_eq!(Purpose::from("list the links").to_string(), "list the links");
        assert_eq!(Purpose::from(format!("list {}", "links")).to_string(), "list links");
    }
}
