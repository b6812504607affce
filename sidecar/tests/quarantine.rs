//! A reference that leads nowhere does not reach the traffic with the edit that it came with, and holds up nothing else.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proptest::prelude::*;
use tempfile::TempDir;
use weft_sidecar::configuration::{Configuration, Settled};
use weft_sidecar::diagnostic::Severity;
use weft_sidecar::model::{Destination, Mesh, Routing};
use weft_sidecar::read::files::Roots;

const SIDECAR: &str = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: a, namespace: shop}\n";
const DEADLINE: Duration = Duration::from_secs(20);

struct Following {
    dir: TempDir,
    configuration: Configuration,
}

impl Following {
    fn of(files: &[(&str, String)]) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
        let following = Self { dir, configuration };
        following.save("sidecar.yaml", SIDECAR);
        files.iter().for_each(|(name, text)| following.save(name, text));
        following
    }

    fn save(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).expect("write");
    }

    fn delete(&self, name: &str) {
        fs::remove_file(self.dir.path().join(name)).ok();
    }

    fn settle(&mut self) -> Settled {
        let listing = self.configuration.roots().list();
        self.configuration.look(&listing, &Default::default());
        self.configuration.settle()
    }

    fn mesh(&mut self) -> Arc<Mesh> {
        let settled = self.settle();
        settled.mesh.unwrap_or_else(|| panic!("no mesh: {:?}", settled.diagnostics))
    }

    fn said(&mut self) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        let settled = self.settle();
        let errors_and_notes = settled
            .diagnostics
            .iter()
            .filter(|one| one.severity == Severity::Error || one.message.contains("in force"));
        errors_and_notes.map(|one| one.summary().replace(&dir, "")).collect()
    }
}

/// A service with one endpoint.
fn service(name: &str, endpoint: u8) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: IPv4\nports: [{{port: 8080}}]\nendpoints: [{{addresses: [10.0.0.{endpoint}]}}]\n"
    )
}

/// A route at `front`, one rule called `rule`, to a service. The backend is in line 8.
fn route(name: &str, rule: &str, to: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}}}\nspec:\n\
         \x20 parentRefs: [{{group: '', kind: Service, name: front}}]\n  rules:\n  - name: {rule}\n\
         \x20   backendRefs: [{{name: {to}, port: 80}}]\n"
    )
}

/// The rules in force at `front`, each with its backend.
fn rules(mesh: &Mesh) -> BTreeMap<String, Option<String>> {
    let front = mesh.services.iter().find(|(key, _)| key.name == "front").expect("front").1;
    let Routing::Rules(rules) = &front.ports[0].routing else { return BTreeMap::new() };
    let backend = |destination: &Destination| match destination {
        Destination::Forward(shares) => shares[0].backend.as_ref().map(|to| to.service.name.clone()),
        Destination::NoBackend => None,
    };
    let of_rule = |action: &weft_sidecar::model::Action| {
        (action.rule.clone().expect("a name"), backend(&action.destination))
    };
    rules.iter().map(|rule| of_rule(&rule.action)).collect()
}

fn endpoint(mesh: &Mesh, name: &str) -> String {
    let service = mesh.services.iter().find(|(key, _)| key.name == name).expect("the service").1;
    service.ports[0].endpoints[0].address.ip().to_string()
}

fn started() -> Following {
    let web = route("web", "one", "web");
    let mut following = Following::of(&[
        ("front.yaml", service("front", 1)),
        ("web.yaml", service("web", 2)),
        ("r.yaml", web),
    ]);
    assert_eq!(rules(&following.mesh()), BTreeMap::from([("one".into(), Some("web".into()))]));
    following
}

fn only(rule: &str, to: Option<&str>) -> BTreeMap<String, Option<String>> {
    BTreeMap::from([(rule.to_owned(), to.map(str::to_owned))])
}

#[test]
fn a_typo_stays_out_of_force_while_the_endpoints_of_others_go_on_changing() {
    let mut following = started();
    following.save("r.yaml", &route("web", "two", "wbe"));
    assert_eq!(
        following.said(),
        [
            "r.yaml:8:20: there is no Service shop/wbe; requests for it are answered with 500 (did you mean \"web\"?)",
            "r.yaml:8:20: the former content of r.yaml stays in force",
        ]
    );
    following.save("web.yaml", &service("web", 3));
    let mesh = following.mesh();
    assert_eq!(rules(&mesh), only("one", Some("web")));
    assert_eq!(endpoint(&mesh, "web"), "10.0.0.3");
    following.save("r.yaml", &route("web", "two", "web"));
    assert_eq!(rules(&following.mesh()), only("two", Some("web")));
    assert_eq!(following.said(), [""; 0]);
}

