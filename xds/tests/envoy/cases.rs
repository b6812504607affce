//! What is to be seen, whichever way the Envoy asks.

use std::time::Instant;

use weft_xds::snapshot::Builder;
use weft_xds::stream::Variant;
use weft_xds::{Event, Resource, TypeUrl};

use crate::Way;
use crate::control::Control;
use crate::proxy::Envoy;
use crate::resources::{CLUSTERS, LISTENERS, cluster, endpoints, listener, rejected_cluster, routes};

const CDS: TypeUrl = TypeUrl::CLUSTER;
const EDS: TypeUrl = TypeUrl::ENDPOINT;
const LDS: TypeUrl = TypeUrl::LISTENER;
const RDS: TypeUrl = TypeUrl::ROUTE;

/// The timeout (in seconds) that clusters are made with, and another.
const FIRST: i64 = 1;
const OTHER: i64 = 2;

/// What Envoy has received from the server, in bytes.
pub(crate) const RECEIVED: &str = "cluster.xds.upstream_cx_rx_bytes_total";

/// `count` clusters with one endpoint each: `watched-0`, `watched-1`…
pub(crate) fn clusters(way: Way, count: usize) -> impl Iterator<Item = Resource> {
    (0..count).flat_map(move |at| {
        let name = format!("watched-{at}");
        [cluster(way, &name, FIRST), endpoints(&name, "/dev/null")]
    })
}

pub(crate) fn insert(builder: &mut Builder, resources: impl IntoIterator<Item = Resource>) {
    for resource in resources {
        builder.insert(resource);
    }
}

/// A server with `count` clusters, and an Envoy that serves routes.
async fn started(way: Way, count: usize) -> (Control, Envoy) {
    let mut control = Control::start();
    let socket = control.directory().join("in.sock");
    control.publish(|builder| {
        insert(builder, clusters(way, count));
        insert(builder, [listener(way, "in", &socket, "web"), routes("web", "hello", 0)]);
    });
    let envoy = Envoy::start(way, control.directory());
    control.accepted(&[CDS, EDS, LDS, RDS]).await;
    (control, envoy)
}

pub(crate) async fn an_envoy_serves_from_its_first_revision_on(way: Way) {
    let (control, envoy) = started(way, 20).await;
    envoy.await_answer("in.sock", (200, "hello")).await;
    assert_eq!(envoy.stat("cluster_manager.warming_clusters").await, 0);
    assert_eq!(envoy.stat("cluster.watched-7.membership_total").await, 1);
    if way.aggregated {
        // Envoy 1.40 says that clusters are accepted once they are warm, and asks for listeners only then.
        let order = control.order();
        let place = |wanted: TypeUrl| order.iter().position(|one| **one == wanted);
        assert!(place(CDS) < place(LDS) && place(LDS) < place(RDS), "{order:?}");
    }
}

// A cluster that changes warms on endpoints that an incremental Envoy does not ask for again. Unless they are sent with
// it, Envoy gives them up after 15 s (`initial_fetch_timeout`) and takes those it has had.
pub(crate) async fn a_changed_cluster_is_warm_at_once(way: Way) {
    let (mut control, envoy) = started(way, 5).await;
    let published = Instant::now();
    control.publish(|builder| insert(builder, [cluster(way, "watched-3", OTHER)]));
    control.accepted(&[CDS]).await;
    println!("{way:?}: a changed cluster is warm after {:?}", published.elapsed());
    assert_eq!(envoy.stat("cluster_manager.cluster_modified").await, 1);
    assert_eq!(envoy.stat("cluster.watched-3.membership_total").await, 1);
    for given_up in ["init_fetch_timeout", "assignment_use_cached"] {
        assert_eq!(envoy.stat(&format!("cluster.watched-3.{given_up}")).await, 0, "{given_up}");
    }
}

pub(crate) async fn what_is_equal_changes_nothing_after_a_restart_of_the_server(way: Way) {
    // By type an Envoy opens a stream for the endpoints of each cluster.
    let (count, streams) = if way.aggregated { (500, 1) } else { (20, 3 + 20) };
    let (mut control, envoy) = started(way, count).await;
    let (before, updates) =
        (envoy.stat(RECEIVED).await, envoy.stat("cluster.watched-7.update_success").await);
    control.restart().await;
    control.in_sync(streams).await;
    let received = envoy.stat(RECEIVED).await - before;
    println!("{way:?}: {before} bytes at first, {received} after the restart");
    assert_eq!(envoy.stat("cluster_manager.cluster_added").await, count as u64 + 1);
    assert_eq!(envoy.stat("cluster_manager.cluster_modified").await, 0);
    assert_eq!(envoy.stat("listener_manager.listener_modified").await, 0);
    // By type endpoints are sent again: nothing tells their stream whether a cluster waits for them.
    if way.variant == Variant::Incremental && way.aggregated {
        assert!(received * 20 < before, "{received} bytes, and {before} at first");
        assert_eq!(envoy.stat("cluster.watched-7.update_success").await, updates);
    }
    control.publish(|builder| insert(builder, [routes("web", "after", 0)]));
    envoy.await_answer("in.sock", (200, "after")).await;
}

// The answer of the protocol, a removal, leaves the listener of an Envoy 1.40 warming for ever.
pub(crate) async fn a_listener_whose_routes_do_not_exist_answers_and_gets_them_later(way: Way) {
    let (mut control, envoy) = started(way, 1).await;
    let socket = control.directory().join("late.sock");
    control.publish(|builder| {
        builder.external(RDS, "late");
        insert(builder, [listener(way, "late", &socket, "late")]);
    });
    control.accepted(&[LDS]).await;
    envoy.await_answer("late.sock", (404, "")).await;
    control.publish(|builder| insert(builder, [routes("late", "at last", 0)]));
    envoy.await_answer("late.sock", (200, "at last")).await;
}

