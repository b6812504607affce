//! What is shown for each kind of mistake, to the letter.

#![cfg(test)]

#[path = "diagnostics/patches.rs"]
mod patches;
#[path = "diagnostics/policies.rs"]
mod policies;
#[path = "diagnostics/routes.rs"]
mod routes;

use std::fs;

use weft_sidecar::configuration::Configuration;
use weft_sidecar::read::files::Roots;

const SIDECAR: &str = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: a, namespace: shop}\n";
const WEB: &str = "\
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.0.0.1]}]
";

fn mistakes(text: &str) -> String {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("a.yaml"), text).expect("write");
    let mut configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
    let listing = configuration.roots().list();
    configuration.look(&listing, &Default::default());
    let shown: Vec<String> = configuration.mistakes().iter().map(ToString::to_string).collect();
    shown.join("\n\n").replace(&format!("{}/", dir.path().display()), "")
}

/// A route to `web` after the good documents; `spec` begins in line 22.
fn route(spec: &str) -> String {
    let head =
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web}\nspec:\n";
    let parent = "  parentRefs: [{group: \"\", kind: Service, name: web}]\n";
    format!("{SIDECAR}{WEB}{head}{parent}{spec}")
}

fn summaries(text: &str) -> Vec<String> {
    let shown = mistakes(text);
    shown.split("\n\n").filter(|part| !part.is_empty()).map(summary).collect()
}

/// `12:5 error: message; help`, of a diagnostic as it is shown.
fn summary(shown: &str) -> String {
    let mut lines = shown.lines();
    let message = lines.next().unwrap_or_default();
    let place = shown.lines().find_map(|line| line.trim_start().strip_prefix("--> a.yaml:")).unwrap_or("-");
    let help = shown.lines().find_map(|line| line.trim_start().strip_prefix("= help: "));
    let help = help.map(|help| format!("; {help}")).unwrap_or_default();
    format!("{place} {message}{help}")
}

#[test]
fn a_good_configuration_has_no_mistakes() {
    assert_eq!(mistakes(&route("")), "");
}

#[test]
fn all_mistakes_of_a_file_are_shown_at_once_each_with_its_line() {
    let text = route(
        "  rules:\n  - backendRefs:\n    - {name: wbe, port: 80}\n    - {name: web, port: 80, weigth: 10}\n",
    );
    assert_eq!(
        mistakes(&text),
        "\
error: unknown field \"weigth\" in backendRef
  --> a.yaml:25:29
   |
25 |     - {name: web, port: 80, weigth: 10}
   |                             ^^^^^^
   = help: did you mean \"weight\"?

error: there is no Service shop/wbe; requests for it are answered with 500
  --> a.yaml:24:8
   |
24 |     - {name: wbe, port: 80}
   |        ^^^^
   = help: did you mean \"web\"?"
    );
}

