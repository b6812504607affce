//! Each group of a `TrafficPolicy` does to real requests what it says.

#![cfg(test)]

#[path = "mesh_policies/endpoints.rs"]
mod endpoints;
#[path = "mesh_policies/identity.rs"]
mod identity;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use weft_e2e::mesh::OUTBOUND;
use weft_e2e::{Answer, Mesh, Upstream, wait};

/// What takes longer on a busy machine than it should.
const PATIENCE: Duration = Duration::from_secs(20);

const SIDECAR: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Sidecar
metadata: { name: checkout, namespace: shop }
spec: { tags: { zone: a, node: n1 } }
---
";

/// A service called `name` whose endpoints are on these ports: of each, with its version and its zone.
fn service(name: &str, ports: &[(u16, &str, &str)]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\nspec: {{ ports: [{{ name: http, port: 80 }}] }}\n---\n"
    );
    for (port, version, zone) in ports {
        text += &format!(
            "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-{port}
  labels: {{ kubernetes.io/service-name: {name} }}
  annotations: {{ tags.weft.dev/version: {version} }}
addressType: IPv4
ports: [{{ name: http, port: {port} }}]
endpoints: [{{ addresses: [127.0.0.1], zone: {zone} }}]
---
"
        );
    }
    text
}

/// A policy for the service `web`.
fn policy(spec: &str) -> String {
    policy_for("web", spec)
}

fn policy_for(service: &str, spec: &str) -> String {
    format!(
        "\
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {{ name: {service} }}
spec:
  targetRefs: [{{ group: '', kind: Service, name: {service} }}]
{spec}
"
    )
}

/// Two versions of `web`, in two zones; this workload is in the first.
fn two() -> String {
    format!("{SIDECAR}{}", service("web", &[(8081, "v1", "a"), (8082, "v2", "b")]))
}

/// With `web` on two ports, and a policy.
fn mesh(spec: &str) -> Mesh {
    with_documents(&format!("{}{}", two(), policy(spec)))
}

fn with_documents(documents: &str) -> Mesh {
    Mesh::start(&[], |files| files.save("mesh.yaml", documents)).unwrap()
}

fn stat(mesh: &Mesh, name: &str) -> u64 {
    mesh.stat(name).unwrap().unwrap_or(0)
}

fn upstream(mesh: &Mesh, port: u16, name: &str) -> Upstream {
    Upstream::start(&mesh.pod, port, name).unwrap()
}

fn always(mesh: &Mesh, port: u16, name: &str, step: &'static str) -> Upstream {
    Upstream::always(&mesh.pod, port, name, step).unwrap()
}

fn get(mesh: &Mesh, headers: &[(&str, &str)]) -> Answer {
    mesh.get("web", "/", headers).unwrap()
}

fn name(answer: &Answer) -> String {
    answer.echo().unwrap_or_else(|error| panic!("{error}: {answer:?}")).name
}

/// A route for `web` whose requests go to a subset: by a header, or by the weights.
const CANARY: &str = "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web }
spec:
  parentRefs: [{ group: '', kind: Service, name: web }]
  rules:
    - matches: [{ headers: [{ name: x-deployment-phase, value: canary }] }]
      filters: [{ type: ExtensionRef, extensionRef: { group: weft.dev, kind: Subset, name: canary } }]
      backendRefs: [{ name: web, port: 80 }]
    - matches: [{ path: { value: /nobody } }]
      filters: [{ type: ExtensionRef, extensionRef: { group: weft.dev, kind: Subset, name: nobody } }]
      backendRefs: [{ name: web, port: 80 }]
    - matches: [{ path: { value: /anybody } }]
      filters: [{ type: ExtensionRef, extensionRef: { group: weft.dev, kind: Subset, name: anybody } }]
      backendRefs: [{ name: web, port: 80 }]
    - backendRefs:
        - { name: web, port: 80, weight: 1, filters: [{ type: ExtensionRef, extensionRef: { group: weft.dev, kind: Subset, name: stable } }] }
        - { name: web, port: 80, weight: 0 }
";

