//! What HTTPRoutes and GRPCRoutes say, as the clients and backends behind a real Envoy see it.

#![cfg(test)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use weft_e2e::mesh::{OUTBOUND, service};
use weft_e2e::{Answer, Mesh, grpc, wait};

const SIDECAR: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Sidecar
metadata: { name: checkout, namespace: shop }
";

const V1: &str = "backendRefs: [{ name: web-v1, port: 80 }]";
const V2: &str = "backendRefs: [{ name: web-v2, port: 80 }]";

/// A mesh in which `web` has these rules; `web-v1`, `web-v2` and `tap` are one upstream each, `both` is the first two.
fn mesh(rules: &str) -> Mesh {
    mesh_with("HTTPRoute", rules, "")
}

fn mesh_with(kind: &str, rules: &str, more: &str) -> Mesh {
    let services: String = [("web", 8081), ("web-v1", 8081), ("web-v2", 8082), ("tap", 8083), ("both", 8081)]
        .map(|(name, port)| service(name, port))
        .concat();
    let second = "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: both-2, namespace: shop, labels: { kubernetes.io/service-name: both } }
addressType: IPv4
ports: [{ port: 8082 }]
endpoints: [{ addresses: [127.0.0.1] }]
";
    Mesh::start(&[(8081, "v1"), (8082, "v2"), (8083, "tap")], |files| {
        files.save("sidecar.yaml", SIDECAR)?;
        files.save("services.yaml", &format!("{services}{second}"))?;
        files.save("routes.yaml", &route(kind, "web", rules))?;
        files.save("more.yaml", more)
    })
    .unwrap()
}

