//! What is said about routes: the rules that the Gateway API's own validation has, and what Weft cannot do.

use super::{SIDECAR, WEB, mistakes, route, summaries};

fn rule(rule: &str) -> String {
    route(&format!("  rules: [{rule}]\n"))
}

fn filters(filters: &str) -> String {
    rule(&format!("{{filters: [{filters}]}}"))
}

fn grpc(rule: &str) -> String {
    let head = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: g}\nspec:\n";
    let parent = "  parentRefs: [{group: \"\", kind: Service, name: web}]\n";
    format!("{SIDECAR}{WEB}{head}{parent}  rules: [{rule}]\n")
}

/// The messages, without their places.
fn messages(text: &str) -> Vec<String> {
    let summaries = summaries(text).into_iter();
    summaries
        .map(|line| line.split_once(": ").map(|(_, message)| message.to_owned()).unwrap_or(line))
        .collect()
}

#[test]
fn filters_that_are_wrong_or_do_not_go_together_are_refused() {
    for (text, expected) in [
        (filters("{requestMirror: {}}"), &["filter has no \"type\""][..]),
        (
            filters("{type: URLRewite, urlRewrite: {}}"),
            &[
                "\"URLRewite\" is not one of RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, RequestRedirect, URLRewrite, CORS, ExternalAuth, ExtensionRef; did you mean \"URLRewrite\"?",
            ],
        ),
        (filters("{type: CORS}"), &["filter has no \"cors\""]),
        (
            filters("{type: CORS, cors: {}, urlRewrite: {hostname: a.b}}"),
            &["\"urlRewrite\" belongs to a filter of type URLRewrite"],
        ),
        (
            filters(
                "{type: URLRewrite, urlRewrite: {hostname: a.b}}, {type: RequestRedirect, requestRedirect: {}}",
            ),
            &["RequestRedirect and URLRewrite exclude each other: what is redirected is not forwarded"],
        ),
        (
            filters("{type: CORS, cors: {}}, {type: CORS, cors: {}}"),
            &["there is a second filter of this type; cors is given once"],
        ),
        (
            filters(
                "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], remove: [A]}}",
            ),
            &["there is more than one action for the header \"a\""],
        ),
        (
            filters("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: b}]}}"),
            &["\"Host\" cannot be changed as a header; use a filter of type URLRewrite with a hostname"],
        ),
        (
            filters(
                "{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, percent: 1, fraction: {numerator: 1}}}",
            ),
            &["only one of percent and fraction can be given"],
        ),
        (
            filters(
                "{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}, fraction: {numerator: 3, denominator: 2}}}",
            ),
            &["3/2 is more than 1"],
        ),
        (
            filters("{type: RequestMirror, requestMirror: {backendRef: {name: wbe, port: 80}}}"),
            &["there is no Service shop/wbe; nothing is mirrored to it; did you mean \"web\"?"],
        ),
        (
            filters("{type: ExtensionRef, extensionRef: {group: a.b, kind: C, name: d}}"),
            &["\"a.b\" is not one of weft.dev", "\"C\" is not one of Subset"],
        ),
        (
            filters(
                "{type: RequestRedirect, requestRedirect: {statusCode: 304, hostname: '*.a.b', scheme: ftp, port: 0}}",
            ),
            &[
                "\"ftp\" is not one of http, https",
                "*.a.b has a wildcard, and this must be one host",
                "a whole number from 1 to 65535 is expected, this is the number 0",
                "304 is not one of 301, 302, 303, 307, 308",
            ],
        ),
        (
            filters(
                "{type: URLRewrite, urlRewrite: {hostname: 10.0.0.1, path: {type: ReplaceFullPath, replacePrefixMatch: /x}}}",
            ),
            &[
                "10.0.0.1 is an IP address, and this must be a name",
                "path has no \"replaceFullPath\"",
                "\"replacePrefixMatch\" does not go with this type, \"replaceFullPath\" does",
            ],
        ),
        (
            filters("{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: x y}}}"),
            &["the path \"x y\" must begin with a slash and have the characters of a path"],
        ),
        (
            filters(
                "{type: CORS, cors: {allowOrigins: ['*', 'https://a.b', a.b], allowMethods: ['*', PUT], maxAge: 0}}",
            ),
            &[
                "\"a.b\" is not an origin; an origin is \"*\" or as https://www.example.com, https://*.example.com:8443",
                "a whole number from 1 to 2147483647 is expected, this is the number 0",
                "\"allowOrigins\" cannot have \"*\" beside others",
                "\"allowMethods\" cannot have \"*\" beside others",
            ],
        ),
    ] {
        assert_eq!(messages(&text), expected, "{text}");
    }
}

