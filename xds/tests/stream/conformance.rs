//! One rule per test. "Proto" is Envoy's `docs/root/api-docs/xds_protocol.rst`; "1.40" is what an Envoy 1.40.0 was
//! measured to do.

use std::time::Duration;

use weft_xds::stream::{Policy, Refusal};
use weft_xds::{Event, Revision, StreamId, TypeUrl};

use crate::peers::*;

// ---- opening a stream

// Proto, "Basic protocol overview": only the first request is certain to carry the node.
#[test]
fn a_first_request_without_a_node_ends_the_stream() {
    let (client, server) = peers();
    client.sends(Default::default());
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

// ---- subscriptions

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

// ---- what does not exist

// 1.40: a removal ends the warming of a cluster in 3 ms; silence takes 15 s. go-control-plane#565.
#[test]
fn a_missing_name_is_said_to_be_missing_and_sent_when_it_appears() {
    let (client, server) = peers();
    server.has(1, &[]);
    client.subscribes(EDS, &["a"]);
    server.answers(EDS, &["-a"]);
    client.acks(EDS);
    server.has(2, &[(EDS, &["a@1"])]);
    server.answers(EDS, &["a@1"]);
}

// 1.40: a removal wedges the listener that waits for the route for ever; empty routes answer 404.
#[test]
fn a_missing_route_configuration_is_answered_with_an_empty_one() {
    let (client, server) = peers();
    server.has(1, &[]);
    client.subscribes(RDS, &["r"]);
    server.answers(RDS, &["r@"]);
    client.acks(RDS);
    server.is_silent();
    server.has(2, &[(RDS, &["r@1"])]);
    server.answers(RDS, &["r@1"]);
}

// 1.40 ignores the removal, so that connections of a draining listener keep their routes.
#[test]
fn a_route_configuration_that_goes_is_removed_not_emptied() {
    let (client, server) = peers();
    server.has(1, &[(RDS, &["r@1"])]);
    client.subscribes(RDS, &["r"]);
    server.answers(RDS, &["r@1"]);
    client.acks(RDS);
    server.has(2, &[]);
    server.answers(RDS, &["-r"]);
}

#[test]
fn other_clients_may_want_the_removal_of_a_missing_route() {
    let (client, server) = peers_with(Policy { empty_route_for_missing: false, ..Policy::default() });
    server.has(1, &[]);
    client.subscribes(RDS, &["r"]);
    server.answers(RDS, &["-r"]);
}

// ---- coming back

// Proto, "Incremental xDS", `initial_resource_versions`.
#[test]
fn a_client_that_comes_back_is_sent_the_difference() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["new@1", "changed@2", "same@1"])]);
    client.resumes(CDS, &[], &["changed@1", "same@1", "gone@1"]);
    server.answers(CDS, &["changed@2", "new@1"]);
    client.acks(CDS);
    server.waits(Duration::from_secs(1)); // its routes may still name the cluster that is gone
    server.answers(CDS, &["-gone"]);
}

#[test]
fn a_client_that_comes_back_with_everything_is_sent_nothing() {
    let (client, server) = peers();
    server.has(7, &[(EDS, &["a@1"])]);
    client.resumes(EDS, &["a"], &["a@1"]);
    // The clusters come second: while one of them warms, Envoy 1.40 needs its endpoints again.
    server.answers(EDS, &["a@1"]);
    let (client, server) = peers();
    server.has(7, &[(CDS, &["a@1"]), (EDS, &["a@1"])]);
    client.resumes(CDS, &[], &["a@1"]);
    client.resumes(EDS, &["a"], &["a@1"]);
    server.is_silent();
    assert_eq!(server.told_in_sync().last(), Some(&7));
}

// 1.40: LDS and RDS may be asked for before CDS on a new stream.
#[test]
fn routes_of_a_client_that_comes_back_wait_for_its_clusters() {
    let (client, server) = peers();
    server.has(2, &[(CDS, &["new@1"]), (RDS, &["r@new"])]);
    client.resumes(RDS, &["r"], &["r@old"]);
    server.is_silent();
    client.resumes(CDS, &[], &["old@1"]);
    server.answers(CDS, &["new@1"]);
    server.is_silent();
    client.acks(CDS);
    server.answers(RDS, &["r@new"]);
    client.acks(RDS);
    server.waits(Duration::from_secs(1));
    server.answers(CDS, &["-old"]);
}

// gRPC clients ask for LDS and RDS first and never have all clusters.
#[test]
fn a_client_that_never_asks_for_clusters_gets_its_routes_all_the_same() {
    let (client, server) = peers();
    server.has(2, &[(CDS, &["c@1"]), (RDS, &["r@2"])]);
    client.resumes(RDS, &["r"], &["r@1"]);
    server.is_silent();
    assert!(server.wakes_within(Duration::from_secs(1)));
    server.waits(Duration::from_secs(1));
    server.answers(RDS, &["r@2"]);
}

