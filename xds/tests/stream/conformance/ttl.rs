//! Resources that expire.

use std::time::Duration;

use weft_xds::stream::{Policy, Variant};
use weft_xds::{Revision, Snapshot};

use crate::peers::*;

fn timed(revision: u64, seconds: u64) -> Snapshot {
    let fault = resource(&RTDS, "fault@1").with_ttl(Duration::from_secs(seconds));
    let mut builder = Snapshot::builder();
    builder.insert(fault).insert(resource(&RTDS, "other@1")).build(Revision(revision)).unwrap()
}

const DELTA: &[&str] = &["xds.config.supports-resource-ttl"];
const SOTW: &[&str] = &["xds.config.supports-resource-ttl", "xds.config.supports-resource-in-sotw"];

// Proto, "TTL": a heartbeat has no content, and only those with a time to live get one.
#[test]
fn a_time_to_live_is_renewed_without_the_content() {
    for (variant, features) in [(Variant::Incremental, DELTA), (Variant::StateOfTheWorld, SOTW)] {
        let (client, server) = Setup { variant, features, ..Setup::default() }.connect();
        server.publishes(timed(1, 9));
        client.subscribes(RTDS, &["fault", "other"]);
        server.answers(RTDS, &["fault@1 for 9 s", "other@1"]);
        client.acks(RTDS);
        server.is_silent();
        for _ in 0..3 {
            server.waits(Duration::from_millis(2999));
            server.is_silent();
            assert!(server.wakes_within(Duration::from_millis(1)));
            server.waits(Duration::from_millis(1));
            server.answers(RTDS, &["~fault for 9 s"]);
            client.acks(RTDS);
            server.is_silent();
        }
    }
}

// Proto, "TTL": "to update the TTL, the management server resends the resource".
#[test]
fn a_new_time_to_live_sends_the_resource_again() {
    let (client, server) = Setup { features: DELTA, ..Setup::default() }.connect();
    server.publishes(timed(1, 9));
    client.subscribes(RTDS, &["fault"]);
    server.answers(RTDS, &["fault@1 for 9 s"]);
    client.acks(RTDS);
    server.publishes(timed(2, 60));
    server.answers(RTDS, &["fault@1 for 60 s"]);
}

// Proto, "TTL": gated by client features; in the state of the world by one more.
#[test]
fn a_client_that_does_not_know_times_to_live_gets_none() {
    for (variant, features) in [(Variant::Incremental, &[][..]), (Variant::StateOfTheWorld, DELTA)] {
        let (client, server) = Setup { variant, features, ..Setup::default() }.connect();
        server.publishes(timed(1, 9));
        client.subscribes(RTDS, &["fault"]);
        server.answers(RTDS, &["fault@1"]);
        client.acks(RTDS);
        server.waits(Duration::from_secs(60));
        server.is_silent();
    }
}

// 1.40 knows times to live, and lists no feature at all.
#[test]
fn the_owner_may_know_better() {
    let (client, server) = peers_with(Policy { assume_ttl: true, ..Policy::default() });
    server.publishes(timed(1, 9));
    client.subscribes(RTDS, &["fault"]);
    server.answers(RTDS, &["fault@1 for 9 s"]);
}

// At most one in flight: a heartbeat too waits for the answer to what was sent before.
#[test]
fn a_heartbeat_waits_for_the_answer_before_it() {
    let (client, server) = Setup { features: DELTA, ..Setup::default() }.connect();
    server.publishes(timed(1, 3));
    client.subscribes(RTDS, &["fault"]);
    server.answers(RTDS, &["fault@1 for 3 s"]);
    server.waits(Duration::from_millis(1500));
    server.is_silent();
    client.acks(RTDS);
    server.answers(RTDS, &["~fault for 3 s"]);
}
