//! The shipped binary, from outside.

#![cfg(test)]

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn weft_sidecar(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft-sidecar")).args(arguments).output().expect("it starts")
}

fn example() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/mesh").display().to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn the_shipped_example_is_valid() {
    let output = weft_sidecar(&["validate", &example()]);
    assert_eq!(text(&output.stdout), "ok: 3 files\n");
    assert_eq!(text(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_mistake_is_shown_with_its_line_and_ends_with_1() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("routes.yaml");
    let routes = fs::read_to_string(Path::new(&example()).join("routes.yaml")).expect("read");
    fs::write(&file, routes.replace("weight: 90", "weigth: 90")).expect("write");
    let output = weft_sidecar(&["validate", &file.display().to_string()]);
    let stderr = text(&output.stderr);
    assert!(stderr.contains(&format!("--> {}:17:37", file.display())), "{stderr}");
    assert!(stderr.contains("= help: did you mean \"weight\"?"), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_directory_that_is_not_there_is_a_mistake() {
    let output = weft_sidecar(&["validate", "/nonexistent/weft"]);
    assert!(text(&output.stderr).contains("cannot read /nonexistent/weft: No such file"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn wrong_usage_ends_with_64_and_asking_for_help_with_0() {
    assert_eq!(weft_sidecar(&["validate"]).status.code(), Some(64));
    assert_eq!(weft_sidecar(&["run"]).status.code(), Some(64));
    assert_eq!(weft_sidecar(&["fly"]).status.code(), Some(64));
    let help = weft_sidecar(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("kind: Sidecar"), "help shows an example");
}

#[test]
fn the_bootstrap_is_written_into_a_file_for_those_without_a_shell() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("envoy.json");
    let to = file.to_str().expect("text");
    let printed = weft_sidecar(&["bootstrap", "--config", &example()]);
    let written = weft_sidecar(&["bootstrap", "--config", &example(), "--to", to]);
    assert_eq!((written.status.code(), text(&written.stdout)), (Some(0), String::new()), "{written:?}");
    let content = fs::read_to_string(&file).expect("a file");
    assert_eq!(content.trim_end(), text(&printed.stdout).trim_end());
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1, "nothing else is left");
    let nowhere = weft_sidecar(&["bootstrap", "--config", &example(), "--to", "/nonexistent/envoy.json"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("/nonexistent/envoy.json"), "{nowhere:?}");
}

#[test]
fn the_bootstrap_says_who_we_are_and_where_to_find_us() {
    let output = weft_sidecar(&["bootstrap", "--config", &example()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let bootstrap: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(bootstrap["node"]["id"], "shop/checkout");
    assert_eq!(bootstrap["node"]["metadata"]["weft.tags"]["phase"], "canary");
    let ads = &bootstrap["dynamic_resources"]["ads_config"];
    assert_eq!(ads["api_type"], "DELTA_GRPC");
    assert_eq!(ads["set_node_on_first_message_only"], true);
    assert_eq!(bootstrap["dynamic_resources"]["cds_config"]["initial_fetch_timeout"], "0s");
    assert_eq!(bootstrap["dynamic_resources"]["lds_config"]["initial_fetch_timeout"], "0s");
    let cluster = &bootstrap["static_resources"]["clusters"][0];
    let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
    assert_eq!(endpoint["address"]["pipe"]["path"], "/run/weft/xds.sock");
    assert_eq!(bootstrap["admin"]["address"]["socket_address"]["port_value"], 15000);
    let limits = &bootstrap["layered_runtime"]["layers"][0]["static_layer"];
    assert_eq!(limits["re2.max_program_size.error_level"], 32_768);
}

#[test]
fn a_command_that_cannot_use_the_configuration_ends_with_64() {
    let dir = tempfile::tempdir().expect("directory");
    let output = weft_sidecar(&["bootstrap", "--config", &dir.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains("there is no Sidecar"), "{output:?}");
}

#[test]
fn the_translation_is_json_of_all_four_types() {
    let output = weft_sidecar(&["translate", "--output", "json", "--config", &example()]);
    let resources: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(resources["clusters"].as_array().map(Vec::len), Some(3));
    assert_eq!(resources["endpoints"].as_array().map(Vec::len), Some(3));
    assert_eq!(resources["listeners"][0]["name"], "outbound");
    assert_eq!(resources["routes"][0]["name"], "outbound");
}

#[test]
fn the_translation_tells_where_each_piece_comes_from() {
    let only = ["--type", "routes", "--name", "outbound"];
    let output = weft_sidecar(&[&["translate", "--config", &example()], &only[..]].concat());
    let yaml = text(&output.stdout);
    assert!(yaml.starts_with("routes:\n  # ") && !yaml.contains("\nclusters:"), "{yaml}");
    let rule = yaml.lines().position(|line| line.ends_with("- name: shop/web/0/0")).expect("the rule");
    let above = yaml.lines().nth(rule - 1).expect("a line");
    assert!(above.trim().starts_with("# ") && above.contains("routes.yaml:"), "{above}");
}

#[test]
fn a_request_is_explained_for_people_and_programs() {
    let ask = |arguments: &[&str]| weft_sidecar(&[&["explain", "--config", &example()], arguments].concat());
    let output = ask(&["GET", "http://web/cart", "-H", "x-deployment-phase: stable"]);
    let shown = text(&output.stdout);
    assert!(shown.contains("not           shop/web/0/0  ["), "{shown}{output:?}");
    assert!(shown.contains("header x-deployment-phase \"canary\" is wanted, it is \"stable\""), "{shown}");
    assert!(shown.contains("cluster       shop/web-v1/80, 90 of 100 requests  ["), "{shown}");
    let canary = ["--output", "json", "GET", "http://web/cart", "-H", "x-deployment-phase: canary"];
    let object: serde_json::Value = serde_json::from_slice(&ask(&canary).stdout).expect("JSON");
    assert_eq!((&object["route"]["name"], &object["outcome"]), (&"shop/web/0/0".into(), &"forward".into()));
    assert!(object["route"]["at"].as_str().is_some_and(|at| at.ends_with("routes.yaml:11:7")), "{object}");
    assert_eq!(object["targets"][0]["name"], "shop/web-v2/80");
    assert_eq!(ask(&["GET", "web"]).status.code(), Some(64));
    assert_eq!(ask(&["GET", "http://web/", "--listener", "x"]).status.code(), Some(1));
}

#[test]
fn a_plan_says_what_would_change_and_what_would_drain() {
    let dir = tempfile::tempdir().expect("directory");
    for name in ["routes.yaml", "sidecar.yaml", "web.yaml"] {
        let from = fs::read_to_string(Path::new(&example()).join(name)).expect("read");
        let other = from.replace("weight: 90", "weight: 80").replace("10.244.0.11", "10.244.0.21");
        fs::write(dir.path().join(name), other).expect("write");
    }
    let changed = dir.path().display().to_string();
    let plan = |more: &[&str]| weft_sidecar(&[&["plan", &changed, "--against", &example()], more].concat());
    let shown = text(&plan(&[]).stdout);
    let weight = "virtual_hosts[shop/web/80].routes[shop/web/1/0].route.weighted_clusters.clusters[shop/web-v1/80].weight: 90 -> 80";
    assert!(shown.contains(weight), "{shown}");
    assert!(shown.contains("~ endpoints shop/web-v1/80  ["), "{shown}");
    assert!(shown.ends_with("0 to remove; no connection would drain\n"), "{shown}");
    let object: serde_json::Value =
        serde_json::from_slice(&plan(&["--output", "json"]).stdout).expect("JSON");
    assert_eq!((&object["drains"], &object["changes"][0]["type"]), (&false.into(), &"endpoints".into()));
    let same = weft_sidecar(&["plan", &example(), "--against", &example()]);
    assert_eq!(text(&same.stdout), "nothing would change\n");
    let nobody = weft_sidecar(&["plan", &example()]);
    assert!(
        nobody.status.code() == Some(1) && text(&nobody.stderr).contains("cannot ask Envoy"),
        "{nobody:?}"
    );
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure() {
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_weft-sidecar"))
        .args(["graph", "--config", &example()])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(Child::wait_with_output)
        .expect("it ends");
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn the_mesh_can_be_drawn() {
    let draw = |form: &str| text(&weft_sidecar(&["graph", "--config", &example(), "--output", form]).stdout);
    assert!(draw("mermaid").starts_with("flowchart LR\n") && draw("mermaid").contains("|\"90/100\"|"));
    assert!(draw("dot").starts_with("digraph mesh {") && draw("dot").contains("shop/web-v2/80"));
    assert!(draw("svg").starts_with("<svg ") && draw("svg").trim_end().ends_with("</svg>"));
}

#[test]
fn there_are_a_schema_completions_and_a_manual() {
    let schema = weft_sidecar(&["schema"]);
    let schema: serde_json::Value = serde_json::from_slice(&schema.stdout).expect("JSON");
    assert!(schema["$defs"]["HTTPRoute"]["properties"]["spec"].is_object());
    let misspelt = weft_sidecar(&["schema", "HTPRoute"]);
    assert_eq!(misspelt.status.code(), Some(64));
    assert!(text(&misspelt.stderr).ends_with("; did you mean \"HTTPRoute\"?\n"), "{misspelt:?}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&weft_sidecar(&["completions", shell]).stdout).contains("weft-sidecar"), "{shell}");
    }
    let dir = tempfile::tempdir().expect("directory");
    assert!(weft_sidecar(&["man", &dir.path().display().to_string()]).status.success());
    let page = fs::read_to_string(dir.path().join("weft-sidecar-validate.1")).expect("a page");
    assert!(page.contains("mistake"), "{page}");
}

#[test]
fn mistakes_are_told_to_programs_and_to_github() {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("routes.yaml");
    let routes = fs::read_to_string(Path::new(&example()).join("routes.yaml")).expect("read");
    fs::write(&file, routes.replace("weight: 90", "weigth: 90")).expect("write");
    let file = file.display().to_string();
    let as_json = weft_sidecar(&["validate", "--output", "json", &file]);
    let object: serde_json::Value = serde_json::from_slice(&as_json.stdout).expect("JSON");
    assert_eq!((&object["errors"], &object["files"]), (&2.into(), &1.into()), "{object}");
    let mistake = &object["mistakes"][0];
    assert_eq!(
        (&mistake["line"], &mistake["column"], &mistake["endColumn"]),
        (&17.into(), &37.into(), &43.into())
    );
    assert_eq!(mistake["help"], "did you mean \"weight\"?");
    let github = weft_sidecar(&["validate", "--output", "github", &file]);
    let expected = format!("::error file={file},line=17,endLine=17,col=37,endColumn=43::unknown field");
    assert!(text(&github.stdout).contains(&expected), "{github:?}");
    for output in [as_json, github] {
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(1), ""));
    }
}

/// `run` on one document, a `Sidecar` with its socket at `socket`.
fn run_with_socket(dir: &Path, socket: &Path) -> Running {
    let sidecar = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: a}";
    let spec = format!("{sidecar}\nspec: {{xds: {{socket: {}}}}}\n", socket.display());
    fs::write(dir.join("a.yaml"), spec).expect("write");
    Running::start(dir)
}

/// `weft-sidecar run`, and what it says; killed where a test fails before it ends.
struct Running {
    child: Child,
    log: Option<Lines<BufReader<ChildStderr>>>,
}

impl Running {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-sidecar"));
        command.args(["run", "--config"]).arg(dir);
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let log = Some(BufReader::new(child.stderr.take().expect("piped")).lines());
        Self { child, log }
    }

    /// What it says before it says `what`. It fails where that never comes.
    fn until(&mut self, what: &str) -> Vec<String> {
        let mut before = Vec::new();
        for line in self.log.iter_mut().flatten() {
            let line = line.expect("text");
            if line.contains(what) {
                return before;
            }
            before.push(line);
        }
        panic!("it never said {what:?}:\n{before:#?}");
    }

    /// Ends it, after which its log is not read any more.
    fn ends_well(mut self) {
        drop(self.log.take());
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).expect("signal");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn it_goes_on_when_nobody_reads_its_log_any_more() {
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("xds.sock");
    let mut running = run_with_socket(dir.path(), &socket);
    running.until("serving Envoy");
    // With its log closed, its end can still be said to nobody.
    running.ends_well();
    assert!(!socket.exists(), "it ended in good order");
}

#[test]
fn an_empty_directory_is_told_to_lack_a_sidecar() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut running = Running::start(dir.path());
    let before = running.until("waiting for a configuration");
    running.ends_well();
    assert!(before.iter().any(|line| line.contains("there is no Sidecar")), "{before:?}");
}

#[test]
fn a_socket_that_is_deleted_while_it_serves_is_made_again() {
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("run/xds.sock");
    let mut running = run_with_socket(dir.path(), &socket);
    running.until("serving Envoy");
    fs::remove_dir_all(dir.path().join("run")).expect("remove");
    running.until("was deleted and is made again");
    UnixStream::connect(&socket).expect("it listens");
    running.ends_well();
    assert!(!socket.exists(), "it ended in good order");
}
