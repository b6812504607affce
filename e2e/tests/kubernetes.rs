//! Weft on a cluster: what `make e2e-kind` and `make e2e-k8s` run. Neither `make test` nor CI does; there is no cluster.
//!
//! It takes KUBECONFIG, kubectl and the name of the test image (WEFT_TEST_IMAGE), and nothing else of the cluster than what everybody can
//! see. Each test has a namespace of its own, which goes with it.

#![cfg(test)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_e2e::{output, wait};

const PATIENCE: Duration = Duration::from_secs(180);

#[test]
#[ignore = "it needs a cluster: make e2e-kind, make e2e-k8s"]
fn every_node_is_ready_and_its_agent_too() {
    kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=180s"]);
    await_rollout();
    for agent in names(&["-n", "weft-system", "get", "pods", "-l", "app.kubernetes.io/name=weft-node"]) {
        let status = kubectl(&["-n", "weft-system", "exec", &agent, "--", "weft-node", "status"]);
        assert!(!status.is_empty(), "{agent} says nothing");
    }
}

/// Between all nodes, in every family that the pods have, with packets as large as they may be.
#[test]
#[ignore = "it needs a cluster: make e2e-kind, make e2e-k8s"]
fn pods_reach_pods_on_every_node() {
    let shop = Namespace::new("reach");
    let nodes = nodes();
    for (index, node) in nodes.iter().enumerate() {
        shop.run(&web(&format!("web-{index}")), Some(node));
    }
    let pods: Vec<_> = (0..nodes.len()).map(|index| format!("web-{index}")).collect();
    pods.iter().for_each(|pod| shop.await_ready(pod));
    for from in &pods {
        for to in &pods {
            for address in shop.addresses(to) {
                assert_eq!(shop.get(from, &at(&address, 8080)), *to, "{from} to {to} at {address}");
                shop.exec(from, &["timeout", "5", "wget", "-q", "-O", "/dev/null", &big(&address)]);
            }
        }
    }
}

#[test]
#[ignore = "it needs a cluster: make e2e-kind, make e2e-k8s"]
fn names_of_a_service_without_an_address_lead_to_its_pods() {
    let shop = Namespace::new("names");
    shop.apply(&json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
        "spec": { "clusterIP": "None", "selector": { "app": "web-0" }, "ports": [{ "port": 8080 }] } }));
    shop.run(&web("web-0"), None);
    shop.run(&web("client"), None);
    ["web-0", "client"].iter().for_each(|pod| shop.await_ready(pod));
    let url = format!("http://web.{}.svc.cluster.local:8080/", shop.name);
    wait::until("the name of the service", PATIENCE, || match shop.try_get("client", &url) {
        Ok(answer) if answer == "web-0" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
}

#[test]
#[ignore = "it needs a cluster: make e2e-kind, make e2e-k8s"]
fn a_host_port_leads_to_its_pod_from_another_node() {
    const PORT: u16 = 18_080;
    let (shop, nodes) = (Namespace::new("ports"), nodes());
    let mut pod = web("web-0");
    pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 8080, "hostPort": PORT }]);
    shop.run(&pod, Some(&nodes[0]));
    shop.run(&web("client"), nodes.last());
    ["web-0", "client"].iter().for_each(|pod| shop.await_ready(pod));
    let host = kubectl(&["-n", &shop.name, "get", "pod", "web-0", "-o", "jsonpath={.status.hostIP}"]);
    assert_eq!(shop.get("client", &at(&host, PORT)), "web-0");
}

#[test]
#[ignore = "it needs a cluster: make e2e-kind, make e2e-k8s"]
fn an_annotation_limits_what_a_pod_sends() {
    let shop = Namespace::new("rates");
    let mut pod = web("web-0");
    pod["metadata"]["annotations"] = json!({ "kubernetes.io/egress-bandwidth": "8M" });
    // 4 MB at 1 MB a second.
    pod["spec"]["containers"][0]["args"][2] = json!(
        "dd if=/dev/zero of=/www/big bs=1000000 count=4 && echo web-0 >/www/index.html && exec httpd -f -p 8080 -h /www"
    );
    shop.run(&pod, None);
    shop.run(&web("client"), None);
    ["web-0", "client"].iter().for_each(|pod| shop.await_ready(pod));
    let url = big(&shop.addresses("web-0")[0]);
    let begun = Instant::now();
    shop.exec("client", &["wget", "-q", "-O", "/dev/null", &url]);
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(3), "4 MB took {took:?}, which is faster than 8 Mbit/s");
}