#[test]
fn parts_of_a_rule_that_contradict_each_other_are_refused() {
    let prefix = "path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}";
    for (text, expected) in [
        (
            rule(
                "{filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: web, port: 80}]}",
            ),
            &["a rule that redirects cannot have backendRefs"][..],
        ),
        (
            rule(&format!(
                "{{matches: [{{path: {{type: Exact, value: /a}}}}], filters: [{{type: URLRewrite, urlRewrite: {{{prefix}}}}}]}}"
            )),
            &[
                "ReplacePrefixMatch goes with exactly one match, by PathPrefix; give each prefix a rule of its own",
            ],
        ),
        (
            rule(&format!(
                "{{matches: [{{path: {{value: /a}}}}, {{path: {{value: /b}}}}], backendRefs: [{{name: web, port: 80, filters: [{{type: URLRewrite, urlRewrite: {{{prefix}}}}}]}}]}}"
            )),
            &[
                "ReplacePrefixMatch goes with exactly one match, by PathPrefix; give each prefix a rule of its own",
            ],
        ),
        (
            rule("{matches: [{method: CONNECT, path: {value: /a}}]}"),
            &["a CONNECT request has no path that could be matched"],
        ),
        (rule("{name: a}, {name: b}, {name: a}"), &["two rules are called \"a\""]),
        (
            rule("{timeouts: {request: 1s, backendRequest: 2s}}"),
            &["the backendRequest timeout is longer than the one of the request"],
        ),
        (
            rule("{retry: {codes: [200], attempts: -1, backoff: 0s}}"),
            &[
                "a whole number from 400 to 599 is expected, this is the number 200",
                "a whole number from 0 to 2147483647 is expected, this is the number -1",
                "Envoy does not try again at once; give at least 1ms",
            ],
        ),
        (
            rule("{sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}}"),
            &["a Permanent cookie needs an absoluteTimeout"],
        ),
        (
            rule("{sessionPersistence: {absoluteTimeout: 1h, idleTimeout: 1m, sessionName: 'a b'}}"),
            &[
                "\"a b\" cannot be the name of a cookie or header",
                "idleTimeout is not supported: Envoy keeps no state about sessions; use a Permanent cookie with an absoluteTimeout",
                "absoluteTimeout is supported for Permanent cookies only; Envoy keeps no state about sessions; add cookieConfig: { lifetimeType: Permanent }",
            ],
        ),
        (
            rule("{sessionPersistence: {type: Header, cookieConfig: {}}}"),
            &["cookieConfig goes with type Cookie"],
        ),
        (
            rule("{sessionPersistence: {}, backendRefs: [{name: web, port: 80}, {name: web, port: 80}]}"),
            &["sessionPersistence goes with one backendRef only; Envoy keeps a session within one Service"],
        ),
        (
            rule("{matches: [{path: {value: '/a b'}}, {path: {value: '/%zz'}}, {path: {value: '/a?b'}}]}"),
            &[
                "the path \"/a b\" has a character that no path has",
                "the path \"/%zz\" has a character that no path has",
                "the path \"/a?b\" has a character that no path has",
            ],
        ),
        (
            rule("{backendRefs: [{group: multicluster.x-k8s.io, kind: ServiceImport, name: web, port: 80}]}"),
            &["a backendRef to a ServiceImport is not supported yet"],
        ),
    ] {
        assert_eq!(messages(&text), expected, "{text}");
    }
}

