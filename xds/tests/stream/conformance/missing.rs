//! What is asked for and does not exist.

use std::time::Duration;

use weft_xds::snapshot::Failure;
use weft_xds::stream::{Policy, Variant};
use weft_xds::{Revision, Snapshot};

use crate::peers::*;

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
    let (client, server) = peers_with(Policy { empty_for_missing: false, ..Policy::default() });
    server.has(1, &[]);
    client.subscribes(RDS, &["r"]);
    server.answers(RDS, &["-r"]);
}

// Envoy docs, "VHDS": a host without content answers the request that waits for it, with 404.
#[test]
fn a_missing_virtual_host_is_answered_without_content() {
    let (client, server) = peers();
    server.has(1, &[]);
    client.subscribes(VHDS, &["r/nobody"]);
    server.answers(VHDS, &["~r/nobody"]);
    client.acks(VHDS);
    server.is_silent();
}

// Proto, "Knowing when a requested resource does not exist": the state of the world has no way to tell. A first request
// is answered all the same.
#[test]
fn what_does_not_exist_is_left_out_of_the_state_of_the_world() {
    let (client, server) = sotw_peers();
    server.has(1, &[(SDS, &["b@1"])]);
    client.subscribes(SDS, &["a"]);
    server.answers(SDS, &[]);
    client.acks(SDS);
    client.subscribes(SDS, &["b", "c"]);
    server.answers(SDS, &["b@1"]);
    client.acks(SDS);
    server.has(2, &[(SDS, &["a@2", "b@1"])]);
    server.answers(SDS, &["a@2"]);
    client.acks(SDS);
    server.has(3, &[]);
    server.is_silent();
    assert!(server.wakes_within(Duration::ZERO));
    server.waits(Duration::ZERO);
    assert_eq!(server.told_in_sync().last(), Some(&3));
}

// 1.40: a cluster waits 15 s for endpoints that never come, and the answer about all clusters with it.
#[test]
fn missing_endpoints_are_none_in_the_state_of_the_world() {
    let (client, server) = sotw_peers();
    server.has(1, &[]);
    client.subscribes(EDS, &["a"]);
    server.answers(EDS, &["a@"]);
    client.acks(EDS);
    server.is_silent();
    server.has(2, &[(EDS, &["a@2"])]);
    server.answers(EDS, &["a@2"]);
    client.acks(EDS);
    server.has(3, &[]);
    server.is_silent();
}

#[test]
fn a_missing_route_configuration_is_an_empty_one_in_the_state_of_the_world_too() {
    let (client, server) = sotw_peers();
    server.has(1, &[]);
    client.subscribes(RDS, &["r"]);
    server.answers(RDS, &["r@"]);
    client.acks(RDS);
    server.has(2, &[(RDS, &["r@1"])]);
    server.answers(RDS, &["r@1"]);
}

fn failing() -> Snapshot {
    let denied = Failure { code: 7, message: "not for you".into() };
    Snapshot::builder().fail(EDS, "denied", denied).build(Revision(1)).unwrap()
}

// xRFC TP3: errors for single resources, to clients that read them.
#[test]
fn a_client_that_reads_errors_learns_why_a_name_has_no_resource() {
    let policy = Policy { resource_errors: true, ..Policy::default() };
    let (client, server) = peers_with(policy);
    server.publishes(failing());
    client.subscribes(EDS, &["denied", "gone"]);
    server.answers(EDS, &["-gone", "!denied 7"]);

    let (client, server) = Setup { variant: Variant::StateOfTheWorld, policy, ..Setup::default() }.connect();
    server.publishes(failing());
    client.subscribes(EDS, &["denied"]);
    server.answers(EDS, &["!denied 7"]);
    client.acks(EDS);
    client.subscribes(EDS, &["gone"]);
    server.answers(EDS, &["!gone 5"]);
    client.acks(EDS);
    server.is_silent(); // TP3: an error is said once
}

#[test]
fn for_all_other_clients_it_just_does_not_exist() {
    let (client, server) = peers();
    server.publishes(failing());
    client.subscribes(EDS, &["denied"]);
    server.answers(EDS, &["-denied"]);
}