#[test]
#[ignore = "it needs a cluster: make e2e-kind, make e2e-k8s"]
fn no_request_fails_while_agents_are_restarted() {
    while_requests_go_on("restart", || {
        kubectl(&["-n", "weft-system", "rollout", "restart", "daemonset/weft-node"]);
        await_rollout();
    });
}

/// There and back again: the image WEFT_OTHER_IMAGE, which the nodes must have, and what was there before.
#[test]
#[ignore = "it needs a cluster: make e2e-kind, make e2e-k8s"]
fn no_request_fails_while_agents_are_upgraded() {
    let Ok(other) = std::env::var("WEFT_OTHER_IMAGE") else { return skipped("there is no WEFT_OTHER_IMAGE") };
    let path = "jsonpath={.spec.template.spec.containers[0].image}";
    let own = kubectl(&["-n", "weft-system", "get", "daemonset", "weft-node", "-o", path]);
    while_requests_go_on("upgrade", || {
        for image in [&other, &own] {
            let container = format!("weft-node={image}");
            kubectl(&["-n", "weft-system", "set", "image", "daemonset/weft-node", &container]);
            await_rollout();
        }
    });
}

/// WEFT_REBOOT is a program that turns the node of this name off and on again.
#[test]
#[ignore = "it needs a cluster: make e2e-kind, make e2e-k8s"]
fn a_node_that_was_rebooted_has_its_pods_again_and_no_lease_of_before() {
    let Ok(reboot) = std::env::var("WEFT_REBOOT") else { return skipped("there is no WEFT_REBOOT") };
    let (shop, nodes) = (Namespace::new("reboot"), nodes());
    let (first, last) = (&nodes[0], nodes.last().unwrap());
    for (pod, node) in [("web-0", first), ("web-1", first), ("client", last)] {
        shop.run(&web(pod), Some(node));
    }
    ["web-0", "web-1", "client"].iter().for_each(|pod| shop.await_ready(pod));
    output(Command::new("sh").args(["-c", &format!("{reboot} {first}")])).unwrap();
    for pod in ["web-0", "web-1"] {
        wait::until("a pod to be there again", PATIENCE, || {
            let addresses = shop.addresses(pod);
            let address = addresses.first().ok_or("no address")?;
            match shop.try_get("client", &at(address, 8080)) {
                Ok(answer) if answer == pod && shop.restarts(pod) == "1" => Ok(()),
                other => Err(format!("{address}: {other:?}")),
            }
        })
        .unwrap();
    }
    await_rollout();
    let (agent, ours) = (agent_of(first), format!("{}/", shop.name));
    assert_eq!(leases(&agent).matches(&ours).count(), 2, "{}", leases(&agent));
}

#[test]
#[ignore = "it needs a cluster: make e2e-kind, make e2e-k8s"]
fn a_node_that_was_drained_has_no_lease_of_what_was_evicted() {
    let (shop, nodes) = (Namespace::new("drain"), nodes());
    let node = nodes.last().unwrap();
    shop.run(&web("web-0"), Some(node));
    shop.await_ready("web-0");
    let (selector, agent) = (format!("weft-e2e={}", shop.name), agent_of(node));
    kubectl(&["-n", &shop.name, "label", "pod", "web-0", &selector]);
    kubectl(&[
        "drain",
        node,
        "--force",
        "--ignore-daemonsets",
        "--pod-selector",
        &selector,
        "--timeout=180s",
    ]);
    kubectl(&["uncordon", node]);
    await_no_lease(&agent, &format!("{}/", shop.name));
}

