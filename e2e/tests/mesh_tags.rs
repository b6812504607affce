//! Tags: one request, and the same tags in every place where the real Envoy can show them; and what the sidecar says of itself.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use weft_e2e::{Answer, Client, Mesh, Node, Pod, Sink, http, mesh, wait};

const PATIENCE: Duration = Duration::from_secs(20);
const A_SECOND: Duration = Duration::from_secs(1);
const ODD: &str = "%REQ(host)% ä \"q\" \\x {}";

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Everywhere; `LABELS` is a file of the downward API.
const SIDECAR: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Sidecar
metadata: { name: checkout, namespace: shop }
spec:
  tags: { team: payments, version: v2, discount: 50% off, odd: '%REQ(host)% ä "q" \x {}' }
  podInfo: DIR
  tagsFrom: [{ tag: build, label: example.com/build }]
  inbound: [{ port: 15006, to: 8081 }, { port: 15007, to: 8081, requestTags: caller }]
  admin: { address: 127.0.0.1:15020 }
  inject:
    requestHeaders: [version, discount, odd, build, feature]
    responseHeaders: [version, discount, odd, build, feature]
    accessLog: all
    tracing: all
    stats: [team, version]
  accessLog:
    to: [{ stdout: {} }, { file: { path: DIR/access.log } }, { grpc: { backendRef: { name: logs, port: 9001 } } }]
  tracing: { collector: { backendRef: { name: otel, port: 80 }, protocol: http } }
---
apiVersion: v1
kind: Service
metadata: { name: logs, namespace: shop }
spec: { ports: [{ port: 9001, appProtocol: grpc }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: logs-1, namespace: shop, labels: { kubernetes.io/service-name: logs } }
addressType: IPv4
ports: [{ port: 9001 }]
endpoints: [{ addresses: [127.0.0.1] }]
"#;

const ROUTE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: web
  namespace: shop
  annotations: { tags.weft.dev/feature: cart, tags.weft.dev/version: v3 }
spec:
  parentRefs: [{ group: "", kind: Service, name: web }]
  rules: [{ matches: [{ path: { value: /cart } }], backendRefs: [{ name: web, port: 80 }] }]
"#;

fn start() -> Mesh {
    Mesh::start(&[(8081, "v1")], |files| {
        let dir = files.node.dir().display().to_string();
        files
            .node
            .write(files.node.dir().join("labels"), "app=\"checkout\"\nexample.com/build=\"b\\\"1\"\n")?;
        files.save("sidecar.yaml", &SIDECAR.replace("DIR", &dir))?;
        files.save("services.yaml", &(mesh::service("web", 8081) + &mesh::service("otel", 4318)))?;
        files.save("routes.yaml", ROUTE)
    })
    .unwrap()
}

/// What a request of the route has: the workload's, one from the pod's labels, and the route's own in front of them.
fn expected() -> BTreeMap<String, String> {
    let pairs =
        [("team", "payments"), ("version", "v3"), ("discount", "50% off"), ("odd", ODD), ("build", "b\"1")];
    pairs.into_iter().chain([("feature", "cart")]).map(|(key, value)| (key.into(), value.into())).collect()
}

/// Those that are injected as headers: all but `team`.
fn expected_headers() -> BTreeMap<String, String> {
    expected().into_iter().filter(|(key, _)| key != "team").collect()
}

fn tags_of<'h>(headers: impl Iterator<Item = (&'h str, String)>) -> BTreeMap<String, String> {
    headers.filter_map(|(name, value)| Some((name.strip_prefix("x-weft-tag-")?.to_owned(), value))).collect()
}

fn of_answer(answer: &Answer) -> BTreeMap<String, String> {
    let headers = answer.headers.iter();
    tags_of(
        headers.map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned())),
    )
}

fn of_request(answer: &Answer) -> BTreeMap<String, String> {
    let echo = answer.echo().unwrap();
    tags_of(echo.headers.iter().map(|(name, value)| (name.as_str(), value.clone())))
}

