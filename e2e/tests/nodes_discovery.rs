//! From the Kubernetes API to a request: `weft-node` keeps files, `weft-sidecar` reads them, Envoy serves what they say.

#![cfg(test)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_e2e::{Client, Envoy, Kubernetes, Node, Pod, Process, Upstream, binaries, mesh, output, wait};

const PATIENCE: Duration = Duration::from_secs(30);

const NODES: &str = "/api/v1/nodes";
const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
const GRANTS: &str = "/apis/gateway.networking.k8s.io/v1beta1/referencegrants";

const SIDECAR: &str = "
apiVersion: weft.dev/v1alpha1
kind: Sidecar
metadata: { name: checkout, namespace: shop }
";

/// A node with an API beside it, whose `weft-node` keeps `/run/node/discovery`.
struct Fixture {
    kubernetes: Kubernetes,
    node: Node,
    agent: Option<Process>,
}

impl Fixture {
    fn start() -> Self {
        let node = Node::start().unwrap();
        let listener = node.run(|| TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
        let kubernetes = Kubernetes::on(listener);
        as_a_cluster_has_them(&kubernetes);
        node.write("/run/node/kubeconfig", &kubernetes.kubeconfig()).unwrap();
        let mut fixture = Self { kubernetes, node, agent: None };
        fixture.start_agent();
        fixture
    }

    fn start_agent(&mut self) {
        let mut command = Command::new(binaries::weft("weft-node").unwrap());
        command.args(["run", "--node-name", "a", "--kubeconfig", "/run/node/kubeconfig"]);
        command.args(["--discovery-dir", "/run/node/discovery"]);
        // What it does beside is not for the machine that the test runs on.
        command.args(["--bin-dir", "/run/node/bin", "--conf-dir", "/run/node/conf", "--cri-socket", "none"]);
        self.agent = Some(self.node.spawn(command).unwrap());
    }

    fn awaits(&mut self, what: &str, mut look: impl FnMut(&Path) -> bool + Send) {
        let root = PathBuf::from("/run/node/discovery");
        let (node, agent) = (&self.node, self.agent.as_mut().unwrap());
        wait::until(what, PATIENCE, || match node.run(|| look(&root)).unwrap() {
            true => Ok(()),
            false => Err(agent.last_words()),
        })
        .unwrap();
    }

    fn awaits_files(&mut self, paths: &[&str]) {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        self.awaits("the files", move |root| paths.iter().all(|path| root.join(path).is_file()));
    }

    fn validate(&self, directories: &[&str]) {
        let mut command = Command::new(binaries::weft("weft-sidecar").unwrap());
        command.arg("validate").arg("/run/node/own").args(directories);
        self.node.run(|| output(&mut command)).unwrap().unwrap();
    }
}

/// Objects as `kubectl get -o json --show-managed-fields` prints those of a running cluster.
fn as_a_cluster_has_them(kubernetes: &Kubernetes) {
    kubernetes.apply(
        NODES,
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
            "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
        }),
    );
    kubernetes.apply(SERVICES, json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "type": "ClusterIP",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
        },
        "status": {"loadBalancer": {}},
    }));
    kubernetes.apply(SLICES, json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
    }));
    let odd = [
        json!({"type": "ClusterIP", "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
               "internalTrafficPolicy": "Local", "trafficDistribution": "PreferSameZone", "selector": {"app": "odd"},
               "ports": [{"name": "pg", "port": 5432, "targetPort": "pg", "protocol": "TCP", "appProtocol": "postgresql"},
                         {"name": "s", "port": 443, "targetPort": 443, "protocol": "TCP", "appProtocol": "https"},
                         {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"}]}),
        json!({"type": "ExternalName", "externalName": "db.example.com", "sessionAffinity": "None"}),
        json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": true, "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
               "externalIPs": ["198.51.100.1"], "loadBalancerSourceRanges": ["0.0.0.0/0"],
               "ports": [{"name": "http", "nodePort": 30080, "port": 80, "targetPort": 8080, "protocol": "TCP", "appProtocol": "http"}]}),
        json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "publishNotReadyAddresses": true, "selector": {"app": "peers"}}),
    ];
    for (number, spec) in odd.into_iter().enumerate() {
        kubernetes.apply(SERVICES, json!({
            "apiVersion": "v1", "kind": "Service", "spec": spec, "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}},
            "metadata": {"name": format!("odd{number}"), "namespace": "shop", "finalizers": ["service.kubernetes.io/load-balancer-cleanup"],
                         "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{\"x\":1}\n", "weft.dev/unknown": "x"}},
        }));
    }
    kubernetes.apply(SLICES, json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": null, "ports": null,
        "metadata": {"name": "odd3-abcde", "generateName": "odd3-", "namespace": "shop",
                     "labels": {"kubernetes.io/service-name": "odd3", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                                "service.kubernetes.io/headless": ""},
                     "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "odd3", "uid": "u", "controller": true}]},
    }));
    kubernetes.apply(ROUTES, json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "public", "namespace": "shop"},
        "spec": {"parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "somebody-elses"}],
                 "rules": [{"filters": [{"type": "ExtensionRef", "extensionRef": {"group": "example.com", "kind": "Filter", "name": "x"}}]}]},
        "status": {"parents": [{"controllerName": "example.com/gateway", "parentRef": {"name": "somebody-elses"}}]},
    }));
    kubernetes.apply(GRANTS, json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant", "metadata": {"name": "g", "namespace": "shop"},
        "spec": {"from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "other"}], "to": [{"group": "", "kind": "Service"}]},
    }));
}