/// The example as it is, with the image's name put in.
#[test]
#[ignore = "it needs a cluster: make e2e-kind, make e2e-k8s"]
fn the_example_sends_whoever_asks_for_the_canary_to_the_canary() {
    if minor_version() < 29 {
        return skipped("native sidecars are of Kubernetes 1.29");
    }
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/canary");
    let manifests = kubectl(&["kustomize", example.to_str().unwrap()]).replace("weft.dev/test:1", &image());
    let _gone_afterwards = Namespace { name: "shop".to_owned() };
    apply(&manifests);
    for deployment in ["web-stable", "web-canary", "checkout"] {
        kubectl(&["-n", "shop", "rollout", "status", &format!("deployment/{deployment}"), "--timeout=180s"]);
    }
    let ask = |header: &str| {
        let line =
            ["wget", "-q", "-O", "-", "--header", "Host: web", "--header", header, "http://127.0.0.1:15001/"];
        kubectl(&[&["-n", "shop", "exec", "deployment/checkout", "-c", "checkout", "--"][..], &line].concat())
            .trim()
            .to_owned()
    };
    for _ in 0..10 {
        assert_eq!(ask("x-deployment-phase: canary"), "canary");
        assert_eq!(ask("x-nothing: nothing"), "stable");
    }
}

/// What pods have had is free again when they are gone: the agents count the leases of their nodes.
#[test]
#[ignore = "it needs a cluster: make e2e-kind, make e2e-k8s"]
fn pods_that_are_gone_leave_no_lease() {
    let shop = Namespace::new("leases");
    let node = &nodes()[0];
    let agent = agent_of(node);
    let pods: Vec<_> = (0..10).map(|index| format!("web-{index}")).collect();
    pods.iter().for_each(|pod| shop.run(&web(pod), Some(node)));
    pods.iter().for_each(|pod| shop.await_ready(pod));
    let ours = format!("{}/web-", shop.name);
    assert_eq!(leases(&agent).matches(&ours).count(), 10, "{}", leases(&agent));
    kubectl(&["-n", &shop.name, "delete", "pods", "--all", "--wait", "--timeout=180s"]);
    await_no_lease(&agent, &ours);
}

/// A pod of the last node asks one of the first, each time on a connection of its own, until the change has been made.
fn while_requests_go_on(name: &str, change: impl FnOnce()) {
    let (shop, nodes) = (Namespace::new(name), nodes());
    shop.run(&web("web-0"), Some(&nodes[0]));
    shop.run(&web("client"), nodes.last());
    ["web-0", "client"].iter().for_each(|pod| shop.await_ready(pod));
    let url = at(&shop.addresses("web-0")[0], 8080);
    // Twenty in one exec, so that most of the time is spent with asking.
    let many = format!("for i in $(seq 20); do timeout 2 wget -q -O /dev/null {url} || exit 1; done");
    let stop = AtomicBool::new(false);
    let count = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                shop.exec("client", &["sh", "-c", &many]);
                count += 20;
            }
            count
        });
        change();
        stop.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    assert!(count > 0);
}

fn await_rollout() {
    kubectl(&["-n", "weft-system", "rollout", "status", "daemonset/weft-node", "--timeout=180s"]);
}

/// The name of the agent's pod on a node.
fn agent_of(node: &str) -> String {
    let field = format!("spec.nodeName={node}");
    let mut agents = names(&[
        "-n",
        "weft-system",
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/name=weft-node",
        "--field-selector",
        &field,
    ]);
    agents.remove(0)
}

fn leases(agent: &str) -> String {
    kubectl(&["-n", "weft-system", "exec", agent, "--", "weft-ipam", "list"])
}

fn await_no_lease(agent: &str, of: &str) {
    wait::until("the end of the leases", PATIENCE, || match leases(agent) {
        left if left.contains(of) => Err(left),
        _ => Ok(()),
    })
    .unwrap();
}

/// Of Kubernetes 1.
fn minor_version() -> u32 {
    let version: Value = serde_json::from_str(&kubectl(&["version", "-o", "json"])).unwrap();
    let minor = version["serverVersion"]["minor"].as_str().unwrap();
    // Some providers write "29+".
    minor.trim_end_matches('+').parse().unwrap()
}

/// Written where the output of a test that passes is not kept back.
fn skipped(why: &str) {
    drop(writeln!(std::io::stderr(), "SKIPPED: {why}"));
}

