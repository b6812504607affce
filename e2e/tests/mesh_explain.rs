//! What `weft-sidecar explain` says is what the real Envoy does: a thousand random routes, and thousands of random requests
//! through them. `WEFT_SEED` gives other ones.

#![cfg(test)]

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use weft_e2e::{Client, Envoy, Node, Pod, Upstream, binaries, output, self_contained};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const OUTBOUND: SocketAddr = SocketAddr::new(LOOPBACK, 15001);
const ADMIN: SocketAddr = SocketAddr::new(LOOPBACK, 15000);

const SERVICES: usize = 50;
const REQUESTS: usize = 3_000;

const HEADERS: &[&str] = &["x-a", "x-b"];
const VALUES: &[&str] = &["1", "2", "12", "1,2"];
const EXPRESSIONS: &[&str] = &["1.*", "[12]+", "2", ".", "(1|2),2"];
const PATHS: &[&str] = &["/", "/a", "/a/", "/a/b", "/ab", "/b", "/b/a/b", "/A", "/a%2Fb"];
const PATH_EXPRESSIONS: &[&str] = &["/a.*", "/(a|b)/b", "/[^/]+", "(?i)/a/b", "/a/?"];
const METHODS: &[&str] = &["GET", "POST", "PUT", "DELETE"];
/// Written by a client, with needless escapes, dots and all.
const ASKED: &[&str] = &[
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/ab",
    "/b",
    "/b/a/b",
    "/A",
    "/a%2Fb",
    "/a/./b",
    "/b/../a",
    "/%61",
    "/a/%2e%2e/b",
    "//a",
    "/c",
    "/a/b/c/d",
    "/A/B",
    "/b/a//b",
    "/a/b/..",
    "/a/.",
];
const QUERIES: &[&str] = &["", "?q=1", "?q=2&r=1", "?r=12&q", "?q=%31", "?", "?p=/a&q=1&q=2"];

/// xorshift64*: numbers that are the same with every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap() % limit
    }

    fn of<'t>(&mut self, choices: &[&'t str]) -> &'t str {
        choices[self.below(choices.len())]
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

fn services() -> String {
    let one = |at: usize| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: s{at} }}\nspec: {{ ports: [{{ port: 80 }}] }}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{ name: s{at}-1, labels: {{ kubernetes.io/service-name: s{at} }} }}\naddressType: IPv4\n\
             ports: [{{ port: 8080 }}]\nendpoints: [{{ addresses: [127.0.0.1] }}]\n---\n"
        )
    };
    (0..SERVICES).map(one).collect()
}

/// A match as a flow mapping.
fn random_match(chance: &mut Chance) -> String {
    let mut parts = Vec::new();
    match chance.below(5) {
        0 => parts.push(format!("path: {{ type: Exact, value: {} }}", chance.of(&PATHS[..PATHS.len() - 1]))),
        1 | 2 => parts.push(format!("path: {{ value: {} }}", chance.of(&PATHS[..PATHS.len() - 1]))),
        3 => parts
            .push(format!("path: {{ type: RegularExpression, value: \"{}\" }}", chance.of(PATH_EXPRESSIONS))),
        _ => {}
    }
    if chance.one_in(3) {
        parts.push(format!("method: {}", chance.of(METHODS)));
    }
    for (list, names) in [("headers", HEADERS), ("queryParams", &["q", "r"])] {
        if chance.one_in(3) {
            let (kind, value) = if chance.one_in(3) {
                ("RegularExpression", chance.of(EXPRESSIONS))
            } else {
                ("Exact", chance.of(VALUES))
            };
            let name = chance.of(names);
            parts.push(format!("{list}: [{{ type: {kind}, name: {name}, value: \"{value}\" }}]"));
        }
    }
    format!("{{ {} }}", parts.join(", "))
}

fn random_backends(chance: &mut Chance) -> String {
    let count = 1 + chance.below(3);
    let one = |chance: &mut Chance| {
        format!("{{ name: s{}, port: 80, weight: {} }}", chance.below(SERVICES), chance.below(4))
    };
    (0..count).map(|_| one(chance)).collect::<Vec<_>>().join(", ")
}

