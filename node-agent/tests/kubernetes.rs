//! A resource of the API is followed through everything that an API does: pages, watches, versions that are too old,
//! connections that break, servers that are overloaded, absent or somebody else.

#![cfg(test)]

#[path = "shared/kubernetes.rs"]
#[expect(dead_code, unreachable_pub, reason = "other tests use the rest")]
mod stand_in;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};
use stand_in::{Fault, Kubernetes};
use tokio::sync::watch;
use tokio::time::timeout;
use weft_node::kubernetes::{Api, Follower, Resource, Retry, follow};

const NODES: &str = "/api/v1/nodes";
const RESOURCE: Resource = Resource { versions: &["/api/v1"], plural: "nodes" };
const DEADLINE: Duration = Duration::from_secs(20);

/// What a follower was told.
#[derive(Debug, Clone, Default)]
struct Told {
    /// The objects as they were last, and what they said.
    objects: BTreeMap<String, i64>,
    listing: BTreeSet<String>,
    lists: usize,
    events: usize,
    absences: usize,
    trouble: Option<String>,
    /// How often everything that had come was told.
    settled: usize,
}

struct Recorder(watch::Sender<Told>);

impl Follower for Recorder {
    fn list_begins(&mut self) {
        self.0.send_modify(|told| told.listing.clear());
    }

    fn apply(&mut self, object: &[u8]) {
        let object: Value = serde_json::from_slice(object).unwrap();
        let (name, says) = (name_of(&object), object["spec"]["says"].as_i64().unwrap());
        self.0.send_modify(|told| {
            told.events += 1;
            told.listing.insert(name.clone());
            told.objects.insert(name, says);
        });
    }

    fn delete(&mut self, object: &[u8]) {
        let object: Value = serde_json::from_slice(object).unwrap();
        self.0.send_modify(|told| {
            told.objects.remove(&name_of(&object));
        });
    }

    fn list_ends(&mut self) {
        self.0.send_modify(|told| {
            told.objects.retain(|name, _| told.listing.contains(name));
            told.lists += 1;
        });
    }

    fn settle(&mut self) -> Result<(), Retry> {
        self.0.send_modify(|told| told.settled += 1);
        Ok(())
    }

    fn absent(&mut self) {
        self.0.send_modify(|told| told.absences += 1);
    }

    fn troubled(&mut self, trouble: Option<&str>) {
        self.0.send_modify(|told| told.trouble = trouble.map(str::to_owned));
    }
}

/// The one who is told, while a script plays.
struct Ear(watch::Receiver<Told>);

impl Ear {
    async fn hears(&mut self, what: &str, mut is_so: impl FnMut(&Told) -> bool) -> Told {
        let told =
            timeout(DEADLINE, self.0.wait_for(|told| is_so(told))).await.map(|told| told.unwrap().clone());
        told.unwrap_or_else(|_| panic!("{what} was not told; told was {:?}", *self.0.borrow()))
    }

    async fn hears_of(&mut self, name: &str, says: i64) {
        self.hears(&format!("{name} says {says}"), |told| told.objects.get(name) == Some(&says)).await;
    }

    async fn hears_no_more_of(&mut self, name: &str) {
        self.hears(&format!("{name} is gone"), |told| !told.objects.contains_key(name) && told.lists > 0)
            .await;
    }
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

fn node(name: &str, says: i64) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"says": says}})
}

/// An API with these nodes, all of which say 1.
fn cluster(names: &[&str]) -> Kubernetes {
    let kubernetes = Kubernetes::start();
    kubernetes.serve(NODES);
    names.iter().for_each(|name| kubernetes.apply(NODES, node(name, 1)));
    kubernetes
}

/// Follows the nodes while the script plays.
async fn followed<F: Future<Output = ()>>(kubernetes: &Kubernetes, script: impl FnOnce(Ear) -> F) {
    followed_as(RESOURCE, kubernetes, script).await;
}

async fn followed_as<F: Future<Output = ()>>(
    resource: Resource,
    kubernetes: &Kubernetes,
    script: impl FnOnce(Ear) -> F,
) {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, kubernetes.kubeconfig()).unwrap();
    let api = Api::new(Some(&kubeconfig)).await.unwrap();
    let (sender, receiver) = watch::channel(Told::default());
    let mut recorder = Recorder(sender);
    tokio::select! {
        never = follow(&api, resource, &mut recorder) => match never {},
        () = script(Ear(receiver)) => {}
    }
}

/// Waits until somebody watches.
async fn watched(kubernetes: &Kubernetes, times: usize) {
    asked(kubernetes, "watch=true", times).await;
}

async fn asked(kubernetes: &Kubernetes, part: &str, times: usize) {
    let asked = async {
        let mut looks = tokio::time::interval(Duration::from_millis(2));
        while kubernetes.count(part) < times {
            looks.tick().await;
        }
    };
    assert!(timeout(DEADLINE, asked).await.is_ok(), "asked for {part} only in {:?}", kubernetes.requests());
}

/// How often a list was begun.
fn lists(kubernetes: &Kubernetes) -> usize {
    kubernetes.requests().iter().filter(|request| request.ends_with("limit=500")).count()
}

