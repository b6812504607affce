//! Which of several matching rules is tried first: HTTPRouteRule.matches in the Gateway API's reference.
//!
//! 1. an exact path, 2. the longest prefix, 3. a method, 4. the most headers, 5. the most query parameters; then the
//!    oldest route, then the first by `namespace/name`, then the order within the route.
//!
//! Of a GRPCRoute: 1. the longest service, 2. the longest method, 3. the most headers; then the same.
//!
//! Where regular expressions stand is left to the implementation: here between exact paths and prefixes, longest
//! first, since an expression is written to except something from a prefix.

use std::cmp::Reverse;

use super::matching::{Match, PathMatch};

/// What orders a rule among those of the same service: the smallest comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence<'a> {
    path: (u8, Reverse<usize>, Reverse<usize>),
    method: Reverse<bool>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
    age: Age<'a>,
    route: (&'a str, &'a str),
    position: (usize, usize),
}

/// A route without a creation time is taken for younger than any with one: it is not in a cluster yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Age<'a> {
    Created(&'a str),
    Unknown,
}

impl<'a> Precedence<'a> {
    /// The place of the `position`-th match (rule, match) of a route.
    pub fn of(
        matching: &Match,
        created: Option<&'a str>,
        (namespace, name): (&'a str, &'a str),
        position: (usize, usize),
    ) -> Self {
        Self {
            path: path(&matching.path),
            method: Reverse(matching.method.is_some()),
            headers: Reverse(matching.headers.len()),
            query: Reverse(matching.query.len()),
            age: created.map_or(Age::Unknown, Age::Created),
            route: (namespace, name),
            position,
        }
    }
}

fn path(path: &PathMatch) -> (u8, Reverse<usize>, Reverse<usize>) {
    let length = |text: &str| Reverse(text.chars().count());
    match path {
        PathMatch::Exact(value) => (0, length(value), Reverse(0)),
        PathMatch::Regex(value) => (1, length(value), Reverse(0)),
        PathMatch::Prefix(value) => (2, length(value), Reverse(0)),
        PathMatch::Rpc(rpc) => {
            let of = |part: &Option<String>| length(part.as_deref().unwrap_or_default());
            (u8::from(rpc.regex), of(&rpc.service), of(&rpc.method))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::matching::{RpcMatch, ValueMatch};

    fn exact(path: &str) -> Match {
        Match { path: PathMatch::Exact(path.into()), ..Match::default() }
    }

    fn prefix(path: &str) -> Match {
        Match { path: PathMatch::prefix(path), ..Match::default() }
    }

    fn regex(path: &str) -> Match {
        Match { path: PathMatch::Regex(path.into()), ..Match::default() }
    }

    fn values(count: usize) -> Vec<ValueMatch> {
        (0..count).map(|n| ValueMatch { name: format!("n{n}"), value: "v".into(), regex: false }).collect()
    }

    fn with(matching: Match, method: Option<&'static str>, headers: usize, query: usize) -> Match {
        Match { method, headers: values(headers), query: values(query), ..matching }
    }

    #[test]
    fn each_criterion_decides_where_all_before_it_tie() {
        let none = Match::default();
        let ordered = [
            (exact("/a/b"), None, "a", (0, 0)),
            (exact("/a"), None, "a", (0, 0)),
            (regex("/a/.*"), None, "a", (0, 0)),
            (with(prefix("/aaaa"), None, 0, 0), None, "a", (0, 0)),
            (with(prefix("/aaa"), Some("GET"), 0, 0), None, "a", (0, 0)),
            (with(prefix("/aaa"), None, 2, 0), None, "a", (0, 0)),
            (with(prefix("/aaa"), None, 1, 2), None, "a", (0, 0)),
            (with(prefix("/aaa"), None, 1, 1), None, "a", (0, 0)),
            (with(prefix("/aaa"), None, 1, 0), None, "a", (0, 0)),
            (with(prefix("/aaa"), None, 0, 1), None, "a", (0, 0)),
            (prefix("/aa/"), None, "a", (0, 0)),
            (none.clone(), Some("2025-01-01T00:00:00Z"), "z", (9, 9)),
            (none.clone(), Some("2026-01-01T00:00:00Z"), "a", (0, 0)),
            (none.clone(), None, "a", (0, 1)),
            (none.clone(), None, "a", (1, 0)),
            (none.clone(), None, "b", (0, 0)),
        ];
        let keys: Vec<Precedence<'_>> = ordered
            .iter()
            .map(|(matching, created, name, position)| {
                Precedence::of(matching, *created, ("shop", name), *position)
            })
            .collect();
        for (at, pair) in keys.windows(2).enumerate() {
            assert!(pair[0] < pair[1], "{at}: {:?} is not before {:?}", ordered[at], ordered[at + 1]);
        }
    }

    #[test]
    fn grpc_methods_are_ordered_by_the_lengths_of_service_and_method() {
        let rpc = |service: &str, method: &str, regex, headers| {
            let some = |name: &str| (!name.is_empty()).then(|| name.to_owned());
            let path = PathMatch::Rpc(RpcMatch { service: some(service), method: some(method), regex });
            Match { path, headers: values(headers), ..Match::default() }
        };
        let ordered = [
            rpc("shop.Cart", "Add", false, 0),
            rpc("shop.Cart", "", false, 2),
            rpc("shop.Cart", "", false, 0),
            rpc("shop.C", "Remove", false, 0),
            rpc("", "Remove", false, 0),
            rpc("shop[.].+", "Add", true, 0),
            Match::default(),
        ];
        let keys: Vec<_> =
            ordered.iter().map(|matching| Precedence::of(matching, None, ("shop", "a"), (0, 0))).collect();
        assert!(keys.is_sorted(), "{keys:?}");
    }
}
