//! When a client is done.

use crate::peers::*;

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
