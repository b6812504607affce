//! The nodes as the Kubernetes API has them.
//!
//! Of a `Node` four things count: its name, its age, `spec.podCIDRs`, and the first `InternalIP` of each family in
//! `status.addresses`. Everything else, heartbeats above all, changes nothing and wakes nobody.
//!
//! A node is taken away when the API says that it was deleted, or when a whole list does not have it. **A list that does
//! not even have this node is not believed**: whatever it is the list of (an API that was restored from an old backup, or
//! that has just been set up anew), the pods here and on the other nodes are still running. It is asked for again, and
//! until it is right nodes are added and changed, but none is taken away. For the same reason this node itself stays as it
//! was last when its `Node` is deleted.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Register;
use crate::kubernetes::{self, Api, Follower, Resource, Retry};
use crate::member::{Candidate, NodeName};
use crate::status::Board;

/// What comes within this time of a change is judged together with it: nodes come in bursts.
const GATHER: Duration = Duration::from_millis(50);

const NODES: Resource = Resource { versions: &["/api/v1"], plural: "nodes" };

/// Tells `register` of the nodes that `api` has.
pub(super) async fn follow(api: &Api, own: &NodeName, mut register: Register, board: &Board) -> Infallible {
    let (nodes, changed) = (RefCell::new(Nodes::new(own)), Notify::new());
    let mut follower = Listener { nodes: &nodes, changed: &changed, board };
    let publish = async {
        loop {
            changed.notified().await;
            sleep_until(Instant::now() + GATHER).await;
            let candidates = nodes.borrow().candidates();
            register.take(&candidates, &[]);
        }
    };
    tokio::select! {
        never = kubernetes::follow(api, NODES, &mut follower) => never,
        never = publish => never,
    }
}

/// The nodes that were told of, between the one who is told and the one who publishes.
struct Listener<'a> {
    nodes: &'a RefCell<Nodes>,
    changed: &'a Notify,
    board: &'a Board,
}

/// What is known of the nodes.
#[derive(Debug)]
struct Nodes {
    own: String,
    known: BTreeMap<String, Node>,
    /// The nodes of the list that is being told.
    listed: BTreeSet<String>,
    /// Whether a list has ever been believed.
    is_complete: bool,
    has_changed: bool,
    doubt: Option<String>,
}

/// What counts of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    created: String,
    addresses: Vec<String>,
    pod_cidrs: Vec<String>,
}

impl Nodes {
    fn new(own: &NodeName) -> Self {
        Self {
            own: own.as_str().to_owned(),
            known: BTreeMap::new(),
            listed: BTreeSet::new(),
            is_complete: false,
            has_changed: false,
            doubt: None,
        }
    }

    /// The oldest first: of two nodes that want the same it is the younger one that has made the mistake, and every node
    /// sees it so.
    fn candidates(&self) -> Vec<Candidate> {
        let mut nodes: Vec<_> = self.known.iter().collect();
        nodes.sort_by(|(name, node), (other, of_other)| {
            (&node.created, name).cmp(&(&of_other.created, other))
        });
        let candidate = |(name, node): (&String, &Node)| Candidate {
            name: name.clone(),
            addresses: node.addresses.clone(),
            pod_cidrs: node.pod_cidrs.clone(),
        };
        nodes.into_iter().map(candidate).collect()
    }

    fn begin(&mut self) {
        self.listed.clear();
        self.doubt = None;
    }

    fn apply(&mut self, object: &[u8]) {
        match read(object) {
            Ok((name, node)) => {
                self.has_changed |= self.known.get(&name) != Some(&node);
                self.known.insert(name.clone(), node);
                self.listed.insert(name);
            }
            Err(error) => self.doubt = Some(format!("a Node cannot be read: {error}")),
        }
    }

    fn delete(&mut self, object: &[u8]) {
        let Ok((name, _)) = read(object) else { return };
        if name == self.own {
            tracing::warn!(node = name, "the Node of this node was deleted; its pods stay connected");
        } else {
            self.has_changed |= self.known.remove(&name).is_some();
        }
    }

