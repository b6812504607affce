//! What enters from outside, and servers that are not in the mesh, as clients and servers around a real Envoy see it.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use weft_e2e::mesh::{Files, service};
use weft_e2e::tls::{self, Authority, Proof};
use weft_e2e::{Client, Mesh, Result, wait};

const PATIENCE: Duration = Duration::from_secs(20);

const SIDECAR: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Sidecar
metadata: { name: edge, namespace: shop }
spec: { tags: { version: v2 } }
";

const GET: &str = "GET / HTTP/1.1\r\nconnection: close\r\nhost: ";

fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

fn start(upstreams: &[(u16, &str)], documents: &str) -> Mesh {
    let prepare = |files: &Files<'_>| {
        files.save("sidecar.yaml", SIDECAR)?;
        files.save("documents.yaml", documents)
    };
    Mesh::start(upstreams, prepare).unwrap()
}

fn gateway(listeners: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: public, namespace: shop }}
spec: {{ gatewayClassName: weft, listeners: [{listeners}] }}
---
"
    )
}

/// A route called `name` with these fields, on the Gateway's listener `section`.
fn route(kind: &str, name: &str, section: &str, rest: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{ name: {name}, namespace: shop }}
spec:
  parentRefs: [{{ name: public, sectionName: {section} }}]
{rest}
---
"
    )
}

fn to(name: &str) -> String {
    format!("  rules: [{{ backendRefs: [{{ name: {name}, port: 80 }}] }}]")
}

fn secret(name: &str, proof: &Proof) -> String {
    let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
    format!(
        "\
apiVersion: v1
kind: Secret
metadata: {{ name: {name}, namespace: shop }}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {}
  tls.key: |
    {}
---
",
        indented(&proof.certificate),
        indented(&proof.key)
    )
}

