//! `loadBalancing.locality`: near endpoints first.

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostic;
use crate::read::decode::{Report, integer, one_of, text};
use crate::read::{Node, Value};

/// Which endpoints are preferred.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locality {
    /// The nearest take everything as long as enough of them are healthy.
    Failover(Failover),
    /// Each zone takes its share, in proportion to these; a zone without one takes none.
    Weights(BTreeMap<String, u32>),
}

/// Who comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// What is near, the nearest first. Never empty.
    pub prefer: Vec<Near>,
    /// The zones that come next, the first of them first; all other endpoints come last.
    pub zones: Vec<String>,
    /// Endpoints that are farther away take over little by little when less than 100 divided by this, in percent, of the
    /// nearer ones are healthy. Envoy's default is 140: 71 %.
    pub overprovisioning: Option<u32>,
}

/// What an endpoint has in common with this workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Near {
    /// The node.
    Node,
    /// The zone.
    Zone,
}

/// Where an endpoint is, as its `EndpointSlice` says, or this workload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place<'a> {
    /// The zone.
    pub zone: Option<&'a str>,
    /// The node.
    pub node: Option<&'a str>,
}

impl Failover {
    /// How far an endpoint is from `own`: 0 for the nearest. Distances that no endpoint has are for the caller to close up.
    pub fn distance(&self, own: Place<'_>, of: Place<'_>) -> usize {
        let shares = |near: &Near| match near {
            Near::Node => of.node.is_some() && of.node == own.node,
            Near::Zone => of.zone.is_some() && of.zone == own.zone,
        };
        let nearest = self.prefer.iter().position(shares);
        let by_name = || self.zones.iter().position(|zone| of.zone == Some(zone.as_str()));
        nearest
            .or_else(|| by_name().map(|at| self.prefer.len() + at))
            .unwrap_or(self.prefer.len() + self.zones.len())
    }
}

/// Reads `locality`.
pub(super) fn decode(node: &Node, report: &mut Report) -> Option<Locality> {
    let mut fields = report.fields(node, "locality")?;
    let prefer = fields.list("prefer", one_of(&[("Node", Near::Node), ("Zone", Near::Zone)]));
    let zones = fields.list("failover", text);
    let overprovisioning = fields.optional("overprovisioning", integer(100, 10_000));
    let weights = fields.optional("weights", weights);
    let failing_over =
        ["prefer", "failover", "overprovisioning"].iter().any(|field| node.get(field).is_some());
    if failing_over && node.get("weights").is_some() {
        fields.error::<()>("locality has either \"weights\" or \"prefer\" and \"failover\"");
    }
    if node.get("weights").is_none() && prefer.is_empty() && zones.is_empty() {
        let help = "add prefer: [Zone], or weights: { ZONE: WEIGHT }";
        let span = node.span;
        fields.report().add::<()>(span, Diagnostic::error("locality prefers nothing").help(help));
    }
    fields.finish();
    match weights {
        Some(weights) => Some(Locality::Weights(weights)),
        None => Some(Locality::Failover(Failover { prefer, zones, overprovisioning })),
    }
}

fn weights(node: &Node, report: &mut Report) -> Option<BTreeMap<String, u32>> {
    let Value::Map(entries) = &node.value else {
        return report.error(node.span, format!("a mapping is expected, this is {}", node.described()));
    };
    let weight = integer(1, 1_000_000);
    let pairs = entries.iter().filter_map(|entry| Some((entry.key.clone(), weight(&entry.value, report)?)));
    Some(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{good, mistakes};
    use super::*;

    fn place<'a>(zone: &'a str, node: &'a str) -> Place<'a> {
        Place { zone: Some(zone), node: Some(node) }
    }

    #[test]
    fn the_node_is_nearer_than_the_zone_and_named_zones_come_in_their_order() {
        let Locality::Failover(failover) = good("{prefer: [Node, Zone], failover: [b, c]}", decode) else {
            panic!("weights")
        };
        let own = place("a", "n1");
        let table =
            [("a", "n1", 0), ("a", "n2", 1), ("b", "n3", 2), ("c", "n4", 3), ("d", "n5", 4), ("x", "n1", 0)];
        for (zone, node, distance) in table {
            assert_eq!(failover.distance(own, place(zone, node)), distance, "{zone} {node}");
        }
        assert_eq!(failover.distance(own, Place::default()), 4);
        assert_eq!(failover.distance(Place::default(), Place::default()), 4, "unknown is not the same");
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(
            mistakes("{}", decode),
            ["1:4 locality prefers nothing (add prefer: [Zone], or weights: { ZONE: WEIGHT })"]
        );
        assert_eq!(
            mistakes("{prefer: [zone], weights: {a: 0}}", decode),
            [
                "1:14 \"zone\" is not one of Node, Zone (did you mean \"Zone\"?)",
                "1:34 a whole number from 1 to 1000000 is expected, this is the number 0",
                "1:4 locality has either \"weights\" or \"prefer\" and \"failover\"",
            ]
        );
    }
}
