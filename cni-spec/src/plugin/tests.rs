use std::cell::RefCell;
use std::collections::HashMap;

use super::*;

/// Answers every verb with success, and remembers which were called.
#[derive(Default)]
struct Recorder(RefCell<Vec<String>>);

impl Recorder {
    fn note(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }
}

impl Plugin for Recorder {
    fn about(&self) -> String {
        "a plugin that remembers".to_owned()
    }
    fn add(&self, request: &AddRequest) -> Result<AddResult, Error> {
        self.note(format!("ADD {} {}", request.id.container, request.network()));
        let ip = crate::IpConfig { address: "10.0.0.2/24".parse().unwrap(), gateway: None, interface: None };
        Ok(AddResult { ips: vec![ip], ..AddResult::default() })
    }
    fn del(&self, request: &DelRequest) -> Result<(), Error> {
        self.note(format!("DEL {:?}", request.netns));
        Ok(())
    }
    fn check(&self, request: &CheckRequest) -> Result<(), Error> {
        self.note(format!("CHECK {}", request.prev_result.ips.len()));
        Ok(())
    }
    fn gc(&self, request: &GcRequest) -> Result<(), Error> {
        self.note(format!("GC {}", request.valid.len()));
        Ok(())
    }
    fn status(&self, _: &StatusRequest) -> Result<(), Error> {
        self.note("STATUS");
        Err(Error::new(Code::NOT_AVAILABLE, "no addresses left"))
    }
}

struct Ran {
    outcome: Outcome,
    stdout: String,
    stderr: String,
    called: Vec<String>,
}

impl Ran {
    fn code(&self) -> u64 {
        let document: Value = serde_json::from_str(&self.stdout).unwrap();
        assert_eq!(self.stdout.lines().count(), 1, "one document: {}", self.stdout);
        assert!(document["cniVersion"].is_string(), "{document}");
        assert_eq!(self.outcome, Outcome::Failure);
        document["code"].as_u64().unwrap()
    }
}

fn ran(env: &[(&str, &str)], stdin: &str) -> Ran {
    let env: HashMap<_, _> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let plugin = Recorder::default();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let outcome = run(&plugin, &env, stdin.as_bytes(), &mut stdout, &mut stderr);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { outcome, stdout: text(stdout), stderr: text(stderr), called: plugin.0.into_inner() }
}

fn attach<'a>(verb: &'a str, netns: &'a str) -> [(&'a str, &'a str); 4] {
    [("CNI_COMMAND", verb), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", netns), ("CNI_IFNAME", "eth0")]
}

/// A file that is surely not the namespace of the test.
const FOREIGN: &str = "/proc/self/ns/uts";
const CONF: &str = r#"{"cniVersion":"1.1.0","name":"n","type":"t"}"#;

#[test]
fn a_person_who_runs_the_plugin_is_told_what_it_is() {
    let ran = ran(&[], "");
    assert!(ran.outcome.is_success());
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.contains("a plugin that remembers") && ran.stderr.contains("supported: 0.1.0, 0.2.0"));
}

