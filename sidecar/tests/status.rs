//! What is told of Gateways, routes and policies, in the conditions of the Gateway API.

#![cfg(test)]

use std::fs;

use weft_sidecar::configuration::Configuration;
use weft_sidecar::read::files::Roots;

const SIDECAR: &str = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: a, namespace: shop}\n";

const WEB: &str = "\
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: other}
spec: {ports: [{port: 80}]}
";

fn gateway(listeners: &str) -> String {
    let head = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\n";
    format!("{head}spec: {{gatewayClassName: weft, listeners: [{listeners}]}}\n")
}

fn route(kind: &str, name: &str, parent: &str, rest: &str) -> String {
    let head =
        format!("---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n");
    format!("{head}spec: {{parentRefs: [{parent}], {rest}}}\n")
}

/// `kind name, part: type=status reason` of every condition that is not good.
fn not_good(documents: &str) -> Vec<String> {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("a.yaml"), format!("{SIDECAR}{WEB}{documents}")).expect("write");
    let mut configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
    let listing = configuration.roots().list();
    configuration.look(&listing, &Default::default());
    let errors: Vec<_> =
        configuration.mistakes().into_iter().filter(weft_sidecar::diagnostic::Diagnostic::is_fatal).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let mut told = Vec::new();
    for object in configuration.status() {
        let whole = (String::new(), object.conditions.clone());
        let parts = object.parts.iter().map(|part| (format!(", {}", part.name), part.conditions.clone()));
        for (part, conditions) in std::iter::once(whole).chain(parts) {
            let bad = conditions.iter().filter(|one| !one.is_good());
            told.extend(bad.map(|one| {
                format!(
                    "{} {}{part}: {}={} {}",
                    object.kind, object.key, one.of_type, one.is_true, one.reason
                )
            }));
        }
    }
    told
}

#[test]
fn listeners_that_cannot_be_told_apart_are_all_in_conflict() {
    let listeners = "{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: TCP},
      {name: c, port: 81, protocol: HTTP}, {name: d, port: 82, protocol: UDP}, {name: e, port: 15001, protocol: HTTP}";
    assert_eq!(
        not_good(&gateway(listeners)),
        [
            "Gateway shop/gw: Accepted=true ListenersNotValid",
            "Gateway shop/gw, listener a, 0 routes: Accepted=false ProtocolConflict",
            "Gateway shop/gw, listener a, 0 routes: Conflicted=true ProtocolConflict",
            "Gateway shop/gw, listener a, 0 routes: Programmed=false Invalid",
            "Gateway shop/gw, listener b, 0 routes: Accepted=false ProtocolConflict",
            "Gateway shop/gw, listener b, 0 routes: Conflicted=true ProtocolConflict",
            "Gateway shop/gw, listener b, 0 routes: Programmed=false Invalid",
            "Gateway shop/gw, listener d, 0 routes: Accepted=false UnsupportedProtocol",
            "Gateway shop/gw, listener d, 0 routes: Programmed=false Invalid",
            "Gateway shop/gw, listener e, 0 routes: Accepted=false PortUnavailable",
            "Gateway shop/gw, listener e, 0 routes: Programmed=false Invalid",
        ]
    );
}

#[test]
fn a_certificate_must_be_there_and_permitted() {
    let listeners =
        "{name: a, port: 443, protocol: HTTPS, hostname: a.org, tls: {certificateRefs: [{name: gone}]}},
      {name: b, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: far, namespace: other}]}},
      {name: c, port: 80, protocol: HTTP, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: HTTPRoute}]}}";
    assert_eq!(
        not_good(&gateway(listeners)),
        [
            "Gateway shop/gw: Accepted=true ListenersNotValid",
            "Gateway shop/gw, listener a, 0 routes: ResolvedRefs=false InvalidCertificateRef",
            "Gateway shop/gw, listener a, 0 routes: Programmed=false Invalid",
            "Gateway shop/gw, listener b, 0 routes: ResolvedRefs=false RefNotPermitted",
            "Gateway shop/gw, listener b, 0 routes: Programmed=false Invalid",
            "Gateway shop/gw, listener c, 0 routes: ResolvedRefs=false InvalidRouteKinds",
        ]
    );
}

