//! What is too much.

use weft_xds::stream::{Policy, Refusal, Variant};
use weft_xds::{Event, Revision, StreamId, TypeUrl};

use crate::peers::*;

// consul#9689, istio#32644: a message beyond the limit breaks the stream, and every stream after it.
#[test]
fn a_resource_that_is_too_large_is_withheld_and_the_rest_is_sent() {
    for variant in [Variant::Incremental, Variant::StateOfTheWorld] {
        let policy = Policy { max_message_bytes: 150, ..Policy::default() };
        let (client, server) = Setup { variant, policy, ..Setup::default() }.connect();
        let large = format!("a@{}", "x".repeat(200));
        server.has(1, &[(EDS, &[&large, "b@1"])]);
        client.subscribes(EDS, &["a", "b"]);
        server.answers(EDS, &["b@1"]);
        server.told();
        client.acks(EDS);
        server.is_silent();
        let withheld = |event: &Event| match event {
            Event::Withheld { stream: StreamId(1), type_url, revision: Revision(1), resources, bytes } => {
                *type_url == EDS && *resources == ["a".into()] && *bytes > 200
            }
            _ => false,
        };
        assert_eq!(server.told().iter().filter(|event| withheld(event)).count(), 1);
        server.has(2, &[(EDS, &["a@2", "b@1"])]);
        server.answers(EDS, &["a@2"]);
    }
}

// All clusters go into one response: the change that makes it too large stays out.
#[test]
fn a_world_that_is_too_large_stays_what_it_was() {
    let policy = Policy { max_message_bytes: 300, ..Policy::default() };
    let (client, server) = Setup { variant: Variant::StateOfTheWorld, policy, ..Setup::default() }.connect();
    server.has(1, &[(CDS, &["a@1", "b@1"])]);
    client.subscribes_to_all(CDS);
    server.answers(CDS, &["a@1", "b@1"]);
    client.acks(CDS);
    let large = format!("b@{}", "x".repeat(300));
    server.has(2, &[(CDS, &["a@1", &large])]);
    server.is_silent();
    server.has(3, &[(CDS, &["a@3", "b@1"])]);
    server.answers(CDS, &["a@3", "b@1"]);
}

// Proto, "Grouping resources into responses": endpoints may come in several responses in either variant.
#[test]
fn a_response_is_cut_at_the_size_limit_between_resources() {
    for variant in [Variant::Incremental, Variant::StateOfTheWorld] {
        let policy = Policy { max_response_bytes: 20, ..Policy::default() };
        let (client, server) = Setup { variant, policy, ..Setup::default() }.connect();
        server.has(1, &[(EDS, &["a@1", "b@1", "c@1"])]);
        client.subscribes(EDS, &["a", "b", "c"]);
        for one in ["a@1", "b@1", "c@1"] {
            server.answers(EDS, &[one]);
            client.acks(EDS);
        }
        server.is_silent();
    }
}

#[test]
fn a_client_with_too_many_names_is_refused() {
    let (client, server) = peers_with(Policy { max_names: 3, ..Policy::default() });
    client.subscribes(EDS, &["a", "b"]);
    client.subscribes(EDS, &["c"]);
    assert_eq!(server.refused(), None);
    client.subscribes(RDS, &["d"]);
    assert_eq!(server.refused(), Some(Refusal::TooManyNames(3)));
}

// A client of the state of the world says all its names with every request.
#[test]
fn names_that_are_said_again_count_once() {
    let policy = Policy { max_names: 3, ..Policy::default() };
    let (client, server) = Setup { variant: Variant::StateOfTheWorld, policy, ..Setup::default() }.connect();
    server.has(1, &[(EDS, &["a@1", "b@1"])]);
    client.subscribes(EDS, &["a", "b"]);
    server.answers(EDS, &["a@1", "b@1"]);
    client.acks(EDS);
    assert_eq!(server.refused(), None);
    client.subscribes(EDS, &["c", "d"]);
    assert_eq!(server.refused(), Some(Refusal::TooManyNames(3)));
}

#[test]
fn a_client_with_too_many_types_is_refused() {
    let (client, server) = peers_with(Policy { max_types: 2, ..Policy::default() });
    client.subscribes_to_all(CDS);
    client.subscribes_to_all(LDS);
    client.subscribes_to_all(CDS);
    assert_eq!(server.refused(), None);
    client.subscribes_to_all(TypeUrl::new("type.googleapis.com/example.Third"));
    assert_eq!(server.refused(), Some(Refusal::TooManyTypes(2)));
}

// What is counted is what is remembered: a name that is left makes room.
#[test]
fn a_client_whose_names_are_too_long_is_refused() {
    for variant in [Variant::Incremental, Variant::StateOfTheWorld] {
        let policy = Policy { max_name_bytes: 1_000, ..Policy::default() };
        let long = |letter: &str| letter.repeat(400);
        let (client, server) = Setup { variant, policy, ..Setup::default() }.connect();
        server.has(1, &[]);
        client.subscribes(EDS, &[&long("a"), &long("b")]);
        client.unsubscribes(EDS, &[&long("a")]);
        client.subscribes(EDS, &[&long("c")]);
        assert_eq!(server.refused(), None);
        client.subscribes(EDS, &[&long("d")]);
        assert_eq!(server.refused(), Some(Refusal::NamesTooLong(1_000)));
    }
}
