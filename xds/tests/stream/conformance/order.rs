//! Make before break.

use std::time::Duration;

use weft_xds::stream::Policy;
use weft_xds::{Event, Revision, StreamId};

use crate::peers::*;

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
