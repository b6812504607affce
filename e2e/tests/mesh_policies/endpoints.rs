//! Which endpoints requests go to: shares, checks and subsets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weft_e2e::{Mesh, grpc, wait};

use crate::{
    CANARY, PATIENCE, SIDECAR, always, get, mesh, name, policy, service, stat, two, upstream, with_documents,
};

#[test]
fn requests_with_the_same_key_go_to_the_same_endpoint() {
    for algorithm in ["RingHash", "Maglev"] {
        let mesh =
            mesh(&format!("  loadBalancing: {{ algorithm: {algorithm}, hashOn: [{{ header: x-user }}] }}"));
        let (_v1, _v2) = (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"));
        let mut used = BTreeSet::new();
        for user in 0..20 {
            let user = user.to_string();
            let names: BTreeSet<String> = (0..5).map(|_| name(&get(&mesh, &[("x-user", &user)]))).collect();
            assert_eq!(names.len(), 1, "{algorithm}: {names:?}");
            used.extend(names);
        }
        assert_eq!(used.len(), 2, "{algorithm} uses both endpoints");
    }
}

/// The near one comes first as long as it is well, and only then.
#[test]
fn the_own_zone_is_preferred_and_another_takes_over_when_it_fails() {
    let mesh = mesh(
        "  loadBalancing: { locality: { prefer: [Zone] } }\n  healthCheck: { tcp: {}, interval: 100ms, \
         unhealthyThreshold: 1, healthyThreshold: 1 }",
    );
    let _far = upstream(&mesh, 8082, "v2");
    let answered_by = |wanted: &str| {
        wait::until(&format!("{wanted} alone to answer"), PATIENCE, || {
            let names: Vec<String> = (0..10)
                .map(|_| get(&mesh, &[]))
                .map(|answer| answer.echo().map_or_else(|_error| answer.status.to_string(), |echo| echo.name))
                .collect();
            if names.iter().all(|name| name == wanted) { Ok(()) } else { Err(format!("{names:?}")) }
        })
        .unwrap();
    };
    let near = upstream(&mesh, 8081, "v1");
    answered_by("v1");
    drop(near);
    answered_by("v2");
    let _near = upstream(&mesh, 8081, "v1");
    answered_by("v1");
}

/// Who answered, and how often; a status where nobody did.
fn answers(mesh: &Mesh, requests: u32) -> BTreeMap<String, u32> {
    let mut client = mesh.client().unwrap();
    let mut all = BTreeMap::new();
    for _ in 0..requests {
        let answer = client.get("web", "/", &[]).unwrap();
        let by = answer.echo().map_or_else(|_error| answer.status.to_string(), |echo| echo.name);
        *all.entry(by).or_default() += 1;
    }
    all
}

fn await_answers(mesh: &Mesh, only: &[&str]) {
    let wanted: BTreeSet<&str> = only.iter().copied().collect();
    wait::until(&format!("{only:?} alone to answer"), PATIENCE, || {
        let answers = answers(mesh, 20);
        let names: BTreeSet<&str> = answers.keys().map(String::as_str).collect();
        if names == wanted { Ok(()) } else { Err(format!("{answers:?}")) }
    })
    .unwrap();
}

const CHECKS: &str = "interval: 100ms, unhealthyThreshold: 1, healthyThreshold: 1";

#[test]
fn an_endpoint_whose_health_page_says_no_gets_no_requests() {
    let mesh = mesh(&format!("  healthCheck: {{ http: {{ path: /healthz }}, {CHECKS} }}"));
    let well = upstream(&mesh, 8081, "v1");
    let ill = always(&mesh, 8082, "v2", "503");
    await_answers(&mesh, &["v1"]);
    let asked = well.seen().into_iter().find(|echo| echo.path == "/healthz").unwrap();
    assert_eq!((asked.method.as_str(), asked.headers["host"].as_str()), ("GET", "web.shop"));
    drop(ill);
    let _recovered = upstream(&mesh, 8082, "v2");
    await_answers(&mesh, &["v1", "v2"]);
}

#[test]
fn an_endpoint_whose_health_service_does_not_serve_gets_no_requests() {
    const SERVING: u8 = 1;
    const NOT_SERVING: u8 = 2;
    let grpc = two().replace("name: http, port: 80 ", "name: http, port: 80, appProtocol: grpc ");
    let check = format!("  healthCheck: {{ grpc: {{ service: shop.Cart }}, {CHECKS} }}");
    let mesh = with_documents(&format!("{grpc}{}", policy(&check)));
    let second = Arc::new(AtomicU8::new(NOT_SERVING));
    let server = |port, by: &'static str, status: Arc<AtomicU8>| {
        let answer = move |method: &str, asked: &[u8]| match method {
            // A `HealthCheckRequest` that names the service, and a `HealthCheckResponse`.
            "/grpc.health.v1.Health/Check" if asked.ends_with(b"shop.Cart") => {
                vec![0x08, status.load(Ordering::Relaxed)]
            }
            _ => by.into(),
        };
        grpc::Server::start(&mesh.pod, port, answer).unwrap()
    };
    let (_v1, _v2) =
        (server(8081, "v1", Arc::new(AtomicU8::new(SERVING))), server(8082, "v2", Arc::clone(&second)));
    let await_servers = |only: &[&str]| {
        wait::until(&format!("{only:?} alone to answer"), PATIENCE, || {
            let call = |_| grpc::call(&mesh.pod, weft_e2e::mesh::OUTBOUND, "web", "/shop.Cart/Get", &[]);
            let bodies: BTreeSet<String> = (0..20).map(call).map(|answer| answer.unwrap().body).collect();
            let as_wanted = bodies.len() == only.len()
                && only.iter().all(|name| bodies.iter().any(|body| body.ends_with(name)));
            if as_wanted { Ok(()) } else { Err(format!("{bodies:?}")) }
        })
        .unwrap();
    };
    await_servers(&["v1"]);
    second.store(SERVING, Ordering::Relaxed);
    await_servers(&["v1", "v2"]);
}

