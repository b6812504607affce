//! Routes at their parents: rules in the order in which they are tried, backends found.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::Resolver;
use super::index::{Attached, missing_port};
use crate::diagnostic::Diagnostic;
use crate::model::precedence::Precedence;
use crate::model::reference::{BackendRef, ParentRef};
use crate::model::route::RouteRule;
use crate::model::service::ServicePort;
use crate::model::{Action, Backend, Destination, Document, RouteData, Routing, Rule, ServiceKey};

/// A rule that still knows where it stands among those of its service.
#[derive(Debug)]
pub(super) struct Ranked<'d> {
    precedence: Precedence<'d>,
    rule: Arc<Rule>,
}

impl<'d> Resolver<'_, 'd> {
    pub(super) fn check_parents(&mut self) {
        for (key, attached) in &self.index.routes {
            for at in attached {
                if let Err(mistake) = self.check_parent(key, at.parent) {
                    self.diagnostics.push(mistake.at(&at.document.origin.with_span(at.parent.span)));
                }
            }
        }
    }

    fn check_parent(&self, key: &ServiceKey, parent: &ParentRef) -> Result<(), Diagnostic> {
        let service = self.index.service(key)?;
        if service.ports.iter().any(|port| parent.selects(port)) {
            return Ok(());
        }
        let which = match (parent.port, &parent.section_name) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => format!("{name:?}"),
            (None, None) => "for HTTP".into(),
        };
        Err(missing_port(key, &which, service))
    }

    pub(super) fn routing(&mut self, key: &ServiceKey, port: &ServicePort) -> Routing {
        let attached = self.index.attached(key, port);
        if attached.is_empty() { Routing::Direct } else { Routing::Rules(self.ranked_rules(&attached)) }
    }

    /// The rules of several routes, in the order in which they are tried.
    fn ranked_rules(&mut self, attached: &[Attached<'d>]) -> Vec<Arc<Rule>> {
        let of_each: Vec<_> = attached.iter().map(|at| self.rules(*at)).collect();
        let mut ranked: Vec<&Ranked<'d>> = of_each.iter().flat_map(|rules| rules.iter()).collect();
        ranked.sort_by(|a, b| a.precedence.cmp(&b.precedence));
        ranked.into_iter().map(|ranked| Arc::clone(&ranked.rule)).collect()
    }

    /// The rules of a route, which are the same at each of its parents.
    fn rules(&mut self, at: Attached<'d>) -> Arc<[Ranked<'d>]> {
        let place: *const Document = at.document;
        if let Some(known) = self.rules.get(&place) {
            return Arc::clone(known);
        }
        let route = Arc::new(RouteData {
            key: ServiceKey { namespace: at.namespace.to_owned(), name: at.document.metadata.name.clone() },
            origin: at.document.origin.clone(),
            tags: Vec::new(),
        });
        let rules = at.route.rules.iter().enumerate();
        let ranked: Arc<[_]> =
            rules.flat_map(|(position, rule)| self.matches(at, &route, position, rule)).collect();
        self.rules.insert(place, Arc::clone(&ranked));
        ranked
    }

    fn matches(
        &mut self,
        at: Attached<'d>,
        route: &Arc<RouteData>,
        rule_at: usize,
        rule: &RouteRule,
    ) -> Vec<Ranked<'d>> {
        let action = Arc::new(self.action(at, route, rule));
        let metadata = &at.document.metadata;
        let full_name = (at.namespace, metadata.name.as_str());
        let ranked = rule.matches.iter().enumerate().map(|(match_at, matching)| Ranked {
            precedence: Precedence::of(matching, metadata.created.as_deref(), full_name, (rule_at, match_at)),
            rule: Arc::new(Rule {
                name: format!("{}/{rule_at}/{match_at}", route.key),
                matching: matching.clone(),
                action: Arc::clone(&action),
            }),
        });
        ranked.collect()
    }

    fn action(&mut self, at: Attached<'d>, route: &Arc<RouteData>, rule: &RouteRule) -> Action {
        Action {
            route: Arc::clone(route),
            origin: at.document.origin.with_span(rule.span),
            destination: self.destination(at, rule),
            policy: None,
        }
    }

    fn destination(&mut self, at: Attached<'d>, rule: &RouteRule) -> Destination {
        let mut backends = Vec::new();
        for reference in &rule.backends {
            match self.backend(at.namespace, reference) {
                Ok(backend) => {
                    backends.extend(NonZeroU32::new(reference.weight).map(|weight| (backend, weight)));
                }
                Err(mistake) => {
                    self.diagnostics.push(mistake.at(&at.document.origin.with_span(reference.span)));
                }
            }
        }
        if backends.is_empty() { Destination::NoBackend } else { Destination::Forward(backends) }
    }

    fn backend(&self, namespace: &str, reference: &BackendRef) -> Result<Backend, Diagnostic> {
        let target = reference.namespace.as_deref().unwrap_or(namespace);
        let key = ServiceKey { namespace: target.to_owned(), name: reference.name.clone() };
        if target != namespace {
            let mistake = format!("a backendRef to {key} in another namespace needs a ReferenceGrant");
            return Err(Diagnostic::error(mistake).help("ReferenceGrant is not supported yet"));
        }
        let service = self.index.service(&key)?;
        if service.ports.iter().any(|port| port.number == reference.port) {
            return Ok(Backend { service: key, port: reference.port });
        }
        Err(missing_port(&key, &reference.port.to_string(), service))
    }
}