/// A length-delimited text of Protobuf, as it stands in the bytes.
fn holds(bytes: &str, key: &str, value: &str) -> bool {
    let after = bytes.match_indices(key).map(|(at, _)| &bytes[at + key.len()..]);
    after.into_iter().any(|rest| rest.find(value).is_some_and(|at| at <= 8))
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn tags_in(value: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

const FORGED: &[(&str, &str)] = &[("x-weft-tag-version", "forged"), ("X-Weft-Tag-Unknown", "forged")];

#[test]
fn one_request_shows_the_same_tags_in_every_place() {
    let mut mesh = start();
    let (otel, logs) = (Sink::start(&mesh.pod, 4318).unwrap(), Sink::start(&mesh.pod, 9001).unwrap());
    let answer = mesh.ask("/cart", FORGED).unwrap();
    assert_eq!(of_request(&answer), expected_headers());
    assert_eq!(of_answer(&answer), expected_headers());
    let request_id = answer.echo().unwrap().headers["x-request-id"].clone();

    let file = mesh.files().node.dir().join("access.log");
    let dir = mesh.files().node.dir();
    let line = wait::until("a line in the file", PATIENCE, || {
        let text = mesh.files().node.run(|| fs::read_to_string(&file)).unwrap().unwrap_or_default();
        json_lines(&text).into_iter().find(|line| line["request_id"] == *request_id).ok_or(text)
    })
    .unwrap();
    assert_eq!(tags_in(&line["tags"]), expected(), "{line} in {}", dir.display());
    assert_eq!((&line["status"], &line["path"]), (&Value::from(200), &Value::from("/cart")));
    assert_eq!(
        (&line["workload"], &line["listener"]),
        (&Value::from("shop/checkout"), &Value::from("outbound"))
    );
    let line = wait::until("a line on stdout", PATIENCE, || {
        let log = mesh.envoy.process().log();
        json_lines(&log).into_iter().find(|line| line["request_id"] == *request_id).ok_or(log)
    })
    .unwrap();
    assert_eq!(tags_in(&line["tags"]), expected());

    for (sink, path) in
        [(&otel, "/v1/traces"), (&logs, "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs")]
    {
        wait::until(&format!("something at {path}"), PATIENCE, || {
            let taken = sink.taken(path);
            let lacks = expected()
                .into_iter()
                .find(|(key, value)| !holds(&taken, &format!("weft.tags.{key}"), value));
            lacks.map_or(Ok(()), |lack| Err(format!("{lack:?} is not in {taken:?}")))
        })
        .unwrap();
    }

    let metrics = mesh.envoy.admin("/stats?format=prometheus").unwrap().body;
    let labels =
        "{listener=\"outbound\",envoy_cluster_name=\"shop/web/80\",team=\"payments\",version=\"v3\"}";
    assert!(metrics.contains(&format!("envoy_weft_requests{labels} 1\n")), "{metrics}");
    assert!(metrics.contains("envoy_weft_request_duration_ms_bucket{listener=\"outbound\""), "{metrics}");
    let of_cluster = "envoy_cluster_upstream_rq_total{";
    let line =
        metrics.lines().find(|line| line.starts_with(of_cluster) && line.contains("shop/web/80")).unwrap();
    assert!(line.contains("team=\"payments\"") && line.contains("version=\"v2\""), "the workload's: {line}");

    let dump: Value =
        serde_json::from_str(&mesh.envoy.admin("/config_dump?include_eds").unwrap().body).unwrap();
    let mut found = Vec::new();
    collect(&dump, &mut found);
    assert!(found.contains(&expected()), "of the route");
    let workload: BTreeMap<String, String> = expected()
        .into_iter()
        .filter(|(key, _)| key != "feature")
        .map(|(key, value)| if key == "version" { (key, "v2".into()) } else { (key, value) })
        .collect();
    // Node, listeners, clusters and the other routes.
    assert!(found.iter().filter(|tags| **tags == workload).count() >= 8, "{found:?}");
    assert_eq!(mesh.stat("runtime.deprecated_feature_use").unwrap(), Some(0));
}

/// Every `weft.tags` in a dump.
fn collect(value: &Value, found: &mut Vec<BTreeMap<String, String>>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => {
            found.extend(fields.get("weft.tags").map(tags_in));
            fields.values().for_each(|field| collect(field, found));
        }
        _ => {}
    }
}

#[test]
fn a_request_that_no_route_takes_is_logged_with_the_tags_of_the_workload() {
    let mut mesh = start();
    assert_eq!(mesh.ask("/nowhere", &[]).unwrap().status, 404);
    let line = wait::until("a line on stdout", PATIENCE, || {
        let log = mesh.envoy.process().log();
        json_lines(&log).into_iter().find(|line| line["path"] == "/nowhere").ok_or(log)
    })
    .unwrap();
    assert_eq!((&line["flags"], &line["tags"]["version"]), (&Value::from("NR"), &Value::from("v2")));
    assert_eq!(line["tags"]["odd"], ODD);
}

#[test]
fn a_label_of_the_pod_that_changes_is_a_new_revision() {
    let mesh = start();
    assert_eq!(of_request(&mesh.ask("/cart", &[]).unwrap())["build"], "b\"1");
    let labels = mesh.files().node.dir().join("labels");
    mesh.files().node.write(&labels, "app=\"checkout\"\nexample.com/build=\"b2\"\n").unwrap();
    wait::until("the new label", A_SECOND, || {
        let build = of_request(&mesh.ask("/cart", &[]).unwrap())["build"].clone();
        if build == "b2" { Ok(()) } else { Err(build) }
    })
    .unwrap();
}

/// A mesh with `web` and a collector; `DIR` in the document is the node's own folder.
fn with_sidecar(spec: &str) -> Mesh {
    let head = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: { name: checkout, namespace: shop }\nspec:\n";
    Mesh::start(&[(8081, "v1")], |files| {
        let dir = files.node.dir();
        files.node.write(dir.join("build-id"), "b1\n")?;
        files.save("sidecar.yaml", &(head.to_owned() + spec).replace("DIR", &dir.display().to_string()))?;
        let otel = mesh::service("otel", 4317).replace("port: 80 ", "port: 80, appProtocol: grpc ");
        files.save("services.yaml", &(mesh::service("web", 8081) + &otel))
    })
    .unwrap()
}

#[test]
fn a_tag_comes_from_a_variable_or_from_a_file_that_may_change() {
    let mesh = with_sidecar(
        "  tagsFrom: [{ tag: crate, env: CARGO_PKG_NAME }, { tag: build, file: DIR/build-id }, { tag: owner, env: WEFT_NOBODY, default: nobody }]\n  \
         inject: { requestHeaders: [crate, build, owner] }\n",
    );
    // It has the test's environment.
    let expected = |build: &str| {
        let pairs = [("build", build), ("crate", env!("CARGO_PKG_NAME")), ("owner", "nobody")];
        BTreeMap::from(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())))
    };
    assert_eq!(of_request(&mesh.ask("/", &[]).unwrap()), expected("b1"));
    mesh.files().node.write(mesh.files().node.dir().join("build-id"), "b2\n").unwrap();
    wait::until("the new build", A_SECOND, || {
        let tags = of_request(&mesh.ask("/", &[]).unwrap());
        if tags == expected("b2") { Ok(()) } else { Err(format!("{tags:?}")) }
    })
    .unwrap();
}

