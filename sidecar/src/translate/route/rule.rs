//! A rule, with one of its matches, as routes.

use std::borrow::Cow;
use std::collections::HashMap;

use envoy_types::pb::envoy::config::route::v3::{Route, RouteMatch};
use envoy_types::pb::google::protobuf::Any;

use super::matching::{preflight_match, share_match};
use super::{Frontend, action, cors, headers, session};
use crate::model::filter::Filters;
use crate::model::{Action, Destination, Mirror, Rule, Share};

/// What happens to some of the requests that a rule is about.
pub(super) struct Part<'r> {
    /// The rule.
    pub(super) rule: &'r Rule,
    /// Of a million requests those with a number below this, where an earlier part has taken what is below its own.
    below: Option<u32>,
    /// Where they go: to one of these, or nowhere.
    pub(super) shares: &'r [Share],
    /// What is done to them.
    pub(super) filters: Cow<'r, Filters>,
    /// To whom they are sent as well.
    pub(super) mirrors: Vec<&'r Mirror>,
}

/// One route, unless backends have filters of their own, which Envoy knows of a route only, or are not there and are answered
/// for: then each of them has a route. A browser's preflight does not have the method that the rule may ask for, and gets a route, too.
pub(super) fn routes(rule: &Rule, at: Frontend) -> Vec<Route> {
    let parts = parts(rule);
    let several = parts.len() > 1;
    let name = |number: usize| if several { format!("{}/{number}", rule.name) } else { rule.name.clone() };
    let matching = |part: &Part<'_>| share_match(&rule.matching, part.below);
    let mut routes: Vec<Route> = parts
        .iter()
        .enumerate()
        .map(|(number, part)| route(name(number), matching(part), part, at))
        .collect();
    let asked = rule.matching.method.filter(|method| *method != "OPTIONS");
    if let (Some(method), Some(part)) = (asked, parts.first())
        && part.filters.cors.is_some()
    {
        let preflight = preflight_match(&rule.matching, method);
        routes.push(route(format!("{}/preflight", rule.name), preflight, part, at));
    }
    routes
}

fn route(name: String, matching: RouteMatch, part: &Part<'_>, at: Frontend) -> Route {
    let Filters { request_headers, response_headers, .. } = part.filters.as_ref();
    Route {
        name,
        r#match: Some(matching),
        action: Some(action::action(part, at)),
        typed_per_filter_config: per_filter(part),
        request_headers_to_add: headers::added(request_headers),
        request_headers_to_remove: request_headers.remove.clone(),
        response_headers_to_add: headers::added(response_headers),
        response_headers_to_remove: response_headers.remove.clone(),
        ..Route::default()
    }
}

fn per_filter(part: &Part<'_>) -> HashMap<String, Any> {
    let cors = part.filters.cors.as_ref().map(cors::policy);
    let session = part.rule.action.session.as_ref().map(|kept| session::per_route(kept, part.rule));
    cors.into_iter().chain(session).collect()
}

fn parts(rule: &Rule) -> Vec<Part<'_>> {
    let action = rule.action.as_ref();
    let shares = match &action.destination {
        Destination::Forward(shares) => shares.as_slice(),
        Destination::NoBackend => &[],
    };
    if shares.iter().all(|share| share.filters.is_none() && share.backend.is_some()) {
        let mirrors = action.mirrors.iter().collect();
        return vec![Part { rule, below: None, shares, filters: of_rule(action), mirrors }];
    }
    let limits = limits(shares);
    shares.chunks(1).zip(limits).map(|(share, below)| part_of(rule, share, below)).collect()
}

fn part_of<'r>(rule: &'r Rule, shares: &'r [Share], below: Option<u32>) -> Part<'r> {
    let own = shares.iter().find_map(|share| share.filters.as_deref());
    let filters =
        own.map_or_else(|| of_rule(&rule.action), |own| Cow::Owned(of_rule(&rule.action).then(own)));
    let mirrors = rule.action.mirrors.iter().chain(shares.iter().flat_map(|share| &share.mirrors));
    Part { rule, below, shares, filters, mirrors: mirrors.collect() }
}

fn of_rule(action: &Action) -> Cow<'_, Filters> {
    action.filters.as_deref().map_or_else(|| Cow::Owned(Filters::default()), Cow::Borrowed)
}

/// Where each share of a million ends; the last one takes what is left.
fn limits(shares: &[Share]) -> Vec<Option<u32>> {
    let weights = shares.iter().map(|share| u64::from(share.weight.get()));
    let total: u64 = weights.clone().sum::<u64>().max(1);
    let mut sum = 0;
    let ends = weights.map(|weight| {
        sum += weight;
        u32::try_from(sum * 1_000_000 / total).ok().filter(|_| sum < total)
    });
    ends.collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn shares_end_where_the_weights_before_them_and_their_own_do() {
        let of = |weights: &[u32]| {
            let share = |weight: &u32| Share {
                backend: None,
                weight: NonZeroU32::new(*weight).expect("a weight"),
                filters: None,
                authority: None,
                subset: None,
                mirrors: Vec::new(),
            };
            limits(&weights.iter().map(share).collect::<Vec<_>>())
        };
        assert_eq!(of(&[5]), [None]);
        assert_eq!(of(&[3, 1, 1, 1]), [Some(500_000), Some(666_666), Some(833_333), None]);
        assert_eq!(of(&[1_000_000, 1]), [Some(999_999), None]);
        assert_eq!(of(&[1, 1_000_000]), [Some(0), None]);
    }
}
