//! What a client asks for.

use weft_xds::{Revision, Snapshot, TypeUrl};

use crate::peers::*;

// Proto, "How the client specifies what resources to return".
#[test]
fn a_legacy_wildcard_stays_when_a_name_is_added_to_it() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1", "b@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1", "b@1"]);
    client.acks(CDS);
    client.subscribes(CDS, &["a"]);
    server.answers(CDS, &["a@1"]);
    client.acks(CDS);
    server.has(2, &[(CDS, &["a@1", "b@2"])]);
    server.answers(CDS, &["b@2"]);
}

// Proto, same section: only LDS and CDS have the legacy wildcard; the explicit one is for every type.
#[test]
fn endpoints_have_no_legacy_wildcard_but_an_explicit_one() {
    let (client, server) = peers();
    server.has(1, &[(EDS, &["a@1"])]);
    client.subscribes_to_all(EDS);
    server.answers(EDS, &[]);
    client.acks(EDS);
    client.subscribes(EDS, &["*"]);
    server.answers(EDS, &["a@1"]);
}

// Proto, same section: "unsubscribe from '*'" leaves what was named.
#[test]
fn leaving_the_wildcard_keeps_the_names() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1", "b@1"])]);
    client.subscribes(CDS, &["*", "a"]);
    server.answers(CDS, &["a@1", "b@1"]);
    client.acks(CDS);
    client.unsubscribes(CDS, &["*"]);
    server.has(2, &[(CDS, &["a@2", "b@2"])]);
    server.answers(CDS, &["a@2"]);
    client.acks(CDS);
    server.is_silent();
}

// Proto, "Unsubscribing from resources": the client cannot know whether the wildcard still covers the name.
#[test]
fn a_name_left_under_a_wildcard_is_answered_once_more() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1"])]);
    client.subscribes(CDS, &["*", "a", "gone"]);
    server.answers(CDS, &["a@1", "-gone"]);
    client.acks(CDS);
    client.unsubscribes(CDS, &["a", "gone"]);
    server.answers(CDS, &["a@1", "-gone"]);
    client.acks(CDS);
    server.is_silent();
}

// Proto, "Incremental xDS": a subscription to a known name must be answered; go-control-plane#1450 does not.
#[test]
fn a_name_asked_for_again_is_sent_again_unchanged() {
    let (client, server) = peers();
    server.has(1, &[(RDS, &["r@1"])]);
    client.subscribes(RDS, &["r"]);
    server.answers(RDS, &["r@1"]);
    client.acks_and_subscribes(RDS, &["r"]);
    server.answers(RDS, &["r@1"]);
}

// Proto, "Incremental xDS": a stale nonce concerns the ACK, not the subscriptions beside it.
#[test]
fn subscriptions_on_a_stale_nonce_are_honoured() {
    let (client, server) = peers();
    server.has(1, &[(EDS, &["a@1", "b@1"])]);
    client.subscribes(EDS, &["a"]);
    server.answers(EDS, &["a@1"]);
    client.acks(EDS);
    server.has(2, &[(EDS, &["a@2", "b@1"])]);
    server.answers(EDS, &["a@2"]);
    client.subscribes_on_a_stale_nonce(EDS, &["b"]);
    server.is_silent(); // a@2 is still unanswered
    client.acks(EDS);
    server.answers(EDS, &["b@1"]);
}

#[test]
fn what_nobody_asked_for_is_not_sent() {
    let (client, server) = peers();
    server.has(1, &[(EDS, &["a@1", "b@1"])]);
    client.subscribes(EDS, &["a"]);
    server.answers(EDS, &["a@1"]);
    client.acks(EDS);
    client.unsubscribes(EDS, &["a", "never-asked-for"]);
    server.has(2, &[(EDS, &["a@2", "b@2"])]);
    server.is_silent();
}

// Proto, "How the client specifies what resources to return": the four steps of its incremental example.
#[test]
fn the_example_of_the_protocol_for_incremental_wildcards() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["A@1", "B@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["A@1", "B@1"]);
    client.acks(CDS);
    client.subscribes(CDS, &["A"]);
    server.answers(CDS, &["A@1"]);
    client.acks(CDS);
    client.unsubscribes(CDS, &["*"]);
    client.unsubscribes(CDS, &["A"]);
    server.has(2, &[(CDS, &["A@2", "B@2"])]);
    server.is_silent();
    client.subscribes(CDS, &[]);
    server.is_silent();
}

// The same section: its state-of-the-world example. The first and the last request are alike.
#[test]
fn the_example_of_the_protocol_for_wildcards_in_the_state_of_the_world() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["A@1", "B@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["A@1", "B@1"]);
    client.acks(CDS);
    client.subscribes(CDS, &["*", "A"]);
    server.answers(CDS, &["A@1", "B@1"]);
    client.acks(CDS);
    client.unsubscribes(CDS, &["*"]);
    server.has(2, &[(CDS, &["A@2", "B@2"])]);
    server.answers(CDS, &["A@2"]);
    client.acks(CDS);
    client.unsubscribes(CDS, &["A"]);
    server.has(3, &[(CDS, &["A@3", "B@3"])]);
    server.is_silent();
}

