//! The mesh half on real parts: files are saved, and a real Envoy does what they say.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use weft_e2e::mesh::{OUTBOUND, service, sidecar};
use weft_e2e::{Client, Files, Mesh, Node, Pod, wait};

const A_SECOND: Duration = Duration::from_secs(1);
/// What takes longer on a busy machine than it should.
const PATIENCE: Duration = Duration::from_secs(20);

const SIDECAR: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Sidecar
metadata: { name: checkout, namespace: shop }
spec:
  tags: { version: v2, discount: 50% off, team: payments }
  inject: { requestHeaders: [version, discount] }
";

/// A route for `web`; its rules begin in line 7.
fn route(rules: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: web, namespace: shop }}
spec:
  parentRefs: [{{ group: \"\", kind: Service, name: web }}]
  rules:
{rules}"
    )
}

fn all_to(name: &str) -> String {
    route(&format!("    - backendRefs: [{{ name: {name}, port: 80 }}]\n"))
}

fn start(routes: &str) -> Mesh {
    start_with(|files| prepare(files, routes))
}

fn prepare(files: &Files<'_>, routes: &str) -> weft_e2e::Result<()> {
    files.save("sidecar.yaml", SIDECAR)?;
    files.save("web.yaml", &services())?;
    files.save("routes.yaml", routes)
}

fn start_with(prepare: impl FnOnce(&Files<'_>) -> weft_e2e::Result<()>) -> Mesh {
    Mesh::start(&[(8081, "v1"), (8082, "v2")], prepare).unwrap()
}

fn stat(mesh: &Mesh, name: &str) -> u64 {
    mesh.stat(name).unwrap().unwrap_or_else(|| panic!("there is no {name}"))
}

/// `web` with all endpoints, and one service for each version behind it.
fn services() -> String {
    service("web", 8081) + &service("web-v1", 8081) + &service("web-v2", 8082)
}

#[test]
fn requests_are_routed_by_path_header_and_weight() {
    let mesh = start(&route(
        "    - matches: [{ path: { type: Exact, value: /only/v2 } }, { path: { value: /v2 } }]
      backendRefs: [{ name: web-v2, port: 80 }]
    - matches: [{ headers: [{ name: x-deployment-phase, value: canary }] }]
      backendRefs: [{ name: web-v2, port: 80 }]
    - matches: [{ path: { value: /split } }]
      backendRefs: [{ name: web-v1, port: 80, weight: 1 }, { name: web-v2, port: 80, weight: 1 }]
    - matches: [{ path: { value: /none } }]
      backendRefs: [{ name: web-v1, port: 80, weight: 0 }]
    - matches: [{ path: { value: /v1 } }, { path: { value: /only } }]
      backendRefs: [{ name: web-v1, port: 80 }]
",
    ));
    for (path, headers, upstream) in [
        ("/only/v2", &[][..], "v2"),
        ("/only/v2/not", &[], "v1"),
        ("/v2", &[], "v2"),
        ("/v2/deeper?q=1", &[], "v2"),
        ("/v1", &[], "v1"),
        ("/v1", &[("x-deployment-phase", "stable")], "v1"),
        ("/other", &[("x-deployment-phase", "canary")], "v2"),
    ] {
        assert_eq!(mesh.echo(path, headers).unwrap().name, upstream, "{path} {headers:?}");
    }
    assert_eq!(mesh.ask("/v2x", &[]).unwrap().status, 404, "a prefix is of whole elements");
    assert_eq!(mesh.ask("/none", &[]).unwrap().status, 500, "no backend has a weight");
    assert_eq!(mesh.client().unwrap().get("nobody", "/", &[]).unwrap().status, 404);
    let mut client = mesh.client().unwrap();
    let split = (0..200).filter(|_| client.get("web", "/split", &[]).unwrap().echo().unwrap().name == "v2");
    // Outside of these bounds once in a million runs.
    assert!((65..=135).contains(&split.count()));
    for host in ["web:80", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local:80"] {
        assert_eq!(mesh.client().unwrap().get(host, "/v2", &[]).unwrap().status, 200, "{host}");
    }
    assert_eq!(stat(&mesh, "runtime.deprecated_feature_use"), 0);
}

#[test]
fn every_way_of_saving_is_in_force_within_a_second() {
    let mesh = start(&all_to("web-v1"));
    mesh.await_upstream("v1", A_SECOND).unwrap();
    mesh.files().save("routes.yaml", &all_to("web-v2")).unwrap();
    mesh.await_upstream("v2", A_SECOND).unwrap();
    mesh.files().rename_over("routes.yaml", &all_to("web-v1")).unwrap();
    mesh.await_upstream("v1", A_SECOND).unwrap();
}

#[test]
fn a_config_map_swap_is_in_force_within_a_second() {
    let revision =
        |to: &str| [("sidecar.yaml", SIDECAR.to_owned()), ("web.yaml", services()), ("r.yaml", all_to(to))];
    let swap = |files: &Files<'_>, name: &str, to: &str| {
        let all = revision(to);
        files.swap(name, &all.each_ref().map(|(name, text)| (*name, text.as_str())))
    };
    let mesh = start_with(|files| swap(files, "2026_1", "web-v1"));
    mesh.await_upstream("v1", A_SECOND).unwrap();
    swap(&mesh.files(), "2026_2", "web-v2").unwrap();
    mesh.await_upstream("v2", A_SECOND).unwrap();
    swap(&mesh.files(), "2026_3", "web-v1").unwrap();
    mesh.await_upstream("v1", A_SECOND).unwrap();
}

#[test]
fn tags_reach_the_upstream_as_headers_and_forged_ones_do_not() {
    let mesh = start(&all_to("web-v1"));
    let forged =
        [("x-weft-tag-version", "forged"), ("x-weft-tag-team", "forged"), ("x-weft-tag-unknown", "forged")];
    let seen = mesh.echo("/", &forged).unwrap().headers;
    let tags: BTreeMap<&str, &str> = seen
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("x-weft-tag-")?, value.as_str())))
        .collect();
    assert_eq!(tags, BTreeMap::from([("discount", "50% off"), ("version", "v2")]));
    let dump = mesh.envoy.admin("/config_dump").unwrap().body;
    assert!(dump.matches("weft.tags").count() >= 4, "node, listener, clusters and routes carry the tags");
}

