//! How Gateways, their listeners, routes and policies stand, in the conditions of the API: a pure function of the documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gateways::claims;
use super::index::{Attached, Index};
use super::listeners::{AllPlayed, GROUP, Played, Problem, State};
use super::{by_place, the_sidecar};
use crate::model::backend_tls::{Authorities, BackendTlsPolicy};
use crate::model::reference::{ParentKind, ParentRef};
use crate::model::status::{Condition, ObjectStatus, PartStatus};
use crate::model::stream_route::StreamRoute;
use crate::model::{Document, ServiceKey};

/// The status of every object that has one, by kind, namespace and name. Empty where there is no `Sidecar`.
pub fn status(documents: &[Arc<Document>]) -> Vec<ObjectStatus> {
    let documents = by_place(documents);
    let mut ignored = Vec::new();
    let Some((sidecar, _)) = the_sidecar(&documents, &mut ignored) else { return Vec::new() };
    let index = Index::new(sidecar, &documents, &mut ignored);
    let all = index.played();
    let routes = index.route_status(&all);
    let attached = attached_routes(&routes);
    let gateways = all.iter().map(|(key, played)| gateway(key, played, &attached));
    let policies = index.ingress.policies.iter().map(|(key, (_, policy))| index.policy_status(key, policy));
    let mut objects: Vec<ObjectStatus> = gateways.chain(policies).collect();
    objects.extend(routes.into_values().map(|(object, _)| object));
    objects.sort_by(|a, b| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
    objects
}

/// A route with the listeners that it is attached to.
type RouteStatus = (ObjectStatus, Vec<(ServiceKey, usize)>);

type AllRoutes = BTreeMap<(&'static str, ServiceKey), RouteStatus>;

impl<'d> Index<'d> {
    fn route_status(&self, all: &AllPlayed<'d>) -> AllRoutes {
        let mut routes = AllRoutes::new();
        let of_gateways = self.ingress.routes.iter();
        for (parent, at) in
            of_gateways.chain(&self.routes).flat_map(|(key, all)| all.iter().map(move |at| (key, at)))
        {
            let places = match at.parent.kind {
                ParentKind::Gateway => places(
                    self,
                    all,
                    parent,
                    |index, played| {
                        index
                            .attach_to(parent, played, at.claim())
                            .map(|places| places.into_iter().map(|place| place.listener).collect())
                    },
                    at.parent,
                ),
                ParentKind::Service => self.service_parent(parent, at.parent).map(|()| Vec::new()),
            };
            let key =
                ServiceKey { namespace: at.namespace.to_owned(), name: at.document.metadata.name.clone() };
            note(&mut routes, (at.route.kind.name(), key), (parent, at.parent), places, self.unresolved(*at));
        }
        for ((kind, key), (_, route)) in &self.ingress.streams {
            for (parent, claim) in claims(&key.namespace, route) {
                let places = match claim.parent.kind {
                    ParentKind::Gateway => places(
                        self,
                        all,
                        &parent,
                        |index, played| {
                            index
                                .attach_to(&parent, played, claim)
                                .map(|places| places.into_iter().map(|place| place.listener).collect())
                        },
                        claim.parent,
                    ),
                    ParentKind::Service => {
                        let message = "connections are routed at Gateways only";
                        Err(Problem::new("NoMatchingParent", message, claim.parent.span))
                    }
                };
                let unresolved = self.unresolved_streams(&key.namespace, route);
                note(&mut routes, (kind.name(), key.clone()), (&parent, claim.parent), places, unresolved);
            }
        }
        routes
    }

    fn service_parent(&self, service: &ServiceKey, parent: &ParentRef) -> Result<(), Problem> {
        let problem = |message: String| Problem::new("NoMatchingParent", message, parent.span);
        let found = self.service(service).map_err(|mistake| problem(mistake.message))?;
        if found.ports.iter().any(|port| parent.selects(port)) {
            return Ok(());
        }
        Err(problem(format!("Service {service} has no such port")))
    }

    fn unresolved(&self, at: Attached<'_>) -> Option<Problem> {
        let backends =
            at.route.rules.iter().flat_map(|rule| &rule.backends).map(|weighted| &weighted.backend);
        let mut problems = backends.filter_map(|reference| {
            let found = if at.needs_grant {
                self.granted_backend((GROUP, at.route.kind.name()), at.namespace, reference)
            } else {
                self.existing_backend(reference.resolved(at.namespace), reference)
            };
            found.err()
        });
        problems.next()
    }

    fn unresolved_streams(&self, namespace: &str, route: &StreamRoute) -> Option<Problem> {
        let from = (GROUP, route.kind.name());
        let mut all = route
            .backends
            .iter()
            .filter_map(|reference| self.granted_backend(from, namespace, &reference.backend).err());
        all.next()
    }

    fn policy_status(&self, key: &ServiceKey, policy: &BackendTlsPolicy) -> ObjectStatus {
        let references = match &policy.authorities {
            Authorities::System => &[][..],
            Authorities::In(references) => references,
        };
        let problems: Vec<Problem> =
            references.iter().filter_map(|reference| self.authority_of(key, reference).err()).collect();
        let nobody = !references.is_empty() && problems.len() == references.len();
        let target = |name: &String| ServiceKey { namespace: key.namespace.clone(), name: name.clone() };
        let missing = policy.targets.iter().find_map(|one| self.service(&target(&one.name)).err());
        let accepted = match missing {
            Some(mistake) => Condition::no("Accepted", "TargetNotFound", mistake.message),
            None if nobody => Condition::no("Accepted", "NoValidCACertificate", "nobody is trusted"),
            None => Condition::yes("Accepted", "Accepted"),
        };
        let conditions = vec![accepted, resolved(problems.first())];
        ObjectStatus { kind: "BackendTLSPolicy", key: key.clone(), conditions, parts: Vec::new() }
    }
}

fn places<'d>(
    index: &Index<'d>,
    all: &AllPlayed<'d>,
    gateway: &ServiceKey,
    attach: impl FnOnce(&Index<'d>, &Played<'d>) -> Result<Vec<usize>, Problem>,
    parent: &ParentRef,
) -> Result<Vec<usize>, Problem> {
    match all.get(gateway) {
        Some(played) => attach(index, played),
        None => Err(Problem::no_gateway(gateway, parent)),
    }
}

fn note(
    routes: &mut AllRoutes,
    (kind, key): (&'static str, ServiceKey),
    (parent, reference): (&ServiceKey, &ParentRef),
    places: Result<Vec<usize>, Problem>,
    unresolved: Option<Problem>,
) {
    let (object, attached) = routes.entry((kind, key.clone())).or_insert_with(|| {
        (ObjectStatus { kind, key, conditions: Vec::new(), parts: Vec::new() }, Vec::new())
    });
    let accepted = match &places {
        Ok(_) => Condition::yes("Accepted", "Accepted"),
        Err(problem) => Condition::no("Accepted", problem.reason, &problem.message),
    };
    attached.extend(places.unwrap_or_default().into_iter().map(|at| (parent.clone(), at)));
    object.parts.push(PartStatus::parent(
        parent.clone(),
        reference,
        vec![accepted, resolved(unresolved.as_ref())],
    ));
}

/// How many routes are attached to each listener.
fn attached_routes(routes: &AllRoutes) -> BTreeMap<(ServiceKey, usize), usize> {
    let mut counts = BTreeMap::new();
    for (_, attached) in routes.values() {
        let mut places = attached.clone();
        places.sort();
        places.dedup();
        for place in places {
            *counts.entry(place).or_default() += 1;
        }
    }
    counts
}

fn gateway(
    key: &ServiceKey,
    played: &Played<'_>,
    attached: &BTreeMap<(ServiceKey, usize), usize>,
) -> ObjectStatus {
    let served = played.problem.is_none() && played.listeners.iter().any(State::is_served);
    let invalid: Vec<&str> = played
        .listeners
        .iter()
        .filter(|state| !state.is_served())
        .map(|state| state.listener.name.as_str())
        .collect();
    let message = format!("not served: {}", invalid.join(", "));
    let accepted = match &played.problem {
        Some(problem) => Condition::no("Accepted", problem.reason, &problem.message),
        None if invalid.is_empty() => Condition::yes("Accepted", "Accepted"),
        None => Condition { is_true: served, ..Condition::no("Accepted", "ListenersNotValid", message) },
    };
    let listeners = played.listeners.iter().enumerate().map(|(at, state)| {
        let routes = attached.get(&(key.clone(), at)).copied().unwrap_or_default();
        PartStatus::listener(&state.listener.name, &state.kinds, routes, listener(state))
    });
    let conditions = vec![accepted, programmed(served)];
    ObjectStatus { kind: "Gateway", key: key.clone(), conditions, parts: listeners.collect() }
}

fn listener(state: &State<'_>) -> Vec<Condition> {
    let conflicted = match &state.conflict {
        Some(problem) => {
            Condition { is_true: true, ..Condition::no("Conflicted", problem.reason, &problem.message) }
        }
        None => Condition { is_true: false, ..Condition::yes("Conflicted", "NoConflicts") },
    };
    let accepted = match state.conflict.as_ref().or(state.refusal.as_ref()) {
        Some(problem) => Condition::no("Accepted", problem.reason, &problem.message),
        None => Condition::yes("Accepted", "Accepted"),
    };
    vec![accepted, conflicted, resolved(state.unresolved.first()), programmed(state.is_served())]
}

fn resolved(problem: Option<&Problem>) -> Condition {
    match problem {
        Some(problem) => Condition::no("ResolvedRefs", problem.reason, &problem.message),
        None => Condition::yes("ResolvedRefs", "ResolvedRefs"),
    }
}

fn programmed(served: bool) -> Condition {
    if served {
        Condition::yes("Programmed", "Programmed")
    } else {
        Condition::no("Programmed", "Invalid", "it is not served")
    }
}
