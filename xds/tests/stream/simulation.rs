//! Random lives of a stream, in either variant, against the model of Envoy. Time hardly passes in them: nothing may
//! depend on a timeout.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use weft_xds::Snapshot;
use weft_xds::stream::Variant;

use crate::envoy::{BAD, Envoy};
use crate::peers::{CDS, EDS, LDS, RDS, snapshot};

/// A configuration in which every reference can be followed.
#[derive(Clone, Debug)]
struct Intent {
    /// Clusters by number, each with the content of itself and of its endpoints.
    clusters: Vec<(u8, u8, u8)>,
    /// For each route configuration, the cluster it leads to.
    routes: [usize; 2],
    /// For each listener, the route configuration it uses; two routes exist.
    listeners: Vec<usize>,
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Intent),
    Carry,
    Process,
    Reconnect,
    AskOnStaleNonce,
}

fn intents(contents: u8) -> impl Strategy<Value = Intent> {
    let clusters = btree_map(0u8..4, (0..contents, 0u8..2), 1..4);
    (clusters, any::<[Index; 2]>(), vec(0usize..2, 0..3)).prop_map(|(clusters, routes, listeners)| {
        let clusters: Vec<_> =
            clusters.into_iter().map(|(name, (cluster, hosts))| (name, cluster, hosts)).collect();
        Intent { routes: routes.map(|route| route.index(clusters.len())), clusters, listeners }
    })
}

fn steps(contents: u8) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => intents(contents).prop_map(Step::Publish),
        8 => Just(Step::Carry),
        8 => Just(Step::Process),
        1 => Just(Step::Reconnect),
        1 => Just(Step::AskOnStaleNonce),
    ];
    vec(step, 1..80)
}

/// Content 2 is the one that is rejected.
fn render(revision: u64, intent: &Intent) -> Arc<Snapshot> {
    let content = |number: &u8| if *number == 2 { BAD.to_owned() } else { number.to_string() };
    let name =
        |index: usize| intent.clusters.get(index).map(|(name, ..)| format!("c{name}")).unwrap_or_default();
    let clusters: Vec<_> =
        intent.clusters.iter().map(|(name, one, _)| format!("c{name}@{}", content(one))).collect();
    let endpoints: Vec<_> =
        intent.clusters.iter().map(|(name, _, hosts)| format!("c{name}@{hosts}")).collect();
    let listeners: Vec<_> =
        intent.listeners.iter().enumerate().map(|(i, route)| format!("l{i}@r{route}")).collect();
    let routes: Vec<_> =
        intent.routes.iter().enumerate().map(|(i, to)| format!("r{i}@{}", name(*to))).collect();
    let (clusters, endpoints) = (texts(&clusters), texts(&endpoints));
    let (listeners, routes) = (texts(&listeners), texts(&routes));
    snapshot(revision, &[(CDS, &clusters), (EDS, &endpoints), (LDS, &listeners), (RDS, &routes)]).into()
}

fn texts(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

/// Takes the steps; `check` looks after each. Returns the last revision.
fn live(envoy: &mut Envoy, steps: &[Step], check: impl Fn(&Envoy)) -> u64 {
    let mut revision = 0;
    for step in steps {
        match step {
            Step::Publish(intent) => {
                revision += 1;
                envoy.publish(render(revision, intent));
            }
            Step::Carry => _ = envoy.carry(),
            Step::Process => _ = envoy.process(),
            Step::Reconnect => envoy.reconnect(),
            Step::AskOnStaleNonce => envoy.ask("c1"),
        }
        check(envoy);
    }
    revision
}

/// Lets everything arrive. The second that may pass is the one a client has to come back with all its types.
fn settle(envoy: &mut Envoy, check: impl Fn(&Envoy)) {
    for _ in 0..2 {
        let mut messages = 0;
        while envoy.carry() || envoy.process() {
            check(envoy);
            messages += 1;
            assert!(messages < 200, "the peers never stop talking");
        }
        envoy.wait(Duration::from_secs(1));
    }
    while envoy.carry() || envoy.process() {
        check(envoy);
    }
}

/// 256 lives of each kind; `PROPTEST_CASES` asks for more, or for fewer.
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_no_request_fails_and_the_client_gets_there(
        incremental in any::<bool>(), steps in steps(2), last in intents(2),
    ) {
        let mut envoy = Envoy::connect(variant(incremental));
        let check = |envoy: &Envoy| {
            envoy.assert_one_in_flight();
            envoy.assert_no_request_fails();
        };
        let revision = live(&mut envoy, &steps, check) + 1;
        let last = render(revision, &last);
        envoy.publish(Arc::clone(&last));
        settle(&mut envoy, check);
        envoy.assert_agrees_with(&last);
    }

    #[test]
    fn rejections_neither_loop_nor_stick(steps in steps(3), last in intents(2)) {
        rejected(Variant::Incremental, &steps, &last);
    }

    #[test]
    fn rejections_neither_loop_nor_stick_in_the_state_of_the_world(steps in steps(3), last in intents(2)) {
        rejected(Variant::StateOfTheWorld, &steps, &last);
    }
}

fn rejected(variant: Variant, steps: &[Step], last: &Intent) {
    let mut envoy = Envoy::connect(variant);
    let revision = live(&mut envoy, steps, Envoy::assert_one_in_flight) + 1;
    settle(&mut envoy, Envoy::assert_one_in_flight);
    let last = render(revision, last);
    envoy.publish(Arc::clone(&last));
    settle(&mut envoy, Envoy::assert_one_in_flight);
    envoy.assert_agrees_with(&last);
}

fn variant(incremental: bool) -> Variant {
    if incremental { Variant::Incremental } else { Variant::StateOfTheWorld }
}
