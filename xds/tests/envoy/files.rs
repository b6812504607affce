//! One endpoint among thousands of clusters, through the engine and through Envoy's own watching of files.
//!
//! In turns, on two Envoys of one version. A change is in force when a request reaches the new endpoint, on both. What they
//! are compared with is what files can do best: protobuf, and in a directory of its own that only a rename touches.
//! Files of endpoints for all clusters are not among it: Envoy 1.40 accepts one assignment in a file, and takes an inotify
//! instance for each file, of which Linux grants a user 128.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;
use weft_xds::TypeUrl;

use crate::Way;
use crate::cases::{RECEIVED, clusters, insert};
use crate::control::Control;
use crate::proxy::Envoy;
use crate::resources::{assignment, endpoints, in_file, response, with_file};

const COUNT: usize = 5_000;
const TURNS: usize = 21;

/// The cluster whose endpoint moves through the engine, and in the file of all clusters.
const MOVED: &str = "watched-4000";
/// The cluster that has a file with its endpoints alone.
const ALONE: &str = "watched-4001";

/// The endpoints, by turns.
const ENDPOINTS: [&str; 2] = ["a", "b"];

pub(crate) async fn one_endpoint_among_five_thousand_clusters_beside_files(way: Way) {
    let (mut control, streamed) = streaming(way).await;
    let (files, watching) = watching().await;
    let [mut stream, mut all, mut alone] = [const { Vec::new() }; 3];
    let before = streamed.stat(RECEIVED).await;
    for turn in 1..=TURNS {
        // The engine's turn is between those of the files, whose Envoy has something to clear away after each.
        let [of_one, of_all] = [alone_in(files.path(), turn), all_in(files.path(), turn)];
        alone.push(saved(&watching, "alone.sock", turn, &files.path().join("alone"), &of_one).await);

        let begun = Instant::now();
        let socket = control.directory().join(socket(turn)).display().to_string();
        control.publish(|builder| insert(builder, [endpoints(MOVED, &socket)]));
        stream.push(in_force(&streamed, "moved.sock", turn, begun).await);
        control.accepted(&[TypeUrl::ENDPOINT]).await;

        all.push(saved(&watching, "moved.sock", turn, &files.path().join("all"), &of_all).await);
    }
    let received = (streamed.stat(RECEIVED).await - before) / TURNS as u64;
    let stream = middle(stream);
    println!("one endpoint among 5 000 clusters, until a request reaches it, the middle of {TURNS} turns");
    println!("weft-xds, incremental: {stream:?}, {received} bytes");
    for (what, times, bytes) in [
        ("a file of all clusters", all, all_in(files.path(), 0).len()),
        ("a file of these endpoints", alone, alone_in(files.path(), 0).len()),
    ] {
        let took = middle(times);
        println!("{what}: {took:?} ({:.2} ×), {bytes} bytes", took.as_secs_f64() / stream.as_secs_f64());
    }
}

/// The engine, with an Envoy that has reached the first endpoint.
async fn streaming(way: Way) -> (Control, Envoy) {
    let mut control = Control::start();
    let first = control.directory().join(socket(0)).display().to_string();
    control.publish(|builder| insert(builder, clusters(way, COUNT)));
    control.publish(|builder| insert(builder, [endpoints(MOVED, &first)]));
    let envoy = Envoy::start_with(way, control.directory(), &listeners(control.directory()));
    control.accepted(&[TypeUrl::CLUSTER, TypeUrl::ENDPOINT]).await;
    envoy.await_answer("moved.sock", (200, ENDPOINTS[0])).await;
    (control, envoy)
}

/// Files, and an Envoy that has reached the first endpoints in them.
async fn watching() -> (tempfile::TempDir, Envoy) {
    let files = tempfile::tempdir().unwrap();
    for (name, content) in [("all", all_in(files.path(), 0)), ("alone", alone_in(files.path(), 0))] {
        let directory = files.path().join(name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("now.pb"), content).unwrap();
    }
    let envoy = Envoy::start_on_files(files.path(), &files.path().join("all"), &listeners(files.path()));
    envoy.await_answer("moved.sock", (200, ENDPOINTS[0])).await;
    envoy.await_answer("alone.sock", (200, ENDPOINTS[0])).await;
    assert_eq!(envoy.stat("cluster_manager.active_clusters").await, COUNT as u64);
    (files, envoy)
}

/// Renames a new file to its place, and waits until it is in force.
async fn saved(envoy: &Envoy, listener: &str, turn: usize, directory: &Path, content: &[u8]) -> Duration {
    let next = directory.join("next.pb");
    fs::write(&next, content).unwrap();
    let begun = Instant::now();
    fs::rename(next, directory.join("now.pb")).unwrap();
    in_force(envoy, listener, turn, begun).await
}

async fn in_force(envoy: &Envoy, listener: &str, turn: usize, begun: Instant) -> Duration {
    envoy.await_answer_at_once(listener, (200, ENDPOINTS[turn % 2])).await;
    begun.elapsed()
}

fn all_in(directory: &Path, turn: usize) -> Vec<u8> {
    let at = |at: usize| {
        let name = format!("watched-{at}");
        match &*name {
            ALONE => with_file(&name, &directory.join("alone")),
            MOVED => in_file(&name, &directory.join(socket(turn)).display().to_string()),
            _ => in_file(&name, "/dev/null"),
        }
    };
    response((0..COUNT).map(at)).encode_to_vec()
}

fn alone_in(directory: &Path, turn: usize) -> Vec<u8> {
    response([assignment(ALONE, &directory.join(socket(turn)).display().to_string())]).encode_to_vec()
}

fn socket(turn: usize) -> String {
    format!("{}.sock", ENDPOINTS[turn % 2])
}

fn middle(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

/// The endpoints, which say their names, and a listener for each of the clusters that move between them.
fn listeners(directory: &Path) -> String {
    let says = |name: &str| {
        listener(
            directory,
            name,
            &format!("direct_response: {{ status: 200, body: {{ inline_string: {name} }} }}"),
        )
    };
    let to =
        |name: &str, cluster: &str| listener(directory, name, &format!("route: {{ cluster: {cluster} }}"));
    format!("  listeners:\n{}", [says("a"), says("b"), to("moved", MOVED), to("alone", ALONE)].concat())
}

fn listener(directory: &Path, name: &str, action: &str) -> String {
    let directory = directory.display();
    format!(
        "  - name: {name}
    address: {{ pipe: {{ path: {directory}/{name}.sock }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          route_config:
            validate_clusters: false
            virtual_hosts: [{{ name: all, domains: ['*'], routes: [{{ match: {{ prefix: / }}, {action} }}] }}]
          http_filters:
          - name: router
            typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
"
    )
}
