//! The engine and a real Envoy: what the model of one in `tests/stream` assumes, and what it cannot know.
//!
//! Each case runs in every way in which an Envoy can ask. Nothing has a port: the server, Envoy's admin interface and its
//! listeners are sockets in a directory of the test. `make envoy` fetches the Envoy.

#![cfg(test)]

mod cases;
mod control;
mod files;
mod proxy;
mod resources;

use weft_xds::stream::Variant;

/// How an Envoy asks.
#[derive(Clone, Copy, Debug)]
struct Way {
    variant: Variant,
    /// All types on one stream, instead of a stream for each.
    aggregated: bool,
    /// Clusters and listeners by the collections they are in, instead of all.
    collections: bool,
}

/// A test for each case and each of these ways to ask.
macro_rules! cases {
    ($($case:ident: $($way:ident)*;)*) => {
        $(mod $case {
            use $crate::{Way, cases};

            $(#[tokio::test]
            async fn $way() {
                cases::$case(Way::$way()).await;
            })*
        })*
    };
}

cases! {
    an_envoy_serves_from_its_first_revision_on:
        incremental incremental_by_type state_of_the_world state_of_the_world_by_type;
    a_changed_cluster_is_warm_at_once:
        incremental incremental_by_type state_of_the_world state_of_the_world_by_type;
    what_is_equal_changes_nothing_after_a_restart_of_the_server:
        incremental incremental_by_type state_of_the_world state_of_the_world_by_type;
    a_listener_whose_routes_do_not_exist_answers_and_gets_them_later:
        incremental incremental_by_type state_of_the_world state_of_the_world_by_type;
    of_a_response_that_is_rejected_only_the_guilty_is_parked:
        incremental incremental_by_type state_of_the_world state_of_the_world_by_type;
    collections_of_clusters_and_listeners_are_served:
        incremental_by_collection;
    an_empty_collection_holds_nothing_up:
        incremental_by_collection;
    sixty_megabytes_of_routes_arrive:
        incremental state_of_the_world;
    // By type it would open 5 000 streams.
    five_thousand_clusters_are_warm_and_one_of_them_changes_alone:
        incremental state_of_the_world;
}

#[tokio::test]
async fn one_endpoint_among_five_thousand_clusters_beside_files() {
    files::one_endpoint_among_five_thousand_clusters_beside_files(Way::incremental()).await;
}

impl Way {
    fn incremental() -> Self {
        Self { variant: Variant::Incremental, aggregated: true, collections: false }
    }

    /// Envoy 1.40 knows collections in this variant only.
    fn incremental_by_collection() -> Self {
        Self { collections: true, ..Self::incremental() }
    }

    fn incremental_by_type() -> Self {
        Self { aggregated: false, ..Self::incremental() }
    }

    fn state_of_the_world() -> Self {
        Self { variant: Variant::StateOfTheWorld, ..Self::incremental() }
    }

    fn state_of_the_world_by_type() -> Self {
        Self { aggregated: false, ..Self::state_of_the_world() }
    }
}