/// A route of namespace `shop` at the service of this name.
fn route(kind: &str, name: &str, rules: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{ name: {name}, namespace: shop }}
spec:
  parentRefs: [{{ group: \"\", kind: Service, name: {name} }}]
  rules:
{rules}"
    )
}

fn rule(path: &str, rest: &str) -> String {
    format!("    - matches: [{{ path: {{ value: {path} }} }}]\n      {rest}\n")
}

fn filtered(path: &str, filters: &str, rest: &str) -> String {
    rule(path, &format!("filters: [{filters}]\n      {rest}"))
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

fn all<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

/// How many of so many requests get each answer: the upstream's name, or the status.
fn count(mesh: &Mesh, path: &str, requests: usize, name: &str) -> usize {
    let mut client = mesh.client().unwrap();
    let answers = (0..requests).map(|_| {
        let answer = client.get("web", path, &[]).unwrap();
        if answer.status == 200 { answer.echo().unwrap().name } else { answer.status.to_string() }
    });
    answers.filter(|answer| answer == name).count()
}

#[test]
fn requests_are_told_apart_by_everything_that_a_match_can_name() {
    let mesh = mesh(&format!(
        "    - matches: [{{ path: {{ type: Exact, value: /exact }} }}]
      {V2}
    - matches: [{{ path: {{ type: RegularExpression, value: \"/v[0-9]+/.*\" }} }}]
      {V2}
    - matches: [{{ method: DELETE }}]
      {V2}
    - matches: [{{ headers: [{{ name: X-Phase, value: canary }}, {{ type: RegularExpression, name: x-user, value: \"a|b\" }}] }}]
      {V2}
    - matches: [{{ queryParams: [{{ name: phase, value: canary }}, {{ type: RegularExpression, name: n, value: \"[0-9]+\" }}] }}]
      {V2}
    - matches: [{{ headers: [{{ name: Host, value: web.shop }}] }}]
      {V2}
    - matches: [{{ method: CONNECT }}]
      {V2}
    - {V1}
"
    ));
    let canary = [("x-phase", "canary"), ("x-user", "b")];
    for (method, host, path, headers, upstream) in [
        ("GET", "web", "/", &[][..], "v1"),
        ("GET", "web", "/exact", &[], "v2"),
        ("GET", "web", "/exact/", &[], "v1"),
        ("GET", "web", "/v12/x", &[], "v2"),
        ("GET", "web", "/x/v12/x", &[], "v1"),
        ("DELETE", "web", "/", &[], "v2"),
        ("GET", "web", "/", &canary, "v2"),
        ("GET", "web", "/", &canary[..1], "v1"),
        ("GET", "web", "/?phase=canary&n=12", &[], "v2"),
        ("GET", "web", "/?phase=canary&n=x", &[], "v1"),
        ("GET", "web.shop", "/", &[], "v2"),
    ] {
        let answer = mesh.client().unwrap().request(method, host, path, headers).unwrap();
        assert_eq!(answer.echo().unwrap().name, upstream, "{method} {host} {path} {headers:?}");
    }
    assert_eq!(mesh.client().unwrap().request("CONNECT", "web:80", "web:80", &[]).unwrap().status, 200);
    let connected = mesh.upstreams[1].seen();
    assert_eq!(connected.last().map(|echo| echo.method.as_str()), Some("CONNECT"));
}

#[test]
fn headers_paths_and_hosts_are_changed() {
    let modify = "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: X-Set, value: 50% off }], add: [{ name: x-add, value: b }], remove: [x-gone] } },
        { type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: content-type, value: text/x }], add: [{ name: X-Seen, value: \"1\" }] } }";
    let prefix = |new: &str| {
        format!(
            "{{ type: URLRewrite, urlRewrite: {{ path: {{ type: ReplacePrefixMatch, replacePrefixMatch: \"{new}\" }} }} }}"
        )
    };
    let full = "{ type: URLRewrite, urlRewrite: { hostname: other.example, path: { type: ReplaceFullPath, replaceFullPath: /a%20b } } }";
    let mesh = mesh(
        &[
            filtered("/headers", modify, V1),
            filtered("/foo", &prefix("/xyz/"), V1),
            filtered("/away", &prefix(""), V1),
            filtered("/full", full, V1),
            filtered("/", &prefix("/app"), V1),
        ]
        .concat(),
    );
    let answer = mesh.ask("/headers", &[("x-set", "old"), ("x-add", "a"), ("x-gone", "x")]).unwrap();
    let seen = answer.echo().unwrap().headers;
    let of = |name: &str| seen.get(name).map(String::as_str);
    assert_eq!((of("x-set"), of("x-add"), of("x-gone")), (Some("50% off"), Some("a, b"), None));
    assert_eq!((header(&answer, "content-type"), header(&answer, "x-seen")), (Some("text/x"), Some("1")));
    // The table of HTTPPathModifier.
    for (asked, got) in [
        ("/foo/bar?q=1", "/xyz/bar?q=1"),
        ("/foo", "/xyz"),
        ("/foo/", "/xyz/"),
        ("/away/bar", "/bar"),
        ("/away/", "/"),
        ("/away", "/"),
        ("/away?q", "/?q"),
        ("/full/of/it?q=1", "/a%20b?q=1"),
        ("/bar", "/app/bar"),
        ("/", "/app/"),
    ] {
        assert_eq!(mesh.echo(asked, &[]).unwrap().path, got, "{asked}");
    }
    assert_eq!(mesh.echo("/full", &[]).unwrap().headers["host"], "other.example");
    assert_eq!(mesh.echo("/foo", &[]).unwrap().headers["host"], "web");
}

#[test]
fn redirects_send_clients_where_the_gateway_api_says() {
    let redirect = |path: &str, what: &str| {
        filtered(path, &format!("{{ type: RequestRedirect, requestRedirect: {{ {what} }} }}"), "")
    };
    let prefix = |new: &str| format!("path: {{ type: ReplacePrefixMatch, replacePrefixMatch: \"{new}\" }}");
    let mesh = mesh(
        &[
            redirect("/host", "hostname: a.example"),
            redirect("/scheme", "scheme: https, statusCode: 301"),
            redirect("/port", "port: 8080, statusCode: 307"),
            redirect("/standard", "scheme: https, hostname: a.example, port: 443, statusCode: 308"),
            redirect("/full", "statusCode: 303, path: { type: ReplaceFullPath, replaceFullPath: /there }"),
            redirect("/prefix", &prefix("/xyz/")),
            redirect("/away", &prefix("/")),
        ]
        .concat(),
    );
    for (host, asked, status, location) in [
        ("web", "/host/x?q=1", 302, "http://a.example/host/x?q=1"),
        ("web:80", "/host", 302, "http://a.example/host"),
        ("web", "/scheme", 301, "https://web/scheme"),
        ("web:80", "/scheme", 301, "https://web/scheme"),
        ("web", "/port", 307, "http://web:8080/port"),
        ("web:80", "/port", 307, "http://web:8080/port"),
        ("web", "/standard", 308, "https://a.example/standard"),
        ("web", "/full/of/it?q=1", 303, "http://web/there?q=1"),
        ("web", "/prefix", 302, "http://web/xyz"),
        ("web", "/prefix/a/b", 302, "http://web/xyz/a/b"),
        ("web", "/away", 302, "http://web/"),
        ("web", "/away/a?q", 302, "http://web/a?q"),
    ] {
        let answer = mesh.client().unwrap().get(host, asked, &[]).unwrap();
        assert_eq!((answer.status, header(&answer, "location")), (status, Some(location)), "{host} {asked}");
    }
}

/// The API has a redirect without a port name that of its scheme, or else that of the Service, where it is not the usual one.
#[test]
fn redirects_at_a_port_of_its_own_name_the_right_one() {
    let odd = format!(
        "{}---\n{}",
        service("odd", 8081).replace("[{ port: 80 }]", "[{ port: 8000 }]"),
        route(
            "HTTPRoute",
            "odd",
            "    - matches: [{ path: { value: /same } }]
      filters: [{ type: RequestRedirect, requestRedirect: { path: { type: ReplaceFullPath, replaceFullPath: /other } } }]
    - matches: [{ path: { value: /tls } }]
      filters: [{ type: RequestRedirect, requestRedirect: { scheme: https } }]
    - matches: [{ path: { value: /named } }]
      filters: [{ type: RequestRedirect, requestRedirect: { scheme: https, hostname: a.example } }]
    - matches: [{ path: { value: /plain } }]
      filters: [{ type: RequestRedirect, requestRedirect: { port: 80 } }]
",
        )
    );
    let mesh = mesh_with("HTTPRoute", &rule("/", V1), &odd);
    for (host, asked, location) in [
        ("odd:8000", "/same", "http://odd:8000/other"),
        ("odd", "/same", "http://odd:8000/other"),
        ("odd:8000", "/tls", "https://odd:443/tls"),
        ("odd:8000", "/named", "https://a.example/named"),
        ("odd:8000", "/plain", "http://odd:80/plain"),
    ] {
        let answer = mesh.client().unwrap().get(host, asked, &[]).unwrap();
        assert_eq!((answer.status, header(&answer, "location")), (302, Some(location)), "{host} {asked}");
    }
}

#[test]
fn mirrors_get_what_they_are_to_get_and_their_answers_are_thrown_away() {
    let mirror = |to: &str, share: &str| {
        format!(
            "{{ type: RequestMirror, requestMirror: {{ backendRef: {{ name: {to}, port: 80 }}{share} }} }}"
        )
    };
    let mesh = mesh(
        &[
            filtered("/all", &mirror("tap", ""), V1),
            filtered("/half", &mirror("tap", ", percent: 50"), V1),
            filtered("/third", &mirror("tap", ", fraction: { numerator: 1, denominator: 3 }"), V1),
            filtered("/none", &mirror("tap", ", percent: 0"), V1),
            filtered("/two", &format!("{}, {}", mirror("tap", ""), mirror("web-v2", "")), V1),
        ]
        .concat(),
    );
    let mirrored = |upstream: usize, path: &str| {
        mesh.upstreams[upstream].seen().iter().filter(|echo| echo.path == path).count()
    };
    for path in ["/all", "/half", "/third", "/none", "/two"] {
        assert_eq!(count(&mesh, path, 200, "v1"), 200, "{path}");
    }
    // Mirrors are not waited for.
    wait::until("the last mirrored request", Duration::from_secs(5), || {
        let seen = (mirrored(2, "/all"), mirrored(2, "/two"), mirrored(1, "/two"));
        if seen == (200, 200, 200) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .unwrap();
    assert_eq!(mirrored(2, "/none"), 0);
    // Outside of these bounds once in a million runs.
    assert!((65..=135).contains(&mirrored(2, "/half")), "{}", mirrored(2, "/half"));
    assert!((34..=100).contains(&mirrored(2, "/third")), "{}", mirrored(2, "/third"));
    assert_eq!(
        mesh.upstreams[2].seen()[0].headers["host"],
        "web",
        "the mirror sees the host that the backend sees"
    );
}

#[test]
fn cross_origin_requests_are_answered_as_the_filter_says() {
    let cors = "{ type: CORS, cors: { allowOrigins: [\"https://www.example.com\", \"http://*.example.com:8080\"], allowMethods: [PUT], allowHeaders: [X-One, X-Two], exposeHeaders: [X-Three], allowCredentials: true, maxAge: 600 } }";
    let open =
        "{ type: CORS, cors: { allowOrigins: [\"*\"], allowMethods: [\"*\"], allowHeaders: [\"*\"] } }";
    let trusting = "{ type: CORS, cors: { allowOrigins: [\"*\"], allowMethods: [\"*\"], allowHeaders: [\"*\"], allowCredentials: true } }";
    let rules = [
        filtered("/cors", cors, V1),
        filtered("/open", open, V1),
        filtered("/trusting", trusting, V1),
    ]
    .concat()
        + &format!(
            "    - matches: [{{ path: {{ value: /put }}, method: PUT }}]\n      filters: [{cors}]\n      {V1}\n"
        );
    let mesh = mesh(&rules);
    let preflight = |path: &str, origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-one"),
        ];
        mesh.client().unwrap().request("OPTIONS", "web", path, &headers).unwrap()
    };
    for path in ["/cors", "/put"] {
        let permitted = preflight(path, "https://www.example.com");
        assert_eq!(permitted.status, 200, "{path}");
        for (name, value) in [
            ("access-control-allow-origin", "https://www.example.com"),
            ("access-control-allow-methods", "PUT"),
            ("access-control-allow-headers", "X-One, X-Two"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "600"),
        ] {
            assert_eq!(header(&permitted, name), Some(value), "{path} {name}");
        }
    }
    for origin in [
        "https://other.example",
        "http://www.example.com",
        "https://a.www.example.com",
        "http://example.com:8080",
    ] {
        let refused = preflight("/cors", origin);
        assert_eq!(
            (refused.status, header(&refused, "access-control-allow-origin")),
            (200, None),
            "{origin}"
        );
    }
    for origin in ["http://a.example.com:8080", "http://a.b.example.com:8080"] {
        assert_eq!(header(&preflight("/cors", origin), "access-control-allow-origin"), Some(origin));
    }
    let actual = mesh.ask("/cors", &[("origin", "https://www.example.com")]).unwrap();
    assert_eq!(actual.echo().unwrap().name, "v1");
    assert_eq!(header(&actual, "access-control-allow-origin"), Some("https://www.example.com"));
    assert_eq!(header(&actual, "access-control-expose-headers"), Some("X-Three"));
    assert_eq!(header(&preflight("/open", "https://any.example"), "access-control-max-age"), Some("5"));
    let trusting = preflight("/trusting", "https://any.example");
    for (name, value) in [
        ("access-control-allow-origin", "https://any.example"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-one"),
    ] {
        assert_eq!(
            header(&trusting, name),
            Some(value),
            "a wildcard is no wildcard for requests with credentials: {name}"
        );
    }
}

#[test]
fn requests_are_ended_in_time_and_tried_again() {
    let mesh = mesh(
        &[
            rule("/whole", &format!("timeouts: {{ request: 200ms }}\n      {V1}")),
            rule("/each", &format!("timeouts: {{ request: 10s, backendRequest: 200ms }}\n      {V1}")),
            rule("/again", &format!("timeouts: {{ backendRequest: 200ms }}\n      retry: {{ attempts: 2, codes: [500, 503], backoff: 10ms }}\n      {V1}")),
            rule("/never", &format!("retry: {{ attempts: 0, codes: [503] }}\n      {V1}")),
            rule("/", V1),
        ]
        .concat(),
    );
    for (path, script, status, tries) in [
        ("/whole", "slow", 504, 1),
        ("/each", "slow", 504, 1),
        ("/unlimited", "slow", 200, 1),
        ("/again", "503", 200, 2),
        ("/again", "500,503", 200, 3),
        ("/again", "503,503,503", 503, 3),
        ("/again", "slow", 200, 2),
        ("/again", "501", 501, 1),
        ("/never", "503", 503, 1),
        ("/unlimited", "503", 503, 1),
    ] {
        let before = mesh.upstreams[0].seen().len();
        let answer = mesh.ask(path, &[("x-script", script)]).unwrap();
        let after = mesh.upstreams[0].seen().len();
        assert_eq!((answer.status, after - before), (status, tries), "{path} {script}");
    }
}

#[test]
fn a_client_stays_with_its_endpoint_for_as_long_as_its_session() {
    let both = "backendRefs: [{ name: both, port: 80 }]";
    let mesh = mesh(
        &[
            rule("/cookie", &format!("sessionPersistence: {{ sessionName: cart }}\n      {both}")),
            rule("/lasting", &format!("sessionPersistence: {{ absoluteTimeout: 1h, cookieConfig: {{ lifetimeType: Permanent }} }}\n      {both}")),
            rule("/header", &format!("sessionPersistence: {{ type: Header, sessionName: x-session }}\n      {both}")),
            rule("/", both),
        ]
        .concat(),
    );
    let first = mesh.ask("/cookie/a", &[]).unwrap();
    let cookie = header(&first, "set-cookie").expect("a session begins").to_owned();
    assert!(
        cookie.starts_with("cart=") && cookie.contains("Path=/cookie") && cookie.contains("HttpOnly"),
        "{cookie}"
    );
    assert!(cookie.contains("SameSite=Strict") && !cookie.contains("Max-Age"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap();
    let (home, mut client) = (first.echo().unwrap().name, mesh.client().unwrap());
    for _ in 0..20 {
        let answer = client.get("web", "/cookie/b", &[("cookie", cookie)]).unwrap();
        assert_eq!(answer.echo().unwrap().name, home);
    }
    let strangers: Vec<String> = (0..40)
        .map(|_| client.get("web", "/other", &[("cookie", cookie)]).unwrap().echo().unwrap().name)
        .collect();
    assert!(strangers.iter().any(|name| *name != home), "other rules do not know the session");
    let lasting = mesh.ask("/lasting", &[]).unwrap();
    let cookie = header(&lasting, "set-cookie").unwrap();
    assert!(cookie.starts_with("weft.shop.web.1=") && cookie.contains("Max-Age=3600"), "{cookie}");
    let first = mesh.ask("/header", &[]).unwrap();
    let session = header(&first, "x-session").expect("a session begins").to_owned();
    let home = first.echo().unwrap().name;
    for _ in 0..20 {
        let answer = client.get("web", "/header", &[("x-session", &session)]).unwrap();
        assert_eq!(answer.echo().unwrap().name, home);
    }
}

#[test]
fn backends_have_their_shares_and_filters_of_their_own() {
    let mesh = mesh(
        "    - matches: [{ path: { value: /each } }]
      filters: [{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-from, value: rule }, { name: x-rule, value: r }] } }]
      backendRefs:
        - name: web-v1
          port: 80
          weight: 3
          filters: [{ type: URLRewrite, urlRewrite: { hostname: v1.example, path: { type: ReplacePrefixMatch, replacePrefixMatch: /one } } }]
        - name: web-v2
          port: 80
          filters:
            - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-from, value: v2 }] } }
            - { type: ResponseHeaderModifier, responseHeaderModifier: { add: [{ name: x-by, value: v2 }] } }
            - { type: RequestMirror, requestMirror: { backendRef: { name: tap, port: 80 } } }
    - matches: [{ path: { value: /half } }]
      backendRefs: [{ name: web-v1, port: 80 }, { name: gone, port: 80 }]
    - matches: [{ path: { value: /gone } }]
      backendRefs: [{ name: gone, port: 80 }]
    - matches: [{ path: { value: /off } }]
      backendRefs: [{ name: web-v1, port: 80, weight: 0 }]
    - matches: [{ path: { value: /nowhere } }]
",
    );
    let mut client = mesh.client().unwrap();
    let answers: Vec<Answer> = (0..400).map(|_| client.get("web", "/each/x", &[]).unwrap()).collect();
    let mut of_v1 = 0;
    for answer in &answers {
        let echo = answer.echo().unwrap();
        let seen = (echo.path.as_str(), echo.headers["host"].as_str(), echo.headers["x-from"].as_str());
        match echo.name.as_str() {
            "v1" => assert_eq!((seen, all(answer, "x-by").len()), (("/one/x", "v1.example", "rule"), 0)),
            _ => assert_eq!((seen, all(answer, "x-by").len()), (("/each/x", "web", "v2"), 1)),
        }
        assert_eq!(echo.headers["x-rule"], "r");
        of_v1 += usize::from(echo.name == "v1");
    }
    // Outside of these bounds once in a million runs.
    assert!((258..=342).contains(&of_v1), "{of_v1} of 400, not 300");
    wait::until("the last mirrored request", Duration::from_secs(5), || {
        let seen = mesh.upstreams[2].seen().len();
        if seen == 400 - of_v1 { Ok(()) } else { Err(format!("{seen}")) }
    })
    .unwrap();
    assert!((65..=135).contains(&count(&mesh, "/half", 200, "500")));
    for path in ["/gone", "/off", "/nowhere"] {
        assert_eq!(mesh.ask(path, &[]).unwrap().status, 500, "{path}");
    }
}

#[test]
fn grpc_is_routed_by_service_and_method() {
    let rules = "    - backendRefs: [{ name: web-v1, port: 80 }]
    - matches: [{ method: { service: shop.Cart } }]
      backendRefs: [{ name: web-v2, port: 80 }]
    - matches: [{ method: { service: shop.Cart, method: Watch } }]
      filters:
        - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-rule, value: watch }] } }
        - { type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: x-by, value: weft }] } }
        - { type: RequestMirror, requestMirror: { backendRef: { name: tap, port: 80 } } }
      backendRefs: [{ name: web-v1, port: 80 }]
    - matches: [{ method: { type: RegularExpression, service: \"admin[.].*\", method: \"Get.+\" }, headers: [{ name: x-user, value: root }] }]
      backendRefs: [{ name: web-v2, port: 80 }]
    - matches: [{ method: { method: Ping } }]
      backendRefs: [{ name: web-v2, port: 80 }]
    - matches: [{ method: { service: shop.Gone } }]
      backendRefs: [{ name: gone, port: 80 }]
";
    // An HTTPRoute at the same port has no effect.
    let mesh = mesh_with(
        "GRPCRoute",
        rules,
        &route("HTTPRoute", "web", &rule("/shop.Cart", "backendRefs: [{ name: tap, port: 80 }]")),
    );
    let call = |method: &str, headers: &[(&str, &str)]| {
        grpc::call(&mesh.pod, OUTBOUND, "web", method, headers).unwrap()
    };
    let root = [("x-user", "root")];
    for (method, headers, upstream) in [
        ("/other.Service/Call", &[][..], "v1"),
        ("/shop.Cart/Add", &[], "v2"),
        ("/shop.Cart/Watch", &[], "v1"),
        ("/shop.Carts/Add", &[], "v1"),
        ("/admin.Users/GetAll", &root, "v2"),
        ("/admin.Users/GetAll", &[], "v1"),
        ("/admin.Users/Get", &root, "v1"),
        ("/other.Service/Ping", &[], "v2"),
    ] {
        let answer = call(method, headers);
        assert_eq!(header(&answer, "grpc-status"), Some("0"), "{method}: {answer:?}");
        assert_eq!(answer.echo().unwrap().name, upstream, "{method} {headers:?}");
    }
    let watched = call("/shop.Cart/Watch", &[]);
    assert_eq!(watched.echo().unwrap().headers["x-rule"], "watch");
    assert_eq!(header(&watched, "x-by"), Some("weft"));
    wait::until("what is mirrored", Duration::from_secs(5), || {
        let seen = mesh.upstreams[2].seen().len();
        if seen == 2 { Ok(()) } else { Err(format!("{seen}")) }
    })
    .unwrap();
    assert_eq!(header(&call("/shop.Gone/Call", &[]), "grpc-status"), Some("14"), "UNAVAILABLE");
}

/// GEP-1426: the routes of a client's own namespace stand in for those of the service's, and may send requests anywhere.
#[test]
fn a_consumer_route_overrides_what_the_service_says_to_others() {
    let elsewhere = |text: &str| text.replace("namespace: shop", "namespace: pantry");
    let consumer = "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: mine, namespace: shop }
spec:
  parentRefs: [{ group: \"\", kind: Service, name: jam, namespace: pantry }]
  rules: [{ backendRefs: [{ name: web-v2, port: 80 }] }]
";
    let producer =
        elsewhere(&route("HTTPRoute", "jam", &rule("/only", "backendRefs: [{ name: jam, port: 80 }]")));
    let mesh = mesh_with(
        "HTTPRoute",
        &rule("/jam", "backendRefs: [{ name: jam, namespace: pantry, port: 80 }]"),
        &format!("{}{producer}", elsewhere(&service("jam", 8081))),
    );
    let ask = || mesh.client().unwrap().get("jam.pantry", "/other", &[]).unwrap();
    assert_eq!(ask().status, 404, "the producer's route is for everybody");
    assert_eq!(mesh.echo("/jam", &[]).unwrap().name, "v1", "a backend of another namespace needs no grant");
    mesh.files()
        .save("more.yaml", &format!("{}{producer}{consumer}", elsewhere(&service("jam", 8081))))
        .unwrap();
    wait::until("the consumer's route", Duration::from_secs(5), || {
        let answer = ask();
        if answer.status == 200 { Ok(()) } else { Err(format!("{}; {}", answer.status, mesh.sidecar.log())) }
    })
    .unwrap();
    assert_eq!(ask().echo().unwrap().name, "v2");
}

/// The files of the example as they are; the addresses that it names are made those of the pod.
#[test]
fn the_example_of_a_canary_does_what_it_says() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/canary");
    let mesh = Mesh::start(&[(8081, "stable"), (8082, "canary")], |files| {
        for name in ["sidecar.yaml", "web.yaml", "canary.yaml"] {
            files.save(name, &fs::read_to_string(example.join(name)).unwrap())?;
        }
        Ok(())
    })
    .unwrap();
    for address in ["10.244.0.11/32", "10.244.0.12/32"] {
        mesh.pod.sh(&format!("ip address add {address} dev lo")).unwrap();
    }
    let asked = mesh.ask("/", &[("x-deployment-phase", "canary")]).unwrap();
    assert_eq!(asked.echo().unwrap().name, "canary");
    assert_eq!(header(&asked, "x-deployment-phase"), Some("canary"));
    let canaries = count(&mesh, "/", 400, "canary");
    // Outside of these bounds once in a million runs.
    assert!((3..=46).contains(&canaries), "{canaries} of 400, not 20");
    assert_eq!(header(&mesh.ask("/", &[]).unwrap(), "x-deployment-phase"), None);
}