#[test]
fn a_service_that_is_deleted_freezes_nothing() {
    let mut following = started();
    following.delete("web.yaml");
    following.save("front.yaml", &service("front", 9));
    let mesh = following.mesh();
    assert_eq!(rules(&mesh), only("one", None));
    assert_eq!(endpoint(&mesh, "front"), "10.0.0.9");
    let said = following.said();
    assert_eq!(said[1], "r.yaml:8:20: r.yaml is in force with its mistakes: no former content is better");
    following.save("r.yaml", &route("web", "two", "wbe"));
    assert_eq!(rules(&following.mesh()), only("two", None), "what was before is no better");
    following.save("web.yaml", &service("web", 2));
    assert_eq!(rules(&following.mesh()), only("one", Some("web")), "now it is");
}

#[test]
fn a_file_that_is_new_waits_for_what_it_refers_to() {
    let mut following = started();
    following.save("later.yaml", &route("later", "two", "later"));
    assert_eq!(rules(&following.mesh()), only("one", Some("web")));
    following.save("services.yaml", &service("later", 4));
    let rules = rules(&following.mesh());
    assert_eq!(rules.get("two"), Some(&Some("later".into())), "{rules:?}");
}

#[test]
fn what_depends_on_a_file_that_is_kept_back_is_kept_back_with_it() {
    let mut following = started();
    let with_typo = service("new", 5) + "---\n" + &route("other", "three", "nwe");
    following.save("a.yaml", &with_typo);
    following.save("r.yaml", &route("web", "two", "new"));
    assert_eq!(rules(&following.mesh()), only("one", Some("web")));
    following.save("a.yaml", &with_typo.replace("nwe", "new"));
    assert_eq!(rules(&following.mesh()).len(), 2);
}

#[test]
fn of_two_that_contradict_each_other_the_one_that_was_edited_is_kept_back() {
    let mut following = started();
    following.save("0.yaml", &service("web", 7));
    assert_eq!(endpoint(&following.mesh(), "web"), "10.0.0.2", "though the error is shown at the second");
    following.delete("0.yaml");
    following.save("web.yaml", &service("web", 8));
    assert_eq!(endpoint(&following.mesh(), "web"), "10.0.0.8");
}

#[test]
fn at_the_first_look_everything_is_in_force_as_it_is() {
    let typo = route("web", "one", "wbe");
    let mut following = Following::of(&[
        ("front.yaml", service("front", 1)),
        ("web.yaml", service("web", 2)),
        ("r.yaml", typo),
    ]);
    assert_eq!(rules(&following.mesh()), only("one", None));
    following.save("r.yaml", &route("web", "two", "bwe"));
    assert_eq!(rules(&following.mesh()), only("two", None), "nothing was better");
    following.save("r.yaml", &route("web", "three", "web"));
    assert_eq!(rules(&following.mesh()), only("three", Some("web")));
    following.save("r.yaml", &route("web", "four", "bwe"));
    assert_eq!(rules(&following.mesh()), only("three", Some("web")));
}

#[derive(Debug, Clone)]
enum Edit {
    SaveService(usize, u8),
    DeleteService(usize),
    SaveRoute(usize, usize),
    DeleteRoute(usize),
}

fn edits() -> impl Strategy<Value = Vec<Vec<Edit>>> {
    let edit = prop_oneof![
        (0..3_usize, 2..200_u8).prop_map(|(which, endpoint)| Edit::SaveService(which, endpoint)),
        (0..3_usize).prop_map(Edit::DeleteService),
        (0..3_usize, 0..4_usize).prop_map(|(which, to)| Edit::SaveRoute(which, to)),
        (0..3_usize, 0..4_usize).prop_map(|(which, to)| Edit::SaveRoute(which, to)),
        (0..3_usize).prop_map(Edit::DeleteRoute),
    ];
    prop::collection::vec(prop::collection::vec(edit, 1..4), 1..20)
}