#[test]
fn each_mistake_has_its_place_and_its_way_out() {
    let rule = |rule: &str| route(&format!("  rules: [{rule}]\n"));
    let cases: Vec<(String, &[&str])> = vec![
        (
            "a: 1\n".into(),
            &["1:1 error: a document has no \"apiVersion\"", "1:1 error: a document has no \"kind\""],
        ),
        (
            format!(
                "{SIDECAR}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTPRoute\nmetadata: {{name: x}}\n"
            ),
            &["6:7 error: unknown kind \"HTPRoute\"; did you mean \"HTTPRoute\"?"],
        ),
        (
            format!(
                "{SIDECAR}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: x}}\nspec: {{rules: [{{matches: [{{path: {{type: Prefix, value: /a}}}}]}}]}}\n"
            ),
            &[
                "8:7 warning: the route has no effect: it has no \"parentRefs\"",
                "8:41 error: \"Prefix\" is not one of Exact, PathPrefix, RegularExpression; did you mean \"PathPrefix\"?",
            ],
        ),
        (
            format!(
                "{SIDECAR}---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: x}}\n"
            ),
            &["5:1 error: a document has no \"spec\""],
        ),
        (
            format!("{SIDECAR}---\napiVersion: core/v1\nkind: Service\nmetadata: {{name: x}}\nspec: {{}}\n"),
            &["5:13 error: Service has no apiVersion \"core/v1\"; use v1"],
        ),
        (
            WEB.into(),
            &[
                "- error: there is no Sidecar, so nothing says whose configuration this is; add a document with apiVersion: weft.dev/v1alpha1 and kind: Sidecar",
            ],
        ),
        (
            format!("{SIDECAR}---\n{SIDECAR}"),
            &[
                "7:18 error: there is a second Sidecar; a configuration is about one workload; the first is at a.yaml:3:18",
            ],
        ),
        (
            format!(
                "{SIDECAR}spec: {{tags: {{'a b': x, v: \"a\\nb\"}}, outbound: {{port: 0}}, inject: {{requestHeaders: [w], tracing: some}}}}\n"
            ),
            &[
                "4:15 error: \"a b\" cannot be a tag; use at most 63 letters, digits, dots, underscores and dashes",
                "4:28 error: the value of tag \"v\" cannot be carried in a header; use at most 1024 bytes, no control characters and no space at either end",
                "4:54 error: a whole number from 1 to 65535 is expected, this is the number 0",
                "4:97 error: \"some\" is not all, none or a share as 5%",
                "4:84 error: there is no tag \"w\"; did you mean \"v\"?",
            ],
        ),
        (
            format!(
                "{SIDECAR}---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{ports: [{{port: 80}}]}}\n"
            ),
            &[
                "7:18 warning: port 80 of Service shop/web has no ready endpoint; requests to it are answered with 503; add an EndpointSlice with the label kubernetes.io/service-name: web",
            ],
        ),
        (
            format!("{SIDECAR}{}", WEB.replace("name: http, port: 8080", "name: web, port: 8080")),
            &[
                "7:18 warning: port 80 of Service shop/web has no ready endpoint; requests to it are answered with 503; the Service's port is called \"http\", the EndpointSlice's \"web\"",
            ],
        ),
        (
            route("").replace("kind: Service, name: web}]", "kind: Service, name: web, port: 81}]"),
            &["21:43 error: Service shop/web has no port 81; its port is 80"],
        ),
        (
            route("").replace("{group: \"\", kind: Service, name: web}", "{name: web}"),
            &[
                "21:17 warning: NoMatchingParent: there is no Gateway shop/web, so that the route takes no requests from it",
            ],
        ),
        (
            rule(
                "{matches: [{path: {type: Prefix, value: a//b}}, {path: {type: RegularExpression, value: '(['}}]}",
            ),
            &[
                "22:36 error: \"Prefix\" is not one of Exact, PathPrefix, RegularExpression; did you mean \"PathPrefix\"?",
                "22:51 error: the path \"a//b\" must begin with a slash",
                "22:99 error: \"([\" is not a regular expression: unclosed character class",
            ],
        ),
        (
            rule("{backendRefs: [{name: web, namespace: other, port: 80}]}"),
            &[
                "22:27 error: there is no Service other/web; requests for it are answered with 500; there is one in namespace shop",
            ],
        ),
        (
            rule("{backendRefs: [{name: web, port: 8080}, {name: web, port: '80'}]}"),
            &[
                "22:69 error: a whole number from 1 to 65535 is expected, this is the text \"80\"",
                "22:27 error: Service shop/web has no port 8080; requests for it are answered with 500; its port is 80",
            ],
        ),
        (
            rule("{matches: [{queryParams: [{name: '', value: x}]}]}"),
            &["22:44 error: the name of a query parameter has 1 to 256 bytes"],
        ),
        (
            rule(&format!("{{backendRefs: [{}]}}", "{name: web, port: 80, weight: 1000000},".repeat(4_295))),
            &["22:25 error: the weights add up to more than 4294967295"],
        ),
        (
            rule("{matches: [{headers: [{name: a, type: RegularExpression, value: a**}]}]}"),
            &[
                "22:75 error: \"a**\" is not a regular expression: RE2 repeats no repetition; put the inner one into a group",
            ],
        ),
        (
            format!("{SIDECAR}{WEB}{}", &WEB[WEB.rfind("---").expect("a slice")..]),
            &["19:18 error: the EndpointSlice shop/web is there twice; the first is at a.yaml:12:18"],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(summaries(&text), expected, "{text}");
    }
}

#[test]
fn what_a_sidecar_cannot_have_is_refused() {
    let mut different = Vec::new();
    for (spec, expected) in [
        (
            "outbound: {port: 15000}",
            "4:8 error: Envoy's admin address is the same address as outbound.port; change one of the two",
        ),
        (
            "envoy: {admin: '0.0.0.0:15001'}",
            "4:8 error: Envoy's admin address is the same address as outbound.port; change one of the two",
        ),
        (
            "envoy: {admin: '127.0.0.1:0'}",
            "4:23 error: \"127.0.0.1:0\" is not an address with a port, as 127.0.0.1:15000",
        ),
        (
            "xds: {retryTimeout: 2}",
            "4:28 error: a duration as 500ms, 2s or 1h30m is expected, this is the number 2",
        ),
        (
            "admin: {address: '127.0.0.1:15001'}",
            "4:8 error: admin.address is the same address as outbound.port; change one of the two",
        ),
        (
            "inbound: [{port: 15000, to: 1}]",
            "4:19 error: inbound port 15000 is the same address as Envoy's admin address; change one of the two",
        ),
        ("inbound: [{port: 80, to: 80}]", "4:19 error: port 80 cannot be both Envoy's and the application's"),
        (
            "tags: {a: x}, tagsFrom: [{tag: A, env: B, default: c}]",
            "4:34 error: the tag \"A\" is there twice",
        ),
        (
            "tagsFrom: [{tag: a, env: B, label: c}]",
            "4:19 error: a tag comes from one of env, file, label and annotation",
        ),
        (
            "tagsFrom: [{tag: a, env: B, default: c, optional: true}]",
            "4:20 error: a tag with a default is always there: leave out \"optional\"",
        ),
        (
            "tagsFrom: [{tag: a, env: WEFT_NO_SUCH_VARIABLE}]",
            "4:20 error: tag \"a\" has no value: the environment variable WEFT_NO_SUCH_VARIABLE is not set; give it a \"default\", or say \"optional: true\"",
        ),
        (
            "podInfo: /nonexistent, tagsFrom: [{tag: a, label: b}]",
            "4:43 error: tag \"a\" has no value: there is no file /nonexistent/labels; give it a \"default\", or say \"optional: true\"",
        ),
        ("inject: {accessLog: some}", "4:28 error: \"some\" is not one of all, errors, none"),
        (
            "accessLog: {to: []}",
            "4:20 error: \"to\" names no place for the access log; inject.accessLog: none turns it off",
        ),
        ("accessLog: {to: [{file: {path: a}}]}", "4:39 error: \"a\" is not an absolute path"),
        (
            "accessLog: {to: [{}]}",
            "4:25 error: a destination of the access log is one of stdout, file and grpc",
        ),
        (
            "inject: {accessLog: all}, accessLog: {to: [{grpc: {backendRef: {name: logs, port: 1}}}]}",
            "4:72 error: there is no Service shop/logs",
        ),
        ("tags: {a: b}, inject: {stats: [c]}", "4:39 error: there is no tag \"c\"; did you mean \"a\"?"),
        (
            "tags: {a.b: x, a-b: y}, inject: {stats: [a.b, a-b]}",
            "4:54 error: tags \"a.b\" and \"a-b\" would be the same label a_b",
        ),
        (
            "tags: {envoy.cluster_name: x}, inject: {stats: [envoy.cluster_name]}",
            "4:56 error: a tag \"envoy.cluster_name\" cannot be the label envoy_cluster_name of statistics",
        ),
        ("envoy: {stats: all, statsPrefixes: [a]}", "4:28 error: stats: all keeps every statistic already"),
        (
            "tags: {'x:y': z}",
            "4:15 error: \"x:y\" cannot be a tag; use at most 63 letters, digits, dots, underscores and dashes",
        ),
    ] {
        let shown = summaries(&format!("{SIDECAR}spec: {{{spec}}}\n"));
        if shown != [expected] {
            different.push(format!("{spec}: {shown:?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    let socket = |length: usize| format!("{SIDECAR}spec: {{xds: {{socket: /{}}}}}\n", "x".repeat(length - 1));
    assert_eq!(mistakes(&socket(99)), "");
    assert!(mistakes(&socket(100)).contains("is not an absolute path of at most 99 bytes"));
}

#[test]
fn of_too_many_mistakes_the_errors_are_shown() {
    let lonely = |n| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: a{n}}}\nspec: {{ports: [{{port: 80}}]}}\n"
        )
    };
    let many: String = (0..2_000).map(lonely).collect();
    let shown = summaries(&format!("{SIDECAR}{many}---\n{SIDECAR}"));
    assert_eq!(shown.len(), 1_000);
    assert!(shown[999].contains("there is a second Sidecar"), "{}", shown[999]);
}

#[test]
fn what_is_not_utf_8_is_shown_where_it_is() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("a.yaml");
    fs::write(&file, [SIDECAR.as_bytes(), b"spec: {tags: {a: \xe9t\xe9}}\n"].concat()).expect("write");
    let mut configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
    let listing = configuration.roots().list();
    configuration.look(&listing, &Default::default());
    let shown: Vec<String> = configuration.mistakes().iter().map(|mistake| mistake.summary()).collect();
    assert_eq!(shown, [format!("{}:4:18: this is not UTF-8 text (save the file as UTF-8)", file.display())]);
}