fn trusting(service: &str, hostname: &str, authority: &Authority) -> String {
    format!(
        "\
apiVersion: v1
kind: ConfigMap
metadata: {{ name: {service}-authority, namespace: shop }}
data:
  ca.crt: |
    {}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{ name: {service}, namespace: shop }}
spec:
  targetRefs: [{{ group: \"\", kind: Service, name: {service} }}]
  validation:
    caCertificateRefs: [{{ group: \"\", kind: ConfigMap, name: {service}-authority }}]
    hostname: {hostname}
---
",
        authority.certificate().trim().replace('\n', "\n    ")
    )
}

#[test]
fn a_gateway_tells_hosts_apart_and_its_listeners_keep_to_theirs() {
    let listeners = "
      { name: any, port: 8080, protocol: HTTP },
      { name: wild, port: 8080, protocol: HTTP, hostname: '*.example.com' }";
    let documents = [
        gateway(listeners),
        route("HTTPRoute", "v1", "any", &to("v1")),
        route("HTTPRoute", "v2", "wild", &format!("  hostnames: [www.example.com, other.org]\n{}", to("v2"))),
        service("v1", 8081),
        service("v2", 8082),
    ];
    let mesh = start(&[(8081, "v1"), (8082, "v2")], &documents.concat());
    let ask = |host: &str| {
        let answer = Client::from(&mesh.pod, at(8080)).unwrap().get(host, "/", &[]).unwrap();
        (answer.status, answer.echo().map(|echo| echo.name).unwrap_or_default())
    };
    for (host, status, upstream) in [
        ("www.example.com", 200, "v2"),
        ("www.example.com:8080", 200, "v2"),
        ("elsewhere.example.com", 404, ""),
        ("other.org", 200, "v1"),
        ("example.com", 200, "v1"),
    ] {
        assert_eq!(ask(host), (status, upstream.to_owned()), "{host}");
    }
    let mut client = Client::from(&mesh.pod, at(8080)).unwrap();
    let forged = [("x-weft-tag-version", "forged"), ("x-forwarded-for", "1.2.3.4")];
    let echo = client.get("a.org", "/", &forged).unwrap().echo().unwrap();
    assert_eq!(echo.headers.get("x-weft-tag-version").map(String::as_str), Some("v2"));
    assert!(echo.headers["x-forwarded-for"].ends_with("127.0.0.1"), "{:?}", echo.headers);
}

#[test]
fn tls_ends_at_a_gateway_and_a_renewed_certificate_changes_no_listener() {
    let authority = Authority::new().unwrap();
    let first = authority.vouch_for(&["www.example.com"]).unwrap();
    let other = authority.vouch_for(&["*.example.org"]).unwrap();
    let listeners = "
      { name: www, port: 8443, protocol: HTTPS, hostname: www.example.com, tls: { certificateRefs: [{ name: www }] } },
      { name: wild, port: 8443, protocol: HTTPS, hostname: '*.example.org', tls: { certificateRefs: [{ name: wild }] } }";
    let documents = [
        gateway(listeners),
        route("HTTPRoute", "v1", "www", &to("v1")),
        route("HTTPRoute", "v2", "wild", &to("v2")),
        service("v1", 8081),
        service("v2", 8082),
        secret("wild", &other),
    ];
    let mesh = Mesh::start(&[(8081, "v1"), (8082, "v2")], |files| {
        files.save("sidecar.yaml", SIDECAR)?;
        files.save("documents.yaml", &documents.concat())?;
        files.save("www.yaml", &secret("www", &first))
    })
    .unwrap();
    let say = |name: &str, host: &str| {
        tls::say(&mesh.pod, at(8443), name, &authority, &format!("{GET}{host}\r\n\r\n")).unwrap()
    };
    let said = say("www.example.com", "www.example.com");
    assert!(first.is(&said.certificate) && said.text.contains("\"v1\""), "{}", said.text);
    let said = say("a.example.org", "a.example.org");
    assert!(other.is(&said.certificate) && said.text.contains("\"v2\""), "{}", said.text);
    let said = say("www.example.com", "a.example.org");
    assert!(said.text.starts_with("HTTP/1.1 421 "), "{}", said.text);
    let said = say("www.example.com", "nobody.net");
    assert!(said.text.starts_with("HTTP/1.1 404 "), "{}", said.text);
    assert!(tls::say(&mesh.pod, at(8443), "nobody.net", &authority, GET).is_err(), "nobody is for that name");

    let before = mesh.stat("listener_manager.listener_modified").unwrap();
    let renewed = authority.vouch_for(&["www.example.com"]).unwrap();
    mesh.files().save("www.yaml", &secret("www", &renewed)).unwrap();
    wait::until("the new certificate", PATIENCE, || {
        let said = say("www.example.com", "www.example.com");
        if renewed.is(&said.certificate) { Ok(()) } else { Err(mesh.sidecar.log()) }
    })
    .unwrap();
    assert_eq!(mesh.stat("listener_manager.listener_modified").unwrap(), before);
    let log = mesh.sidecar.log();
    assert!(!log.contains("PRIVATE") && !log.contains(renewed.key.lines().nth(1).unwrap()), "{log}");
}

#[test]
fn connections_are_passed_on_by_server_name_and_split_by_weight() {
    let authority = Authority::new().unwrap();
    let proof = authority.vouch_for(&["db.example.org", "cache.example.org"]).unwrap();
    let listeners = "
      { name: passed, port: 8443, protocol: TLS, hostname: '*.example.org', tls: { mode: Passthrough } },
      { name: tcp, port: 5432, protocol: TCP }";
    let split =
        "  rules: [{ backendRefs: [{ name: plain-1, port: 80, weight: 3 }, { name: plain-2, port: 80 }] }]";
    let documents = [
        gateway(listeners),
        route("TLSRoute", "db", "passed", &format!("  hostnames: [db.example.org]\n{}", to("db"))),
        route("TLSRoute", "rest", "passed", &to("rest")),
        route("TCPRoute", "split", "tcp", split),
        service("db", 8081),
        service("rest", 8082),
        service("plain-1", 8083),
        service("plain-2", 8084),
    ];
    let mesh = start(&[], &documents.concat());
    tls::serve(&mesh.pod, 8081, "db", Some(&proof)).unwrap();
    tls::serve(&mesh.pod, 8082, "rest", Some(&proof)).unwrap();
    tls::serve(&mesh.pod, 8083, "one", None).unwrap();
    tls::serve(&mesh.pod, 8084, "two", None).unwrap();
    for (name, server) in [("db.example.org", "db"), ("cache.example.org", "rest")] {
        let said = tls::say(&mesh.pod, at(8443), name, &authority, &format!("{GET}{name}\r\n\r\n")).unwrap();
        assert!(proof.is(&said.certificate), "the server's own certificate");
        assert!(said.text.contains(&format!("{server} sni={name}")), "{}", said.text);
    }
    assert!(tls::say(&mesh.pod, at(8443), "db.example.com", &authority, GET).is_err());
    let mut counts = BTreeMap::<String, usize>::new();
    for _ in 0..200 {
        let body = Client::from(&mesh.pod, at(5432)).unwrap().get("any", "/", &[]).unwrap().body;
        *counts.entry(body.split(' ').next().unwrap().to_owned()).or_default() += 1;
    }
    // Outside of these bounds once in a million runs.
    assert!((119..=179).contains(&counts["one"]) && counts.len() == 2, "{counts:?}");
}

#[test]
fn a_backend_must_prove_who_it_is() {
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let proof = authority.vouch_for(&["db.example.org"]).unwrap();
    let documents = [
        service("good", 8081),
        trusting("good", "db.example.org", &authority),
        service("renamed", 8081),
        trusting("renamed", "other.example.org", &authority),
        service("strange", 8081),
        trusting("strange", "db.example.org", &stranger),
    ];
    let mesh = start(&[], &documents.concat());
    tls::serve(&mesh.pod, 8081, "db", Some(&proof)).unwrap();
    let ask = |host: &str| mesh.client().unwrap().get(host, "/", &[]).unwrap();
    let good = ask("good");
    assert_eq!(good.status, 200, "{} {}", good.body, mesh.sidecar.log());
    assert_eq!(good.body, "db sni=db.example.org host=good\n");
    for host in ["renamed", "strange"] {
        let refused = ask(host);
        assert_eq!(refused.status, 503, "{host}");
        assert!(refused.body.contains("connection failure"), "{host}: {}", refused.body);
    }
}

/// Names are what `/etc/hosts` says, which Envoy's resolver reads, too; the node has one of its own.
#[test]
fn servers_are_found_by_name() {
    let services = "\
apiVersion: v1
kind: Service
metadata: { name: external, namespace: shop }
spec: { type: ExternalName, externalName: api.example.com, ports: [{ port: 8081 }] }
---
apiVersion: v1
kind: Service
metadata: { name: peers, namespace: shop }
spec: { clusterIP: None, ports: [{ port: 80, targetPort: 8082 }] }
";
    let mesh = Mesh::start(&[(8081, "external"), (8082, "peer")], |files| {
        own_hosts(files)?;
        files.save("sidecar.yaml", SIDECAR)?;
        files.save("services.yaml", services)
    })
    .unwrap();
    let ask = |host: &str| mesh.client().unwrap().get(host, "/", &[]).unwrap();
    let resolved = |host: &str| {
        wait::until(&format!("{host} to be found"), PATIENCE, || match ask(host) {
            answer if answer.status == 200 => Ok(answer.echo().unwrap()),
            answer => Err(format!("{} {}", answer.status, answer.body)),
        })
        .unwrap()
    };
    let external = resolved("external.shop:8081");
    assert_eq!(external.name, "external");
    assert_eq!(external.headers["host"], "api.example.com:8081", "it knows itself by no other name");
    let peer = resolved("peers");
    assert_eq!((peer.name.as_str(), peer.headers["host"].as_str()), ("peer", "peers"));
}

fn own_hosts(files: &Files<'_>) -> Result<()> {
    let hosts = files.node.dir().join("hosts");
    let names = "127.0.0.1 localhost api.example.com peers.shop.svc.cluster.local\n";
    files.node.run(|| fs::write(&hosts, names))?.unwrap();
    files.node.sh(&format!("mount --bind {} /etc/hosts", hosts.display()))?;
    Ok(())
}
