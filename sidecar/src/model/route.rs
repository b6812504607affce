//! What an `HTTPRoute` and a `GRPCRoute` have in common once they are read: whom they attach to, and rules.

use super::matching::Match;
use super::reference::{BackendRef, ParentRef};
use crate::diagnostic::Span;

/// A route as its document has it.
#[derive(Debug, Clone)]
pub struct Route {
    /// Whose requests it distributes.
    pub parents: Vec<ParentRef>,
    /// Its rules, in the order of the document. Never empty.
    pub rules: Vec<RouteRule>,
}

/// A rule: any of the matches leads to the backends.
#[derive(Debug, Clone)]
pub struct RouteRule {
    /// Where the rule stands.
    pub span: Span,
    /// Never empty: a rule without matches matches every request.
    pub matches: Vec<Match>,
    /// Where requests go.
    pub backends: Vec<BackendRef>,
}