#[test]
fn add_prints_its_result_in_the_version_of_the_request() {
    for version in Version::ALL {
        let conf = format!(r#"{{"cniVersion":"{version}","name":"n"}}"#);
        let ran = ran(&attach("ADD", FOREIGN), &conf);
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(document["cniVersion"], version.as_str());
        assert_eq!(ran.called, ["ADD c1 n"]);
    }
}

#[test]
fn an_add_whose_result_nobody_gets_is_undone() {
    let env = attach("ADD", FOREIGN).map(|(name, value)| (name.to_owned(), value.to_owned()));
    let plugin = Recorder::default();
    let mut room_for_half = [0_u8; 20];
    let mut stdout = room_for_half.as_mut_slice();
    let outcome = run(&plugin, &HashMap::from(env), CONF.as_bytes(), &mut stdout, &mut Vec::new());
    assert_eq!(outcome, Outcome::Failure);
    assert_eq!(plugin.0.into_inner(), ["ADD c1 n", r#"DEL Some("/proc/self/ns/uts")"#]);
}

#[test]
fn an_add_whose_result_cannot_be_said_in_the_version_is_undone() {
    struct Bare(Recorder);
    impl Plugin for Bare {
        fn about(&self) -> String {
            String::new()
        }
        fn add(&self, _: &AddRequest) -> Result<AddResult, Error> {
            Ok(AddResult::default())
        }
        fn del(&self, request: &DelRequest) -> Result<(), Error> {
            self.0.del(request)
        }
        fn check(&self, request: &CheckRequest) -> Result<(), Error> {
            self.0.check(request)
        }
        fn gc(&self, request: &GcRequest) -> Result<(), Error> {
            self.0.gc(request)
        }
        fn status(&self, request: &StatusRequest) -> Result<(), Error> {
            self.0.status(request)
        }
    }
    let env = attach("ADD", FOREIGN).map(|(name, value)| (name.to_owned(), value.to_owned()));
    let plugin = Bare(Recorder::default());
    let mut stdout = Vec::new();
    let conf = br#"{"cniVersion":"0.2.0","name":"n"}"#;
    let outcome = run(&plugin, &HashMap::from(env), &conf[..], &mut stdout, &mut Vec::new());
    assert_eq!(outcome, Outcome::Failure);
    assert_eq!(plugin.0.0.into_inner(), [r#"DEL Some("/proc/self/ns/uts")"#]);
}

#[test]
fn the_plugins_own_namespace_is_refused_before_any_work() {
    for verb in ["ADD", "DEL", "CHECK"] {
        let ran =
            ran(&attach(verb, "/proc/self/ns/net"), r#"{"cniVersion":"1.1.0","name":"n","prevResult":{}}"#);
        assert_eq!(ran.code(), 8, "{verb}");
        assert!(ran.called.is_empty(), "{verb}");
    }
    let mut env = attach("ADD", "/proc/self/ns/net").to_vec();
    env.push(("CNI_NETNS_OVERRIDE", "TRUE"));
    assert!(ran(&env, CONF).outcome.is_success());
}

#[test]
fn add_into_a_missing_namespace_says_that_the_container_is_gone() {
    assert_eq!(ran(&attach("ADD", "/nowhere"), CONF).code(), 3);
}

#[test]
fn del_of_a_missing_namespace_goes_on_without_one() {
    for netns in ["", "/nowhere"] {
        assert_eq!(ran(&attach("DEL", netns), CONF).called, ["DEL None"]);
    }
}

#[test]
fn an_unknown_verb_is_refused_only_after_the_configuration_was_read() {
    assert_eq!(ran(&[("CNI_COMMAND", "FROB")], "{").code(), 6);
    assert_eq!(ran(&[("CNI_COMMAND", "FROB")], CONF).code(), 4);
}

#[test]
fn verbs_are_refused_to_versions_that_do_not_have_them() {
    let old = r#"{"cniVersion":"0.3.1","name":"n","prevResult":{"ips":[]}}"#;
    assert_eq!(ran(&attach("CHECK", FOREIGN), old).code(), 1);
    let old = r#"{"cniVersion":"1.0.0","name":"n","cni.dev/valid-attachments":[]}"#;
    assert_eq!(ran(&[("CNI_COMMAND", "GC")], old).code(), 1);
    assert_eq!(ran(&[("CNI_COMMAND", "STATUS")], old).code(), 1);
}

#[test]
fn check_needs_the_result_to_check() {
    assert_eq!(ran(&attach("CHECK", FOREIGN), CONF).code(), 7);
    let with = r#"{"cniVersion":"1.0.0","name":"n","prevResult":{"ips":[{"address":"10.0.0.1/8"}]}}"#;
    assert_eq!(ran(&attach("CHECK", FOREIGN), with).called, ["CHECK 1"]);
}

#[test]
fn gc_without_a_list_is_refused_and_an_empty_list_is_not() {
    let gc = [("CNI_COMMAND", "GC")];
    assert_eq!(ran(&gc, CONF).code(), 7);
    assert_eq!(ran(&gc, r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":null}"#).code(), 7);
    assert_eq!(
        ran(&gc, r#"{"cniVersion":"1.1.0","name":"n","cni.dev/valid-attachments":[]}"#).called,
        ["GC 0"]
    );
    let legacy =
        r#"{"cniVersion":"1.1.0","name":"n","cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}]}"#;
    assert_eq!(ran(&gc, legacy).called, ["GC 1"]);
    let bad =
        r#"{"cniVersion":"1.1.0","name":"n","cni.dev/attachments":[{"containerID":"a/b","ifname":"eth0"}]}"#;
    assert_eq!(ran(&gc, bad).code(), 7);
}

#[test]
fn the_answer_of_a_failing_verb_is_its_error() {
    let ran = ran(&[("CNI_COMMAND", "STATUS")], CONF);
    assert_eq!(ran.code(), 50);
    assert_eq!(ran.called, ["STATUS"]);
}

#[test]
fn version_echoes_what_it_was_asked_in_and_needs_no_configuration() {
    let version = [("CNI_COMMAND", "VERSION"), ("CNI_NETNS", "dummy"), ("CNI_IFNAME", "dummy")];
    let document = |stdin| serde_json::from_str::<Value>(&ran(&version, stdin).stdout).unwrap();
    assert_eq!(document(r#"{"cniVersion":"0.4.0"}"#)["cniVersion"], "0.4.0");
    assert_eq!(document("")["cniVersion"], "1.1.0");
    assert_eq!(document("")["supportedVersions"].as_array().unwrap().len(), 7);
}

#[test]
fn an_endless_configuration_is_refused() {
    let env = HashMap::from([("CNI_COMMAND".to_owned(), "ADD".to_owned())]);
    let env: HashMap<String, String> =
        env.into_iter().chain(attach("ADD", FOREIGN).map(|(k, v)| (k.to_owned(), v.to_owned()))).collect();
    let mut stdout = Vec::new();
    let outcome = run(&Recorder::default(), &env, io::repeat(b' '), &mut stdout, &mut Vec::new());
    assert_eq!(outcome, Outcome::Failure);
    assert!(String::from_utf8(stdout).unwrap().contains("\"code\":5"));
}