// envoy#12592: of a response with a bad resource an Envoy applies the good ones, and forgets that it did.
pub(crate) async fn of_a_response_that_is_rejected_only_the_guilty_is_parked(way: Way) {
    let (mut control, envoy) = started(way, 2).await;
    control
        .publish(|builder| insert(builder, [cluster(way, "watched-1", OTHER), rejected_cluster("guilty")]));
    let nacked = |event: &Event| matches!(event, Event::Nacked { .. });
    control.hear(|heard| heard.iter().any(nacked)).await;
    let Some(Event::Nacked { type_url, resources, .. }) = control.heard.iter().find(|event| nacked(event))
    else {
        unreachable!("it was heard")
    };
    let names: Vec<_> = resources.iter().map(|(name, _)| &**name).collect();
    assert_eq!((type_url, &*names), (&CDS, &["guilty"][..]), "{resources:?}");

    // The next change is accepted without it, and it is not offered again.
    control.publish(|builder| insert(builder, [cluster(way, "watched-0", OTHER)]));
    control.accepted(&[CDS]).await;
    assert_eq!(envoy.stat("cluster_manager.cds.update_rejected").await, 1);
    assert_eq!(envoy.stat("cluster_manager.cluster_modified").await, 2);
    assert_eq!(envoy.stat("cluster_manager.warming_clusters").await, 0);

    // Once its content changes, it is.
    let mended = [cluster(way, "guilty", FIRST), endpoints("guilty", "/dev/null")];
    control.publish(|builder| insert(builder, mended));
    control.accepted(&[CDS]).await;
    assert_eq!(envoy.stat("cluster_manager.cds.update_rejected").await, 1);
    envoy.await_answer("in.sock", (200, "hello")).await;
}

pub(crate) async fn collections_of_clusters_and_listeners_are_served(way: Way) {
    let mut control = Control::start();
    let socket = control.directory().join("in.sock");
    let clusters = |builder: &mut Builder, name: &str| {
        insert(builder, [cluster(way, name, FIRST), endpoints(name, "/dev/null")]);
    };
    control.publish(|builder| {
        clusters(builder, &format!("{CLUSTERS}/one"));
        clusters(builder, "outside");
        insert(
            builder,
            [listener(way, &format!("{LISTENERS}/in"), &socket, "web"), routes("web", "hello", 0)],
        );
    });
    let envoy = Envoy::start(way, control.directory());
    control.accepted(&[CDS, LDS, RDS]).await;
    envoy.await_answer("in.sock", (200, "hello")).await;
    // The server's own and the one in the collection.
    assert_eq!(envoy.stat("cluster_manager.active_clusters").await, 2);

    control.publish(|builder| clusters(builder, &format!("{CLUSTERS}/two")));
    control.accepted(&[CDS]).await;
    assert_eq!(envoy.stat("cluster_manager.active_clusters").await, 3);
    control.publish(|builder| {
        builder.remove(&CDS, &format!("{CLUSTERS}/one"));
        insert(builder, [routes("web", "still", 0)]);
    });
    control.accepted(&[CDS]).await;
    assert_eq!(envoy.stat("cluster_manager.active_clusters").await, 2);
    envoy.await_answer("in.sock", (200, "still")).await;
}

// An answer without any name reaches none of an Envoy's collections: it would wait for its clusters for ever.
pub(crate) async fn an_empty_collection_holds_nothing_up(way: Way) {
    let mut control = Control::start();
    let socket = control.directory().join("in.sock");
    control.publish(|builder| {
        insert(
            builder,
            [listener(way, &format!("{LISTENERS}/in"), &socket, "web"), routes("web", "hello", 0)],
        );
    });
    let envoy = Envoy::start(way, control.directory());
    envoy.await_answer("in.sock", (200, "hello")).await;
    let name = format!("{CLUSTERS}/late");
    control.publish(|builder| insert(builder, [cluster(way, &name, FIRST), endpoints(&name, "/dev/null")]));
    control.accepted(&[CDS]).await;
    assert_eq!(envoy.stat("cluster_manager.active_clusters").await, 2);
}

pub(crate) async fn sixty_megabytes_of_routes_arrive(way: Way) {
    let (mut control, envoy) = started(way, 1).await;
    let published = Instant::now();
    control.publish(|builder| insert(builder, [routes("web", "heavy", 60_000_000)]));
    control.accepted(&[RDS]).await;
    println!("{way:?}: 60 MB of routes are accepted after {:?}", published.elapsed());
    envoy.await_answer("in.sock", (200, "heavy")).await;
}

pub(crate) async fn five_thousand_clusters_are_warm_and_one_of_them_changes_alone(way: Way) {
    let begun = Instant::now();
    let (mut control, envoy) = started(way, 5_000).await;
    println!("{way:?}: 5 000 clusters are warm after {:?}", begun.elapsed());
    assert_eq!(envoy.stat("cluster_manager.active_clusters").await, 5_001);
    assert_eq!(envoy.stat("cluster_manager.warming_clusters").await, 0);

    let before = envoy.stat(RECEIVED).await;
    let published = Instant::now();
    control.publish(|builder| insert(builder, [endpoints("watched-4000", "/dev/zero")]));
    control.accepted(&[EDS]).await;
    let (took, received) = (published.elapsed(), envoy.stat(RECEIVED).await - before);
    println!("{way:?}: one endpoint among 5 000 is accepted after {took:?}, with {received} bytes");
    // Also in the state of the world: a response about endpoints may be partial.
    assert!(received < 1_000, "{received} bytes for one endpoint");
}