// The same section: "legacy" asks for nothing in either list.
#[test]
fn a_first_request_that_only_unsubscribes_asks_for_nothing() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1"])]);
    client.unsubscribes(CDS, &["a"]);
    server.answers(CDS, &[]);
}

// Proto, "Incremental xDS": whatever is asked for is sent, the wildcard too.
#[test]
fn a_wildcard_asked_for_again_is_sent_again() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1", "b@1"])]);
    client.subscribes(CDS, &["*"]);
    server.answers(CDS, &["a@1", "b@1"]);
    client.acks(CDS);
    client.subscribes(CDS, &["*"]);
    server.answers(CDS, &["a@1", "b@1"]);
}

// Proto, "Unsubscribing from resources": names that shrink need no answer.
#[test]
fn a_smaller_set_of_names_is_not_answered() {
    let (client, server) = sotw_peers();
    server.has(1, &[(EDS, &["a@1", "b@1"])]);
    client.subscribes(EDS, &["a", "b"]);
    server.answers(EDS, &["a@1", "b@1"]);
    client.acks(EDS);
    client.unsubscribes(EDS, &["b"]);
    server.has(2, &[(EDS, &["a@1", "b@2"])]);
    server.is_silent();
    client.unsubscribes(EDS, &["a"]);
    server.has(3, &[(EDS, &["a@3", "b@3"])]);
    server.is_silent();
}

// Proto, "Grouping resources into responses": of endpoints and routes only what has changed need be said.
#[test]
fn names_that_are_added_are_answered_alone() {
    in_both_variants(|client, server| {
        server.has(1, &[(EDS, &["a@1", "b@1"])]);
        client.subscribes(EDS, &["a"]);
        server.answers(EDS, &["a@1"]);
        client.acks(EDS);
        client.subscribes(EDS, &["b"]);
        server.answers(EDS, &["b@1"]);
        client.acks(EDS);
        server.has(2, &[(EDS, &["a@2", "b@1"])]);
        server.answers(EDS, &["a@2"]);
    });
}

// Proto, "Resource updates": no response to a request with a stale nonce; the client repeats itself in its answer.
#[test]
fn a_stale_request_of_the_state_of_the_world_is_answered_after_the_ack() {
    let (client, server) = sotw_peers();
    server.has(1, &[(EDS, &["a@1", "b@1"])]);
    client.subscribes(EDS, &["a"]);
    server.answers(EDS, &["a@1"]);
    client.acks(EDS);
    server.has(2, &[(EDS, &["a@2", "b@1"])]);
    server.answers(EDS, &["a@2"]);
    client.subscribes_on_a_stale_nonce(EDS, &["b"]);
    server.is_silent();
    client.acks(EDS);
    server.answers(EDS, &["b@1"]);
}

// 1.40: a response for a type that nothing is asked of any more is dropped without an answer.
#[test]
fn a_type_is_left_on_a_stale_nonce_too() {
    let (client, server) = sotw_peers();
    server.has(1, &[(EDS, &["a@1"])]);
    client.subscribes(EDS, &["a"]);
    server.answers(EDS, &["a@1"]);
    client.acks(EDS);
    server.has(2, &[(EDS, &["a@2"])]);
    server.answers(EDS, &["a@2"]);
    client.leaves_on_a_stale_nonce(EDS, &["a"]);
    assert_eq!(server.told_in_sync().last(), Some(&2));
    client.subscribes(EDS, &["b"]);
    server.answers(EDS, &["b@"]);
}

// gRPC C-core sends a second request before it has seen the first response: measured, no nonce in either.
#[test]
fn two_requests_without_a_nonce_count_both() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["gc@1", "more@1", "other@1"])]);
    client.subscribes(CDS, &["gc"]);
    client.subscribes(CDS, &["more"]);
    server.answers(CDS, &["gc@1", "more@1"]);
    client.acks(CDS);
    server.is_silent();
}

// Envoy, `scoped_rds.cc`: scoped routes are asked for as clusters and listeners are; extensions do the same.
#[test]
fn scopes_and_unknown_types_have_the_legacy_wildcard() {
    for type_url in [TypeUrl::SCOPED_ROUTE, TypeUrl::new("type.googleapis.com/example.Policy")] {
        in_both_variants(|client, server| {
            server.has(1, &[(type_url.clone(), &["s@1"])]);
            client.subscribes_to_all(type_url.clone());
            server.answers(type_url.clone(), &["s@1"]);
        });
    }
}

// Proto, "Resource names": a virtual host is asked for by an alias, and answered by its name.
#[test]
fn a_virtual_host_is_asked_for_by_its_alias() {
    let (client, server) = peers();
    let host = resource(&VHDS, "r/v@1").with_aliases(["r/a.example"]);
    server.publishes(Snapshot::builder().insert(host).build(Revision(1)).unwrap());
    client.subscribes(VHDS, &["r/a.example"]);
    server.answers(VHDS, &["r/v@1"]);
    client.acks(VHDS);
    server.is_silent();
}
