//! What `inject`, `accessLog` and `tracing` of the `Sidecar` name.

use std::collections::{BTreeMap, BTreeSet};

use super::Resolver;
use super::index::missing_port;
use crate::diagnostic::{Diagnostic, Span};
use crate::model::reference::BackendRef;
use crate::model::service::AppProtocol;
use crate::model::sidecar::inject::{Logged, Named};
use crate::model::sidecar::observe::{Collector, Otlp, Sink};
use crate::model::tag::{Tag, header, merged};
use crate::model::telemetry::{
    AccessLog, BYTES_PER_SERIES, Injected, MAX_STATS_BYTES, Telemetry, Tracing, label,
};
use crate::model::{Backend, Destination, Document, Routing, ServiceKey, Services};

/// Labels of a series that are not tags.
const TAKEN_LABELS: &[&str] = &["le", "listener"];

impl Resolver<'_, '_> {
    /// `documents` are all there are, `services` those that have been resolved.
    pub(super) fn telemetry(&mut self, documents: &[&Document], services: &Services) -> Telemetry {
        self.check_spelling(documents);
        let sidecar = self.index.sidecar;
        let of_routes = documents.iter().flat_map(|document| &document.metadata.tags);
        let keys: BTreeSet<&str> = sidecar.tags.iter().chain(of_routes).map(|tag| tag.key.as_str()).collect();
        let sources = sidecar.sources.iter().map(|source| source.tag.as_str());
        let known: BTreeSet<&str> = keys.iter().copied().chain(sources).collect();
        let headers = sidecar.inject.request_headers.clone();
        let request_headers = match headers {
            Some(given) => self.named(&given, &known),
            None => sidecar.own_tags.clone(),
        };
        let response_headers = self.named(&sidecar.inject.response_headers, &known);
        let stats = self.stats(&known, services);
        let present = |named: Vec<String>| named.into_iter().filter(|key| keys.contains(key.as_str()));
        Telemetry {
            request_headers: self.injected(present(request_headers)),
            response_headers: self.injected(present(response_headers)),
            stats: present(stats).collect(),
            access_log: self.access_log(),
            tracing: self.tracing(),
            keys: keys.into_iter().map(str::to_owned).collect(),
        }
    }

    /// Headers and labels know no case, so that two spellings would be one tag in some places and two in others.
    fn check_spelling(&mut self, documents: &[&Document]) {
        let sidecar = self.index.sidecar;
        let sources = sidecar.sources.iter().map(|source| source.tag.as_str());
        let own = sidecar.own_tags.iter().map(String::as_str).chain(sources);
        let mut spelt: BTreeMap<String, &str> = own.map(|key| (key.to_ascii_lowercase(), key)).collect();
        for document in documents {
            for tag in &document.metadata.tags {
                let first = *spelt.entry(tag.key.to_ascii_lowercase()).or_insert(&tag.key);
                if first != tag.key {
                    let mistake = format!("the tag {:?} is spelt {first:?} elsewhere", tag.key);
                    self.diagnostics.push(Diagnostic::error(mistake).at(&document.origin));
                }
            }
        }
    }