/// A rule and the service that it sends to.
type Said = (String, usize);

/// What is to be expected, in the plainest words.
#[derive(Default)]
struct Expected {
    services: BTreeMap<usize, u8>,
    /// What each file says, and what it said when that led somewhere. One that is deleted and made again between two looks has
    /// only changed.
    routes: BTreeMap<usize, (Option<Said>, Option<Said>)>,
}

impl Expected {
    fn rules(&mut self) -> BTreeMap<String, Option<String>> {
        let mut rules = BTreeMap::new();
        self.routes.retain(|_, (present, _)| present.is_some());
        for (present, proved) in self.routes.values_mut() {
            let Some(present) = present else { continue };
            if self.services.contains_key(&present.1) {
                *proved = Some(present.clone());
            }
            // A file that never led anywhere was nothing before.
            let Some(good) = proved else { continue };
            let found = |said: &Said| self.services.contains_key(&said.1);
            let said = if found(good) { good } else { present };
            rules.insert(said.0.clone(), found(said).then(|| format!("s{}", said.1)));
        }
        rules
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn nothing_that_leads_nowhere_comes_into_force_while_what_was_before_leads_somewhere(all in edits()) {
        let mut following = Following::of(&[("front.yaml", service("front", 1))]);
        following.mesh();
        let (mut expected, mut version) = (Expected::default(), 0);
        for together in all {
            for edit in together {
                version += 1;
                match edit {
                    Edit::SaveService(which, at) => {
                        following.save(&format!("s{which}.yaml"), &service(&format!("s{which}"), at));
                        expected.services.insert(which, at);
                    }
                    Edit::DeleteService(which) => {
                        following.delete(&format!("s{which}.yaml"));
                        expected.services.remove(&which);
                    }
                    Edit::SaveRoute(which, to) => {
                        let rule = format!("v{version}");
                        let text = route(&format!("r{which}"), &rule, &format!("s{to}"));
                        following.save(&format!("r{which}.yaml"), &text);
                        let known = expected.routes.remove(&which).and_then(|(_, proved)| proved);
                        expected.routes.insert(which, (Some((rule, to)), known));
                    }
                    Edit::DeleteRoute(which) => {
                        following.delete(&format!("r{which}.yaml"));
                        expected.routes.entry(which).and_modify(|(present, _)| *present = None);
                    }
                }
            }
            let mesh = following.mesh();
            prop_assert_eq!(rules(&mesh), expected.rules());
            for (which, at) in &expected.services {
                prop_assert_eq!(endpoint(&mesh, &format!("s{which}")), format!("10.0.0.{at}"));
            }
        }
    }
}

/// The shipped binary and what it logs.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn of(config: &Path) -> Self {
        Self::with(&["--config".as_ref(), config])
    }

    fn with(options: &[&Path]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-sidecar"));
        command.arg("run").args(options);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let (send, lines) = channel();
        thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Self { child, lines }
    }

    fn until(&self, part: &str) {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.contains(part)) {
            seen.push(
                self.lines.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("no {part:?} in {seen:#?}")),
            );
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).ok();
        self.child.wait().ok();
    }
}

/// What others of the namespace wrote: what Weft does not have, what cannot be read, what leads nowhere, and what says the same as
/// a file of the workload's own.
#[test]
fn nothing_that_was_discovered_keeps_a_workload_from_starting() {
    let following = Following::of(&[("own.yaml", route("front", "own", "front"))]);
    let others = tempfile::tempdir().expect("directory");
    let save = |name: &str, text: &str| fs::write(others.path().join(name), text).expect("write");
    save("service.front.yaml", &service("front", 1));
    save("service.web.yaml", &service("web", 2));
    let strange =
        route("web", "strange", "web").replace("backendRefs", "timeouts: {request: soon}, backendRefs");
    let discovered = [
        ("strange", strange),
        ("unreadable", "{\"kind\": ".to_owned()),
        ("nowhere", route("web", "nowhere", "wbe")),
        ("twice", route("front", "twice", "front")),
    ];
    for count in 0..=discovered.len() {
        let roots = Roots::new([following.dir.path().to_owned()]).with_discovered([others.path().to_owned()]);
        let mut configuration = Configuration::new(roots);
        let listing = configuration.roots().list();
        configuration.look(&listing, &Default::default());
        let settled = configuration.settle();
        assert!(!configuration.is_flawed(), "{count}");
        let mesh = settled.mesh.unwrap_or_else(|| panic!("{count}: {:?}", settled.diagnostics));
        assert_eq!(rules(&mesh).get("own").cloned().flatten().as_deref(), Some("front"), "{count}: {mesh:?}");
        assert_eq!(rules(&mesh).get("twice"), None);
        if let Some((name, text)) = discovered.get(count) {
            save(&format!("httproute.{name}.yaml"), text);
        }
    }
    // The same beside one's own is a mistake that is waited for: half of a configuration would be in force.
    fs::copy(others.path().join("httproute.strange.yaml"), following.dir.path().join("a.yaml"))
        .expect("copy");
    let roots = Roots::new([following.dir.path().to_owned()]).with_discovered([others.path().to_owned()]);
    let mut configuration = Configuration::new(roots);
    let listing = configuration.roots().list();
    configuration.look(&listing, &Default::default());
    assert!(configuration.is_flawed());
}

