//! What only Envoy knows to be wrong is held back and named; everything else is served on.

#![cfg(test)]

use std::time::Duration;

use weft_e2e::mesh::service;
use weft_e2e::{Files, Mesh};

/// What takes longer on a busy machine than it should.
const PATIENCE: Duration = Duration::from_secs(20);

const SIDECAR: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Sidecar
metadata: { name: checkout, namespace: shop }
";

/// Every request to `web` goes to this service.
fn route(to: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: web, namespace: shop }}
spec:
  parentRefs: [{{ group: \"\", kind: Service, name: web }}]
  rules: [{{ backendRefs: [{{ name: {to}, port: 80 }}] }}]
"
    )
}

/// The patch is in line 6.
fn patch(resource: &str, name: &str, patch: &str) -> String {
    format!(
        "\
apiVersion: weft.dev/v1alpha1
kind: EnvoyPatch
metadata: {{ name: mine, namespace: shop }}
spec:
  merge:
    - {{ type: {resource}, name: {name}, patch: {patch} }}
"
    )
}

fn prepare(files: &Files<'_>, patch: Option<&str>) -> weft_e2e::Result<()> {
    let services: String =
        [("web", 8081), ("web-v1", 8081), ("web-v2", 8082)].map(|(name, port)| service(name, port)).concat();
    files.save("sidecar.yaml", SIDECAR)?;
    files.save("services.yaml", &services)?;
    files.save("routes.yaml", &route("web-v1"))?;
    patch.map_or(Ok(()), |patch| files.save("patch.yaml", patch))
}

fn start(patch: Option<&str>) -> Mesh {
    Mesh::start(&[(8081, "v1"), (8082, "v2")], |files| prepare(files, patch)).unwrap()
}

/// Saves `bad`, which Envoy refuses, in the place of `good`: it is named, and the next changes of others arrive; then `good` does.
fn refused_and_mended(good: &str, bad: &str) {
    let mut mesh = start(Some(good));
    mesh.await_line(0, &["\"in force\""]).unwrap();
    let known = mesh.lines();
    mesh.files().save("patch.yaml", bad).unwrap();
    let complaint = mesh.await_line(known, &["Envoy rejects it"]).unwrap();
    assert!(complaint["message"].as_str().unwrap().contains("patch.yaml:6:"), "{complaint}");
    mesh.await_line(known, &["former content of this file stays in force", "patch.yaml:6:"]).unwrap();
    mesh.files().save("routes.yaml", &route("web-v2")).unwrap();
    mesh.await_upstream("v2", PATIENCE).unwrap();
    mesh.files().save("routes.yaml", &route("web-v1")).unwrap();
    mesh.await_upstream("v1", PATIENCE).unwrap();
    let known = mesh.lines();
    mesh.files().save("patch.yaml", good).unwrap();
    mesh.await_line(known, &["all mistakes are corrected"]).unwrap();
    mesh.revise("routes.yaml", &route("web-v2")).unwrap();
    mesh.await_upstream("v2", PATIENCE).unwrap();
}

#[test]
fn a_cluster_that_envoy_refuses_holds_up_nothing_else() {
    let of = |timeout: &str| patch("Cluster", "shop/web/80", &format!("{{ connectTimeout: {timeout} }}"));
    refused_and_mended(&of("1s"), &of("0s"));
}

#[test]
fn a_listener_that_envoy_refuses_holds_up_nothing_else() {
    let good = patch("Listener", "outbound", "{ perConnectionBufferLimitBytes: 65536 }");
    let bad = patch("Listener", "outbound", "{ listenerFilters: [{ name: no.such.filter }] }");
    refused_and_mended(&good, &bad);
}

/// All routes of services are one resource of Envoy.
#[test]
fn routes_that_envoy_refuses_hold_up_no_other_routes() {
    let of = |value: &str| {
        let add =
            format!("{{ responseHeadersToAdd: [{{ header: {{ key: x-patched, value: '{value}' }} }}] }}");
        patch("RouteConfiguration", "outbound", &add)
    };
    refused_and_mended(&of("yes"), &of("%NO_SUCH_COMMAND%"));
}

#[test]
fn the_value_that_is_mended_reaches_envoy() {
    let of = |value: &str| {
        let add =
            format!("{{ responseHeadersToAdd: [{{ header: {{ key: x-patched, value: '{value}' }} }}] }}");
        patch("RouteConfiguration", "outbound", &add)
    };
    let mut mesh = start(Some(&of("one")));
    mesh.await_line(0, &["\"in force\""]).unwrap();
    let patched = |mesh: &Mesh| mesh.ask("/", &[]).unwrap().headers["x-patched"].to_str().unwrap().to_owned();
    assert_eq!(patched(&mesh), "one");
    let known = mesh.lines();
    mesh.files().save("patch.yaml", &of("%NO_SUCH_COMMAND%")).unwrap();
    mesh.await_line(known, &["former content of this file stays in force"]).unwrap();
    mesh.await_line(known, &["\"in force\""]).unwrap();
    mesh.revise("routes.yaml", &route("web-v2")).unwrap();
    assert_eq!(patched(&mesh), "one", "the former content");
    mesh.revise("patch.yaml", &of("two")).unwrap();
    assert_eq!(patched(&mesh), "two");
}

#[test]
fn what_envoy_refuses_from_the_start_is_left_out() {
    let bad = patch(
        "RouteConfiguration",
        "outbound",
        "{ responseHeadersToAdd: [{ header: { key: x, value: '%NO%' } }] }",
    );
    let mut mesh = start(Some(&bad));
    mesh.await_line(0, &["this document is left out", "patch.yaml:6:"]).unwrap();
    mesh.await_upstream("v1", PATIENCE).unwrap();
    mesh.revise("routes.yaml", &route("web-v2")).unwrap();
    mesh.await_upstream("v2", PATIENCE).unwrap();
}

/// Nobody may pass whom nobody has asked about; everything else goes on.
#[test]
fn a_policy_whose_own_service_is_missing_holds_up_nothing_else() {
    for asked in
        ["grpc: { backendRef: { name: auth, port: 80 } }", "http: { backendRef: { name: auth, port: 80 } }"]
    {
        let policy = format!(
            "\
apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {{ name: guarded, namespace: shop }}
spec:
  targetRefs: [{{ group: '', kind: Service, name: web-v2 }}]
  externalAuthorization: {{ {asked} }}
"
        );
        let mut mesh = start(Some(&policy));
        mesh.await_line(0, &["there is no Service shop/auth", "patch.yaml:6:"]).unwrap();
        let asked = |mesh: &Mesh| mesh.get("web-v2", "/", &[]).unwrap().status;
        assert_eq!((mesh.ask("/", &[]).unwrap().status, asked(&mesh)), (200, 403));
    }
}