fn logged(mesh: &mut Mesh) -> Vec<Value> {
    json_lines(&mesh.envoy.process().log()).into_iter().filter(|line| !line["request_id"].is_null()).collect()
}

#[test]
fn only_errors_are_logged_where_only_they_are_wanted() {
    let mut mesh = with_sidecar("  inject: { accessLog: errors }\n");
    for (path, script) in [("/fine", ""), ("/broken", "500"), ("/mistaken", "404"), ("/last", "503")] {
        mesh.ask(path, &[("x-script", script)]).unwrap();
    }
    // What Envoy itself answers: nobody is called so.
    assert_eq!(mesh.get("nobody", "/unknown", &[]).unwrap().status, 404);
    let paths = wait::until("the last line", PATIENCE, || {
        let lines = logged(&mut mesh);
        let paths: Vec<_> =
            lines.iter().filter_map(|line| line["path"].as_str().map(str::to_owned)).collect();
        if paths.iter().any(|path| path == "/unknown") { Ok(paths) } else { Err(format!("{paths:?}")) }
    })
    .unwrap();
    assert_eq!(paths, ["/broken", "/last", "/unknown"]);
}

#[test]
fn a_share_of_the_requests_is_logged() {
    const REQUESTS: usize = 400;
    let mut mesh = with_sidecar("  inject: { accessLog: all }\n  accessLog: { sample: 25% }\n");
    let mut client = mesh.client().unwrap();
    for _ in 0..REQUESTS {
        assert_eq!(client.get("web", "/", &[]).unwrap().status, 200);
    }
    // At its end it writes what it has kept back.
    mesh.envoy.process().signal(Signal::SIGTERM).unwrap();
    mesh.envoy.process().await_end(PATIENCE).unwrap();
    let lines = logged(&mut mesh).len();
    assert!((60..140).contains(&lines), "{lines} of {REQUESTS}");
}

#[test]
fn spans_are_sent_by_grpc_too() {
    let mesh = with_sidecar(
        "  tags: { team: payments }\n  inject: { tracing: all }\n  tracing: { collector: { backendRef: { name: otel, port: 80 } } }\n",
    );
    let otel = Sink::start(&mesh.pod, 4317).unwrap();
    mesh.ask("/traced", &[]).unwrap();
    wait::until("a span", PATIENCE, || {
        let taken = otel.taken("/opentelemetry.proto.collector.trace.v1.TraceService/Export");
        if holds(&taken, "weft.tags.team", "payments") { Ok(()) } else { Err(format!("{taken:?}")) }
    })
    .unwrap();
}