#[test]
fn grpc_routes_have_rules_of_their_own() {
    for (text, expected) in [
        (grpc("{matches: [{method: {}}]}"), &["one of service and method must be given"][..]),
        (
            grpc("{matches: [{method: {service: a/b}}]}"),
            &["\"a/b\" is not the name of a gRPC service", "one of service and method must be given"],
        ),
        (
            grpc("{matches: [{method: {method: a.b}}]}"),
            &["\"a.b\" is not the name of a gRPC method", "one of service and method must be given"],
        ),
        (grpc("{matches: [{path: {}}]}"), &["unknown field \"path\" in match"]),
        (grpc("{timeouts: {}}"), &["unknown field \"timeouts\" in rule"]),
        (
            grpc("{filters: [{type: URLRewrite, urlRewrite: {}}]}"),
            &[
                "\"URLRewrite\" is not one of RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, ExtensionRef",
            ],
        ),
        (
            grpc("{backendRefs: [{name: wbe, port: 80}]}"),
            &[
                "there is no Service shop/wbe; requests for it are answered with UNAVAILABLE; did you mean \"web\"?",
            ],
        ),
    ] {
        assert_eq!(messages(&text), expected, "{text}");
    }
}

#[test]
fn where_there_is_a_grpc_route_an_http_route_has_no_effect_and_is_told_so() {
    let (_, http) = route("")
        .rsplit_once("---\n")
        .map(|(good, http)| (good.to_owned(), http.to_owned()))
        .expect("a route");
    let both = format!("{}---\n{http}", grpc("{}"));
    assert_eq!(
        summaries(&both),
        [
            "28:43 warning: a GRPCRoute is attached to port 80 of Service shop/web, too, and goes first; this HTTPRoute has no effect there"
        ]
    );
}

#[test]
fn hostnames_mean_nothing_at_a_service() {
    assert_eq!(
        summaries(&route("  hostnames: [www.example.com]\n")),
        [
            "22:3 warning: \"hostnames\" has no effect on a route that is attached to a Service; match the header Host instead"
        ]
    );
    assert_eq!(
        messages(&route("  hostnames: [Example]\n")).first().map(String::as_str),
        Some(
            "\"Example\" is not a host name; use lower-case letters, digits, dashes and dots, as in www.example.com"
        )
    );
}

#[test]
fn a_route_is_attached_to_a_place_once() {
    let twice = |one: &str, other: &str| {
        let parent = |part: &str| format!("{{group: \"\", kind: Service, name: web{part}}}");
        route("").replace(&parent(""), &format!("{}, {}", parent(one), parent(other)))
    };
    let refused = [
        "the route is attached twice to the same place; give each reference a port or sectionName of its own",
    ];
    assert_eq!(messages(&twice("", "")), refused);
    assert_eq!(messages(&twice("", ", port: 80")), refused);
    assert_eq!(messages(&twice(", port: 80", ", port: 80")), refused);
    assert_eq!(messages(&twice(", port: 80", ", sectionName: http")), [""; 0]);
}

/// GEP-1426: at a Service no ReferenceGrant is needed.
#[test]
fn a_backend_in_another_namespace_needs_no_grant_at_a_service() {
    let other = "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: other}\nspec: {ports: [{port: 80}]}\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: db, namespace: other, labels: {kubernetes.io/service-name: db}}\naddressType: IPv4\nports: [{port: 80}]\nendpoints: [{addresses: [10.0.0.9]}]\n";
    assert_eq!(
        mistakes(&format!("{}{other}", rule("{backendRefs: [{name: db, namespace: other, port: 80}]}"))),
        ""
    );
}

#[test]
fn a_grant_says_from_whom_and_to_what() {
    let grant = "---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g}\nspec:\n";
    let text = format!("{SIDECAR}{grant}  from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute}}]\n");
    assert_eq!(messages(&text), ["from has no \"namespace\"", "the grant permits nothing: it has no \"to\""]);
    let good = format!(
        "{SIDECAR}{grant}  from: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}}]\n  to: [{{group: '', kind: Service}}]\n"
    );
    assert_eq!(mistakes(&good), "");
}