#[tokio::test]
async fn what_is_there_and_what_changes_is_told() {
    let kubernetes = cluster(&["a", "b"]);
    followed(&kubernetes, async |mut ear| {
        ear.hears_of("b", 1).await;
        watched(&kubernetes, 1).await;
        kubernetes.apply(NODES, node("b", 2));
        ear.hears_of("b", 2).await;
        kubernetes.apply(NODES, node("c", 1));
        kubernetes.delete(NODES, "", "a");
        ear.hears_no_more_of("a").await;
        ear.hears_of("c", 1).await;
        assert_eq!((lists(&kubernetes), kubernetes.count("watch=true")), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn a_long_list_comes_in_pages_of_one_version() {
    let kubernetes = cluster(&[]);
    (0..1200).for_each(|number| kubernetes.apply(NODES, node(&format!("n{number:04}"), 1)));
    followed(&kubernetes, async |mut ear| {
        let told = ear.hears("all", |told| told.lists == 1).await;
        assert_eq!(told.objects.len(), 1200);
        assert_eq!(kubernetes.count("limit=500"), 3);
        assert_eq!(kubernetes.count("continue="), 2);
    })
    .await;
}

#[tokio::test]
async fn a_change_between_the_list_and_the_watch_is_told() {
    let kubernetes = cluster(&["a", "b"]);
    // The watch fails the first time, so that everything can happen before the second.
    kubernetes.fail("watch=true", Fault::Status(500, None));
    followed(&kubernetes, async |mut ear| {
        ear.hears("the list", |told| told.lists == 1).await;
        kubernetes.apply(NODES, node("b", 2));
        kubernetes.delete(NODES, "", "a");
        ear.hears_of("b", 2).await;
        ear.hears_no_more_of("a").await;
        assert_eq!(lists(&kubernetes), 1);
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_breaks_goes_on_where_it_was() {
    let kubernetes = cluster(&["a"]);
    followed(&kubernetes, async |mut ear| {
        watched(&kubernetes, 1).await;
        kubernetes.apply(NODES, node("a", 2));
        ear.hears_of("a", 2).await;
        kubernetes.go_away();
        kubernetes.apply(NODES, node("a", 3));
        kubernetes.apply(NODES, node("b", 1));
        kubernetes.come_back();
        ear.hears_of("a", 3).await;
        ear.hears_of("b", 1).await;
        assert_eq!(lists(&kubernetes), 1, "nothing was listed again");
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_stays_open_is_well_though_nothing_happens() {
    let kubernetes = cluster(&["a"]);
    followed(&kubernetes, async |mut ear| {
        watched(&kubernetes, 1).await;
        kubernetes.go_away();
        ear.hears("a trouble", |told| told.trouble.is_some()).await;
        kubernetes.come_back();
        ear.hears("that all is well", |told| told.trouble.is_none()).await;
        assert_eq!(ear.0.borrow().events, 1, "nothing has happened meanwhile");
    })
    .await;
}

#[tokio::test]
async fn a_bookmark_moves_the_place_to_go_on_from() {
    let kubernetes = cluster(&["a"]);
    followed(&kubernetes, async |mut ear| {
        watched(&kubernetes, 1).await;
        let settled = ear.0.borrow().settled;
        // A change of something else: the version of the nodes' last change would be too old after this.
        kubernetes.apply("/api/v1/services", node("elsewhere", 1));
        kubernetes.bookmark();
        ear.hears("the bookmark", |told| told.settled > settled).await;
        kubernetes.compact();
        kubernetes.break_connections();
        asked(&kubernetes, "watch=true", 2).await;
        assert!(kubernetes.requests().last().unwrap().ends_with("resourceVersion=1002"));
        assert_eq!(lists(&kubernetes), 1);
    })
    .await;
}

#[tokio::test]
async fn a_version_that_is_too_old_is_answered_with_a_list() {
    let kubernetes = cluster(&["a", "b"]);
    followed(&kubernetes, async |mut ear| {
        watched(&kubernetes, 1).await;
        kubernetes.go_away();
        kubernetes.delete(NODES, "", "a");
        kubernetes.apply(NODES, node("b", 2));
        kubernetes.compact();
        kubernetes.come_back();
        ear.hears_no_more_of("a").await;
        ear.hears_of("b", 2).await;
        assert_eq!(lists(&kubernetes), 2);
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_is_refused_as_too_old_by_its_status_is_answered_with_a_list() {
    let kubernetes = cluster(&["a"]);
    kubernetes.fail("watch=true", Fault::Status(410, None));
    followed(&kubernetes, async |mut ear| {
        ear.hears("a second list", |told| told.lists == 2).await;
    })
    .await;
}

#[tokio::test]
async fn a_page_of_a_version_that_is_gone_begins_the_list_again() {
    let kubernetes = cluster(&[]);
    (0..600).for_each(|number| kubernetes.apply(NODES, node(&format!("n{number:04}"), 1)));
    kubernetes.fail("continue=", Fault::Status(500, None));
    followed(&kubernetes, async |mut ear| {
        asked(&kubernetes, "continue=", 1).await;
        kubernetes.delete(NODES, "", "n0000");
        kubernetes.compact();
        let told = ear.hears("the list", |told| told.lists == 1).await;
        assert_eq!(told.objects.len(), 599, "n0000 was in the first list, which nobody has seen the end of");
        assert_eq!(lists(&kubernetes), 2);
    })
    .await;
}

#[tokio::test]
async fn an_event_that_got_lost_is_made_good_by_the_next_list() {
    let kubernetes = cluster(&["a", "b"]);
    followed(&kubernetes, async |mut ear| {
        watched(&kubernetes, 1).await;
        kubernetes.delete_unseen(NODES, "", "a");
        kubernetes.apply(NODES, node("b", 2));
        let told = ear.hears("b", |told| told.objects["b"] == 2).await;
        assert!(told.objects.contains_key("a"), "nobody can know");
        kubernetes.apply("/api/v1/services", node("elsewhere", 1));
        kubernetes.go_away();
        kubernetes.compact();
        kubernetes.come_back();
        ear.hears_no_more_of("a").await;
    })
    .await;
}

#[tokio::test]
async fn events_that_come_twice_end_where_they_ended() {
    let kubernetes = cluster(&["a"]);
    followed(&kubernetes, async |mut ear| {
        watched(&kubernetes, 1).await;
        kubernetes.apply(NODES, node("a", 2));
        kubernetes.apply(NODES, node("a", 3));
        let before = ear.hears("3", |told| told.objects["a"] == 3).await.events;
        kubernetes.repeat_events(NODES);
        let told = ear.hears("all again", |told| told.events == before + 3).await;
        assert_eq!(told.objects, BTreeMap::from([("a".into(), 3)]));
    })
    .await;
}

#[tokio::test]
async fn an_api_that_is_overloaded_is_left_alone_for_as_long_as_it_asks() {
    let kubernetes = cluster(&["a"]);
    kubernetes.fail("limit", Fault::Status(429, Some(2)));
    followed(&kubernetes, async |mut ear| {
        asked(&kubernetes, "limit", 1).await;
        let began = std::time::Instant::now();
        ear.hears_of("a", 1).await;
        assert!(began.elapsed() >= Duration::from_millis(1900), "{:?}", began.elapsed());
    })
    .await;
}

#[tokio::test]
async fn errors_breaks_and_answers_of_others_are_survived() {
    let kubernetes = cluster(&["a", "b"]);
    for fault in [Fault::Status(500, None), Fault::Nonsense, Fault::BreakAfter(100)] {
        kubernetes.fail("limit", fault);
    }
    kubernetes.fail("watch=true", Fault::Nonsense);
    kubernetes.fail("watch=true", Fault::BreakAfter(30));
    followed(&kubernetes, async |mut ear| {
        let told = ear.hears("the list", |told| told.lists == 1).await;
        assert_eq!(told.objects.len(), 2);
        watched(&kubernetes, 2).await;
        kubernetes.apply(NODES, node("a", 2));
        ear.hears_of("a", 2).await;
    })
    .await;
}

#[tokio::test]
async fn bytes_may_come_one_by_one() {
    let kubernetes = cluster(&["a", "b"]);
    kubernetes.fail("limit", Fault::Slow(1));
    kubernetes.fail("watch=true", Fault::Slow(1));
    followed(&kubernetes, async |mut ear| {
        ear.hears_of("b", 1).await;
        kubernetes.apply(NODES, node("a", 2));
        kubernetes.apply(NODES, node("c", 1));
        ear.hears_of("a", 2).await;
        ear.hears_of("c", 1).await;
    })
    .await;
}

#[tokio::test]
async fn an_api_that_comes_later_is_waited_for() {
    let kubernetes = cluster(&["a"]);
    kubernetes.go_away();
    followed(&kubernetes, async |mut ear| {
        let waited =
            timeout(Duration::from_millis(1500), ear.hears("anything", |told| told.events > 0)).await;
        assert!(waited.is_err());
        assert!(ear.0.borrow().trouble.as_deref().is_some_and(|why| why.starts_with("no connection: ")));
        kubernetes.come_back();
        ear.hears_of("a", 1).await;
        ear.hears("that all is well", |told| told.trouble.is_none()).await;
    })
    .await;
}

#[tokio::test]
async fn a_resource_is_found_in_the_version_that_the_api_has() {
    let kubernetes = Kubernetes::start();
    kubernetes.apply("/apis/example.com/v1beta1/nodes", node("a", 1));
    let versions = &["/apis/example.com/v1", "/apis/example.com/v1beta1"];
    followed_as(Resource { versions, plural: "nodes" }, &kubernetes, async |mut ear| {
        ear.hears_of("a", 1).await;
        assert_eq!(ear.0.borrow().absences, 0);
    })
    .await;
}

#[tokio::test]
async fn a_resource_that_the_api_does_not_know_is_no_mistake() {
    let kubernetes = Kubernetes::start();
    followed(&kubernetes, async |mut ear| {
        ear.hears("its absence", |told| told.absences == 1).await;
        assert_eq!(kubernetes.requests().len(), 1);
    })
    .await;
}
