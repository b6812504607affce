//! ACK and NACK.

use std::time::Duration;

use weft_xds::{Event, Revision, StreamId};

use crate::peers::*;

// Proto, "ACK": one response of a type at a time; what came meanwhile is merged.
#[test]
fn a_slow_client_gets_the_newest_and_nothing_in_between() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1"]);
    server.has(2, &[(CDS, &["a@2"])]);
    server.has(3, &[(CDS, &["a@3"])]);
    server.is_silent();
    client.acks(CDS);
    server.answers(CDS, &["a@3"]);
}

// go-control-plane#962: the rejected content was sent again at once, for ever.
#[test]
fn what_was_rejected_is_not_sent_again_until_it_changes() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@bad"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@bad"]);
    client.nacks(CDS, "Error adding/updating cluster(s) a: no");
    server.is_silent();
    server.has(2, &[(CDS, &["a@bad"])]);
    server.is_silent();
    server.has(3, &[(CDS, &["a@good"])]);
    server.answers(CDS, &["a@good"]);
}

// Kept apart from what was accepted, because the client fell back to that.
#[test]
fn a_revert_to_what_was_accepted_is_sent() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1"]);
    client.acks(CDS);
    server.has(2, &[(CDS, &["a@bad"])]);
    server.answers(CDS, &["a@bad"]);
    client.nacks(CDS, "Error adding/updating cluster(s) a: no");
    server.has(3, &[(CDS, &["a@1"])]);
    server.answers(CDS, &["a@1"]);
    client.acks(CDS);
    assert_eq!(server.told_in_sync(), [1, 3]);
}

// 1.40, envoy#12592: the good resource of a rejected response is applied, but its version is not remembered.
#[test]
fn only_the_guilty_are_parked_and_the_owner_learns_why() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@bad", "b@1", "c@bad"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@bad", "b@1", "c@bad"]);
    server.told();
    let message = "Error adding/updating cluster(s) a: too low, c: too high";
    client.nacks(CDS, message);
    server.answers(CDS, &["b@1"]);
    client.acks(CDS);
    server.is_silent();
    let nacked = Event::Nacked {
        stream: StreamId(1),
        type_url: CDS,
        revision: Revision(1),
        resources: vec![("a".into(), "too low".into()), ("c".into(), "too high".into())],
        message: message.into(),
    };
    let acked =
        Event::Acked { stream: StreamId(1), type_url: CDS, revision: Revision(1), after: Duration::ZERO };
    assert_eq!(server.told(), [nacked, acked]);
}

#[test]
fn a_rejection_that_names_nobody_is_narrowed_down() {
    let (client, server) = peers();
    server.has(1, &[(RDS, &["a@1", "b@bad"])]);
    client.subscribes(RDS, &["a", "b"]);
    server.answers(RDS, &["a@1", "b@bad"]);
    client.nacks(RDS, "Only unique values for domains are permitted");
    server.answers(RDS, &["a@1"]);
    client.acks(RDS);
    server.answers(RDS, &["b@bad"]);
    client.nacks(RDS, "Only unique values for domains are permitted");
    server.is_silent();
    let Some(Event::Nacked { resources, .. }) = server.told().pop() else { panic!("no NACK was told") };
    assert_eq!(resources, [("b".into(), "Only unique values for domains are permitted".into())]);
}

// Proto, "ACK" and "NACK": the same in both variants, what is kept apart too.
#[test]
fn a_rejection_parks_its_content_in_both_variants() {
    in_both_variants(|client, server| {
        server.has(1, &[(RDS, &["r@1"])]);
        client.subscribes(RDS, &["r"]);
        server.answers(RDS, &["r@1"]);
        client.acks(RDS);
        server.has(2, &[(RDS, &["r@bad"])]);
        server.answers(RDS, &["r@bad"]);
        client.nacks(RDS, "no");
        server.is_silent();
        server.has(3, &[(RDS, &["r@bad"])]);
        server.is_silent();
        server.has(4, &[(RDS, &["r@1"])]);
        server.answers(RDS, &["r@1"]);
    });
}

// quilkin loses the change of subscriptions in a message that is also an answer.
#[test]
fn subscriptions_beside_a_rejection_are_honoured() {
    in_both_variants(|client, server| {
        server.has(1, &[(RDS, &["bad@bad", "good@1"])]);
        client.subscribes(RDS, &["bad"]);
        server.answers(RDS, &["bad@bad"]);
        client.nacks_and_subscribes(RDS, "no", &["good"]);
        server.answers(RDS, &["good@1"]);
    });
}

// Proto, "NACK": a rejection is an `error_detail`, whatever the version says.
#[test]
fn an_old_version_without_an_error_is_no_rejection() {
    let (client, server) = sotw_peers();
    server.has(1, &[(EDS, &["a@1"])]);
    client.subscribes(EDS, &["a"]);
    server.answers(EDS, &["a@1"]);
    client.subscribes(EDS, &["b"]); // on the nonce of the response, but on no version
    assert!(server.told().iter().any(|event| matches!(event, Event::Acked { .. })));
}
