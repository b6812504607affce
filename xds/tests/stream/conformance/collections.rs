//! Collections: `xdstp://…/*` (xRFC TP1, "Glob collections").

use crate::peers::*;

const ALL: &str = "xdstp://a/t/web/*";
const ONE: &str = "xdstp://a/t/web/1";
const TWO: &str = "xdstp://a/t/web/2";

#[test]
fn a_collection_is_whatever_is_in_its_directory() {
    in_both_variants(|client, server| {
        let (one, two) = (format!("{ONE}@1"), format!("{TWO}@1"));
        server.has(1, &[(CDS, &[&one, "xdstp://a/t/db/1@1", "other@1"])]);
        client.subscribes(CDS, &[ALL]);
        server.answers(CDS, &[&one]);
        client.acks(CDS);
        server.is_silent();
        assert_eq!(server.told_in_sync(), [1]);
        server.has(2, &[(CDS, &[&one, &two, "xdstp://a/t/db/1@2", "other@2"])]);
        let sotw = client.is_sotw();
        if sotw {
            server.answers(CDS, &[&one, &two]);
        } else {
            server.answers(CDS, &[&two]);
        }
        client.acks(CDS);
        server.has(3, &[(CDS, &[&two])]);
        let gone = format!("-{ONE}");
        server.answers(CDS, &[if sotw { &two } else { &gone }]);
    });
}

// Without an answer, or with one that has no name in it, Envoy waits: for 15 s, or for ever (measured with 1.40 for clusters).
#[test]
fn an_empty_collection_is_answered_and_filled_later() {
    in_both_variants(|client, server| {
        server.has(1, &[]);
        client.subscribes(CDS, &[ALL]);
        let gone = format!("-{ALL}");
        let answer: &[&str] = if client.is_sotw() { &[] } else { &[&gone] };
        server.answers(CDS, answer);
        client.acks(CDS);
        let one = format!("{ONE}@1");
        server.has(2, &[(CDS, &[&one])]);
        server.answers(CDS, &[&one]);
    });
}

#[test]
fn a_name_outlives_the_collection_it_is_in_and_the_other_way_round() {
    let (client, server) = peers();
    let (one, two) = (format!("{ONE}@1"), format!("{TWO}@1"));
    server.has(1, &[(CDS, &[&one, &two])]);
    client.subscribes(CDS, &[ALL, ONE]);
    server.answers(CDS, &[&one, &two]);
    client.acks(CDS);
    client.unsubscribes(CDS, &[ONE]); // it is still covered, and the client has dropped it
    server.answers(CDS, &[&one]);
    client.acks(CDS);
    client.subscribes(CDS, &[ONE]);
    server.answers(CDS, &[&one]);
    client.acks(CDS);
    client.unsubscribes(CDS, &[ALL]);
    let (one, two) = (format!("{ONE}@2"), format!("{TWO}@2"));
    server.has(2, &[(CDS, &[&one, &two])]);
    server.answers(CDS, &[&one]);
}

#[test]
fn a_client_that_comes_back_is_sent_the_difference_of_its_collection() {
    let (client, server) = peers();
    let (one, two) = (format!("{ONE}@1"), format!("{TWO}@1"));
    server.has(1, &[(RTDS, &[&one, &two])]);
    client.resumes(RTDS, &[ALL], &[&one]);
    server.answers(RTDS, &[&two]);
}
