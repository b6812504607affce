//! Policies at their targets: references found, contradictions named, the more specific over the less.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::grants::Reference;
use super::index::{Index, missing_port};
use crate::diagnostic::Diagnostic;
use crate::model::policy::target::{TargetKind, TargetRef};
use crate::model::policy::{Policy, TrafficPolicy};
use crate::model::route::Route;
use crate::model::{Backend, Document, Object, RouteData, ServiceKey};

/// What is said of each target.
#[derive(Debug, Default)]
pub(super) struct Policies(BTreeMap<Target, Arc<Policy>>);

/// An object, or a section of one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    kind: TargetKind,
    key: ServiceKey,
    section: Option<String>,
}

/// What policies are resolved against.
struct Objects<'i, 'd> {
    index: &'i Index<'d>,
    routes: BTreeMap<(TargetKind, ServiceKey), &'d Route>,
}

impl Policies {
    /// What all policies among the documents, which are sorted, say together.
    pub(super) fn new(index: &Index<'_>, documents: &[&Document], diagnostics: &mut Vec<Diagnostic>) -> Self {
        let objects = Objects::new(index, documents);
        let mut policies = Self::default();
        for document in documents {
            if let Object::TrafficPolicy(policy) = &document.object {
                policies.attach(&objects, document, policy, diagnostics);
            }
        }
        policies
    }

    /// What holds for a port of a service.
    pub(super) fn of_port(&self, key: &ServiceKey, port: &str) -> Option<Arc<Policy>> {
        self.of(TargetKind::Service, key, Some(port).filter(|name| !name.is_empty()))
    }

    /// What holds for a rule of a route, beside what holds for the service whose requests it distributes.
    pub(super) fn of_rule(&self, route: &RouteData, rule: Option<&str>) -> Option<Arc<Policy>> {
        self.of(TargetKind::of(route.kind), &route.key, rule)
    }

    /// What holds for a section of a target, which is there or not.
    pub(super) fn of(
        &self,
        kind: TargetKind,
        key: &ServiceKey,
        section: Option<&str>,
    ) -> Option<Arc<Policy>> {
        let at = |section: Option<&str>| {
            self.0.get(&Target { kind, key: key.clone(), section: section.map(str::to_owned) })
        };
        match (section.and_then(|section| at(Some(section))), at(None)) {
            (Some(section), Some(whole)) => Some(Arc::new(section.over(whole))),
            (section, whole) => section.or(whole).cloned(),
        }
    }

    fn attach(
        &mut self,
        objects: &Objects<'_, '_>,
        document: &Document,
        policy: &TrafficPolicy,
        diagnostics: &mut Vec<Diagnostic>,
    ) {
        let namespace = objects.index.namespace(document);
        let mut resolved = policy.policy.clone();
        resolved.origins = vec![document.origin.clone()];
        for reference in resolved.references() {
            let backend = reference.resolved(namespace);
            reference.namespace = Some(backend.service.namespace.clone());
            if let Err(mistake) = objects.check_backend(namespace, &backend) {
                reference.leads_nowhere = true;
                let mistake =
                    mistake.leading_nowhere().with_effect("nobody is asked, as if it did not answer");
                diagnostics.push(mistake.at(&document.origin.with_span(reference.span)));
            }
        }
        let resolved = Arc::new(resolved);
        for target in &policy.targets {
            let key = ServiceKey { namespace: namespace.to_owned(), name: target.name.clone() };
            let mut place = target.span;
            let checked = objects.check(target, &key).and_then(|()| {
                place = target.section_span;
                objects.check_section(target, &key)
            });
            let added = checked.and_then(|()| {
                place = target.span;
                self.add(target, key, &resolved)
            });
            if let Err(mistake) = added {
                diagnostics.push(mistake.at(&document.origin.with_span(place)));
            }
        }
    }

