//! From a resource that Envoy rejects back to the line that somebody wrote.

use std::collections::BTreeMap;

use prost::Name;

use super::{Resources, Sourced, translate};
use crate::diagnostic::Origin;
use crate::model::Mesh;

/// A document that a resource was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its place, as near to the cause as is known.
    pub origin: Origin,
    /// Texts that Envoy would mention if this part were at fault: names, expressions.
    pub mentions: Vec<String>,
}

/// Which documents are behind each resource of a revision, by the message's name and its own.
#[derive(Debug, Clone, Default)]
pub struct Provenance(BTreeMap<(&'static str, String), Vec<Part>>);

impl Provenance {
    /// What each resource of `mesh` is made from. Nobody needs it before Envoy rejects something.
    pub fn of(mesh: &Mesh) -> Self {
        let Resources { clusters, endpoints, listeners, routes, secrets } = translate(mesh);
        let mut all = Self::default();
        all.add(clusters);
        all.add(endpoints);
        all.add(listeners);
        all.add(routes);
        all.add(secrets);
        all
    }

    fn add<M: Name>(&mut self, resources: Vec<Sourced<M>>) {
        self.0.extend(resources.into_iter().map(|resource| ((M::NAME, resource.name), resource.parts)));
    }

    /// The places to look at when Envoy says `reason` about a resource: those that it mentions, or else all
    /// that the resource was made from. Sorted, without repetitions.
    pub fn blame(&self, type_url: &str, name: &str, reason: &str) -> Vec<Origin> {
        let parts = self.parts(type_url, name);
        let mentioned = |part: &&Part| part.mentions.iter().any(|text| reason.contains(text.as_str()));
        let mut blamed: Vec<&Part> = parts.iter().filter(mentioned).collect();
        if blamed.is_empty() {
            blamed = parts.iter().collect();
        }
        origins(blamed)
    }

    /// Groups of places to suspect, the most likely first: patches, which nothing else has checked; what `reason` mentions; all.
    pub fn suspects(&self, type_url: &str, name: &str, reason: &str) -> Vec<Vec<Origin>> {
        let parts = self.parts(type_url, name);
        let mentioned = |part: &&Part| part.mentions.iter().any(|text| reason.contains(text.as_str()));
        let patches = origins(parts.iter().filter(|part| part.mentions.iter().any(String::is_empty)));
        vec![patches, origins(parts.iter().filter(mentioned)), origins(parts)]
    }

    fn parts(&self, type_url: &str, name: &str) -> &[Part] {
        let message = type_url.rsplit('.').next().unwrap_or_default();
        let of_this = self.0.iter().find(|((kind, known), _)| *kind == message && known == name);
        of_this.map(|(_, parts)| parts.as_slice()).unwrap_or_default()
    }
}

fn origins<'p>(parts: impl IntoIterator<Item = &'p Part>) -> Vec<Origin> {
    let mut origins: Vec<Origin> = parts.into_iter().map(|part| part.origin.clone()).collect();
    origins.sort_by(|a, b| (a.file(), a.span()).cmp(&(b.file(), b.span())));
    origins.dedup();
    origins
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::{Source, Span};

    fn part(line: usize, mentions: &str) -> Part {
        let source = Arc::new(Source { name: "r.yaml".into(), text: String::new() });
        let origin = Origin::new(&source, Span { line, column: 1, width: 1 });
        Part { origin, mentions: vec![mentions.into()] }
    }

    #[test]
    fn the_part_that_envoy_mentions_is_blamed_and_else_all_of_them() {
        let mut provenance = Provenance::default();
        let key = ("Route", "outbound".to_owned());
        provenance.0.insert(key, vec![part(9, "(["), part(3, "shop/web"), part(9, "([")]);
        let lines = |message: &str| -> Vec<usize> {
            provenance
                .blame("example.v3.Route", "outbound", message)
                .iter()
                .map(|origin| origin.span().line)
                .collect()
        };
        assert_eq!(lines("no matching ) in ([ of a route"), [9]);
        assert_eq!(lines("something else"), [3, 9]);
        assert!(provenance.blame("example.v3.Route", "unknown", "x").is_empty());
    }
}