/// A route with these annotations, for a Sidecar that says `spec`.
fn annotated(spec: &str, annotations: &str) -> Vec<String> {
    let route = format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: web, annotations: {annotations}}}\n{}",
        "spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}\n"
    );
    summaries(&format!("{SIDECAR}spec: {spec}\n{WEB}{route}"))
}

#[test]
fn what_cannot_be_a_tag_of_a_route_is_refused() {
    let mut different = Vec::new();
    for (spec, annotations, expected) in [
        ("{}", "{tags.weft.dev/a: b, example.com/x: '1'}", &[][..]),
        (
            "{}",
            "{tag.weft.dev/a: b}",
            &[
                "20:37 error: unknown annotation \"tag.weft.dev/a\"; a tag of the object's requests is tags.weft.dev/NAME: VALUE",
            ],
        ),
        (
            "{}",
            "{tags.weft.dev/a: 1}",
            &["20:54 error: a text is expected, this is the number 1; put it in quotes"],
        ),
        (
            "{}",
            "{tags.weft.dev/a: x, tags.weft.dev/A: y}",
            &["20:57 error: tags \"a\" and \"A\" would be the same header"],
        ),
        (
            "{tags: {phase: x}}",
            "{tags.weft.dev/Phase: y}",
            &["20:18 error: the tag \"Phase\" is spelt \"phase\" elsewhere"],
        ),
        ("{inject: {requestHeaders: [feature]}}", "{tags.weft.dev/feature: cart}", &[]),
        (
            "{inject: {requestHeaders: [featur]}}",
            "{tags.weft.dev/feature: cart}",
            &["4:34 error: there is no tag \"featur\"; did you mean \"feature\"?"],
        ),
    ] {
        let shown = annotated(spec, annotations);
        if shown != expected {
            different.push(format!("{spec} {annotations}: {shown:?}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// A tag with a value of its own on each of thousands of routes would be as many series.
#[test]
fn counting_by_a_tag_with_too_many_values_is_refused() {
    let route = |n| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{n}, annotations: {{tags.weft.dev/id: \"{n}\"}}}}\n{}",
            "spec: {parentRefs: [{group: '', kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}]}\n"
        )
    };
    let all = |by: &str, routes: usize| {
        let routes: String = (0..routes).map(route).collect();
        summaries(&format!("{SIDECAR}spec: {{tags: {{team: a}}, inject: {{stats: [{by}]}}}}\n{WEB}{routes}"))
    };
    assert_eq!(all("id", 3_000), [""; 0]);
    assert_eq!(all("team", 4_000), [""; 0], "one value");
    assert_eq!(
        all("id", 4_000),
        [
            "4:42 error: counting by id would make 4001 series, which cost Envoy about 16801 KiB; the most is 16384 KiB; \
          count by tags that have few values; each value makes a series for each cluster"
        ]
    );
}

/// The example that the documentation begins with.
#[test]
fn the_first_example_of_the_documentation_is_valid() {
    let text = include_str!("../../docs/sidecar/tags.md");
    let example =
        text.split("```").nth(1).and_then(|block| block.strip_prefix("yaml\n")).expect("an example");
    assert_eq!(
        summaries(example),
        ["3:19 warning: traces go nowhere: trace ids are made and passed on, spans are forgotten; \
          name a Service that takes OTLP in spec.tracing.collector.backendRef"]
    );
}
