//! A client that comes back.

use std::time::Duration;

use crate::peers::*;

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

// envoy#12592, 1.40: the good part of a rejected response is applied, and its version not remembered.
#[test]
fn what_was_half_applied_is_not_taken_for_what_the_client_says() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1", "b@1", "gone@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1", "b@1", "gone@1"]);
    client.acks(CDS);
    server.has(2, &[(CDS, &["a@2", "b@bad", "new@1"])]);
    server.answers(CDS, &["a@2", "b@bad", "new@1"]);
    client.nacks(CDS, "Error adding/updating cluster(s) b: no");
    client.reconnects();
    server.has(3, &[(CDS, &["a@1", "b@1", "gone@1"])]);
    client.resumes(CDS, &[], &["a@1", "b@1", "gone@1"]);
    server.answers(CDS, &["a@1"]);
    client.acks(CDS);
    server.waits(Duration::from_secs(1));
    server.answers(CDS, &["-new"]);
}

// The answer may have been lost with the stream.
#[test]
fn what_was_under_way_when_the_stream_ended_is_sent_again() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1"]);
    client.acks(CDS);
    server.has(2, &[(CDS, &["a@2"])]);
    server.answers(CDS, &["a@2"]);
    client.reconnects();
    server.has(3, &[(CDS, &["a@1"])]);
    client.resumes(CDS, &[], &["a@1"]);
    server.answers(CDS, &["a@1"]);
}

#[test]
fn what_was_rejected_before_is_not_sent_again_after_a_reconnect() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@1", "b@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1", "b@1"]);
    client.acks(CDS);
    server.has(2, &[(CDS, &["a@1", "b@bad"])]);
    server.answers(CDS, &["b@bad"]);
    client.nacks(CDS, "no");
    client.reconnects();
    client.resumes(CDS, &[], &["a@1", "b@1"]);
    server.is_silent();
    client.reconnects();
    client.resumes(CDS, &[], &["a@1", "b@1"]);
    server.is_silent();
    server.has(3, &[(CDS, &["a@1", "b@2"])]);
    server.answers(CDS, &["b@2"]);
}

// Another process of the same name may be of a newer version, or have the file that was missing.
#[test]
fn a_client_that_starts_from_nothing_is_offered_what_the_last_one_rejected() {
    let (client, server) = peers();
    server.has(1, &[(CDS, &["a@bad"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@bad"]);
    client.nacks(CDS, "no");
    client.reconnects();
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@bad"]);
}

// Proto, "ACK/NACK and resource type instance version": safe to leave out where all is asked for.
#[test]
fn a_version_that_stands_for_everything_need_not_be_sent_again() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["a@1"]), (EDS, &["a@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1"]);
    client.subscribes(EDS, &["a"]);
    server.answers(EDS, &["a@1"]);
    client.acks(CDS);
    client.acks(EDS);
    client.reconnects();
    client.subscribes_to_all(CDS);
    server.is_silent();
    // The same section: not so where names are asked for.
    client.subscribes(EDS, &[]);
    server.answers(EDS, &["a@1"]);
}

// 1.40: the clusters that routes still name would be gone with the first response.
#[test]
fn a_client_of_the_state_of_the_world_keeps_its_clusters_over_a_reconnect() {
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
    client.reconnects();
    server.has(2, &[(CDS, &["new@1"]), (LDS, &["l@1"]), (RDS, &["r@new"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["new@1", "old@1"]);
    client.subscribes_to_all(LDS);
    client.subscribes(RDS, &[]);
    server.is_silent();
    client.acks(CDS);
    server.answers(RDS, &["r@new"]);
    client.acks(RDS);
    server.waits(Duration::from_secs(1));
    server.answers(CDS, &["new@1"]);
}

#[test]
fn the_last_good_content_of_what_was_rejected_stays_over_a_reconnect() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["a@1", "b@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1", "b@1"]);
    client.acks(CDS);
    server.has(2, &[(CDS, &["a@1", "b@bad"])]);
    server.answers(CDS, &["a@1", "b@bad"]);
    client.nacks(CDS, "Error adding/updating cluster(s) b: no");
    client.reconnects();
    client.subscribes_to_all(CDS);
    server.is_silent();
    server.has(3, &[(CDS, &["a@3", "b@bad"])]);
    server.answers(CDS, &["a@3", "b@1"]);
}

// 1.40: a cluster warms until its endpoints are said, and holds up the answer about all clusters. The version that a client
// says with the names is of the last response, whatever names that was for (`GrpcMuxImpl`).
#[test]
fn a_cluster_that_is_gone_while_it_warms_gets_endpoints_after_a_reconnect_too() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["old@1"]), (EDS, &["old@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["old@1"]);
    client.subscribes(EDS, &["old"]);
    server.answers(EDS, &["old@1"]);
    client.acks(EDS);
    client.acks(CDS);
    client.reconnects();
    server.has(2, &[(CDS, &["new@1"]), (EDS, &["new@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["new@1", "old@1"]);
    server.has(3, &[]);
    client.subscribes(EDS, &["new"]);
    server.answers(EDS, &["new@", "old@1"]); // what the client had stays
}

// The same, with a stream in between on which the client wanted no endpoints.
#[test]
fn what_a_version_of_endpoints_stands_for_outlives_a_stream_without_any() {
    let (client, server) = sotw_peers();
    server.has(1, &[(CDS, &["a@1"]), (EDS, &["a@1"])]);
    client.subscribes(EDS, &["a"]);
    server.answers(EDS, &["a@1"]);
    client.acks(EDS);
    client.reconnects();
    client.unsubscribes(EDS, &["a"]);
    server.answers(EDS, &[]);
    client.reconnects();
    server.has(2, &[]);
    client.subscribes(EDS, &["b"]);
    server.answers(EDS, &["b@"]);
}