#[test]
fn a_broken_file_changes_nothing_and_is_reported_with_its_line() {
    let mut mesh = start(&all_to("web-v1"));
    let known = mesh.lines();
    let before = stat(&mesh, "http.outbound.rds.outbound.update_success");
    mesh.files().save("routes.yaml", &route("    - backendRefs: [{ name: web-v2, prot: 80 }]\n")).unwrap();
    let complaint = mesh.await_line(known, &["routes.yaml", "ERROR", "prot"]).unwrap();
    assert_eq!(complaint["line"], 7, "{complaint}");
    mesh.files().save("web.yaml", "a: [1\n").unwrap();
    mesh.await_line(known, &["web.yaml", "ERROR", "not valid YAML"]).unwrap();
    assert_eq!(mesh.echo("/", &[]).unwrap().name, "v1");
    assert_eq!(stat(&mesh, "http.outbound.rds.outbound.update_success"), before);
    assert_eq!(stat(&mesh, "cluster_manager.cds.update_rejected"), 0);
    mesh.files().save("web.yaml", &services()).unwrap();
    mesh.files().save("routes.yaml", &all_to("web-v2")).unwrap();
    mesh.await_upstream("v2", A_SECOND).unwrap();
    mesh.await_line(known, &["all mistakes are corrected"]).unwrap();
}

/// A reference that leads nowhere, under load: not a request meets it, and what other files say comes into force meanwhile.
#[test]
fn a_typo_in_a_backend_fails_no_request_and_holds_nothing_up() {
    let mut mesh = start(&all_to("web-v1"));
    let (pod, stop) = (mesh.pod.clone(), AtomicBool::new(false));
    let served = thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| requests_until(&pod, &stop))).collect();
        let known = mesh.lines();
        mesh.files().save("routes.yaml", &all_to("web-v3")).unwrap();
        let complaint = mesh.await_line(known, &["routes.yaml", "ERROR", "no Service shop/web-v3"]).unwrap();
        assert_eq!(complaint["line"], 7, "{complaint}");
        mesh.await_line(known, &["routes.yaml", "stays in force"]).unwrap();
        assert_eq!(mesh.echo("/", &[]).unwrap().name, "v1");
        let moved = service("web", 8081) + &service("web-v1", 8082) + &service("web-v2", 8082);
        mesh.files().save("web.yaml", &moved).unwrap();
        mesh.await_upstream("v2", A_SECOND).unwrap();
        mesh.files().save("web.yaml", &services()).unwrap();
        mesh.await_upstream("v1", A_SECOND).unwrap();
        mesh.files().save("routes.yaml", &all_to("web-v2")).unwrap();
        mesh.await_upstream("v2", A_SECOND).unwrap();
        mesh.await_line(known, &["all mistakes are corrected"]).unwrap();
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>()
    });
    println!("{served} requests");
    assert!(served > 10, "{served} requests are no load");
}

