//! The state of the world: what is not said is deleted.

use std::time::Duration;

use crate::peers::*;

// Proto, "Grouping resources into responses": of clusters and listeners everything, with every response.
#[test]
fn a_change_of_one_cluster_says_all_of_them() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["a@1", "b@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1", "b@1"]);
    client.acks(CDS);
    server.has(2, &[(CDS, &["a@1", "b@2"])]);
    server.answers(CDS, &["a@1", "b@2"]);
    client.acks(CDS);
    server.is_silent();
}

// The same for clusters that are asked for by name.
#[test]
fn clusters_asked_for_by_name_are_all_said_too() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["a@1", "b@1", "c@1"])]);
    client.subscribes(CDS, &["a"]);
    server.answers(CDS, &["a@1"]);
    client.acks(CDS);
    client.subscribes(CDS, &["b"]);
    server.answers(CDS, &["a@1", "b@1"]);
}

// Proto, "Deleting resources": a response without resources deletes all.
#[test]
fn the_last_listener_goes_with_an_empty_response() {
    let (client, server) = sotw_peers();
    server.has(1, &[(LDS, &["l@1"])]);
    client.subscribes_to_all(LDS);
    server.answers(LDS, &["l@1"]);
    client.acks(LDS);
    server.has(2, &[]);
    server.answers(LDS, &[]);
    client.acks(LDS);
    server.is_silent();
    assert_eq!(server.told_in_sync(), [1, 2]);
}

// Proto, "Eventual consistency considerations": an update with both, then the routes, then without the old.
#[test]
fn a_renamed_cluster_is_made_before_the_old_one_is_broken() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["old@1"]), (LDS, &["l@1"]), (RDS, &["r@old"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["old@1"]);
    client.acks(CDS);
    client.subscribes_to_all(LDS);
    server.answers(LDS, &["l@1"]);
    client.acks(LDS);
    client.subscribes(RDS, &["r"]);
    server.answers(RDS, &["r@old"]);
    client.acks(RDS);
    server.has(2, &[(CDS, &["new@1"]), (LDS, &["l@1"]), (RDS, &["r@new"])]);
    server.answers(CDS, &["new@1", "old@1"]);
    server.is_silent(); // warming
    client.acks(CDS);
    server.answers(RDS, &["r@new"]);
    client.acks(RDS);
    server.answers(CDS, &["new@1"]);
    client.acks(CDS);
    server.is_silent();
    assert_eq!(server.told_in_sync().last(), Some(&2));
}

// A response without the rejected cluster would delete the last good one.
#[test]
fn the_last_good_content_stands_in_for_what_was_rejected() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["a@1", "b@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1", "b@1"]);
    client.acks(CDS);
    server.has(2, &[(CDS, &["a@2", "b@bad", "c@bad"])]);
    server.answers(CDS, &["a@2", "b@bad", "c@bad"]);
    client.nacks(CDS, "Error adding/updating cluster(s) b: no, c: no");
    server.answers(CDS, &["a@2", "b@1"]);
    client.acks(CDS);
    server.is_silent();
    server.has(3, &[(CDS, &["a@3", "b@bad", "c@1"])]);
    server.answers(CDS, &["a@3", "b@1", "c@1"]);
}

#[test]
fn a_rejection_that_names_nobody_is_narrowed_down() {
    let (client, server) = sotw_peers();
    server.has(1, &[(LDS, &["a@1", "b@1"])]);
    client.subscribes_to_all(LDS);
    server.answers(LDS, &["a@1", "b@1"]);
    client.acks(LDS);
    server.has(2, &[(LDS, &["a@2", "b@bad"])]);
    server.answers(LDS, &["a@2", "b@bad"]);
    client.nacks(LDS, "no");
    server.answers(LDS, &["a@2", "b@1"]);
    client.acks(LDS);
    server.answers(LDS, &["a@2", "b@bad"]);
    client.nacks(LDS, "no");
    server.is_silent();
}

// 1.40: a changed cluster waits for its endpoints again. They come behind it unasked; the repeated request of the client
// is stale by then.
#[test]
fn endpoints_follow_a_changed_cluster_once() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["a@1"]), (EDS, &["a@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1"]);
    client.subscribes(EDS, &["a"]);
    server.answers(EDS, &["a@1"]);
    client.acks(EDS);
    client.acks(CDS);
    server.has(2, &[(CDS, &["a@2"]), (EDS, &["a@1"])]);
    server.answers(CDS, &["a@2"]);
    server.answers(EDS, &["a@1"]);
    client.subscribes_on_a_stale_nonce(EDS, &[]);
    server.is_silent();
    client.acks(EDS);
    client.acks(CDS);
    server.is_silent();
}

// 1.40: a state-of-the-world Envoy repeats its last request when a cluster warms whose endpoints it knows.
#[test]
fn an_answer_that_is_repeated_asks_again() {
    let (client, server) = sotw_peers();
    server.has(1, &[(EDS, &["a@1", "b@1"])]);
    client.subscribes(EDS, &["a", "b"]);
    server.answers(EDS, &["a@1", "b@1"]);
    client.acks(EDS);
    server.is_silent();
    client.acks(EDS);
    server.answers(EDS, &["a@1", "b@1"]);
    client.acks(EDS);
    server.is_silent();
}

// Proto, "ACK/NACK and resource type instance version": a version belongs to the resources, not to the stream.
#[test]
fn equal_worlds_have_equal_versions_on_every_stream() {
    let version = |revision| {
        let (client, server) = sotw_peers();
        server.has(revision, &[(CDS, &["a@1", "b@1"])]);
        client.subscribes_to_all(CDS);
        server.answers(CDS, &["a@1", "b@1"]);
        client.version(CDS)
    };
    assert_eq!(version(1), version(2));
}

// A slow client: one response with everything, none in between.
#[test]
fn a_world_that_changes_again_and_again_is_said_once() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["a@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1"]);
    server.has(2, &[(CDS, &["a@2"])]);
    server.has(3, &[(CDS, &["a@3", "b@3"])]);
    server.is_silent();
    client.acks(CDS);
    server.answers(CDS, &["a@3", "b@3"]);
}

#[test]
fn a_stuck_cluster_can_be_corrected() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["a@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1"]);
    server.has(2, &[(CDS, &["a@2"])]);
    server.is_silent();
    server.waits(Duration::from_secs(2));
    server.answers(CDS, &["a@2"]);
    client.acks(CDS);
    assert_eq!(server.told_in_sync(), [2]);
}