    fn add(&mut self, target: &TargetRef, key: ServiceKey, policy: &Arc<Policy>) -> Result<(), Diagnostic> {
        let target = Target { kind: target.kind, key, section: target.section.clone() };
        let Some(earlier) = self.0.get_mut(&target) else {
            self.0.insert(target, Arc::clone(policy));
            return Ok(());
        };
        let twice: Vec<&str> = policy
            .said()
            .map(|(name, _)| name)
            .filter(|name| earlier.said().any(|(other, _)| other == *name))
            .collect();
        if twice.is_empty() {
            *earlier = Arc::new(earlier.over(policy));
            return Ok(());
        }
        let message = format!("two policies say {} of {target}", twice.join(", "));
        let places: Vec<String> = earlier.origins.iter().map(ToString::to_string).collect();
        let help = format!("the other is at {}", places.join(" and "));
        Err(Diagnostic::error(message).help(help).against(&earlier.origins))
    }
}

impl<'i, 'd> Objects<'i, 'd> {
    fn new(index: &'i Index<'d>, documents: &[&'d Document]) -> Self {
        let routes = documents.iter().filter_map(|document| {
            let key = ServiceKey {
                namespace: index.namespace(document).to_owned(),
                name: document.metadata.name.clone(),
            };
            match &document.object {
                Object::HttpRoute(route) | Object::GrpcRoute(route) => {
                    Some(((TargetKind::of(route.kind), key), route))
                }
                _ => None,
            }
        });
        Self { index, routes: routes.collect() }
    }

    fn check_backend(&self, namespace: &str, backend: &Backend) -> Result<(), Diagnostic> {
        let key = &backend.service;
        let reference = Reference {
            from: ("weft.dev", "TrafficPolicy"),
            from_namespace: namespace,
            to: ("", "Service"),
            to_namespace: &key.namespace,
            to_name: &key.name,
        };
        if key.namespace != namespace && !self.index.grants.permit(reference) {
            let mistake = format!("Service {key} is in another namespace, which does not permit it");
            return Err(Diagnostic::error(mistake).help("add a ReferenceGrant there"));
        }
        let service = self.index.service(key)?;
        let found = service.ports.iter().any(|other| other.number == backend.port);
        if found { Ok(()) } else { Err(missing_port(key, &backend.port.to_string(), service)) }
    }

    fn check(&self, target: &TargetRef, key: &ServiceKey) -> Result<(), Diagnostic> {
        if !target.kind.is_route() {
            return self.index.service(key).map(drop);
        }
        if self.routes.contains_key(&(target.kind, key.clone())) {
            return Ok(());
        }
        let same = |(kind, other): &&(TargetKind, ServiceKey)| {
            *kind == target.kind && other.namespace == key.namespace
        };
        let near = self.routes.keys().filter(same).map(|(_, other)| other.name.as_str());
        Err(Diagnostic::error(format!("there is no {} {key}", target.kind))
            .leading_nowhere()
            .nearest(&key.name, near))
    }

    fn check_section(&self, target: &TargetRef, key: &ServiceKey) -> Result<(), Diagnostic> {
        if let Some(route) = self.routes.get(&(target.kind, key.clone())) {
            let names = route.rules.iter().filter_map(|rule| rule.name.as_deref());
            return check_section("rule", target, key, names);
        }
        let service = self.index.service(key)?;
        check_section("port", target, key, service.ports.iter().map(|port| port.name.as_str()))
    }
}

fn check_section<'a>(
    what: &str,
    target: &TargetRef,
    key: &ServiceKey,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), Diagnostic> {
    let Some(section) = &target.section else { return Ok(()) };
    let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    if names.contains(&section.as_str()) {
        return Ok(());
    }
    let mistake = Diagnostic::error(format!("{} {key} has no {what} called {section:?}", target.kind))
        .leading_nowhere();
    Err(match names.as_slice() {
        [] => mistake.help(format!("none of its {what}s has a name")),
        names => mistake.help(format!("it has {}", names.join(", "))),
    })
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)?;
        match &self.section {
            Some(section) => write!(f, ", section {section:?}"),
            None => Ok(()),
        }
    }
}
