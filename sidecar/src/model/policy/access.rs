//! `access`: who may do what.

use super::value::{Cidr, cidr};
use crate::diagnostic::{Diagnostic, Span};
use crate::model::matching::{METHODS, PathMatch, ValueMatch, header_match, path_match};
use crate::read::Node;
use crate::read::decode::{Report, one_of, text};

/// The rules: a request that a `Deny` is about is refused; if there is any `Allow`, one that none of them is about is
/// refused, too. Refused means 403.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access(pub Vec<AccessRule>);

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    /// Where it stands.
    pub span: Span,
    /// Whether it refuses rather than allows.
    pub deny: bool,
    /// Any of these clients; all clients if empty.
    pub from: Vec<Client>,
    /// Any of these requests; all requests if empty.
    pub to: Vec<Operation>,
}

/// Clients for which all of it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The request has all of these headers.
    pub headers: Vec<ValueMatch>,
    /// Its token has all of these claims.
    pub claims: Vec<Claim>,
    /// Its connection comes from one of these, if there are any.
    pub sources: Vec<Cidr>,
}

/// A claim of a token. `jwt` must have verified it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The keys that lead to it. Never empty.
    pub path: Vec<String>,
    /// Its value, or one of its values.
    pub value: String,
}

/// Requests for which all of it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// One of these, if there are any.
    pub methods: Vec<&'static str>,
    /// One of these, if there are any.
    pub paths: Vec<PathMatch>,
}

impl Access {
    /// The first rule that needs the claims of a token.
    pub fn first_of_claims(&self) -> Option<&AccessRule> {
        self.0.iter().find(|rule| rule.from.iter().any(|client| !client.claims.is_empty()))
    }
}

/// Reads one of `access`.
pub(super) fn rule(node: &Node, report: &mut Report) -> Option<AccessRule> {
    let mut fields = report.fields(node, "access rule")?;
    let deny = fields.required("action", one_of(&[("Allow", false), ("Deny", true)]));
    let from = fields.list("from", client);
    let to = fields.list("to", operation);
    fields.finish();
    Some(AccessRule { span: node.span, deny: deny?, from, to })
}

fn client(node: &Node, report: &mut Report) -> Option<Client> {
    let mut fields = report.fields(node, "from")?;
    let headers = fields.list("headers", header_match);
    let claims = fields.list("claims", claim);
    let sources = fields.list("sourceIPs", cidr);
    if ["headers", "claims", "sourceIPs"].iter().all(|field| node.get(field).is_none_or(Node::is_empty)) {
        let mistake = Diagnostic::error("this means every client").help("leave \"from\" out for that");
        fields.report().add::<()>(node.span, mistake);
    }
    fields.finish();
    Some(Client { headers, claims, sources })
}

fn claim(node: &Node, report: &mut Report) -> Option<Claim> {
    let mut fields = report.fields(node, "claim")?;
    let name = fields.optional("name", text);
    let path = fields.list("path", text);
    let value = fields.required("value", text);
    if node.get("name").is_some() == node.get("path").is_some() {
        fields.error::<()>("a claim has either \"name\" or, within another claim, \"path\"");
    }
    fields.finish();
    Some(Claim { path: name.map_or(path, |name| vec![name]), value: value? })
}

fn operation(node: &Node, report: &mut Report) -> Option<Operation> {
    let mut fields = report.fields(node, "to")?;
    let methods = fields.list("methods", one_of(METHODS));
    let paths = fields.list("paths", path_match);
    if ["methods", "paths"].iter().all(|field| node.get(field).is_none_or(Node::is_empty)) {
        let mistake = Diagnostic::error("this means every request").help("leave \"to\" out for that");
        fields.report().add::<()>(node.span, mistake);
    }
    fields.finish();
    Some(Operation { methods, paths })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    #[test]
    fn a_rule_has_clients_and_operations() {
        let rule = good(
            "{action: Allow, from: [{claims: [{path: [realm, roles], value: admin}], sourceIPs: [10.0.0.0/8]}], to: [{methods: [GET], paths: [{value: /admin}]}]}",
            rule,
        );
        assert!(!rule.deny);
        assert_eq!(rule.from[0].claims[0].path, ["realm", "roles"]);
        assert_eq!(rule.to[0].paths, [PathMatch::prefix("/admin")]);
    }

    #[test]
    fn what_would_mean_everything_without_saying_so_is_refused() {
        assert_eq!(
            mistakes("{action: allow, from: [{}], to: [{methods: []}]}", rule),
            [
                "1:13 \"allow\" is not one of Allow, Deny (did you mean \"Allow\"?)",
                "1:27 this means every client (leave \"from\" out for that)",
                "1:37 this means every request (leave \"to\" out for that)",
            ]
        );
    }
}
