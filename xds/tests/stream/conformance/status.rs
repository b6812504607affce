//! What can be asked about a stream.

use std::time::Duration;

use weft_xds::stream::{ResourceState, ResourceStatus};

use crate::peers::*;

fn one<'a>(resources: &'a [ResourceStatus], name: &str) -> &'a ResourceStatus {
    resources.iter().find(|resource| &*resource.name == name).expect("it is listed")
}

#[test]
fn every_resource_says_where_it_is_on_its_way() {
    in_both_variants(|client, server| {
        server.has(1, &[(CDS, &["a@1", "b@1"])]);
        client.subscribes_to_all(CDS);
        let state = |name: &str| {
            let status = server.status();
            one(&status.types[0].resources, name).state
        };
        assert_eq!((state("a"), state("b")), (ResourceState::Due, ResourceState::Due));
        server.answers(CDS, &["a@1", "b@1"]);
        assert_eq!(state("a"), ResourceState::Sent);
        assert!(server.status().types[0].unanswered.is_some());
        client.acks(CDS);
        assert_eq!(state("a"), ResourceState::Accepted);
        assert!(server.status().in_sync);
        assert!(server.status().types[0].wildcard);
        client.subscribes(EDS, &["a"]);
        server.has(2, &[(CDS, &["a@1", "b@1"])]);
        assert!(server.status().types[0].unanswered.is_none());
    });
}

#[test]
fn it_is_known_since_when_a_resource_is_in_force() {
    in_both_variants(|client, server| {
        server.has(1, &[(RDS, &["a@1", "b@1"])]);
        client.subscribes(RDS, &["a", "b"]);
        server.answers(RDS, &["a@1", "b@1"]);
        client.acks(RDS);
        let since = |name: &str| one(&server.status().types[0].resources, name).since.expect("a time");
        let start = since("a");
        server.waits(Duration::from_secs(60));
        server.has(2, &[(RDS, &["a@1", "b@2"])]);
        server.answers(RDS, &["b@2"]);
        server.waits(Duration::from_secs(1));
        client.acks(RDS);
        assert_eq!((since("a"), since("b")), (start, start + Duration::from_secs(61)));
    });
}

#[test]
fn a_rejection_shows_what_is_in_force_what_is_not_and_why() {
    in_both_variants(|client, server| {
        server.has(1, &[(RDS, &["r@1"])]);
        client.subscribes(RDS, &["r", "gone"]);
        server.answers(RDS, &["gone@", "r@1"]);
        client.acks(RDS);
        server.has(2, &[(RDS, &["r@bad"])]);
        server.answers(RDS, &["r@bad"]);
        client.nacks(RDS, "too bad");
        let status = server.status();
        assert!(!status.in_sync);
        let (gone, r) = (one(&status.types[0].resources, "gone"), one(&status.types[0].resources, "r"));
        assert_eq!((gone.state, gone.named, gone.wanted.as_ref()), (ResourceState::Absent, true, None));
        assert_eq!(r.state, ResourceState::Rejected);
        assert_eq!(r.accepted, Some(resource(&RDS, "r@1").version()));
        assert_eq!(r.wanted, Some(resource(&RDS, "r@bad")));
        let (version, reason, at) = r.rejected.as_ref().expect("rejected");
        assert_eq!((*version, &**reason), (resource(&RDS, "r@bad").version(), "too bad"));
        assert_eq!(r.since, Some(*at));
    });
}