#[test]
fn a_route_chooses_a_subset_of_the_endpoints() {
    let subsets = "
  subsets:
    - { name: stable, tags: { version: v1 } }
    - { name: canary, tags: { version: v2 } }
    - { name: nobody, tags: { version: v3 } }
    - { name: anybody, tags: { version: v3 }, whenEmpty: AnyEndpoint }
";
    let documents = format!("{}{}{CANARY}", two(), policy(subsets));
    let mut mesh = with_documents(&documents);
    let (_v1, _v2) = (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"));
    for _ in 0..20 {
        assert_eq!(name(&get(&mesh, &[("x-deployment-phase", "canary")])), "v2");
        assert_eq!(name(&get(&mesh, &[])), "v1");
    }
    assert_eq!(mesh.get("web", "/nobody", &[]).unwrap().status, 503);
    assert_eq!(mesh.get("web", "/anybody", &[]).unwrap().status, 200);
    mesh.revise("mesh.yaml", &documents.replace("dev/version: v1", "dev/version: v2")).unwrap();
    let names: BTreeSet<String> =
        (0..40).map(|_| name(&get(&mesh, &[("x-deployment-phase", "canary")]))).collect();
    assert_eq!(names.len(), 2, "both are canaries now: {names:?}");
    assert_eq!(get(&mesh, &[]).status, 503, "and nobody is stable");
}

#[test]
fn what_fails_at_one_endpoint_is_tried_at_another() {
    let mesh = mesh("  retry: { attempts: 1, codes: [503] }");
    let (_bad, _good) = (always(&mesh, 8081, "v1", "503"), upstream(&mesh, 8082, "v2"));
    for _ in 0..20 {
        let answer = get(&mesh, &[]);
        assert_eq!((answer.status, name(&answer)), (200, "v2".into()));
    }
    assert!(stat(&mesh, "cluster.shop/web/80.upstream_rq_retry") > 0);
}

#[test]
fn a_request_that_takes_too_long_is_given_up() {
    let mesh = mesh("  timeouts: { request: 200ms }");
    let (_v1, _v2) = (always(&mesh, 8081, "v1", "slow"), always(&mesh, 8082, "v2", "slow"));
    let start = Instant::now();
    assert_eq!(get(&mesh, &[]).status, 504);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn requests_above_the_limit_are_refused_at_once() {
    let mesh = mesh("  connectionPool: { maxRequests: 1 }");
    let (_v1, _v2) = (always(&mesh, 8081, "v1", "slow"), always(&mesh, 8082, "v2", "slow"));
    thread::scope(|scope| {
        let first = scope.spawn(|| get(&mesh, &[]).status);
        wait::until("the first request", PATIENCE, || {
            match stat(&mesh, "cluster.shop/web/80.upstream_rq_active") {
                0 => Err("none is active".into()),
                _ => Ok(()),
            }
        })
        .unwrap();
        let second = get(&mesh, &[]);
        assert_eq!(second.status, 503);
        assert_eq!(second.headers["x-envoy-overloaded"], "true");
        assert_eq!(first.join().unwrap(), 200);
    });
}

#[test]
fn an_endpoint_that_fails_again_and_again_is_left_alone() {
    let mesh =
        mesh("  outlierDetection: { consecutive5xx: 2, baseEjectionTime: 60s, maxEjectionPercent: 50 }");
    let (_bad, _good) = (always(&mesh, 8081, "v1", "500"), upstream(&mesh, 8082, "v2"));
    wait::until("an ejection", PATIENCE, || {
        get(&mesh, &[]);
        match stat(&mesh, "cluster.shop/web/80.outlier_detection.ejections_active") {
            1 => Ok(()),
            _ => Err(mesh.envoy.admin("/clusters").unwrap().body),
        }
    })
    .unwrap();
    for _ in 0..20 {
        assert_eq!(name(&get(&mesh, &[])), "v2");
    }
}

#[test]
fn a_session_stays_with_the_endpoint_of_its_first_answer() {
    let mesh = mesh("  sessionPersistence: { cookie: { name: weft, ttl: 1h } }");
    let (_v1, _v2) = (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"));
    let first = get(&mesh, &[]);
    let cookie = first.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    for _ in 0..20 {
        assert_eq!(name(&get(&mesh, &[("cookie", &cookie)])), name(&first));
    }
}

/// One mesh and one connection for all of these: what they change is routes, which holds for open connections at once;
/// the listener stays what it is.
#[test]
fn policies_about_requests_come_and_go_without_a_change_of_the_listener() {
    let auth = service("auth", &[(8090, "v1", "a")]);
    let documents = format!("{}{auth}{}", two(), policy("  retry: {}"));
    let mut mesh = with_documents(&documents);
    let (_v1, _v2) = (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"));
    let mut client = mesh.client().unwrap();
    let with = |mesh: &mut Mesh, spec: &str| {
        mesh.revise("mesh.yaml", &format!("{}{auth}{}", two(), policy(spec))).unwrap();
    };

    with(&mut mesh, "  faults: { abort: { status: 418 }, headers: [{ name: x-chaos, value: 'on' }] }");
    assert_eq!(client.get("web", "/", &[("x-chaos", "on")]).unwrap().status, 418);
    assert_eq!(client.get("web", "/", &[]).unwrap().status, 200);

    with(&mut mesh, "  faults: { delay: { duration: 700ms } }");
    let start = Instant::now();
    assert_eq!(client.get("web", "/", &[]).unwrap().status, 200);
    // Envoy looks at its clock once in each round of its event loop.
    assert!(start.elapsed() >= Duration::from_millis(600), "{:?}", start.elapsed());

    with(&mut mesh, "  rateLimit: { requests: 2, interval: 1h }");
    let statuses: Vec<u16> = (0..3).map(|_| client.get("web", "/", &[]).unwrap().status).collect();
    assert_eq!(statuses, [200, 200, 429]);

    with(&mut mesh, "  rateLimit: { requests: 1, interval: 1h, perHeader: x-user }");
    let users = ["a", "b", "a", "b", "c"];
    let statuses = users.map(|user| client.get("web", "/", &[("x-user", user)]).unwrap().status);
    assert_eq!(statuses, [200, 200, 429, 429, 200]);

    let http = "  externalAuthorization: { http: { backendRef: { name: auth, port: 80 } }, timeout: 5s }";
    with(&mut mesh, http);
    assert_eq!(client.get("web", "/", &[]).unwrap().status, 403, "nobody answers: nobody passes");
    let refusing = always(&mesh, 8090, "auth", "403");
    let refused = client.get("web", "/cart", &[("cookie", "session=1"), ("te", "trailers")]).unwrap();
    let asked = refused.echo().unwrap();
    assert_eq!((refused.status, asked.path.as_str()), (403, "/cart"));
    assert_eq!((asked.headers["cookie"].as_str(), asked.headers.get("te")), ("session=1", None));
    drop(refusing);
    let _allowing = upstream(&mesh, 8090, "auth");
    assert_eq!(client.get("web", "/", &[]).unwrap().status, 200);

    with(&mut mesh, "  grpcWeb: true");
    let answer = client.get("web", "/", &[("content-type", "application/grpc-web")]).unwrap();
    assert!(
        answer.headers["content-type"].to_str().unwrap().starts_with("application/grpc-web"),
        "{answer:?}"
    );

    with(&mut mesh, "  retry: {}");
    assert_eq!(client.get("web", "/", &[("x-chaos", "on")]).unwrap().status, 200);
    assert_eq!(stat(&mesh, "listener_manager.listener_modified"), 0);
    assert_eq!(stat(&mesh, "listener_manager.listener_added"), 1);
}

#[test]
fn a_connection_is_upgraded_where_a_policy_says_so() {
    let mut mesh = mesh("  upgrades: [websocket]");
    let listener = mesh.pod.run(|| TcpListener::bind("127.0.0.1:8081")).unwrap().unwrap();
    let other = mesh.pod.run(|| TcpListener::bind("127.0.0.1:8082")).unwrap().unwrap();
    for listener in [listener, other] {
        // It ends with the process; a test has nothing to say to it.
        thread::spawn(move || listener.incoming().flatten().for_each(echo_after_the_upgrade));
    }
    let mut stream = upgraded(&mesh);
    let head = head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    mesh.revise("mesh.yaml", &format!("{}{}", two(), policy("  retry: {}"))).unwrap();
    let refused = self::head(&mut upgraded(&mesh));
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
}

#[test]
fn a_patch_adds_and_changes_what_nothing_else_says() {
    let patch = "\
apiVersion: weft.dev/v1alpha1
kind: EnvoyPatch
metadata: { name: legacy }
spec:
  add:
    - type: Cluster
      resource:
        name: legacy
        type: STATIC
        loadAssignment:
          clusterName: legacy
          endpoints: [{ lbEndpoints: [{ endpoint: { address: { socketAddress: { address: 127.0.0.1, portValue: 8090 } } } }] }]
    - type: VirtualHost
      resource:
        name: legacy
        domains: [legacy.example.com]
        routes: [{ match: { prefix: / }, route: { cluster: legacy } }]
  merge:
    - type: VirtualHost
      name: shop/web/80
      patch: { includeRequestAttemptCount: true }
";
    let mesh = with_documents(&format!("{}{patch}", two()));
    let (_v1, _v2, _legacy) =
        (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"), upstream(&mesh, 8090, "legacy"));
    assert_eq!(name(&mesh.get("legacy.example.com", "/", &[]).unwrap()), "legacy");
    let seen = get(&mesh, &[]).echo().unwrap().headers;
    assert_eq!(seen.get("x-envoy-attempt-count").map(String::as_str), Some("1"));
}

fn upgraded(mesh: &Mesh) -> TcpStream {
    let mut stream = mesh.pod.run(|| TcpStream::connect(OUTBOUND)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET / HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn echo_after_the_upgrade(mut stream: TcpStream) {
    drop(head(&mut stream));
    let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(answer.as_bytes()).unwrap();
    let mut buffer = [0; 64];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        stream.write_all(&buffer[..read]).unwrap();
    }
}