/// A namespace of one test.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(name: &str) -> Self {
        let name = format!("weft-e2e-{name}-{}", std::process::id());
        kubectl(&["create", "namespace", &name]);
        Self { name }
    }

    fn apply(&self, object: &Value) {
        let mut object = object.clone();
        object["metadata"]["namespace"] = self.name.clone().into();
        apply(&object.to_string());
    }

    fn run(&self, pod: &Value, node: Option<&String>) {
        let mut pod = pod.clone();
        if let Some(node) = node {
            pod["spec"]["nodeName"] = node.clone().into();
        }
        self.apply(&pod);
    }

    fn await_ready(&self, pod: &str) {
        kubectl(&[
            "-n",
            &self.name,
            "wait",
            "--for=condition=Ready",
            &format!("pod/{pod}"),
            "--timeout=180s",
        ]);
    }

    fn addresses(&self, pod: &str) -> Vec<String> {
        let path = "jsonpath={range .status.podIPs[*]}{.ip}{\"\\n\"}{end}";
        let found = kubectl(&["-n", &self.name, "get", "pod", pod, "-o", path]);
        found.lines().map(str::to_owned).collect()
    }

    fn restarts(&self, pod: &str) -> String {
        let path = "jsonpath={.status.containerStatuses[0].restartCount}";
        kubectl(&["-n", &self.name, "get", "pod", pod, "-o", path])
    }

    fn exec(&self, pod: &str, line: &[&str]) -> String {
        kubectl(&[&["-n", &self.name, "exec", pod, "--"][..], line].concat())
    }

    fn get(&self, pod: &str, url: &str) -> String {
        self.try_get(pod, url).unwrap()
    }

    fn try_get(&self, pod: &str, url: &str) -> Result<String, String> {
        // Not `wget -T`: Debian's busybox 1.35 crashes of it.
        let line = ["-n", &self.name, "exec", pod, "--", "timeout", "5", "wget", "-q", "-O", "-", url];
        let answer = output(Command::new("kubectl").args(line)).map_err(|error| error.to_string())?;
        Ok(answer.trim().to_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let gone =
            Command::new("kubectl").args(["delete", "namespace", &self.name, "--timeout=180s"]).status();
        assert!(
            std::thread::panicking() || gone.is_ok_and(|status| status.success()),
            "{} is left",
            self.name
        );
    }
}

/// A pod that says its name on port 8080, and has 200 kB there.
fn web(name: &str) -> Value {
    let serve = format!(
        "dd if=/dev/zero of=/www/big bs=1000 count=200 && echo {name} >/www/index.html && exec httpd -f -p 8080 -h /www"
    );
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [{
                "name": "web",
                "image": image(),
                "imagePullPolicy": "IfNotPresent",
                "args": ["sh", "-c", serve],
                "readinessProbe": { "httpGet": { "port": 8080, "path": "/" }, "periodSeconds": 1 },
            }],
        },
    })
}

fn image() -> String {
    std::env::var("WEFT_TEST_IMAGE").unwrap_or_else(|_| "weft.dev/test:1".to_owned())
}

fn nodes() -> Vec<String> {
    let nodes = names(&["get", "nodes"]);
    assert!(!nodes.is_empty());
    nodes
}

/// The names of what a `get` gives.
fn names(get: &[&str]) -> Vec<String> {
    let path = "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}";
    kubectl(&[get, &["-o", path]].concat()).lines().map(str::to_owned).collect()
}

fn at(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("http://[{address}]:{port}/")
    } else {
        format!("http://{address}:{port}/")
    }
}

fn big(address: &str) -> String {
    format!("{}big", at(address, 8080))
}

fn apply(manifests: &str) {
    let mut child = kubectl_of(&["apply", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(manifests.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{manifests}");
}

#[track_caller]
fn kubectl(line: &[&str]) -> String {
    output(&mut kubectl_of(line)).unwrap()
}

fn kubectl_of(line: &[&str]) -> Command {
    let config = std::env::var_os("KUBECONFIG").map(PathBuf::from);
    assert!(config.is_some_and(|config| config.exists()), "KUBECONFIG must name a cluster's file");
    let mut command = Command::new("kubectl");
    command.args(line);
    command
}
