//! The nodes as the API has them, told to the agent.

#![cfg(test)]

#[path = "shared/kubernetes.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod stand_in;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stand_in::Kubernetes;
use tokio::sync::watch;
use tokio::time::timeout;
use weft_node::member::Members;
use weft_node::membership::{self, Known, Source};
use weft_node::status::Board;

const NODES: &str = "/api/v1/nodes";
const DEADLINE: Duration = Duration::from_secs(20);

fn node(name: &str, number: usize) -> Value {
    let (high, low) = (number / 250, number % 250 + 1);
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": format!("10.{high}.{low}.0/24"), "podCIDRs": [format!("10.{high}.{low}.0/24")]},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.{high}.{low}")}], "conditions": []},
    })
}

struct Ear(watch::Receiver<Known>);

impl Ear {
    async fn hears(&mut self, what: &str, is_so: impl Fn(&Members) -> bool) -> Arc<Members> {
        let known = self.0.wait_for(|known| known.as_deref().is_some_and(&is_so));
        let known = timeout(DEADLINE, known).await.unwrap_or_else(|_| panic!("{what}")).unwrap();
        Arc::clone(known.as_ref().unwrap())
    }

    async fn hears_nothing_for(&mut self, time: Duration) {
        self.0.mark_unchanged();
        assert!(timeout(time, self.0.changed()).await.is_err(), "told {:?}", *self.0.borrow());
    }
}

/// The node `a` follows the API while the script plays.
async fn followed<F: Future<Output = ()>>(kubernetes: &Kubernetes, script: impl FnOnce(Ear) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, kubernetes.kubeconfig()).unwrap();
    let (publish, known) = watch::channel(None);
    let source = Source::Kubernetes(Some(kubeconfig));
    tokio::select! {
        ended = membership::follow(source, "a".parse().unwrap(), publish, Board::default()) => panic!("{ended:?}"),
        () = script(Ear(known)) => {}
    }
}

fn cluster(names: &[&str]) -> Kubernetes {
    let kubernetes = Kubernetes::start();
    kubernetes.serve(NODES);
    names.iter().enumerate().for_each(|(number, name)| kubernetes.apply(NODES, node(name, number)));
    kubernetes
}

fn others(members: &Members) -> Vec<&str> {
    members.others.keys().map(|name| name.as_str()).collect()
}

#[tokio::test]
async fn nodes_come_change_and_go() {
    let kubernetes = cluster(&["a", "b"]);
    followed(&kubernetes, async |mut ear| {
        let members = ear.hears("b", |members| members.others.len() == 1).await;
        let own = members.own.as_ref().unwrap();
        assert_eq!(own.pod_cidrs, ["10.0.1.0/24".parse().unwrap()]);
        kubernetes.apply(NODES, node("c", 2));
        ear.hears("c", |members| others(members) == ["b", "c"]).await;
        kubernetes.apply(NODES, node("c", 9));
        let is_there =
            |members: &Members| members.get("c").unwrap().addresses.v4 == Some([192, 0, 0, 10].into());
        ear.hears("c elsewhere", is_there).await;
        kubernetes.delete(NODES, "", "b");
        ear.hears("no b", |members| others(members) == ["c"]).await;
    })
    .await;
}

#[tokio::test]
async fn heartbeats_wake_nobody() {
    let kubernetes = cluster(&["a", "b"]);
    followed(&kubernetes, async |mut ear| {
        ear.hears("b", |members| members.others.len() == 1).await;
        for beat in 0..50 {
            let mut object = node("b", 1);
            object["status"]["conditions"] = json!([{"type": "Ready", "lastHeartbeatTime": beat}]);
            kubernetes.apply(NODES, object);
        }
        ear.hears_nothing_for(Duration::from_millis(500)).await;
    })
    .await;
}

#[tokio::test]
async fn two_hundred_nodes_at_once_are_told_of_in_a_few_words() {
    let kubernetes = cluster(&["a"]);
    followed(&kubernetes, async |mut ear| {
        ear.hears("a", |members| members.own.is_some()).await;
        (1..=200).for_each(|number| kubernetes.apply(NODES, node(&format!("n{number}"), number)));
        let mut times = 0;
        while ear.0.borrow_and_update().as_ref().unwrap().others.len() < 200 {
            timeout(DEADLINE, ear.0.changed()).await.unwrap().unwrap();
            times += 1;
        }
        assert!(times <= 10, "told {times} times");
    })
    .await;
}

#[tokio::test]
async fn while_the_api_is_away_nobody_is() {
    let kubernetes = cluster(&["a", "b"]);
    followed(&kubernetes, async |mut ear| {
        ear.hears("b", |members| members.others.len() == 1).await;
        kubernetes.go_away();
        ear.hears_nothing_for(Duration::from_secs(2)).await;
        kubernetes.apply(NODES, node("c", 2));
        kubernetes.compact();
        kubernetes.come_back();
        ear.hears("c", |members| others(members) == ["b", "c"]).await;
    })
    .await;
}

#[tokio::test]
async fn an_api_that_is_away_from_the_beginning_is_not_an_empty_cluster() {
    let kubernetes = cluster(&["a", "b"]);
    kubernetes.go_away();
    followed(&kubernetes, async |mut ear| {
        ear.hears_nothing_for(Duration::from_secs(2)).await;
        assert!(ear.0.borrow().is_none());
    })
    .await;
}

#[tokio::test]
async fn an_api_that_has_forgotten_its_nodes_is_not_believed() {
    let kubernetes = cluster(&["a", "b"]);
    followed(&kubernetes, async |mut ear| {
        ear.hears("b", |members| members.others.len() == 1).await;
        kubernetes.go_away();
        kubernetes.delete(NODES, "", "a");
        kubernetes.delete(NODES, "", "b");
        kubernetes.compact();
        kubernetes.come_back();
        let lists = kubernetes.count("limit");
        ear.hears_nothing_for(Duration::from_secs(2)).await;
        assert!(kubernetes.count("limit") > lists, "it was asked");
        kubernetes.apply(NODES, node("c", 2));
        kubernetes.apply(NODES, node("a", 0));
        ear.hears("it is right again", |members| others(members) == ["c"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_node_that_is_not_in_the_api_yet_is_waited_for() {
    let kubernetes = cluster(&["b"]);
    followed(&kubernetes, async |mut ear| {
        ear.hears_nothing_for(Duration::from_secs(1)).await;
        assert!(ear.0.borrow().is_none());
        kubernetes.apply(NODES, node("a", 5));
        ear.hears("a", |members| members.own.is_some() && others(members) == ["b"]).await;
    })
    .await;
}