    fn end(&mut self) {
        if !self.listed.contains(&self.own) {
            let listed = self.listed.len();
            self.doubt =
                Some(format!("the list of nodes, {listed} of them, does not have this one, {}", self.own));
        }
        if self.doubt.is_none() {
            let before = self.known.len();
            self.known.retain(|name, _| self.listed.contains(name));
            self.has_changed |= self.known.len() != before || !self.is_complete;
            self.is_complete = true;
        }
        self.listed = BTreeSet::new();
    }

    /// Whether there is something new to publish; the next time there is something newer.
    fn take_changed(&mut self) -> bool {
        self.is_complete && std::mem::take(&mut self.has_changed)
    }
}

impl Follower for Listener<'_> {
    fn list_begins(&mut self) {
        self.nodes.borrow_mut().begin();
    }

    fn apply(&mut self, object: &[u8]) {
        self.nodes.borrow_mut().apply(object);
    }

    fn delete(&mut self, object: &[u8]) {
        self.nodes.borrow_mut().delete(object);
    }

    fn list_ends(&mut self) {
        self.nodes.borrow_mut().end();
    }

    fn settle(&mut self) -> Result<(), Retry> {
        let mut nodes = self.nodes.borrow_mut();
        if nodes.take_changed() {
            self.changed.notify_one();
        }
        nodes.doubt.take().map_or(Ok(()), |what| Err(Retry { what, source: None }))
    }

    fn absent(&mut self) {
        tracing::warn!("this is no API with nodes");
    }

    fn troubled(&mut self, trouble: Option<&str>) {
        self.board.follows(NODES.plural, trouble);
    }
}

fn read(object: &[u8]) -> serde_json::Result<(String, Node)> {
    let object: Object = serde_json::from_slice(object)?;
    let Object { metadata, spec, status } = object;
    let pod_cidrs = spec.pod_cidrs.unwrap_or_else(|| spec.pod_cidr.into_iter().collect());
    let addresses = first_of_each_family(status.addresses.unwrap_or_default());
    Ok((metadata.name, Node { created: metadata.created.unwrap_or_default(), addresses, pod_cidrs }))
}

/// The API allows several; the first is the one that kubelet calls the node's.
fn first_of_each_family(addresses: Vec<Address>) -> Vec<String> {
    let mut first: Vec<String> = Vec::new();
    for Address { kind, address } in addresses {
        let is_another = |given: &String| given.contains(':') != address.contains(':');
        if kind == "InternalIP" && first.iter().all(is_another) {
            first.push(address);
        }
    }
    first
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(rename = "creationTimestamp")]
    created: Option<String>,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
