//! Who asks, and what they may: tokens, rules, and somebody who is asked; and what gRPC services are told by those that speak
//! JSON.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use weft_e2e::mesh::OUTBOUND;
use weft_e2e::{Mesh, grpc, wait};

use crate::{PATIENCE, get, head, mesh, policy, service, stat, two, upstream, with_documents};

const KEYS: &str =
    r#"{"keys":[{"kty":"oct","alg":"HS256","kid":"1","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U"}]}"#;
/// `{"iss":"shop","sub":"alice","roles":["admin","dev"]}`
const ALICE: &str = "Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJzaG9wIiwic3ViIjoiYWxpY2UiLCJyb2xlcyI6WyJhZG1pbiIsImRldiJdfQ.pEhlB3TH1624LnoA2EdStXjFRiLiW5nzXWPOVFtIhJE";
/// `{"iss":"shop","sub":"bob","roles":["dev"]}`
const BOB: &str = "Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJzaG9wIiwic3ViIjoiYm9iIiwicm9sZXMiOlsiZGV2Il19.S7Q480T6xDajdlE1KA7Mwqj4HJZ8yAIDURILYSSEz80";
/// As Alice's, signed by somebody else.
const FORGED: &str = "Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJzaG9wIiwic3ViIjoiZXZlIiwicm9sZXMiOlsiYWRtaW4iXX0.uIM51z4tw6Upg38TlxYPZ7zjZEwePoIT_IN2TtDgL3w";

#[test]
fn tokens_say_who_somebody_is_and_rules_what_they_may_do() {
    let mesh = mesh(&format!(
        "
  jwt:
    providers:
      - {{ name: shop, issuer: shop, jwks: {{ inline: '{KEYS}' }}, claimHeaders: [{{ claim: sub, header: x-subject }}] }}
  access:
    - {{ action: Deny, to: [{{ paths: [{{ value: /internal }}] }}] }}
    - {{ action: Allow, from: [{{ claims: [{{ name: roles, value: admin }}] }}] }}
    - {{ action: Allow, from: [{{ claims: [{{ name: sub, value: bob }}], sourceIPs: [127.0.0.0/8] }}], to: [{{ methods: [GET], paths: [{{ type: Exact, value: /bob }}] }}] }}
"
    ));
    let (_v1, _v2) = (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"));
    let ask = |path: &str, token: &str| mesh.get("web", path, &[("authorization", token)]).unwrap();
    assert_eq!(mesh.get("web", "/", &[]).unwrap().status, 401, "no token");
    assert_eq!(ask("/", FORGED).status, 401);
    let alice = ask("/", ALICE);
    assert_eq!(alice.status, 200, "{alice:?}");
    let seen = alice.echo().unwrap().headers;
    assert_eq!(seen.get("x-subject").map(String::as_str), Some("alice"));
    assert!(!seen.contains_key("authorization"), "the token is not for the upstream");
    assert_eq!(ask("/internal", ALICE).status, 403, "refused to everybody");
    assert_eq!(ask("/internal/x", ALICE).status, 403);
    assert_eq!(ask("/internals", ALICE).status, 200);
    assert_eq!(ask("/", BOB).status, 403, "no rule allows it");
    assert_eq!(ask("/bob?x=1", BOB).status, 200);
}

/// Answers every request in the pod with `body`. It ends with the process.
fn page(mesh: &Mesh, port: u16, body: &'static str) {
    let listener = mesh.pod.run(|| TcpListener::bind(("127.0.0.1", port))).unwrap().unwrap();
    thread::spawn(move || {
        listener.incoming().flatten().for_each(|mut stream| {
            drop(head(&mut stream));
            let length = body.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).unwrap();
        });
    });
}

fn status(mesh: &Mesh, token: &str) -> u16 {
    get(mesh, &[("authorization", token)]).status
}

