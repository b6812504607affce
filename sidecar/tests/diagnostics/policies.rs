//! Policies: what they refer to, and what contradicts something else.

use super::{SIDECAR, WEB, summaries};

/// The good documents with these policies after them.
fn policies(specs: &[&str]) -> Vec<String> {
    let head = "---\napiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p}\nspec: ";
    let all: Vec<String> = specs.iter().map(|spec| format!("{head}{spec}\n")).collect();
    let mistakes = summaries(&format!("{SIDECAR}{WEB}{}", all.concat()));
    mistakes.iter().map(|mistake| mistake.split_once(" error: ").expect("an error").1.to_owned()).collect()
}

#[test]
fn what_a_policy_is_about_must_be_there() {
    let target =
        |target: &str| policies(&[&format!("{{targetRefs: [{target}], timeouts: {{request: 1s}}}}")]);
    assert_eq!(
        target("{group: '', kind: Service, name: wbe}"),
        ["there is no Service shop/wbe; did you mean \"web\"?"]
    );
    assert_eq!(
        target("{group: '', kind: Service, name: web, sectionName: htp}"),
        ["Service shop/web has no port called \"htp\"; it has http"]
    );
    assert_eq!(
        target("{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}"),
        ["there is no HTTPRoute shop/web"]
    );
    assert_eq!(target("{group: '', kind: Service, name: web, sectionName: http}"), [""; 0]);
}

#[test]
fn two_policies_that_say_the_same_of_the_same_are_both_named() {
    let web = "targetRefs: [{group: '', kind: Service, name: web}]";
    let found = policies(&[
        &format!("{{{web}, timeouts: {{request: 1s}}, retry: {{}}}}"),
        &format!("{{{web}, timeouts: {{request: 2s}}, grpcWeb: true}}"),
        &format!("{{{web}, faults: {{abort: {{status: 503}}}}}}"),
    ]);
    assert_eq!(
        found,
        ["two policies say timeouts of Service shop/web; the other is at a.yaml:19:18"],
        "different groups of the same target go together"
    );
}

#[test]
fn what_a_policy_uses_must_be_there_and_permitted() {
    let web = "targetRefs: [{group: '', kind: Service, name: web}]";
    let auth = |reference: &str| {
        policies(&[&format!("{{{web}, externalAuthorization: {{grpc: {{backendRef: {reference}}}}}}}")])
    };
    assert_eq!(
        auth("{name: auth, port: 1}"),
        ["there is no Service shop/auth; nobody is asked, as if it did not answer"]
    );
    assert_eq!(
        auth("{name: web, port: 1}"),
        ["Service shop/web has no port 1; nobody is asked, as if it did not answer; its port is 80"]
    );
    assert_eq!(
        auth("{name: web, namespace: other, port: 80}"),
        [
            "Service other/web is in another namespace, which does not permit it; nobody is asked, as if it did not answer; add a ReferenceGrant there"
        ]
    );
    assert_eq!(
        policies(&[&format!("{{{web}, subsets: [{{name: a, service: wbe}}]}}")]),
        ["there is no Service shop/wbe; did you mean \"web\"?"]
    );
}

#[test]
fn rules_about_claims_need_a_token_wherever_they_are_in_force() {
    let web = "targetRefs: [{group: '', kind: Service, name: web}]";
    let port = "targetRefs: [{group: '', kind: Service, name: web, sectionName: http}]";
    let deny = "access: [{action: Deny, from: [{claims: [{name: sub, value: eve}]}]}]";
    let jwt = "jwt: {providers: [{name: a, jwks: {file: /keys}}]}";
    let open = [
        "access rules need claims where no jwt is in force: none of them holds; say \"jwt\" here, or in another policy for the same Service",
    ];
    assert_eq!(policies(&[&format!("{{{web}, {deny}}}")]), open);
    assert_eq!(policies(&[&format!("{{{web}, {deny}, {jwt}}}")]), [""; 0]);
    let over = policies(&[&format!("{{{port}, {deny}}}"), &format!("{{{web}, {jwt}}}")]);
    assert_eq!(over, [""; 0], "the whole Service says it for its port");
}