#[test]
fn the_shipped_binary_serves_what_is_its_own_beside_what_others_wrote() {
    let following = Following::of(&[("web.yaml", service("web", 1)), ("r.yaml", route("web", "own", "web"))]);
    let config = following.dir.path();
    following.save(
        "sidecar.yaml",
        &format!("{SIDECAR}spec: {{xds: {{socket: {}/xds.sock}}}}\n", config.display()),
    );
    let others = tempfile::tempdir().expect("directory");
    fs::write(others.path().join("httproute.x.json"), "{").expect("write");
    fs::write(others.path().join("httproute.web.yaml"), route("web", "twice", "web")).expect("write");
    let running = Running::with(&["--config".as_ref(), config, "--discovered".as_ref(), others.path()]);
    running.until("left out");
    running.until("serving Envoy");
}

#[test]
fn translate_graph_and_explain_see_what_run_would_begin_with() {
    let following = Following::of(&[("sidecar.yaml", SIDECAR.to_owned()), ("web.yaml", service("web", 1))]);
    let others = tempfile::tempdir().expect("directory");
    fs::write(others.path().join("httproute.x.json"), "{").expect("write");
    fs::write(others.path().join("service.front.yaml"), service("front", 2)).expect("write");
    fs::write(others.path().join("httproute.r.yaml"), route("web", "theirs", "front")).expect("write");
    let config = following.dir.path();
    for command in [&["translate"][..], &["graph"], &["explain", "GET", "http://front/"]] {
        let run = |with: &[&Path]| {
            let mut program = Command::new(env!("CARGO_BIN_EXE_weft-sidecar"));
            program.args(command).args(["--config".as_ref(), config]).args(with).output().expect("run")
        };
        let output = run(&["--discovered".as_ref(), others.path()]);
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.contains("front"), "{command:?}: {said}{told}");
        assert!(told.contains("httproute.x.json"), "{told}");
        assert_ne!(run(&[]).stdout, output.stdout, "{command:?}");
    }
}

#[test]
fn the_shipped_binary_says_what_is_in_force_and_validate_fails() {
    let socket = |dir: &Path| format!("{SIDECAR}spec: {{xds: {{socket: {}/xds.sock}}}}\n", dir.display());
    let following =
        Following::of(&[("web.yaml", service("front", 1)), ("r.yaml", route("r", "one", "front"))]);
    let config = following.dir.path();
    following.save("sidecar.yaml", &socket(config));
    let running = Running::of(config);
    running.until("serving Envoy");
    following.save("r.yaml", &route("r", "one", "frnot"));
    running.until("r.yaml:8:20: there is no Service shop/frnot");
    running.until("the former content of");
    let validate = |output: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-sidecar"));
        command.args(["validate", "--output", output]).arg(config).output().expect("it starts")
    };
    for output in ["human", "json", "github"] {
        assert_eq!(validate(output).status.code(), Some(1), "{output}");
    }
    let json: serde_json::Value = serde_json::from_slice(&validate("json").stdout).expect("JSON");
    assert_eq!((&json["errors"], &json["mistakes"][0]["line"]), (&1.into(), &8.into()), "{json}");
    following.save("r.yaml", &route("r", "one", "front"));
    running.until("all mistakes are corrected");
}
