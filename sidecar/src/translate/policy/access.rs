//! Access rules: what is refused is refused by a filter of its own, before the one that allows.

use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::envoy::config::rbac::v3::permission::{self, Rule};
use envoy_types::pb::envoy::config::rbac::v3::principal::{self, Identifier};
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action;
use envoy_types::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, SourcedMetadata};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::{Rbac as Filter, RbacPerRoute};
use envoy_types::pb::envoy::r#type::matcher::v3::list_matcher::MatchPattern as ListPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::metadata_matcher::PathSegment;
use envoy_types::pb::envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
use envoy_types::pb::envoy::r#type::matcher::v3::path_matcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern as ValuePattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, PathMatcher, RegexMatcher, StringMatcher, ValueMatcher,
};
use envoy_types::pb::google::protobuf::UInt32Value;

use super::jwt;
use crate::model::matching::PathMatch;
use crate::model::policy::access::{Access, AccessRule, Claim, Client, Operation};
use crate::model::policy::value::Cidr;
use crate::translate::route::header_matcher;

/// What refuses, and what allows.
pub(super) fn filters(access: &Access) -> (Option<RbacPerRoute>, Option<RbacPerRoute>) {
    (filter(access, true), filter(access, false))
}

fn filter(access: &Access, deny: bool) -> Option<RbacPerRoute> {
    let rules = access.0.iter().enumerate().filter(|(_, rule)| rule.deny == deny);
    // By the place in the list: a name is what the log of a refused request shows.
    let policies: std::collections::HashMap<String, Policy> =
        rules.map(|(at, rule)| (format!("access-{at}"), policy(rule))).collect();
    let action = if deny { Action::Deny } else { Action::Allow };
    (!policies.is_empty()).then(|| {
        let rules = Rbac { action: action.into(), policies, ..Rbac::default() };
        RbacPerRoute { rbac: Some(Filter { rules: Some(rules), ..Filter::default() }) }
    })
}

fn policy(rule: &AccessRule) -> Policy {
    let everything = || Permission { rule: Some(Rule::Any(true)) };
    let everybody = || Principal { identifier: Some(Identifier::Any(true)) };
    let permissions: Vec<Permission> = rule.to.iter().map(operation).collect();
    let principals: Vec<Principal> = rule.from.iter().map(client).collect();
    Policy {
        permissions: if permissions.is_empty() { vec![everything()] } else { permissions },
        principals: if principals.is_empty() { vec![everybody()] } else { principals },
        ..Policy::default()
    }
}

fn operation(operation: &Operation) -> Permission {
    let method = |method: &&str| Rule::Header(header_matcher(":method", method, false));
    let methods = operation.methods.iter().map(method).collect::<Vec<_>>();
    let paths = operation.paths.iter().map(path).collect::<Vec<_>>();
    let any_of = |rules: Vec<Rule>| (!rules.is_empty()).then(|| Rule::OrRules(rule_set(rules)));
    let all: Vec<Rule> = any_of(methods).into_iter().chain(any_of(paths)).collect();
    Permission { rule: Some(Rule::AndRules(rule_set(all))) }
}

fn rule_set(rules: Vec<Rule>) -> permission::Set {
    permission::Set { rules: rules.into_iter().map(|rule| Permission { rule: Some(rule) }).collect() }
}

/// Envoy's path matcher leaves out the query, as the Gateway API does.
fn path(wanted: &PathMatch) -> Rule {
    let by = |pattern| {
        let matcher = StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() };
        Rule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(matcher)) })
    };
    match wanted.plain() {
        PathMatch::Exact(value) => by(MatchPattern::Exact(value)),
        PathMatch::Regex(value) => {
            by(MatchPattern::SafeRegex(RegexMatcher { regex: value, ..RegexMatcher::default() }))
        }
        PathMatch::Prefix(value) if !value.is_empty() => {
            let below = by(MatchPattern::Prefix(format!("{value}/")));
            Rule::OrRules(rule_set(vec![by(MatchPattern::Exact(value)), below]))
        }
        // A path by the names of a method is plain no more.
        PathMatch::Prefix(_) | PathMatch::Rpc(_) => Rule::Any(true),
    }
}

fn client(client: &Client) -> Principal {
    let headers = client
        .headers
        .iter()
        .map(|header| Identifier::Header(header_matcher(&header.name, &header.value, header.regex)));
    let claims = client.claims.iter().map(claim);
    let sources: Vec<Identifier> = client.sources.iter().map(|source| source_ip(*source)).collect();
    let source = (!sources.is_empty()).then(|| Identifier::OrIds(id_set(sources)));
    let all = headers.chain(claims).chain(source).collect();
    Principal { identifier: Some(Identifier::AndIds(id_set(all))) }
}

fn id_set(ids: Vec<Identifier>) -> principal::Set {
    principal::Set { ids: ids.into_iter().map(|id| Principal { identifier: Some(id) }).collect() }
}

/// The address of the connection: what stands in headers anybody could have written.
fn source_ip(cidr: Cidr) -> Identifier {
    Identifier::DirectRemoteIp(CidrRange {
        address_prefix: cidr.address.to_string(),
        prefix_len: Some(UInt32Value { value: cidr.prefix.into() }),
    })
}

/// The claim is the value, or a list with it.
fn claim(claim: &Claim) -> Identifier {
    let exact = StringMatcher {
        match_pattern: Some(MatchPattern::Exact(claim.value.clone())),
        ..StringMatcher::default()
    };
    let value = |pattern| ValueMatcher { match_pattern: Some(pattern) };
    let one = value(ValuePattern::StringMatch(exact));
    let one_of = ListMatcher { match_pattern: Some(ListPattern::OneOf(Box::new(one.clone()))) };
    let several = value(ValuePattern::ListMatch(Box::new(one_of)));
    Identifier::OrIds(id_set(vec![metadata(claim, one), metadata(claim, several)]))
}

fn metadata(claim: &Claim, value: ValueMatcher) -> Identifier {
    let keys = std::iter::once(jwt::CLAIMS).chain(claim.path.iter().map(String::as_str));
    let segment = |key: &str| PathSegment { segment: Some(Segment::Key(key.into())) };
    let matcher = MetadataMatcher {
        filter: jwt::NAMESPACE.into(),
        path: keys.map(segment).collect(),
        value: Some(value),
        ..MetadataMatcher::default()
    };
    Identifier::SourcedMetadata(SourcedMetadata {
        metadata_matcher: Some(matcher),
        ..SourcedMetadata::default()
    })
}
