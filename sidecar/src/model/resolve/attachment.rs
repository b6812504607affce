//! Which listeners of a Gateway a route is attached to, and if to none, why.

use super::index::Index;
use super::listeners::{Played, Problem, State};
use crate::model::ServiceKey;
use crate::model::gateway::Namespaces;
use crate::model::hostname::Hostname;
use crate::model::reference::ParentRef;

/// A route that wants to be attached.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) namespace: &'a str,
    pub(super) kind: &'static str,
    pub(super) hostnames: &'a [Hostname],
    pub(super) parent: &'a ParentRef,
}

/// A listener that a route is attached to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its position in the Gateway.
    pub(super) listener: usize,
    /// The hosts that route and listener both mean; all, without one. Never empty.
    pub(super) hosts: Vec<Option<Hostname>>,
}

impl Index<'_> {
    /// The steps of the API, each of which has a reason of its own for failing (RouteConditionReason).
    pub(super) fn attach_to(
        &self,
        gateway: &ServiceKey,
        played: &Played<'_>,
        claim: Claim<'_>,
    ) -> Result<Vec<Place>, Problem> {
        let problem = |reason, message: String| Problem::new(reason, message, claim.parent.span);
        let named = played.listeners.iter().enumerate().filter(|(_, state)| names(claim.parent, state));
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            let which = match (&claim.parent.section_name, claim.parent.port) {
                (Some(name), None) => format!("called {name:?}"),
                (None, Some(port)) => format!("on port {port}"),
                (Some(name), Some(port)) => format!("called {name:?} on port {port}"),
                (None, None) => "at all".into(),
            };
            let message = format!("Gateway {gateway} has no listener {which}");
            return Err(Problem::new("NoMatchingParent", message, claim.parent.section_span));
        }
        let allowing: Vec<_> =
            named.into_iter().filter(|(_, state)| self.allows(gateway, state, claim)).collect();
        if allowing.is_empty() {
            let message =
                format!("no listener of Gateway {gateway} takes a {} of this namespace", claim.kind);
            return Err(problem("NotAllowedByListeners", message));
        }
        let places = allowing.into_iter().map(|(listener, state)| Place {
            listener,
            hosts: hosts(state.listener.hostname.as_ref(), claim.hostnames),
        });
        let places: Vec<Place> = places.filter(|place| !place.hosts.is_empty()).collect();
        if places.is_empty() {
            let message = format!("no listener of Gateway {gateway} is for one of the \"hostnames\"");
            return Err(problem("NoMatchingListenerHostname", message));
        }
        Ok(places)
    }

    fn allows(&self, gateway: &ServiceKey, state: &State<'_>, claim: Claim<'_>) -> bool {
        state.kinds.contains(&claim.kind)
            && match &state.listener.allowed.namespaces {
                Namespaces::Same => claim.namespace == gateway.namespace,
                Namespaces::All => true,
                Namespaces::Selected(selector) => selector.selects(&self.ingress.labels(claim.namespace)),
            }
    }
}

fn names(parent: &ParentRef, state: &State<'_>) -> bool {
    parent.port.is_none_or(|port| port == state.listener.port)
        && parent.section_name.as_ref().is_none_or(|name| *name == state.listener.name)
}

/// What both mean: HTTPRouteSpec.hostnames.
fn hosts(of_listener: Option<&Hostname>, of_route: &[Hostname]) -> Vec<Option<Hostname>> {
    if of_route.is_empty() {
        return vec![of_listener.cloned()];
    }
    let both = of_route.iter().filter_map(|of_route| match of_listener {
        Some(of_listener) => of_listener.intersection(of_route),
        None => Some(of_route.clone()),
    });
    let mut both: Vec<Option<Hostname>> = both.map(Some).collect();
    both.sort();
    both.dedup();
    both
}
