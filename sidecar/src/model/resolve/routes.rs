//! Routes at their parents: rules in the order in which they are tried, backends found.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::Resolver;
use super::grants::Reference;
use super::index::{Attached, missing_port};
use crate::diagnostic::Diagnostic;
use crate::model::filter::Filters;
use crate::model::precedence::Precedence;
use crate::model::reference::{BackendRef, ParentRef, WeightedRef};
use crate::model::route::{RouteKind, RouteRule};
use crate::model::service::ServicePort;
use crate::model::{
    Action, Backend, ChosenSubset, Destination, Document, Mirror, RouteData, Routing, Rule, ServiceKey, Share,
};

/// A rule that still knows where it stands among those of its service.
#[derive(Debug)]
pub(super) struct Ranked<'d> {
    precedence: Precedence<'d>,
    rule: Arc<Rule>,
}

/// A subset is named that is not there, which has been reported.
struct NoSubset;

impl<'d> Resolver<'_, 'd> {
    pub(super) fn check_parents(&mut self) {
        for (key, attached) in &self.index.routes {
            for at in attached {
                self.check_hostnames(*at);
                if let Err(mistake) = self.check_parent(key, at.parent) {
                    let is_there = self.index.service(key).is_ok();
                    let span = if is_there { at.parent.section_span } else { at.parent.span };
                    self.diagnostics.push(mistake.at(&at.document.origin.with_span(span)));
                }
            }
        }
    }

    /// GEP-1426: nothing may be inferred from `hostnames` at a Service.
    fn check_hostnames(&mut self, at: Attached<'_>) {
        if !at.route.hostnames.is_empty() {
            let warning =
                Diagnostic::warning("\"hostnames\" has no effect on a route that is attached to a Service")
                    .help("match the header Host instead");
            self.diagnostics.push(warning.at(&at.document.origin.with_span(at.route.hostnames_span)));
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
        let attached = self.of_one_kind(key, port, self.index.attached(key, port));
        if attached.is_empty() { Routing::Direct } else { Routing::Rules(self.ranked_rules(&attached)) }
    }

    /// Where there is a GRPCRoute, HTTPRoutes have no effect (GEP-1426, "Route types").
    fn of_one_kind(
        &mut self,
        key: &ServiceKey,
        port: &ServicePort,
        mut attached: Vec<Attached<'d>>,
    ) -> Vec<Attached<'d>> {
        let is_grpc = |at: &Attached<'_>| at.route.kind == RouteKind::Grpc;
        if !attached.iter().any(is_grpc) {
            return attached;
        }
        let conflict =
            format!("a GRPCRoute is attached to port {} of Service {key}, too, and goes first", port.number);
        let conflict = Diagnostic::warning(conflict).help("this HTTPRoute has no effect there");
        self.diagnostics.extend(
            attached
                .iter()
                .filter(|at| !is_grpc(at))
                .map(|at| conflict.clone().at(&at.document.origin.with_span(at.parent.span))),
        );
        attached.retain(is_grpc);
        attached
    }

    /// The rules of several routes, in the order in which they are tried.
    pub(super) fn ranked_rules(&mut self, attached: &[Attached<'d>]) -> Vec<Arc<Rule>> {
        let of_each: Vec<_> = attached.iter().map(|at| self.rules(*at)).collect();
        let mut ranked: Vec<&Ranked<'d>> = of_each.iter().flat_map(|rules| rules.iter()).collect();
        ranked.sort_by(|a, b| a.precedence.cmp(&b.precedence));
        ranked.into_iter().map(|ranked| Arc::clone(&ranked.rule)).collect()
    }

    /// The rules of a route, which are the same at each of its parents.
    fn rules(&mut self, at: Attached<'d>) -> Arc<[Ranked<'d>]> {
        let document: *const Document = at.document;
        let place = (document, at.needs_grant);
        if let Some(known) = self.rules.get(&place) {
            return Arc::clone(known);
        }
        let route = Arc::new(RouteData {
            kind: at.route.kind,
            key: ServiceKey { namespace: at.namespace.to_owned(), name: at.document.metadata.name.clone() },
            origin: at.document.origin.clone(),
            tags: at.document.metadata.tags.clone(),
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
                name: rule_name(route, rule, rule_at, match_at),
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
            rule: rule.name.clone(),
            filters: rule.filters.clone(),
            mirrors: self.mirrors(at, rule.filters.as_deref()),
            destination: self.destination(at, rule),
            timeouts: rule.timeouts,
            retry: rule.retry.clone(),
            session: rule.session.clone(),
            policy: self.policies.of_rule(route, rule.name.as_deref()),
        }
    }

    fn destination(&mut self, at: Attached<'d>, rule: &RouteRule) -> Destination {
        let shares: Vec<Share> =
            rule.backends.iter().filter_map(|weighted| self.share(at, rule, weighted)).collect();
        if shares.is_empty() { Destination::NoBackend } else { Destination::Forward(shares) }
    }

    /// A backend without a weight gets no requests, so that nothing is known of it but its reference.
    fn share(&mut self, at: Attached<'d>, rule: &RouteRule, weighted: &WeightedRef) -> Option<Share> {
        let backend = self.backend(at, &weighted.backend);
        let backend =
            backend.map_err(|mistake| self.leads_nowhere(at, &weighted.backend, mistake, &failing(at))).ok();
        let authority = backend.as_ref().and_then(|to| self.index.authority(&to.service, to.port));
        let subset = self.subset(at, rule, weighted, backend.as_ref());
        Some(Share {
            // Without the subset the requests would go where nobody wants them.
            backend: backend.filter(|_| subset.is_ok()),
            authority,
            subset: subset.unwrap_or_default(),
            weight: NonZeroU32::new(weighted.weight)?,
            filters: weighted.filters.clone().filter(|filters| !filters.only_choose_a_subset()),
            mirrors: self.mirrors(at, weighted.filters.as_deref()),
        })
    }

    /// The subset that the backend's own filters name, or else those of the rule.
    fn subset(
        &mut self,
        at: Attached<'_>,
        rule: &RouteRule,
        weighted: &WeightedRef,
        backend: Option<&Backend>,
    ) -> Result<Option<ChosenSubset>, NoSubset> {
        let mut both = [&weighted.filters, &rule.filters].into_iter().flatten();
        let wanted = both.find_map(|filters| filters.subset.as_ref());
        let (Some(wanted), Some(backend)) = (wanted, backend) else { return Ok(None) };
        let place = at.document.origin.with_span(wanted.span);
        self.find_subset(backend, &wanted.name).map(Some).map_err(|mistake| {
            self.diagnostics.push(mistake.at(&place));
            NoSubset
        })
    }

    fn find_subset(&self, backend: &Backend, name: &str) -> Result<ChosenSubset, Diagnostic> {
        let service = self.index.service(&backend.service)?;
        let port = service.ports.iter().find(|port| port.number == backend.port);
        let policy = port.and_then(|port| self.policies.of_port(&backend.service, &port.name));
        let subsets = policy.as_deref().and_then(|policy| policy.subsets.as_deref());
        if let Some(subset) = subsets.and_then(|subsets| subsets.get(name)) {
            return Ok(ChosenSubset { name: name.to_owned(), when_empty: subset.when_empty });
        }
        let mistake = Diagnostic::error(format!("Service {} has no subset {name:?}", backend.service))
            .leading_nowhere();
        Err(match subsets {
            Some(subsets) => mistake.nearest(name, subsets.names()),
            None => mistake.help("a TrafficPolicy for the Service says its subsets"),
        })
    }

    /// What cannot be mirrored to is left out (HTTPRequestMirrorFilter in the API reference).
    fn mirrors(&mut self, at: Attached<'d>, filters: Option<&Filters>) -> Vec<Mirror> {
        let mirrors = filters.map(|filters| filters.mirrors.as_slice()).unwrap_or_default();
        let resolved = mirrors.iter().filter_map(|mirror| match self.backend(at, &mirror.backend) {
            Ok(backend) => Some(Mirror { backend, share: mirror.share }),
            Err(mistake) => {
                self.leads_nowhere(at, &mirror.backend, mistake, "nothing is mirrored to it");
                None
            }
        });
        resolved.collect()
    }

    fn leads_nowhere(&mut self, at: Attached<'_>, reference: &BackendRef, mistake: Diagnostic, effect: &str) {
        let place = at.document.origin.with_span(reference.span);
        self.diagnostics.push(mistake.with_effect(effect).at(&place));
    }

    fn backend(&self, at: Attached<'_>, reference: &BackendRef) -> Result<Backend, Diagnostic> {
        let backend = reference.resolved(at.namespace);
        if at.needs_grant && !self.index.grants.permit(reference_of(at, &backend)) {
            let mistake =
                format!("Service {} is in another namespace, which does not permit it", backend.service);
            return Err(Diagnostic::error(mistake).leading_nowhere().help("add a ReferenceGrant there"));
        }
        let service = self.index.service(&backend.service)?;
        if service.ports.iter().any(|port| port.number == backend.port) {
            return Ok(backend);
        }
        Err(missing_port(&backend.service, &backend.port.to_string(), service))
    }
}

fn reference_of<'a>(at: Attached<'a>, to: &'a Backend) -> Reference<'a> {
    Reference {
        from: ("gateway.networking.k8s.io", at.route.kind.name()),
        from_namespace: at.namespace,
        to: ("", "Service"),
        to_namespace: &to.service.namespace,
        to_name: &to.service.name,
    }
}

/// What becomes of the requests for a backend that is not there (HTTPRouteRule.backendRefs, GRPCRouteRule.backendRefs).
fn failing(at: Attached<'_>) -> String {
    let answer = match at.route.kind {
        RouteKind::Http => "500",
        RouteKind::Grpc => "UNAVAILABLE",
    };
    format!("requests for it are answered with {answer}")
}

/// A rule without a name goes by its number; so does one that is called like a number.
fn rule_name(route: &RouteData, rule: &RouteRule, rule_at: usize, match_at: usize) -> String {
    let given = rule.name.as_deref().filter(|name| !name.bytes().all(|byte| byte.is_ascii_digit()));
    let rule = given.map_or_else(|| rule_at.to_string(), str::to_owned);
    match route.kind {
        RouteKind::Http => format!("{}/{rule}/{match_at}", route.key),
        RouteKind::Grpc => format!("{}/{}/{rule}/{match_at}", route.kind.name(), route.key),
    }
}