/// Two routes for each service, so that they have to be merged.
fn routes(chance: &mut Chance) -> (usize, String) {
    let (mut text, mut count) = (String::new(), 0);
    for route in 0..SERVICES * 2 {
        let service = route % SERVICES;
        write!(
            text,
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: r{route} }}\nspec:\n  \
             parentRefs: [{{ group: \"\", kind: Service, name: s{service} }}]\n  rules:\n"
        )
        .unwrap();
        for _ in 0..5 {
            let matches: Vec<String> = (0..1 + chance.below(3)).map(|_| random_match(chance)).collect();
            count += matches.len();
            let backends = random_backends(chance);
            writeln!(text, "    - matches: [{}]\n      backendRefs: [{backends}]", matches.join(", "))
                .unwrap();
        }
        text.push_str("---\n");
    }
    (count, text)
}

fn random_request(chance: &mut Chance) -> Value {
    let at = chance.below(SERVICES);
    let host = match chance.below(8) {
        0 => format!("s{at}:80"),
        1 => format!("S{at}.default"),
        2 => format!("s{at}.default.svc.cluster.local:80"),
        3 if chance.one_in(4) => format!("nobody{at}"),
        4 if chance.one_in(4) => format!("s{at}:81"),
        _ => format!("s{at}"),
    };
    let mut headers = serde_json::Map::new();
    for name in HEADERS.iter().filter(|_| chance.0 & 1 == 0) {
        headers.insert((*name).to_owned(), json!(VALUES[(chance.0 >> 7) as usize % VALUES.len()]));
    }
    let url = format!("http://{host}{}{}", chance.of(ASKED), chance.of(QUERIES));
    json!({ "method": chance.of(METHODS), "url": url, "headers": headers })
}

fn weft_sidecar(node: &Node, arguments: &[&str], config: &Path) -> String {
    let mut command = Command::new(binaries::weft("weft-sidecar").unwrap());
    command.args(arguments).arg("--config").arg(config);
    node.run(|| output(&mut command)).unwrap().unwrap()
}

/// What the sidecar would send, in one bootstrap, with the route's and the cluster's name in every answer.
fn telling_bootstrap(node: &Node, config: &Path) -> String {
    let read =
        |arguments: &[&str]| serde_json::from_str::<Value>(&weft_sidecar(node, arguments, config)).unwrap();
    let mut resources = read(&["translate", "--output", "json"]);
    let header = |name: &str, value: &str| json!({ "header": { "key": name, "value": value } });
    for routes in resources["routes"].as_array_mut().unwrap() {
        routes["response_headers_to_add"] =
            json!([header("x-route", "%ROUTE_NAME%"), header("x-cluster", "%UPSTREAM_CLUSTER%")]);
    }
    let mut bootstrap = self_contained(read(&["bootstrap"]), &resources);
    bootstrap.as_object_mut().unwrap().remove("dynamic_resources");
    bootstrap.to_string()
}

/// How the real Envoy's answer differs from what was foretold.
fn difference(client: &mut Client, request: &Value, foretold: &Value) -> Option<String> {
    let url = request["url"].as_str().unwrap().strip_prefix("http://").unwrap();
    let (host, path) = url.split_at(url.find('/').unwrap());
    let headers: Vec<(&str, &str)> = request["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
        .collect();
    let answer = client.request(request["method"].as_str().unwrap(), host, path, &headers).unwrap();
    let told = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let (route, cluster) = (told("x-route"), told("x-cluster"));
    let agree = match foretold["outcome"].as_str().unwrap() {
        "no host" | "no route" => answer.status == 404 && route.is_none(),
        "answer" => foretold["status"] == answer.status && foretold["route"]["name"] == json!(route),
        "forward" => {
            let mut targets = foretold["targets"].as_array().unwrap().iter();
            foretold["route"]["name"] == json!(route)
                && targets.any(|target| target["name"] == json!(cluster))
        }
        other => panic!("{other} was not among what is generated"),
    };
    (!agree).then(|| format!("{request}: Envoy {} {route:?} {cluster:?}, explain {foretold}", answer.status))
}

#[test]
fn explain_agrees_with_the_real_envoy_on_a_thousand_random_routes() {
    let seed = std::env::var("WEFT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_822);
    let mut chance = Chance(seed);
    let node = Node::start().unwrap();
    let pod = Pod::create(&node, "client").unwrap();
    let config = node.dir().join("mesh");
    let (count, routes) = routes(&mut chance);
    assert!(count >= 900, "{count} routes");
    let requests: Vec<Value> = (0..REQUESTS).map(|_| random_request(&mut chance)).collect();
    let lines: String = requests.iter().map(|request| format!("{request}\n")).collect();
    let sidecar = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: { name: a }\n";
    node.run(|| {
        fs::create_dir_all(&config)?;
        fs::write(config.join("sidecar.yaml"), sidecar)?;
        fs::write(config.join("services.yaml"), services())?;
        fs::write(config.join("routes.yaml"), routes)?;
        fs::write(node.dir().join("requests"), lines)
    })
    .unwrap()
    .unwrap();
    let file = node.dir().join("requests").display().to_string();
    let explained = weft_sidecar(&node, &["explain", "--requests", &file], &config);
    let explained: Vec<Value> = explained.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(explained.len(), REQUESTS);
    let _upstream = Upstream::start(&pod, 8080, "up").unwrap();
    let _envoy = Envoy::start(&pod, &telling_bootstrap(&node, &config), ADMIN).unwrap();
    let mut client = Client::from(&pod, OUTBOUND).unwrap();
    let all = requests.iter().zip(&explained);
    let wrong: Vec<String> =
        all.filter_map(|(request, told)| difference(&mut client, request, told)).collect();
    assert!(
        wrong.is_empty(),
        "seed {seed}: {} of {REQUESTS} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
    // A generator whose requests all end in the same place would prove nothing.
    for outcome in ["no host", "no route", "forward", "answer"] {
        let share = explained.iter().filter(|told| told["outcome"] == outcome).count();
        assert!(share >= REQUESTS / 100, "{share} times {outcome}");
    }
    let routes: std::collections::BTreeSet<String> =
        explained.iter().map(|told| told["route"]["name"].to_string()).collect();
    assert!(routes.len() >= count / 3, "{} of {count} routes were taken", routes.len());
}