#[test]
fn the_application_is_not_told_what_anybody_can_forge() {
    let mesh = start();
    let ask = |port| {
        let mut client = Client::from(&mesh.pod, loopback(port)).unwrap();
        client.get("anything", "/", FORGED).unwrap()
    };
    let own = |answer: &Answer| of_answer(answer)["version"].clone();
    let answer = ask(15006);
    let seen = of_request(&answer);
    assert_eq!((seen["version"].as_str(), seen.get("unknown")), ("v2", None), "{seen:?}");
    assert_eq!(own(&answer), "v2");
    let answer = ask(15007);
    assert_eq!(
        of_request(&answer),
        BTreeMap::from([("unknown".into(), "forged".into()), ("version".into(), "forged".into())])
    );
    assert_eq!(own(&answer), "v2", "what it answers is told by us all the same");
}

#[test]
fn health_and_metrics_tell_what_envoy_serves() {
    let mut mesh = start();
    let page = |mesh: &Mesh, path: &str| http::get(&mesh.pod, loopback(15020), "admin", path, &[]).unwrap();
    let await_ready = |mesh: &Mesh, status: u16| {
        wait::until(&format!("/readyz to say {status}"), PATIENCE, || {
            let answer = page(mesh, "/readyz");
            if answer.status == status { Ok(answer.body) } else { Err(answer.body) }
        })
        .unwrap()
    };
    assert_eq!(page(&mesh, "/livez").body, "ok\n");
    assert_eq!(await_ready(&mesh, 200), "ok\n");
    let metrics = page(&mesh, "/metrics").body;
    for line in [
        "weft_ready 1\n",
        "weft_revision_in_force 1\n",
        "weft_mistakes{severity=\"error\"} 0\n",
        "xds_streams{",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }

    let known = mesh.lines();
    mesh.files().save("routes.yaml", &ROUTE.replace("backendRefs", "backendRfs")).unwrap();
    mesh.await_line(known, &["routes.yaml", "backendRfs"]).unwrap();
    assert_eq!(page(&mesh, "/readyz").body, "ok\n", "the last good configuration is in force");
    let details: Value = serde_json::from_str(&page(&mesh, "/readyz?format=json").body).unwrap();
    assert_eq!(details["mistakes"]["errors"], 1, "{details}");
    assert!(details["mistakes"]["list"][0]["file"].as_str().unwrap().ends_with("routes.yaml"), "{details}");
    assert!(page(&mesh, "/metrics").body.contains("weft_mistakes{severity=\"error\"} 1\n"));
    mesh.files().save("routes.yaml", &ROUTE.replace("/cart", "/basket")).unwrap();
    mesh.await_line(known, &["save_to_ack_ms"]).unwrap();
    assert!(page(&mesh, "/metrics").body.contains("weft_save_to_ack_seconds_count 1\n"));

    mesh.envoy.process().signal(Signal::SIGKILL).unwrap();
    assert_eq!(await_ready(&mesh, 503), "not ready: Envoy is not connected\n");
    mesh.sidecar.signal(Signal::SIGTERM).unwrap();
    assert!(mesh.sidecar.await_end(PATIENCE).unwrap().success(), "{}", mesh.sidecar.log());
}

/// The kernel vouches for who connects; curl is root here, as everything in a test.
#[test]
fn a_user_that_is_not_listed_may_not_use_the_socket() {
    let node = Node::start().unwrap();
    let pod = Pod::create(&node, "pod").unwrap();
    let file = node.dir().join("sidecar.yaml");
    let head = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: { name: checkout, namespace: shop }";
    node.write(&file, &format!("{head}\nspec: {{ xds: {{ allowedUids: [12345] }} }}\n")).unwrap();
    let mut sidecar = mesh::sidecar(&pod, &file).unwrap();
    sidecar.await_line("service", PATIENCE, |line| line.contains("serving Envoy").then_some(())).unwrap();
    let ads = "http://xds/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
    let curl =
        "curl -s -D - -o /dev/null --max-time 5 --http2-prior-knowledge --unix-socket /run/weft/xds.sock";
    let said = pod.sh(&format!("{curl} -H 'content-type: application/grpc' -X POST {ads}")).unwrap();
    assert!(said.contains("grpc-status: 7"), "{said}");
    assert!(said.contains("user%200%20of%20group%200"), "{said}");
}