struct Status {
    addresses: Option<Vec<Address>>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, age: u8, subnet: &str) -> Vec<u8> {
        json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-0{age}T00:00:00Z")},
            "spec": {"podCIDR": subnet, "podCIDRs": [subnet]},
            "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "192.0.2.1"}]},
        })
        .to_string()
        .into_bytes()
    }

    fn names(nodes: &Nodes) -> Vec<String> {
        nodes.candidates().into_iter().map(|candidate| candidate.name).collect()
    }

    fn list(nodes: &mut Nodes, objects: &[Vec<u8>]) {
        nodes.begin();
        objects.iter().for_each(|object| nodes.apply(object));
        nodes.end();
    }

    fn known(objects: &[Vec<u8>]) -> Nodes {
        let mut nodes = Nodes::new(&"a".parse().unwrap());
        list(&mut nodes, objects);
        nodes
    }

    #[test]
    fn a_node_is_its_name_its_subnets_and_the_first_internal_address_of_each_family() {
        let addresses = |list: &[(&str, &str)]| -> Vec<Value> {
            list.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect()
        };
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "a", "uid": "x", "managedFields": [{"manager": "kubelet"}], "creationTimestamp": null},
            "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00::/64"], "taints": null},
            "status": {"images": [{"names": ["x"]}], "addresses": addresses(&[
                ("ExternalIP", "198.51.100.1"), ("InternalIP", "192.0.2.1"), ("InternalIP", "192.0.2.2"),
                ("InternalIP", "2001:db8::1"), ("Hostname", "a")])},
        });
        let (name, read) = read(object.to_string().as_bytes()).unwrap();
        assert_eq!(name, "a");
        assert_eq!(read.addresses, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(read.pod_cidrs, ["10.244.0.0/24", "fd00::/64"]);
    }

    #[test]
    fn a_node_that_has_only_just_joined_has_no_subnet_yet() {
        let (_, node) = read(br#"{"metadata": {"name": "a"}, "spec": {}}"#).unwrap();
        assert_eq!(node.pod_cidrs, Vec::<String>::new());
        let (_, node) = read(br#"{"metadata": {"name": "a"}, "spec": {"podCIDR": "10.0.0.0/24"}}"#).unwrap();
        assert_eq!(node.pod_cidrs, ["10.0.0.0/24"]);
    }

    #[test]
    fn a_heartbeat_is_no_change() {
        let mut nodes = known(&[node("a", 1, "10.244.0.0/24")]);
        assert!(nodes.take_changed());
        let mut beat: Value = serde_json::from_slice(&node("a", 1, "10.244.0.0/24")).unwrap();
        beat["status"]["conditions"] =
            json!([{"type": "Ready", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]);
        nodes.apply(beat.to_string().as_bytes());
        assert!(!nodes.take_changed());
        nodes.apply(&node("a", 1, "10.244.9.0/24"));
        assert!(nodes.take_changed());
        assert!(!nodes.take_changed());
    }

    #[test]
    fn the_oldest_node_comes_first() {
        let nodes =
            known(&[node("a", 3, "10.0.0.0/24"), node("b", 1, "10.0.1.0/24"), node("c", 2, "10.0.2.0/24")]);
        assert_eq!(names(&nodes), ["b", "c", "a"]);
    }

    #[test]
    fn what_a_whole_list_does_not_have_is_gone() {
        let all = [node("a", 1, "10.0.0.0/24"), node("b", 2, "10.0.1.0/24")];
        let mut nodes = known(&all);
        nodes.take_changed();
        list(&mut nodes, &all);
        assert!(!nodes.take_changed());
        list(&mut nodes, &all[..1]);
        assert!(nodes.take_changed());
        assert_eq!(names(&nodes), ["a"]);
    }

    #[test]
    fn a_list_without_this_node_takes_nobody_away() {
        let mut nodes = known(&[node("a", 1, "10.0.0.0/24"), node("b", 2, "10.0.1.0/24")]);
        for listed in [vec![], vec![node("c", 3, "10.0.2.0/24")]] {
            list(&mut nodes, &listed);
            assert!(nodes.doubt.is_some());
        }
        assert_eq!(names(&nodes), ["a", "b", "c"], "but it can bring one");
    }

    #[test]
    fn before_a_list_was_believed_nothing_is_published() {
        let mut nodes = known(&[node("b", 1, "10.0.0.0/24")]);
        assert!(!nodes.take_changed());
        list(&mut nodes, &[node("a", 1, "10.0.0.0/24")]);
        assert!(nodes.take_changed());
        assert_eq!(names(&nodes), ["a"]);
    }

    #[test]
    fn a_list_with_an_object_that_is_no_node_takes_nobody_away() {
        let mut nodes = known(&[node("a", 1, "10.0.0.0/24"), node("b", 2, "10.0.1.0/24")]);
        list(&mut nodes, &[node("a", 1, "10.0.0.0/24"), br#"{"metadata": {"name": 7}}"#.to_vec()]);
        assert_eq!(names(&nodes), ["a", "b"]);
    }

    #[test]
    fn others_can_be_deleted_and_this_node_stays_as_it_was() {
        let mut nodes = known(&[node("a", 1, "10.0.0.0/24"), node("b", 2, "10.0.1.0/24")]);
        nodes.delete(&node("b", 2, ""));
        nodes.delete(&node("a", 1, ""));
        assert_eq!(names(&nodes), ["a"]);
        assert_eq!(nodes.candidates()[0].pod_cidrs, ["10.0.0.0/24"]);
    }
}
