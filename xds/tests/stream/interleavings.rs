//! Random interleavings of everything a client and a server can do, in both variants. After quiet, what the client
//! holds is what it asked for; no response is without a cause; at most one of each type is in flight.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use weft_xds::stream::Variant;
use weft_xds::{Snapshot, TypeUrl};

use crate::client::{BAD, BAD_UNNAMED, Client, TYPES};
use crate::peers::snapshot;

/// For each type, for each of four names: its content, or nothing.
type Intent = [[Option<u8>; 4]; 4];

#[derive(Clone, Debug)]
enum Step {
    Subscribe(TypeUrl, String),
    Unsubscribe(TypeUrl, String),
    Publish(Intent),
    /// The transport takes a response; a slow reader is one for which this rarely happens.
    Carry,
    Process(TypeUrl),
    Reconnect,
}

fn types() -> impl Strategy<Value = TypeUrl> {
    (0usize..4).prop_map(|at| TYPES[at].clone())
}

/// The name of a resource: two of them are in a collection.
fn name(at: usize) -> String {
    if at < 2 { format!("n{at}") } else { format!("xdstp://a/t/all/{at}") }
}

fn names() -> impl Strategy<Value = String> {
    (0usize..6).prop_map(|at| match at {
        4 => "*".into(),
        5 => "xdstp://a/t/all/*".into(),
        at => name(at),
    })
}

/// Contents from 2 on are rejected.
fn intents(contents: u8) -> impl Strategy<Value = Intent> {
    prop::array::uniform4(prop::array::uniform4(prop::option::of(0..contents)))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (types(), names()).prop_map(|(type_url, name)| Step::Subscribe(type_url, name)),
        2 => (types(), names()).prop_map(|(type_url, name)| Step::Unsubscribe(type_url, name)),
        3 => intents(4).prop_map(Step::Publish),
        8 => Just(Step::Carry),
        8 => types().prop_map(Step::Process),
        1 => Just(Step::Reconnect),
    ];
    vec(step, 1..60)
}

fn render(revision: u64, intent: &Intent) -> Arc<Snapshot> {
    let content = |number: u8| match number {
        2 => BAD.to_owned(),
        3 => BAD_UNNAMED.to_owned(),
        number => number.to_string(),
    };
    let texts: Vec<Vec<String>> = intent
        .iter()
        .map(|names| {
            let there = names.iter().enumerate().filter_map(|(at, number)| Some((at, (*number)?)));
            there.map(|(at, number)| format!("{}@{}", name(at), content(number))).collect()
        })
        .collect();
    let texts: Vec<Vec<&str>> = texts.iter().map(|all| all.iter().map(String::as_str).collect()).collect();
    let resources: Vec<_> = TYPES.into_iter().zip(texts.iter().map(Vec::as_slice)).collect();
    snapshot(revision, &resources).into()
}

fn live(client: &mut Client, steps: &[Step]) -> u64 {
    let mut revision = 0;
    for step in steps {
        match step {
            Step::Subscribe(type_url, name) => client.subscribe(type_url, name),
            Step::Unsubscribe(type_url, name) => client.unsubscribe(type_url, name),
            Step::Publish(intent) => {
                revision += 1;
                client.publish(render(revision, intent));
            }
            Step::Carry => _ = client.carry(),
            Step::Process(type_url) => _ = client.process(type_url),
            Step::Reconnect => client.reconnect(),
        }
    }
    revision
}

/// Lets everything arrive, and the second pass that a client has to come back with all its types.
fn settle(client: &mut Client) {
    for _ in 0..3 {
        let mut messages = 0;
        while client.carry() || TYPES.iter().any(|type_url| client.process(type_url)) {
            messages += 1;
            assert!(messages < 300, "the peers never stop talking");
        }
        client.wait(Duration::from_secs(1));
    }
}

proptest! {
    // 256 lives of each kind; `PROPTEST_CASES` asks for more, or for fewer.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_quiet_an_incremental_client_has_what_it_asked_for(steps in steps(), last in intents(2)) {
        play(Variant::Incremental, &steps, &last);
    }

    #[test]
    fn after_quiet_a_client_of_the_whole_world_has_what_it_asked_for(steps in steps(), last in intents(2)) {
        play(Variant::StateOfTheWorld, &steps, &last);
    }
}

fn play(variant: Variant, steps: &[Step], last: &Intent) {
    let mut client = Client::connect(variant);
    let revision = live(&mut client, steps) + 1;
    settle(&mut client);
    let last = render(revision, last);
    client.publish(Arc::clone(&last));
    settle(&mut client);
    client.assert_agrees_with(&last);
    if client.asks_for_roots() {
        assert_eq!(client.in_sync, Some(revision), "{:?}", client.status());
    }
}