fn apply_web(kubernetes: &Kubernetes) {
    kubernetes.apply(
        SERVICES,
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"type": "ClusterIP", "clusterIP": "10.96.7.7", "selector": {"app": "web"},
                     "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]},
        }),
    );
    kubernetes.apply(ROUTES, json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web", "namespace": "shop", "generation": 1},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
                 "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                            "backendRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 1}]}]},
        "status": {"parents": []},
    }));
}

fn slice_of_web(port: u16) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-x7k2p", "generateName": "web-", "namespace": "shop",
                     "labels": {"kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                     "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"}},
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false},
                       "nodeName": "a", "zone": "z", "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "shop"}}],
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    })
}

#[test]
fn sidecars_take_what_a_cluster_has_as_it_is() {
    let mut fixture = Fixture::start();
    apply_web(&fixture.kubernetes);
    fixture.kubernetes.apply(SLICES, slice_of_web(8081));
    fixture.awaits_files(&[
        "default/service.kubernetes.json",
        "default/endpointslice.kubernetes.json",
        "shop/service.odd0.json",
        "shop/service.odd2.json",
        "shop/service.odd3.json",
        "shop/endpointslice.odd3-abcde.json",
        "shop/service.web.json",
        "shop/endpointslice.web-x7k2p.json",
        "shop/httproute.web.json",
        "shop/referencegrant.g.json",
        "shop/gateways/httproute.public.json",
    ]);
    fixture.node.write("/run/node/own/sidecar.yaml", SIDECAR).unwrap();
    fixture.validate(&["/run/node/discovery/shop"]);
    fixture.validate(&["/run/node/discovery/shop", "/run/node/discovery/default"]);
    let has_external_name =
        fixture.node.run(|| Path::new("/run/node/discovery/shop/service.odd1.json").exists());
    assert!(!has_external_name.unwrap(), "nobody knows what db.example.com speaks");
}