#[test]
fn each_zone_gets_its_share() {
    let mesh = mesh("  loadBalancing: { locality: { weights: { a: 90, b: 10 } } }");
    let (_v1, _v2) = (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"));
    let answers = answers(&mesh, 400);
    // Envoy deals by turns, each of its workers by itself.
    assert!((350..=370).contains(&answers["v1"]), "{answers:?}");
    assert_eq!(answers.len(), 2, "{answers:?}");
}

/// The first has been there for longer than the second when both are counted.
#[test]
fn a_new_endpoint_gets_its_share_little_by_little() {
    const AHEAD: Duration = Duration::from_secs(3);
    let one = format!("{SIDECAR}{}", service("web", &[(8081, "v1", "a")]));
    let slow =
        policy("  loadBalancing: { algorithm: RoundRobin, slowStart: { window: 20s, minimumPercent: 1 } }");
    let mut mesh = with_documents(&format!("{one}{slow}"));
    let (_v1, _v2) = (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"));
    let start = Instant::now();
    while start.elapsed() < AHEAD {
        assert_eq!(answers(&mesh, 10), BTreeMap::from([("v1".into(), 10)]));
    }
    mesh.revise("mesh.yaml", &format!("{}{slow}", two())).unwrap();
    let answers = answers(&mesh, 100);
    let second = answers.get("v2").copied().unwrap_or_default();
    assert!(second < 40, "{answers:?} after {:?}", start.elapsed());
    mesh.revise("mesh.yaml", &format!("{}{}", two(), policy("  loadBalancing: { algorithm: RoundRobin }")))
        .unwrap();
    let half = self::answers(&mesh, 100)["v2"];
    assert!((45..=55).contains(&half), "without it half of them: {half}");
}

#[test]
fn retries_are_no_more_than_their_budget() {
    let spec = "  retry: { attempts: 1, codes: [503], backoff: { base: 1ms }, budget: { percent: 1, minConcurrency: 1 } }";
    let one = service("web", &[(8081, "v1", "a")]);
    let mesh = with_documents(&format!("{SIDECAR}{one}{}", policy(spec)));
    let _v1 = upstream(&mesh, 8081, "v1");
    // The first try of each fails at once; a retry takes a second, in which no other may begin.
    let script = [("x-script", "503,slow")];
    let statuses: Vec<u16> = thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| get(&mesh, &script).status)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
    assert!(stat(&mesh, "cluster.shop/web/80.upstream_rq_retry_overflow") > 0);
}

#[test]
fn a_subset_is_what_another_service_has() {
    let canary = "---\n".to_owned() + &service("web-v2", &[(8082, "v2", "b")]);
    let subsets = "
  subsets:
    - { name: canary, service: web-v2 }
    - { name: stable, tags: { version: v1 } }
    - { name: nobody, tags: { version: v3 } }
    - { name: anybody, tags: { version: v3 }, whenEmpty: AnyEndpoint }
";
    let documents = format!("{}{}{CANARY}{canary}", two(), policy(subsets));
    let mut mesh = with_documents(&documents);
    let (_v1, _v2) = (upstream(&mesh, 8081, "v1"), upstream(&mesh, 8082, "v2"));
    let canary = [("x-deployment-phase", "canary")];
    for _ in 0..20 {
        assert_eq!(name(&get(&mesh, &canary)), "v2");
        assert_eq!(name(&get(&mesh, &[])), "v1");
    }
    let (before, after) = documents.rsplit_once("ports: [{ name: http, port: 8082 }]").unwrap();
    mesh.revise("mesh.yaml", &format!("{before}ports: [{{ name: http, port: 8081 }}]{after}")).unwrap();
    for _ in 0..20 {
        assert_eq!(name(&get(&mesh, &canary)), "v1", "its endpoint is another one now");
    }
}