// ---- ACK and NACK

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
    let acked = Event::Acked { stream: StreamId(1), type_url: CDS, revision: Revision(1) };
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

// ---- order within a change

// 1.40: while a cluster warms it waits for its endpoints again, and an incremental Envoy does not ask for them.
#[test]
fn endpoints_follow_a_changed_cluster_unasked_and_without_its_ack() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1", "b@1"]), (EDS, &["a@1", "b@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1", "b@1"]);
    client.subscribes(EDS, &["a", "b"]);
    server.answers(EDS, &["a@1", "b@1"]);
    client.acks(EDS);
    client.acks(CDS);
    server.has(2, &[(CDS, &["a@2", "b@1"]), (EDS, &["a@1", "b@1"])]);
    server.answers(CDS, &["a@2"]);
    server.answers(EDS, &["a@1"]);
    server.is_silent();
}

// 1.40: secrets of an upstream hold up the ACK of its cluster as endpoints do.
#[test]
fn secrets_do_not_wait_for_clusters() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1"]), (SDS, &["s@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1"]);
    client.subscribes(SDS, &["s"]);
    server.answers(SDS, &["s@1"]);
}

/// A client that has cluster `old`, and route `r` to it, at revision 1.
fn serving() -> (Client, Server) {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["old@1"]), (LDS, &["l@1"]), (RDS, &["r@old"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["old@1"]);
    client.acks(CDS);
    client.subscribes_to_all(LDS);
    server.answers(LDS, &["l@1"]);
    client.subscribes(RDS, &["r"]);
    client.acks(LDS);
    server.answers(RDS, &["r@old"]);
    client.acks(RDS);
    assert_eq!(server.told_in_sync(), [1]);
    (client, server)
}

// 1.40: CDS{+new,−old} and then RDS gave 52 failed requests; in this order there were none of 2 059.
#[test]
fn a_renamed_cluster_is_made_before_the_old_one_is_broken() {
    let (client, server) = serving();
    server.has(2, &[(CDS, &["new@1"]), (LDS, &["l@1"]), (RDS, &["r@new"])]);
    server.answers(CDS, &["new@1"]);
    server.is_silent(); // warming
    client.acks(CDS);
    server.answers(RDS, &["r@new"]);
    server.is_silent();
    client.acks(RDS);
    server.answers(CDS, &["-old"]);
    assert_eq!(server.told_in_sync(), []);
    client.acks(CDS);
    server.is_silent();
    assert_eq!(server.told_in_sync(), [2]);
}

#[test]
fn listeners_go_before_routes() {
    let (client, server) = serving();
    server.has(2, &[(CDS, &["old@1"]), (LDS, &["l@2"]), (RDS, &["r@2"])]);
    server.answers(LDS, &["l@2"]);
    server.answers(RDS, &["r@2"]);
    client.acks(LDS);
    client.acks(RDS);
    assert_eq!(server.told_in_sync(), [2]);
}

#[test]
fn a_rejected_cluster_stops_the_change_and_keeps_the_last_good() {
    let (client, server) = serving();
    server.has(2, &[(CDS, &["new@bad"]), (LDS, &["l@1"]), (RDS, &["r@new"])]);
    server.answers(CDS, &["new@bad"]);
    client.nacks(CDS, "Error adding/updating cluster(s) new: no");
    server.is_silent();
    server.waits(Duration::from_secs(3600));
    server.is_silent();
    server.has(3, &[(CDS, &["new@1"]), (LDS, &["l@1"]), (RDS, &["r@new"])]);
    server.answers(CDS, &["new@1"]);
}

#[test]
fn a_cluster_in_use_that_was_caught_in_a_rejection_still_goes_last() {
    let (client, server) = serving();
    server.has(2, &[(CDS, &["old@2", "x@bad"]), (LDS, &["l@1"]), (RDS, &["r@old"])]);
    server.answers(CDS, &["old@2", "x@bad"]);
    client.nacks(CDS, "Error adding/updating cluster(s) x: no");
    server.has(3, &[(CDS, &["new@1"]), (LDS, &["l@1"]), (RDS, &["r@new"])]);
    server.answers(CDS, &["new@1"]);
    client.acks(CDS);
    server.answers(RDS, &["r@new"]);
    client.acks(RDS);
    server.answers(CDS, &["-old", "-x"]);
}

#[test]
fn a_rejected_route_keeps_the_cluster_it_would_have_left() {
    let (client, server) = serving();
    server.has(2, &[(CDS, &["new@1"]), (LDS, &["l@1"]), (RDS, &["r@bad"])]);
    server.answers(CDS, &["new@1"]);
    client.acks(CDS);
    server.answers(RDS, &["r@bad"]);
    client.nacks(RDS, "no");
    server.is_silent();
    assert_eq!(server.told_in_sync(), []);
}