/// An expression that is valid, and too large for RE2 once it is translated, which only RE2 knows.
#[test]
fn what_envoy_rejects_is_reported_with_the_line_it_comes_from() {
    let mut mesh = start(&all_to("web-v1"));
    let known = mesh.lines();
    let large = ".{1000}".repeat(40);
    mesh.files()
        .save(
            "routes.yaml",
            &route(&format!(
                "    - backendRefs: [{{ name: web-v2, port: 80 }}]
    - matches: [{{ path: {{ type: RegularExpression, value: \"{large}\" }} }}]
      backendRefs: [{{ name: web-v2, port: 80 }}]
"
            )),
        )
        .unwrap();
    let complaint = mesh.await_line(known, &["Envoy rejects it"]).unwrap();
    assert!(complaint["message"].as_str().unwrap().contains("routes.yaml:8:"), "{complaint}");
    assert_eq!(mesh.echo("/", &[]).unwrap().name, "v1", "the last good routes stay");
    mesh.files().save("routes.yaml", &all_to("web-v2")).unwrap();
    mesh.await_upstream("v2", A_SECOND).unwrap();
}

/// Envoy's own limit is a program of 100 steps.
#[test]
fn expressions_of_everyday_size_are_routed_by() {
    let mesh = start(&route(
        "    - matches: [{ path: { type: RegularExpression, value: \"/(customers|orders|invoices)/[0-9]{1,60}\" } }]
      backendRefs: [{ name: web-v2, port: 80 }]
    - matches: [{ headers: [{ name: x-id, type: RegularExpression, value: \"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\" }] }]
      backendRefs: [{ name: web-v2, port: 80 }]
    - backendRefs: [{ name: web-v1, port: 80 }]
",
    ));
    let id = [("x-id", "01234567-89ab-cdef-0123-456789abcdef")];
    assert_eq!(mesh.echo("/orders/42", &[]).unwrap().name, "v2");
    assert_eq!(mesh.echo("/orders/none", &[]).unwrap().name, "v1");
    assert_eq!(mesh.echo("/", &id).unwrap().name, "v2");
}

#[test]
fn envoy_is_not_answered_before_there_is_something_good() {
    let node = Node::start().unwrap();
    let pod = Pod::create(&node, "client").unwrap();
    let config = node.dir().join("mesh");
    node.run(|| fs::create_dir_all(&config)).unwrap().unwrap();
    let files = Files { node: &node, config: &config };
    files.save("sidecar.yaml", SIDECAR).unwrap();
    files.save("web.yaml", &services()).unwrap();
    files.save("routes.yaml", &route("    - backendRfs: []\n")).unwrap();
    let mut sidecar = sidecar(&pod, &config).unwrap();
    sidecar
        .await_line("a complaint", PATIENCE, |line| line.contains("routes.yaml:7:7").then_some(()))
        .unwrap();
    sidecar
        .await_line("patience", PATIENCE, |line| line.contains("not answered until").then_some(()))
        .unwrap();
    assert!(!sidecar.log().contains("serving Envoy"), "{}", sidecar.log());
    files.save("routes.yaml", &all_to("web-v1")).unwrap();
    sidecar.await_line("service", PATIENCE, |line| line.contains("serving Envoy").then_some(())).unwrap();
    sidecar.signal(Signal::SIGTERM).unwrap();
    assert!(sidecar.await_end(PATIENCE).unwrap().success(), "{}", sidecar.log());
    let socket = node.run(|| Path::new("/run/weft/xds.sock").exists()).unwrap();
    assert!(!socket, "the socket goes with its owner");
}

/// Killed, so that its socket is left behind; and what was saved meanwhile is not lost.
#[test]
fn a_sidecar_that_is_killed_and_started_again_takes_over_without_a_failed_request() {
    let mut mesh = start(&all_to("web-v1"));
    let (pod, stop) = (mesh.pod.clone(), AtomicBool::new(false));
    thread::scope(|scope| {
        let client = scope.spawn(|| requests_until(&pod, &stop));
        mesh.sidecar.signal(Signal::SIGKILL).unwrap();
        mesh.sidecar.await_end(PATIENCE).unwrap();
        mesh.files().save("routes.yaml", &all_to("web-v2")).unwrap();
        assert_eq!(mesh.echo("/", &[]).unwrap().name, "v1", "Envoy goes on with what it has");
        mesh.sidecar = sidecar(&mesh.pod, &mesh.config).unwrap();
        mesh.await_upstream("v2", PATIENCE).unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(client.join().unwrap() > 0);
    });
}

/// Every change moves all requests to another cluster, and the cluster they leave is taken away.
#[test]
fn no_request_fails_while_routes_move_from_cluster_to_cluster() {
    move_routes(start(&all_to("web-v1")), 300);
}

/// The same with an Envoy that is sent all clusters with each change, and drops those that are not said.
#[test]
fn no_request_fails_while_routes_move_in_the_state_of_the_world() {
    let in_the_state_of_the_world = |bootstrap: String| {
        assert!(bootstrap.contains("DELTA_GRPC"), "there is something to replace");
        bootstrap.replace("DELTA_GRPC", "GRPC")
    };
    let upstreams = [(8081, "v1"), (8082, "v2")];
    let mesh =
        Mesh::start_with(&upstreams, |files| prepare(files, &all_to("web-v1")), in_the_state_of_the_world);
    move_routes(mesh.unwrap(), 100);
}

fn move_routes(mut mesh: Mesh, changes: usize) {
    let stop = AtomicBool::new(false);
    let served: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| requests_until(&mesh.pod, &stop))).collect();
        for change in 0..changes {
            let port = 8081 + u16::try_from(change % 2).unwrap();
            let name = format!("web-{change}");
            // In one file, so that it is one revision; every third change does not wait for the one before.
            mesh.files().rename_over("routes.yaml", &(service(&name, port) + &all_to(&name))).unwrap();
            if change % 3 != 0 {
                await_cluster(&mesh, &name);
            }
        }
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(served > changes, "{served} requests are no load");
    let last = format!("shop/web-{}/80", changes - 1);
    wait::until("the other clusters to be gone", PATIENCE, || {
        let clusters = mesh.envoy.admin("/clusters?format=json").unwrap().body;
        let count = clusters.matches("\"shop/web-").count();
        if clusters.contains(&last) && count <= 3 * 3 { Ok(()) } else { Err(format!("{count}: {clusters}")) }
    })
    .unwrap();
    let mut times: Vec<f64> = mesh
        .sidecar
        .log()
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<serde_json::Value>(line).ok()?.get("save_to_ack_ms")?.as_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let p50 = times[times.len() / 2];
    println!(
        "{served} requests, {} revisions, save to ACK p50 {p50} ms, max {:?} ms",
        times.len(),
        times.last()
    );
    assert!(mesh.sidecar.is_running());
}

fn requests_until(pod: &Pod, stop: &AtomicBool) -> usize {
    let mut client = Client::from(pod, OUTBOUND).unwrap();
    let mut served = 0;
    while !stop.load(Ordering::Relaxed) {
        let answer = client.get("web", "/", &[]).unwrap();
        assert_eq!(answer.status, 200, "after {served} requests: {}", answer.body);
        served += 1;
    }
    served
}

fn await_cluster(mesh: &Mesh, name: &str) {
    let start = Instant::now();
    let cluster = format!("cluster.shop/{name}/80.upstream_rq_total");
    wait::until(&format!("requests to {name}"), PATIENCE, || {
        let stats = mesh.envoy.admin(&format!("/stats?filter=^{cluster}$")).unwrap().body;
        let total = stats.trim().rsplit(' ').next().and_then(|value| value.parse::<u64>().ok());
        if total.unwrap_or(0) > 0 { Ok(()) } else { Err(format!("{stats:?} after {:?}", start.elapsed())) }
    })
    .unwrap();
}
