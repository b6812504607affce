//! The plugin's binary, many times at once, and where its data directory has no room.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::thread;

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "shared/node.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod node;
#[path = "shared/pod.rs"]
mod pod;

use node::{Refusal, alone_without, exec, remains};
use pod::Pod;

/// A node: the calling thread's namespaces, of the network and of mounts, and a data directory that is a file system of
/// its own.
struct Node {
    dir: TempDir,
}

type Answer = Result<Value, Refusal>;

impl Node {
    /// Runs `test` on a node of its own, which must be empty afterwards.
    fn run(test: impl FnOnce(&Self) + Send + 'static) {
        alone_without(&[], move || {
            let dir = tempfile::tempdir().unwrap();
            let none = None::<&str>;
            mount(none, dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=256k")).unwrap();
            let node = Self { dir };
            test(&node);
            assert_eq!(remains(), Vec::<String>::new());
            nix::mount::umount(node.dir.path()).unwrap();
        });
    }

    fn conf(&self, network: &str, subnet: &str) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": network, "type": "weft-cni", "ipMasq": true,
            "ipam": {"type": "weft-ipam", "dataDir": self.dir.path(), "ranges": [[{"subnet": subnet}]]},
        })
    }

    fn is_read_only(&self, yes: bool) {
        let how = if yes { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        mount(None::<&str>, self.dir.path(), None::<&str>, MsFlags::MS_REMOUNT | how, None::<&str>).unwrap();
    }

    /// Takes all the room that there is.
    fn fill(&self) {
        let mut file = fs::File::create(self.filling()).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    fn filling(&self) -> PathBuf {
        self.dir.path().join("filling")
    }
}

fn gc(conf: &Value) -> Answer {
    let mut conf = conf.clone();
    conf["cni.dev/valid-attachments"] = json!([]);
    exec("GC", "", "", &conf)
}

/// Does `count` things at once, and returns their answers.
fn at_once(count: usize, work: impl Fn(usize) -> Answer + Sync) -> Vec<Answer> {
    thread::scope(|scope| {
        let works: Vec<_> = (0..count)
            .map(|nth| {
                scope.spawn({
                    let work = &work;
                    move || work(nth)
                })
            })
            .collect();
        works.into_iter().map(|work| work.join().unwrap()).collect()
    })
}

fn pods(count: usize) -> Vec<(String, Pod)> {
    (0..count).map(|nth| (format!("c{nth}"), Pod::new("one of many"))).collect()
}

#[test]
fn of_many_adds_of_one_attachment_one_succeeds_and_of_many_dels_all_do() {
    Node::run(|node| {
        let (conf, pod) = (node.conf("weft", "10.1.0.0/24"), Pod::new("c"));
        for _ in 0..5 {
            let answers = at_once(6, |_| exec("ADD", pod.name, &pod.netns, &conf));
            let results: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
            assert_eq!(results.len(), 1, "{answers:?}");
            assert!(
                answers.iter().flat_map(|answer| answer.as_ref().err()).all(|(code, _)| *code == 100),
                "{answers:?}"
            );
            let mut check = conf.clone();
            check["prevResult"] = results[0].clone();
            exec("CHECK", pod.name, &pod.netns, &check).unwrap();
            for answer in at_once(6, |_| exec("DEL", pod.name, &pod.netns, &conf)) {
                answer.unwrap();
            }
            assert_eq!(remains(), Vec::<String>::new());
        }
    });
}

#[test]
fn dels_succeed_while_gc_removes_the_same() {
    Node::run(|node| {
        let (conf, pods) = (node.conf("weft", "10.1.0.0/24"), pods(12));
        for (name, pod) in &pods {
            exec("ADD", name, &pod.netns, &conf).unwrap();
        }
        let both = |nth: usize| match pods.get(nth) {
            Some((name, pod)) => exec("DEL", name, &pod.netns, &conf),
            None => gc(&conf),
        };
        for answer in at_once(pods.len() + 2, both) {
            answer.unwrap();
        }
    });
}

#[test]
fn gc_of_one_network_takes_nothing_from_adds_of_another() {
    Node::run(|node| {
        let (conf, other, pods) =
            (node.conf("weft", "10.1.0.0/24"), node.conf("other", "10.1.0.0/24"), pods(50));
        let both = |nth: usize| match pods.get(nth) {
            Some((name, pod)) => exec("ADD", name, &pod.netns, &conf),
            None => gc(&other),
        };
        let answers = at_once(pods.len() + 5, both);
        for ((name, pod), answer) in pods.iter().zip(answers) {
            let mut check = conf.clone();
            check["prevResult"] = answer.unwrap();
            exec("CHECK", name, &pod.netns, &check).unwrap();
        }
        gc(&conf).unwrap();
    });
}

#[test]
fn a_full_data_directory_refuses_adds_and_may_delay_dels() {
    Node::run(|node| {
        let (conf, first, second) = (node.conf("weft", "10.1.0.0/24"), Pod::new("first"), Pod::new("second"));
        exec("ADD", first.name, &first.netns, &conf).unwrap();
        let before = remains();
        node.fill();
        let other = node.conf("other", "10.2.0.0/24");
        let (code, msg) = exec("ADD", second.name, &second.netns, &other).unwrap_err();
        assert!(code == 5 && msg.contains("No space left on device"), "{msg}");
        assert_eq!(remains(), before);
        exec("DEL", second.name, &second.netns, &other).unwrap_or_else(|(code, msg)| {
            assert_eq!(code, 5, "{msg}");
            Value::Null
        });
        fs::remove_file(node.filling()).unwrap();
        exec("DEL", second.name, &second.netns, &other).unwrap();
        exec("DEL", first.name, &first.netns, &conf).unwrap();
    });
}

#[test]
fn a_read_only_data_directory_refuses_adds_and_delays_dels() {
    Node::run(|node| {
        let (conf, first, second) = (node.conf("weft", "10.1.0.0/24"), Pod::new("first"), Pod::new("second"));
        exec("ADD", first.name, &first.netns, &conf).unwrap();
        let before = remains();
        node.is_read_only(true);
        let (code, msg) = exec("ADD", second.name, &second.netns, &conf).unwrap_err();
        assert!(code == 5 && msg.contains("Read-only file system"), "{msg}");
        assert_eq!(remains(), before);
        let (code, msg) = exec("DEL", first.name, &first.netns, &conf).unwrap_err();
        assert!(code == 5 && msg.contains("Read-only file system"), "{msg}");
        node.is_read_only(false);
        exec("DEL", first.name, &first.netns, &conf).unwrap();
    });
}
