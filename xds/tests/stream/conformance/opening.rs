//! How a stream begins.

use weft_xds::TypeUrl;
use weft_xds::stream::{Refusal, Variant};

use crate::peers::*;

// Proto, "Basic protocol overview": only the first request is certain to carry the node.
#[test]
fn a_first_request_without_a_node_ends_the_stream() {
    let (client, server) = peers();
    client.sends(envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest::default());
    assert_eq!(server.refused(), Some(Refusal::MissingNode));
}

// Proto, "Aggregated Discovery Service": the type is known from nothing else.
#[test]
fn a_request_without_a_type_ends_the_stream() {
    let (client, server) = peers();
    client.subscribes(TypeUrl::new(""), &["a"]);
    assert_eq!(server.refused(), Some(Refusal::MissingTypeUrl));
}

// istio#25495: an empty answer of a server that is not ready deletes what the client has.
#[test]
fn a_server_without_a_snapshot_does_not_answer() {
    let (client, server) = peers();
    client.subscribes_to_all(CDS);
    server.is_silent();
    server.has(1, &[(CDS, &["a@1"])]);
    server.answers(CDS, &["a@1"]);
}

// 1.40: LDS is asked for 15 s later if an empty CDS is left unanswered.
#[test]
fn a_first_subscription_is_answered_even_with_nothing() {
    let (client, server) = peers();
    server.has(1, &[]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &[]);
    client.acks(CDS);
    server.is_silent();
}

// 1.40: a response for a type that nothing is subscribed of is dropped without an answer. Sent all the same, it would
// hold the next subscription of the type back for the whole answer timeout.
#[test]
fn a_type_that_was_given_up_before_its_first_answer_is_not_answered() {
    let (client, server) = peers();
    client.subscribes_to_all(EDS);
    client.unsubscribes(EDS, &["a"]);
    server.has(1, &[(EDS, &["a@1"])]);
    server.is_silent();
    client.subscribes(EDS, &["a"]);
    server.answers(EDS, &["a@1"]);
}

// Proto, "Unknown types": a client that waits for a type nobody has must not wait for ever.
#[test]
fn an_unknown_type_is_answered_with_nothing() {
    let (client, server) = peers();
    server.has(1, &[]);
    let unknown = TypeUrl::new("type.googleapis.com/example.Unknown");
    client.subscribes(unknown.clone(), &["x"]);
    server.answers(unknown, &["-x"]);
    let other = TypeUrl::new("type.googleapis.com/example.Other");
    client.subscribes_to_all(other.clone());
    server.answers(other, &[]);
}

// Proto, "API flow": one stream for one type, which then need not be said.
#[test]
fn a_service_of_one_type_knows_its_type() {
    for variant in [Variant::Incremental, Variant::StateOfTheWorld] {
        let (client, server) = Setup { variant, of_type: Some(CDS), ..Setup::default() }.connect();
        server.has(1, &[(CDS, &["a@1"]), (LDS, &["l@1"])]);
        client.subscribes_to_all(TypeUrl::new(""));
        server.answers(CDS, &["a@1"]);
        client.acks(CDS);
        assert_eq!(server.told_in_sync(), [1]);
        client.subscribes_to_all(LDS);
        assert_eq!(server.refused(), Some(Refusal::WrongType));
    }
}

// Proto, "Basic protocol overview"; gRPC has every type besides, and knows none of ours.
#[test]
fn both_variants_open_alike() {
    in_both_variants(|client, server| {
        client.subscribes_to_all(CDS);
        server.is_silent();
        server.has(1, &[(CDS, &["a@1"]), (EDS, &["a@1"])]);
        server.answers(CDS, &["a@1"]);
        client.subscribes(EDS, &["a"]);
        server.answers(EDS, &["a@1"]);
        client.acks(CDS);
        client.acks(EDS);
        server.is_silent();
        assert_eq!(server.told_in_sync(), [1]);
    });
}