#[test]
fn an_endpoint_that_changes_in_the_api_moves_the_requests() {
    const CHANGES: usize = 20;
    let mut fixture = Fixture::start();
    apply_web(&fixture.kubernetes);
    fixture.kubernetes.apply(SLICES, slice_of_web(8081));
    fixture.awaits_files(&[
        "shop/service.web.json",
        "shop/endpointslice.web-x7k2p.json",
        "shop/httproute.web.json",
    ]);
    let pod = Pod::create(&fixture.node, "client").unwrap();
    let _upstreams =
        [(8081, "v1"), (8082, "v2")].map(|(port, name)| Upstream::start(&pod, port, name).unwrap());
    let (_sidecar, _envoy) = sidecar_and_envoy(&fixture, &pod);
    let mut client = Client::from(&pod, mesh::OUTBOUND).unwrap();
    assert_eq!(answerer(&mut client), "v1");

    let mut times: Vec<Duration> = Vec::new();
    for change in 0..CHANGES {
        let (port, name, former) = if change % 2 == 0 { (8082, "v2", "v1") } else { (8081, "v1", "v2") };
        // What changes within 20 ms of a change is gathered by the sidecar.
        let quiet = Instant::now();
        while quiet.elapsed() < Duration::from_millis(40) {
            assert_eq!(answerer(&mut client), former);
        }
        let began = Instant::now();
        fixture.kubernetes.apply(SLICES, slice_of_web(port));
        while answerer(&mut client) != name {
            assert!(
                began.elapsed() < PATIENCE,
                "{name} never answers; {}",
                fixture.agent.as_mut().unwrap().last_words()
            );
        }
        times.push(began.elapsed());
    }
    times.sort();
    println!(
        "from the API to the first request at the new endpoint: p50 {:?}, most {:?}",
        times[CHANGES / 2],
        times[CHANGES - 1]
    );

    // Without API and without agent everything stays as it is.
    fixture.kubernetes.go_away();
    drop(fixture.agent.take());
    assert_eq!(answerer(&mut client), "v1");
    fixture.start_agent();
    fixture.kubernetes.apply(SLICES, slice_of_web(8082));
    assert_eq!(answerer(&mut client), "v1");
    fixture.kubernetes.come_back();
    wait::until("v2 to answer", PATIENCE, || match answerer(&mut client) {
        name if name == "v2" => Ok(()),
        name => Err(name),
    })
    .unwrap();
}

/// As a pod has them that mounts the directory of its namespace.
fn sidecar_and_envoy(fixture: &Fixture, pod: &Pod) -> (Process, Envoy) {
    fixture.node.write("/run/node/own/sidecar.yaml", SIDECAR).unwrap();
    let config = ["--config", "/run/node/own", "--config", "/run/node/discovery/shop"];
    let program = || Command::new(binaries::weft("weft-sidecar").unwrap());
    let (mut bootstrap, mut run) = (program(), program());
    bootstrap.arg("bootstrap").args(config);
    run.args(["run", "--log-format", "json"]).args(config);
    let bootstrap = fixture.node.run(|| output(&mut bootstrap)).unwrap().unwrap();
    let sidecar = pod.spawn(run).unwrap();
    let mut envoy = Envoy::launch(pod, &bootstrap, mesh::ADMIN).unwrap();
    envoy.await_ready(PATIENCE).unwrap_or_else(|error| panic!("{error}; {}", sidecar.log()));
    (sidecar, envoy)
}

/// Who answers a request to `web`. Every request is answered.
fn answerer(client: &mut Client) -> String {
    let answer = client.get("web", "/", &[]).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.echo().unwrap().name
}

#[test]
fn the_files_are_for_everybody_to_read_and_nobody_to_write() {
    use std::os::unix::fs::PermissionsExt;
    let mut fixture = Fixture::start();
    fixture.awaits_files(&["default/service.kubernetes.json"]);
    for (path, expected) in [("", 0o755), ("default", 0o755), ("default/service.kubernetes.json", 0o644)] {
        let mode = fixture
            .node
            .run(|| fs::metadata(Path::new("/run/node/discovery").join(path)).unwrap().permissions().mode());
        assert_eq!(mode.unwrap() & 0o7777, expected, "{path}");
    }
}
