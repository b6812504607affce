//! The directory is what the API says, whatever happens to either.

#![cfg(test)]

#[path = "shared/kubernetes.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod stand_in;

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use stand_in::Kubernetes;
use tempfile::TempDir;
use tokio::task::LocalSet;
use tokio::time::timeout;
use weft_node::discovery::Discovery;
use weft_node::status::Board;

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
/// Each is asked for by itself.
const KINDS: usize = 9;
const DEADLINE: Duration = Duration::from_secs(20);

struct Fixture {
    kubernetes: Kubernetes,
    dir: TempDir,
}

impl Fixture {
    /// A cluster with what every cluster has, and the Gateway API's routes.
    fn new() -> Self {
        let kubernetes = Kubernetes::start();
        kubernetes.apply(SERVICES, service("default", "kubernetes"));
        kubernetes.apply(SLICES, slice("default", "kubernetes", "192.0.2.1"));
        kubernetes.serve(ROUTES);
        Self { kubernetes, dir: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    /// Keeps the directory while the script plays.
    async fn kept<F: Future<Output = ()>>(&self, script: impl FnOnce() -> F) {
        let kubeconfig = self.dir.path().join("kubeconfig");
        fs::write(&kubeconfig, self.kubernetes.kubeconfig()).unwrap();
        let tasks = LocalSet::new();
        let keeping = tasks.run_until(Discovery::new(self.root(), Some(kubeconfig)).keep(Board::default()));
        tokio::select! {
            ended = keeping => panic!("{ended:?}"),
            () = script() => {}
        }
    }

    async fn comes_to_be(&self, what: &str, mut is_so: impl FnMut(&Path) -> bool) {
        let root = self.root();
        let waiting = async {
            let mut looks = tokio::time::interval(Duration::from_millis(2));
            while !is_so(&root) {
                looks.tick().await;
            }
        };
        assert!(timeout(DEADLINE, waiting).await.is_ok(), "{what}: there are {:?}", files(&root));
    }

    async fn appears(&self, path: &str) {
        self.comes_to_be(path, |root| root.join(path).is_file()).await;
    }

    async fn disappears(&self, path: &str) {
        self.comes_to_be(path, |root| !root.join(path).exists()).await;
    }
}

/// A cluster of the script's own, whose directory is kept while it plays.
async fn with_directory(script: impl AsyncFnOnce(&Fixture, &Kubernetes)) {
    let fixture = Fixture::new();
    fixture.kept(async || script(&fixture, &fixture.kubernetes).await).await;
}

fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}]},
        "status": {"loadBalancer": {}},
    })
}

fn slice(namespace: &str, service: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{service}-x"), "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    })
}

fn route(name: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": []},
    })
}

#[tokio::test]
async fn the_directory_follows_the_api() {
    with_directory(async |fixture, kubernetes| {
        fixture.appears("default/service.kubernetes.json").await;
        fixture.appears("default/endpointslice.kubernetes-x.json").await;
        kubernetes.apply(SERVICES, service("shop", "web"));
        kubernetes.apply(SLICES, slice("shop", "web", "10.0.0.1"));
        kubernetes.apply(ROUTES, route("web"));
        for file in ["service.web.json", "endpointslice.web-x.json", "httproute.web.json"] {
            fixture.appears(&format!("shop/{file}")).await;
        }
        kubernetes.apply(SLICES, slice("shop", "web", "10.0.0.2"));
        let has_moved = |root: &Path| {
            let text = fs::read_to_string(root.join("shop/endpointslice.web-x.json"));
            text.is_ok_and(|text| text.contains("10.0.0.2"))
        };
        fixture.comes_to_be("the endpoint to change", has_moved).await;
        kubernetes.delete(ROUTES, "shop", "web");
        fixture.disappears("shop/httproute.web.json").await;
    })
    .await;
}

#[tokio::test]
async fn a_missing_definition_is_no_mistake() {
    with_directory(async |fixture, kubernetes| {
        fixture.appears("default/service.kubernetes.json").await;
        fixture.comes_to_be("looks for all kinds", |_| kubernetes.count("trafficpolicies") == 1).await;
        fixture.comes_to_be("both versions asked", |_| kubernetes.count("backendtlspolicies") == 2).await;
    })
    .await;
}

#[tokio::test]
async fn while_the_api_is_away_a_new_agent_leaves_the_directory_as_it_is() {
    let fixture = Fixture::new();
    let kubernetes = &fixture.kubernetes;
    kubernetes.apply(SERVICES, service("shop", "web"));
    fixture
        .kept(async || {
            fixture.appears("shop/service.web.json").await;
            fixture.appears("default/service.kubernetes.json").await;
            fixture.appears("default/endpointslice.kubernetes-x.json").await;
        })
        .await;
    let before = files(&fixture.root());
    kubernetes.go_away();
    fixture
        .kept(async || {
            fixture.comes_to_be("all kinds tried again", |_| kubernetes.refused() >= 2 * KINDS).await;
            assert_eq!(files(&fixture.root()), before);
            kubernetes.delete(SERVICES, "shop", "web");
            kubernetes.come_back();
            fixture.disappears("shop/service.web.json").await;
        })
        .await;
}

#[tokio::test]
async fn what_vanished_while_nobody_watched_is_removed() {
    with_directory(async |fixture, kubernetes| {
        kubernetes.apply(SERVICES, service("shop", "web"));
        fixture.appears("shop/service.web.json").await;
        kubernetes.go_away();
        kubernetes.delete(SERVICES, "shop", "web");
        kubernetes.apply(SERVICES, service("shop", "new"));
        kubernetes.compact();
        kubernetes.come_back();
        fixture.appears("shop/service.new.json").await;
        fixture.disappears("shop/service.web.json").await;
        assert!(fixture.root().join("shop").is_dir());
    })
    .await;
}

#[tokio::test]
async fn a_change_that_says_nothing_touches_no_file() {
    with_directory(async |fixture, kubernetes| {
        fixture.appears("default/endpointslice.kubernetes-x.json").await;
        let path = fixture.root().join("default/endpointslice.kubernetes-x.json");
        let changed = || fs::metadata(&path).unwrap().modified().unwrap();
        let before = changed();
        let mut touched = slice("default", "kubernetes", "192.0.2.1");
        touched["metadata"]["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": "x"});
        kubernetes.apply(SLICES, touched);
        kubernetes.apply(SLICES, slice("shop", "web", "10.0.0.1"));
        fixture.appears("shop/endpointslice.web-x.json").await;
        assert_eq!(changed(), before);
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_slices_are_kept_and_found_again() {
    let fixture = Fixture::new();
    for number in 0..10_000 {
        let namespace = format!("ns{:03}", number % 200);
        fixture.kubernetes.apply(SLICES, slice(&namespace, &format!("s{number}"), "10.0.0.1"));
    }
    for _ in 0..2 {
        let kubernetes = &fixture.kubernetes;
        let watches = kubernetes.count("endpointslices?watch");
        fixture
            .kept(async || {
                fixture
                    .comes_to_be("everything listed", |_| kubernetes.count("endpointslices?watch") > watches)
                    .await;
            })
            .await;
        assert_eq!(files(&fixture.root()).len(), 10_002);
    }
}
