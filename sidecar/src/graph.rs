//! The mesh as a picture: listeners, the names that they serve, routes, clusters and endpoints, and what leads where. As DOT, as
//! Mermaid, and as SVG without any other program.

mod svg;

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;

use crate::explain::{Action, Destination, Error, Target, action_of, destinations_of};
use crate::translate::Resources;

/// From what takes a connection to what answers it.
const LAYERS: usize = 5;

/// What leads where.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    /// From, to, and the share of requests that goes that way, if there are several.
    edges: Vec<(usize, usize, String)>,
    known: BTreeMap<(usize, String), usize>,
}

#[derive(Debug)]
struct Node {
    layer: usize,
    label: String,
}

/// What a listener does with connections.
#[derive(Debug)]
pub(crate) enum Leads {
    /// It routes by the route configuration of this name.
    Routes(String),
    /// It passes them on to this cluster.
    Cluster(String),
}

impl Graph {
    /// The graph of everything that Envoy is to have.
    ///
    /// # Errors
    /// Something is in it that has no place in the picture.
    pub fn of(resources: &Resources) -> Result<Self, Error> {
        let mut graph = Self::default();
        for listener in &resources.listeners {
            let from = graph.node(0, &listener.name);
            for leads in destinations_of(&listener.message) {
                match leads {
                    Leads::Cluster(name) => {
                        let to = Destination::of(resources, &name, None, None)?;
                        graph.destination(from, &to, String::new());
                    }
                    Leads::Routes(name) => {
                        let found = resources.routes.iter().find(|routes| routes.name == name);
                        found.map_or(Ok(()), |routes| graph.routes(from, resources, &routes.message))?;
                    }
                }
            }
        }
        Ok(graph)
    }

    /// For Graphviz.
    pub fn dot(&self) -> String {
        let mut text = "digraph mesh {\n  rankdir=LR;\n  node [shape=box, fontname=monospace];\n".to_owned();
        for (at, node) in self.nodes.iter().enumerate() {
            text.push_str(&format!("  n{at} [label={}];\n", quoted(&node.label)));
        }
        for (from, to, share) in &self.edges {
            let label = if share.is_empty() { String::new() } else { format!(" [label={}]", quoted(share)) };
            text.push_str(&format!("  n{from} -> n{to}{label};\n"));
        }
        text + "}"
    }

    /// For Markdown.
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart LR\n".to_owned();
        for (at, node) in self.nodes.iter().enumerate() {
            text.push_str(&format!("  n{at}[\"{}\"]\n", entities(&node.label)));
        }
        for (from, to, share) in &self.edges {
            let label = if share.is_empty() { String::new() } else { format!("|\"{}\"|", entities(share)) };
            text.push_str(&format!("  n{from} -->{label} n{to}\n"));
        }
        text.trim_end().to_owned()
    }

    /// For browsers.
    pub fn svg(&self) -> String {
        svg::draw(self)
    }

    fn routes(
        &mut self,
        from: usize,
        resources: &Resources,
        routes: &RouteConfiguration,
    ) -> Result<(), Error> {
        for host in &routes.virtual_hosts {
            let of_host = self.node(1, host.domains.first().unwrap_or(&host.name));
            self.edge(from, of_host, String::new());
            for route in &host.routes {
                let of_route = self.node(2, &route.name);
                self.edge(of_host, of_route, String::new());
                match action_of(resources, route)? {
                    Action::Forward(targets) => self.targets(of_route, &targets),
                    Action::Redirect(status) => self.answer(of_route, &format!("redirect {status}")),
                    Action::Answer(status) => self.answer(of_route, &format!("answer {status}")),
                }
            }
        }
        Ok(())
    }

    fn targets(&mut self, from: usize, targets: &[Target]) {
        let all: u64 = targets.iter().map(|target| u64::from(target.weight)).sum();
        for target in targets {
            let share = if targets.len() > 1 { format!("{}/{all}", target.weight) } else { String::new() };
            self.destination(from, &target.destination, share);
        }
    }

    fn destination(&mut self, from: usize, to: &Destination, share: String) {
        let cluster = self.node(3, &to.cluster.name);
        let tags: Vec<String> = to.subset.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let label = [share, tags.join(",")].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        self.edge(from, cluster, label.join(" "));
        for (address, _) in &to.endpoints {
            let endpoint = self.node(LAYERS - 1, address);
            self.edge(cluster, endpoint, String::new());
        }
    }

    fn answer(&mut self, from: usize, answer: &str) {
        let to = self.node(3, answer);
        self.edge(from, to, String::new());
    }

    fn node(&mut self, layer: usize, label: &str) -> usize {
        let new = self.nodes.len();
        let at = *self.known.entry((layer, label.to_owned())).or_insert(new);
        if at == new {
            self.nodes.push(Node { layer, label: label.to_owned() });
        }
        at
    }

    fn edge(&mut self, from: usize, to: usize, share: String) {
        let edge = (from, to, share);
        if !self.edges.contains(&edge) {
            self.edges.push(edge);
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// As HTML and XML have them.
fn entities(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Graph {
        let mut graph = Graph::default();
        let (listener, host) = (graph.node(0, "out"), graph.node(1, "<web> & \"co\""));
        graph.edge(listener, host, "1/2".into());
        graph.edge(listener, host, "1/2".into());
        assert_eq!(graph.node(0, "out"), listener);
        graph
    }

    #[test]
    fn labels_cannot_break_out() {
        let graph = small();
        assert!(graph.dot().contains("n1 [label=\"<web> & \\\"co\\\"\"];\n  n0 -> n1 [label=\"1/2\"];\n}"));
        assert!(graph.mermaid().ends_with("n1[\"&lt;web&gt; &amp; &quot;co&quot;\"]\n  n0 -->|\"1/2\"| n1"));
        let svg = graph.svg();
        assert!(svg.contains("&lt;web&gt; &amp; &quot;co&quot;") && !svg.contains("<web>"), "{svg}");
    }

    #[test]
    fn layers_stand_beside_each_other_and_nodes_below_each_other() {
        let mut graph = small();
        let second = graph.node(1, "another");
        graph.edge(0, second, String::new());
        let places = svg::places(&graph);
        assert!(places[0].0 < places[1].0 && places[1].0 == places[2].0, "{places:?}");
        assert!(places[1].1 < places[2].1, "{places:?}");
    }
}