#[test]
fn each_step_of_attaching_a_route_has_a_reason_of_its_own() {
    let listeners = "{name: http, port: 80, protocol: HTTP, hostname: '*.example.com'}, {name: tcp, port: 81, protocol: TCP}";
    let web = "rules: [{backendRefs: [{name: web, port: 80}]}]";
    let documents = [
        gateway(listeners),
        route("HTTPRoute", "a-good", "{name: gw}", web),
        route("HTTPRoute", "b-no-gateway", "{name: gv}", web),
        route("HTTPRoute", "c-no-listener", "{name: gw, sectionName: htp}", web),
        route("HTTPRoute", "d-not-allowed", "{name: gw, sectionName: tcp}", web),
        route("HTTPRoute", "e-other-host", "{name: gw}", &format!("hostnames: [example.org], {web}")),
        route("HTTPRoute", "f-no-backend", "{name: gw}", "rules: [{backendRefs: [{name: wbe, port: 80}]}]"),
        route(
            "TCPRoute",
            "g-not-permitted",
            "{name: gw}",
            "rules: [{backendRefs: [{name: far, namespace: other, port: 80}]}]",
        ),
        route("HTTPRoute", "h-no-port", "{group: '', kind: Service, name: web}", web),
    ];
    assert_eq!(
        not_good(&documents.concat()),
        [
            "HTTPRoute shop/b-no-gateway, at Gateway shop/gv: Accepted=false NoMatchingParent",
            "HTTPRoute shop/c-no-listener, at Gateway shop/gw, htp: Accepted=false NoMatchingParent",
            "HTTPRoute shop/d-not-allowed, at Gateway shop/gw, tcp: Accepted=false NotAllowedByListeners",
            "HTTPRoute shop/e-other-host, at Gateway shop/gw: Accepted=false NoMatchingListenerHostname",
            "HTTPRoute shop/f-no-backend, at Gateway shop/gw: ResolvedRefs=false BackendNotFound",
            "TCPRoute shop/g-not-permitted, at Gateway shop/gw: ResolvedRefs=false RefNotPermitted",
        ]
    );
}

#[test]
fn a_gateway_that_is_misspelt_has_its_right_name_beside_it() {
    let dir = tempfile::tempdir().expect("directory");
    let gateway = gateway("{name: http, port: 80, protocol: HTTP}").replace("name: gw", "name: public");
    let route = route("HTTPRoute", "r", "{name: pubilc}", "rules: [{backendRefs: [{name: web, port: 80}]}]");
    fs::write(dir.path().join("a.yaml"), format!("{SIDECAR}{WEB}{gateway}{route}")).expect("write");
    let mut configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
    let listing = configuration.roots().list();
    configuration.look(&listing, &Default::default());
    let told: Vec<String> = configuration.mistakes().iter().filter_map(|one| one.help.clone()).collect();
    assert!(told.contains(&"did you mean \"public\"?".to_owned()), "{told:?}");
}

#[test]
fn a_route_of_connections_is_refused_at_a_service() {
    let dir = tempfile::tempdir().expect("directory");
    let parent = "{group: '', kind: Service, name: web}";
    let route = route("TCPRoute", "r", parent, "rules: [{backendRefs: [{name: web, port: 80}]}]");
    fs::write(dir.path().join("a.yaml"), format!("{SIDECAR}{WEB}{route}")).expect("write");
    let mut configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
    let listing = configuration.roots().list();
    configuration.look(&listing, &Default::default());
    let mut errors = configuration.mistakes().into_iter().filter(|one| one.is_error());
    let error = errors.next().expect("an error");
    assert_eq!(error.message, "a TCPRoute cannot be attached to a Service yet");
}

#[test]
fn a_policy_that_trusts_nobody_is_not_accepted() {
    let policy = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: p}\nspec:\n  \
      targetRefs: [{group: '', kind: Service, name: web}]\n  \
      validation: {hostname: web.org, caCertificateRefs: [{group: '', kind: ConfigMap, name: gone}]}\n";
    assert_eq!(
        not_good(policy),
        [
            "BackendTLSPolicy shop/p: Accepted=false NoValidCACertificate",
            "BackendTLSPolicy shop/p: ResolvedRefs=false InvalidCACertificateRef",
        ]
    );
}

/// The first example of `docs/sidecar/gateways.md`, and what is said there of it without its Secret.
#[test]
fn what_the_page_shows_is_what_is_told() {
    let page = include_str!("../../docs/sidecar/gateways.md");
    let fenced =
        |kind: &str| page.split(&format!("```{kind}\n")).nth(1).and_then(|rest| rest.split("```").next());
    let (example, shown) = (fenced("yaml").expect("an example"), fenced("console").expect("its status"));
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("a.yaml"), format!("{SIDECAR}{WEB}---\n{example}")).expect("write");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weft-sidecar"));
    let done = command.arg("status").arg(dir.path()).output().expect("the program runs");
    let told = String::from_utf8(done.stdout).expect("text");
    assert_eq!(format!("$ weft-sidecar status mesh\n{told}"), shown);
    assert_eq!(done.status.code(), Some(1));
}

/// Manifests as the guides of the Gateway API write them, with nothing beside them but a Sidecar and what they name.
#[test]
fn what_is_written_for_the_gateway_api_works_as_it_is() {
    let manifests = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway-api");
    let mut tried = 0;
    for entry in fs::read_dir(manifests).expect("list") {
        let folder = entry.expect("an entry").path();
        let mut configuration = Configuration::new(Roots::new([folder.clone()]));
        let listing = configuration.roots().list();
        configuration.look(&listing, &Default::default());
        let mistakes: Vec<String> = configuration.mistakes().iter().map(ToString::to_string).collect();
        assert!(mistakes.is_empty(), "{}", mistakes.join("\n\n"));
        let objects = configuration.status();
        let told: String = objects.iter().map(|object| object.human()).collect();
        let mut conditions = objects.iter().flat_map(|object| object.all_conditions());
        assert!(!objects.is_empty() && conditions.all(|one| one.is_good()), "{told}");
        assert!(!told.contains(", 0 routes"), "{told}");
        tried += 1;
    }
    assert!(tried >= 5);
}
