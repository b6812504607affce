//! `upgrades` and `grpcWeb`: other protocols than plain requests and answers.

use crate::diagnostic::Diagnostic;
use crate::read::Node;
use crate::read::decode::{Report, text};

/// The protocols to which a connection may be upgraded, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrades(pub Vec<String>);

/// Reads one of `upgrades`.
pub(super) fn upgrade(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, report)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    if given.is_empty() || given.len() > 64 || !given.chars().all(fits) {
        let mistake = Diagnostic::error(format!("{given:?} is not the name of a protocol"))
            .help("write it as in the Upgrade header, for example websocket");
        return report.add(node.span, mistake);
    }
    if given.eq_ignore_ascii_case("connect") {
        let mistake = Diagnostic::error("CONNECT is a method, and nothing that a connection is upgraded to");
        return report.add(node.span, mistake.help("a rule whose match has method: CONNECT routes it"));
    }
    Some(given.to_ascii_lowercase())
}

/// Puts the list together; a name that is there twice counts once.
pub(super) fn upgrades(mut names: Vec<String>) -> Option<Upgrades> {
    names.sort();
    names.dedup();
    (!names.is_empty()).then_some(Upgrades(names))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn names_are_compared_without_regard_to_case() {
        assert_eq!(good("WebSocket", upgrade), "websocket");
        assert_eq!(
            upgrades(vec!["b".into(), "a".into(), "b".into()]),
            Some(Upgrades(vec!["a".into(), "b".into()]))
        );
        assert_eq!(
            mistakes("web socket", upgrade),
            [
                "1:4 \"web socket\" is not the name of a protocol (write it as in the Upgrade header, for example websocket)"
            ]
        );
    }
}