// A fresh client has no last good state: a listener less is better than none.
#[test]
fn a_client_that_holds_nothing_is_given_what_there_is() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1", "b@bad"]), (LDS, &["l@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1", "b@bad"]);
    client.nacks(CDS, "Error adding/updating cluster(s) b: no");
    server.answers(CDS, &["a@1"]);
    client.acks(CDS);
    client.subscribes_to_all(LDS);
    server.answers(LDS, &["l@1"]);
}

// 1.40: the ACK is withheld while a cluster warms, and later responses are processed meanwhile.
#[test]
fn a_stuck_cluster_is_reported_can_be_corrected_and_does_not_block_for_ever() {
    let (_client, server) = serving();
    server.has(2, &[(CDS, &["new@1", "old@1"]), (LDS, &["l@1"]), (RDS, &["r@new"])]);
    server.answers(CDS, &["new@1"]);
    assert!(server.wakes_within(Duration::from_secs(2)));
    server.waits(Duration::from_secs(2));
    assert_eq!(
        server.told(),
        [Event::Unanswered { stream: StreamId(1), type_url: CDS, revision: Revision(2) }]
    );
    server.is_silent();
    server.has(3, &[(CDS, &["new@2", "old@1"]), (LDS, &["l@1"]), (RDS, &["r@new"])]);
    server.answers(CDS, &["new@2"]);
    server.is_silent();
    server.waits(Duration::from_secs(20));
    server.answers(RDS, &["r@new"]);
}

#[test]
fn the_ack_of_a_correction_answers_for_what_it_overtook() {
    let (client, server) = serving();
    server.has(2, &[(CDS, &["old@2"]), (LDS, &["l@1"]), (RDS, &["r@old"])]);
    server.answers(CDS, &["old@2"]);
    server.waits(Duration::from_secs(2));
    server.has(3, &[(CDS, &["old@3"]), (LDS, &["l@1"]), (RDS, &["r@old"])]);
    server.answers(CDS, &["old@3"]);
    client.acks(CDS);
    assert_eq!(server.told_in_sync(), [3]);
}

#[test]
fn a_grace_period_holds_back_removals_only() {
    let (client, server) = peers_with(Policy { removal_grace: Duration::from_secs(5), ..Policy::default() });
    server.has(1, &[(CDS, &["a@1"]), (RDS, &["r@a"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1"]);
    client.acks(CDS);
    client.subscribes(RDS, &["r"]);
    server.answers(RDS, &["r@a"]);
    client.acks(RDS);
    server.has(2, &[(CDS, &["b@1"]), (RDS, &["r@b"])]);
    server.answers(CDS, &["b@1"]);
    client.acks(CDS);
    server.answers(RDS, &["r@b"]);
    client.acks(RDS);
    server.is_silent();
    assert!(server.wakes_within(Duration::from_secs(5)));
    server.waits(Duration::from_secs(5));
    server.answers(CDS, &["-a"]);
}

// ---- in sync

#[test]
fn a_revision_that_changes_nothing_for_a_client_is_in_sync_at_once() {
    let (_client, server) = serving();
    server.has(2, &[(CDS, &["old@1"]), (LDS, &["l@1"]), (RDS, &["r@old", "unsubscribed@1"])]);
    server.is_silent();
    assert_eq!(server.told_in_sync(), [2]);
}

#[test]
fn a_client_that_has_yet_to_ask_for_listeners_is_not_in_sync() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1"]), (LDS, &["l@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1"]);
    client.acks(CDS);
    assert_eq!(server.told_in_sync(), []);
    client.subscribes_to_all(LDS);
    server.answers(LDS, &["l@1"]);
    client.acks(LDS);
    assert_eq!(server.told_in_sync(), [1]);
}

// 1.40 drops a response for a type it has left, without any answer.
#[test]
fn nobody_waits_for_an_answer_about_a_type_the_client_has_left() {
    let (client, server) = serving();
    client.subscribes(EDS, &["x"]);
    server.answers(EDS, &["-x"]);
    server.told();
    client.unsubscribes(EDS, &["x"]);
    assert_eq!(server.told_in_sync(), [1]);
    client.subscribes(EDS, &["y"]);
    server.answers(EDS, &["-y"]);
}

#[test]
fn a_response_is_cut_at_the_size_limit_between_resources() {
    let (client, server) = peers_with(Policy { max_response_bytes: 20, ..Policy::default() });
    server.has(1, &[(EDS, &["a@0123456789", "b@0123456789", "c@0123456789"])]);
    client.subscribes(EDS, &["a", "b", "c"]);
    server.answers(EDS, &["a@0123456789"]);
    client.acks(EDS);
    server.answers(EDS, &["b@0123456789"]);
}