    fn named(&mut self, given: &[Named], known: &BTreeSet<&str>) -> Vec<String> {
        let mut keys: Vec<String> = Vec::new();
        for Named { key, span } in given {
            if !known.contains(key.as_str()) {
                let mistake = Diagnostic::error(format!("there is no tag {key:?}")).leading_nowhere();
                self.blame(*span, mistake.nearest(key, known.iter().copied()));
            } else if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        keys
    }

    fn injected(&self, keys: impl Iterator<Item = String>) -> Vec<Injected> {
        let tags = &self.index.sidecar.tags;
        let always = |key: &str| tags.iter().any(|tag| tag.key == key);
        let mut injected: Vec<Injected> = keys.map(|key| Injected { always: always(&key), key }).collect();
        injected.sort_by_key(|tag| header(&tag.key));
        injected
    }

    /// The tags to count by, unless their values are so many that counting would cost too much.
    fn stats(&mut self, known: &BTreeSet<&str>, services: &Services) -> Vec<String> {
        let given = &self.index.sidecar.inject.stats;
        let keys = self.named(given, known);
        for (at, Named { key, span }) in given.iter().enumerate() {
            let name = label(key);
            let same = given.iter().take(at).find(|other| other.key != *key && label(&other.key) == name);
            if let Some(other) = same {
                let mistake = format!("tags {:?} and {key:?} would be the same label {name}", other.key);
                self.blame(*span, Diagnostic::error(mistake));
            } else if is_taken(&name) {
                self.blame(
                    *span,
                    Diagnostic::error(format!("a tag {key:?} cannot be the label {name} of statistics")),
                );
            }
        }
        let Some(first) = given.first() else { return keys };
        let series = series(&keys, &self.index.sidecar.tags, services);
        if series * BYTES_PER_SERIES > MAX_STATS_BYTES {
            let mistake = format!(
                "counting by {} would make {series} series, which cost Envoy about {} KiB; the most is {} KiB",
                keys.join(", "),
                (series * BYTES_PER_SERIES) >> 10,
                MAX_STATS_BYTES >> 10
            );
            let help = "count by tags that have few values; each value makes a series for each cluster";
            self.blame(first.span, Diagnostic::error(mistake).help(help));
        }
        keys
    }

    fn access_log(&mut self) -> Option<AccessLog> {
        let (inject, settings) = (&self.index.sidecar.inject, &self.index.sidecar.access_log);
        if inject.access_log == Logged::None {
            return None;
        }
        let sinks = settings.sinks.iter().filter_map(|sink| match sink {
            Sink::Stdout => Some(Sink::Stdout),
            Sink::File(path) => Some(Sink::File(path.clone())),
            Sink::Grpc { to, log_name } => {
                Some(Sink::Grpc { to: self.backend_of(to, true)?, log_name: log_name.clone() })
            }
        });
        let sinks = sinks.collect();
        Some(AccessLog { which: inject.access_log, sample: settings.sample, sinks })
    }

    fn tracing(&mut self) -> Option<Tracing> {
        let sidecar = self.index.sidecar;
        let share = sidecar.inject.tracing?;
        let collector = sidecar.collector.as_ref().and_then(|Collector { to, protocol, span }| {
            let to = self.backend_of(to, *protocol == Otlp::Grpc)?;
            Some(Collector { to, protocol: protocol.clone(), span: *span })
        });
        if sidecar.collector.is_none() {
            let warning = Diagnostic::warning(
                "traces go nowhere: trace ids are made and passed on, spans are forgotten",
            );
            let help = "name a Service that takes OTLP in spec.tracing.collector.backendRef";
            self.diagnostics.push(warning.help(help).at(self.sidecar_origin));
        }
        Some(Tracing { share, collector })
    }

    /// What the workload itself sends goes wherever its author says: no grant is asked for.
    fn backend_of(&mut self, reference: &BackendRef, grpc: bool) -> Option<Backend> {
        let namespace = reference.namespace.as_ref().unwrap_or(&self.index.sidecar.namespace);
        let key = ServiceKey { namespace: namespace.clone(), name: reference.name.clone() };
        match self.port_of(key, reference.port, grpc) {
            Ok(backend) => Some(backend),
            Err(mistake) => {
                self.blame(reference.span, mistake.leading_nowhere());
                None
            }
        }
    }

    fn port_of(&self, key: ServiceKey, number: u16, grpc: bool) -> Result<Backend, Diagnostic> {
        let service = self.index.service(&key)?;
        let Some(port) = service.ports.iter().find(|port| port.number == number) else {
            return Err(missing_port(&key, &number.to_string(), service));
        };
        if grpc && port.protocol != Some(AppProtocol::H2c) {
            return Err(Diagnostic::error(format!("gRPC is not spoken on port {number} of Service {key}"))
                .help("say so in the Service: appProtocol: grpc"));
        }
        Ok(Backend { service: key, port: number })
    }

    fn blame(&mut self, span: Span, mistake: Diagnostic) {
        self.diagnostics.push(mistake.at(&self.sidecar_origin.with_span(span)));
    }
}

fn is_taken(label: &str) -> bool {
    TAKEN_LABELS.contains(&label)
        || label.starts_with("envoy_")
        || label.starts_with(|c: char| c.is_ascii_digit())
}

/// How many sets of values there are, each for each cluster that it can come with.
fn series(keys: &[String], own: &[Tag], services: &Services) -> usize {
    let mut found: BTreeSet<(Vec<Option<String>>, String)> = BTreeSet::new();
    let values = |tags: &[Tag]| -> Vec<Option<String>> {
        keys.iter().map(|key| tags.iter().find(|tag| tag.key == *key).map(|tag| tag.value.clone())).collect()
    };
    for (key, service) in services {
        for port in &service.ports {
            match &port.routing {
                Routing::Direct => {
                    let to = Backend { service: ServiceKey::clone(key), port: port.number };
                    found.insert((values(own), to.to_string()));
                }
                Routing::Rules(rules) => {
                    for rule in rules {
                        let values = values(&merged(own, &rule.action.route.tags));
                        let to = destinations(&rule.action.destination);
                        found.extend(to.map(|to| (values.clone(), to)));
                    }
                }
            }
        }
    }
    // And one for requests that no route takes.
    found.len() + 1
}

fn destinations(of: &Destination) -> impl Iterator<Item = String> {
    let shares = match of {
        Destination::Forward(shares) => shares.as_slice(),
        Destination::NoBackend => &[],
    };
    shares.iter().filter_map(|share| share.backend.as_ref()).map(ToString::to_string)
}