#[test]
fn keys_may_be_in_a_file() {
    let mesh = Mesh::start(&[], |files| {
        let keys = files.node.dir().join("keys.json");
        files.node.write(&keys, KEYS)?;
        let provider = format!("{{ name: shop, issuer: shop, jwks: {{ file: {} }} }}", keys.display());
        files.save(
            "mesh.yaml",
            &format!("{}{}", two(), policy(&format!("  jwt: {{ providers: [{provider}] }}"))),
        )
    })
    .unwrap();
    let (_v1, _v2) = (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"));
    assert_eq!((status(&mesh, ALICE), status(&mesh, FORGED)), (200, 401));
}

#[test]
fn keys_may_be_asked_of_a_service() {
    let provider = "{ name: shop, issuer: shop, jwks: { remote: { uri: 'http://auth.shop/keys', backendRef: { name: auth, port: 80 } } } }";
    let jwt = policy(&format!("  jwt: {{ providers: [{provider}] }}"));
    let mesh = with_documents(&format!("{}{}{jwt}", two(), service("auth", &[(8090, "v1", "a")])));
    let (_v1, _v2) = (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"));
    assert_eq!(status(&mesh, ALICE), 401, "nobody answers: nobody is known");
    page(&mesh, 8090, KEYS);
    wait::until("the keys to be there", PATIENCE, || match status(&mesh, ALICE) {
        200 => Ok(()),
        other => Err(other.to_string()),
    })
    .unwrap();
    assert_eq!(status(&mesh, FORGED), 401);
    assert!(stat(&mesh, "cluster.shop/auth/80.upstream_rq_200") >= 1);
}

#[test]
fn an_authorization_service_is_asked_by_grpc() {
    let auth = service("auth", &[(8090, "v1", "a")])
        .replace("name: http, port: 80 ", "name: http, port: 80, appProtocol: grpc ");
    let asking =
        policy("  externalAuthorization: { grpc: { backendRef: { name: auth, port: 80 } }, timeout: 5s }");
    let mesh = with_documents(&format!("{}{auth}{asking}", two()));
    let (_v1, _v2) = (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"));
    assert_eq!(get(&mesh, &[]).status, 403, "nobody answers: nobody passes");
    let (said, asked) = channel();
    let _auth = grpc::Server::start(&mesh.pod, 8090, move |method, request| {
        said.send((method.to_owned(), String::from_utf8_lossy(request).into_owned())).unwrap();
        // A `CheckResponse`: status 7 is PERMISSION_DENIED.
        let denied = request.windows(7).any(|part| part == b"/secret");
        if denied { vec![0x0a, 0x02, 0x08, 0x07] } else { vec![0x0a, 0x00] }
    })
    .unwrap();
    wait::until("somebody to be asked", PATIENCE, || match get(&mesh, &[("x-user", "alice")]).status {
        200 => Ok(()),
        other => Err(other.to_string()),
    })
    .unwrap();
    let (method, request) = asked.recv_timeout(Duration::from_secs(5)).unwrap();
    assert_eq!(method, "/envoy.service.auth.v3.Authorization/Check");
    assert!(request.contains("x-user") && request.contains("alice"), "{request:?}");
    assert!(!request.contains("x-weft-tag-"), "{request:?}");
    assert_eq!(mesh.get("web", "/secret", &[]).unwrap().status, 403);
}

const CART: &str = r#"
syntax = "proto3";
package shop;
message Item { string name = 1; int32 count = 2; }
service Cart { rpc Put(Item) returns (Item); }
"#;

#[test]
fn a_grpc_service_is_asked_in_json() {
    let mesh = Mesh::start(&[], |files| {
        let dir = files.node.dir();
        files.node.write(dir.join("cart.proto"), CART)?;
        let set = dir.join("cart.pb");
        let (dir, set) = (dir.display(), set.display());
        files.node.sh(&format!("protoc --include_imports -I {dir} --descriptor_set_out {set} {dir}/cart.proto"))?;
        let spec = format!(
            "  jsonTranscoding: {{ descriptors: {{ file: {set} }}, services: [shop.Cart], autoMapping: true }}"
        );
        let grpc = two().replace("name: http, port: 80 ", "name: http, port: 80, appProtocol: grpc ");
        files.save("mesh.yaml", &format!("{grpc}{}", policy(&spec)))
    })
    .unwrap();
    let serve = |port| {
        // It says what it was told: an `Item`.
        let answer = |method: &str, asked: &[u8]| {
            assert_eq!(method, "/shop.Cart/Put");
            asked.to_vec()
        };
        grpc::Server::start(&mesh.pod, port, answer).unwrap()
    };
    let (_v1, _v2) = (serve(8081), serve(8082));
    let answer = post(&mesh, "/shop.Cart/Put", r#"{"name":"socks","count":3}"#);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    assert!(answer.contains(r#"{"name":"socks","count":3}"#), "{answer}");
    let refused = post(&mesh, "/shop.Cart/Put", r#"{"name":3}"#);
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
}

fn post(mesh: &Mesh, path: &str, body: &str) -> String {
    let mut stream = mesh.pod.run(|| TcpStream::connect(OUTBOUND)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: web\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
