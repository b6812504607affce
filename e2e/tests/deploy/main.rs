//! What is in `deploy`, without a cluster: that the API knows every field of it, that the three ways to apply it say the same, and
//! that it asks for no more than it says it does.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod api;
mod chart;
mod kustomize;
mod objects;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use weft_e2e::{Mesh, binaries};

use objects::{agent, deploy, key, keyed, of_kind, read, sorted};

/// The folders that can be given to `kubectl apply -k` for the agent.
const KUSTOMIZATIONS: [&str; 3] = ["base", "overlays/kind", "overlays/production"];

/// And the one for an application.
const EXAMPLE: &str = "examples/canary";

#[test]
fn the_api_knows_every_field() {
    let folders = KUSTOMIZATIONS.iter().chain([&EXAMPLE]);
    let rendered = folders.flat_map(|folder| kustomize::build(&deploy().join(folder)));
    let chart = chart::template(&json!({}), "weft-system");
    let plain = ["install.yaml", "uninstall.yaml"].iter().flat_map(|file| read(&deploy().join(file)));
    let strays: Vec<_> =
        rendered.chain(chart).chain(plain).filter_map(|object| api::stray(&object)).collect();
    assert_eq!(strays, [""; 0]);
}

#[test]
fn a_field_that_the_api_does_not_know_is_found() {
    let mut daemon_set = agent(&read(&deploy().join("install.yaml"))).clone();
    assert_eq!(api::stray(&daemon_set), None);
    daemon_set["spec"]["template"]["spec"]["containers"][0]["securityContext"]["priviledged"] = json!(false);
    assert!(api::stray(&daemon_set).unwrap().contains("priviledged"));
}

/// With the comments, so that who applies it can read why.
#[test]
fn install_yaml_is_the_base_in_one_file() {
    let base = deploy().join("base");
    let header =
        "# Made from deploy/base: `WEFT_BLESS=1 cargo test -p weft-e2e --test deploy` writes it anew.\n";
    let files = kustomize::resources(&base).into_iter().map(|file| fs::read_to_string(file).unwrap());
    let expected = header.to_owned() + &files.collect::<Vec<_>>().join("---\n");
    let file = deploy().join("install.yaml");
    if std::env::var_os("WEFT_BLESS").is_some() {
        fs::write(&file, &expected).unwrap();
    }
    assert!(fs::read_to_string(&file).unwrap() == expected, "WEFT_BLESS=1 writes install.yaml anew");
    assert_eq!(keyed(read(&file)), keyed(kustomize::build(&base)));
}

/// Except for the namespace, which Helm makes (`--create-namespace`).
#[test]
fn the_chart_with_its_defaults_gives_the_same_objects() {
    let mut base = keyed(kustomize::build(&deploy().join("base")));
    base.retain(|(kind, _), _| kind != "Namespace");
    assert_eq!(keyed(chart::template(&json!({}), "weft-system")), base);
}

#[test]
fn what_the_chart_is_told_is_where_it_belongs() {
    let values = json!({
        "image": { "repository": "registry.example.com/weft", "tag": "1.2.3", "pullSecrets": ["one", "two"] },
        "args": ["--log-format=json"],
        "node": { "runtimeDir": "/run/crio" },
        "podAnnotations": { "example.com/scrape": "true" },
        "maxUnavailable": "10%",
        "conflist": { "name": "pods" },
    });
    let objects = chart::template(&values, "network");
    assert_eq!(objects.iter().filter_map(api::stray).collect::<Vec<_>>(), [""; 0]);
    let daemon_set = agent(&objects);
    let pod = &daemon_set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(daemon_set["metadata"]["namespace"], "network");
    assert_eq!(container["image"], "registry.example.com/weft:1.2.3");
    assert_eq!(pod["imagePullSecrets"], json!([{ "name": "one" }, { "name": "two" }]));
    assert_eq!(container["args"].as_array().unwrap().last().unwrap(), "--log-format=json");
    let runtime = json!({ "path": "/run/crio", "type": "DirectoryOrCreate" });
    assert!(pod["volumes"].as_array().unwrap().iter().any(|volume| volume["hostPath"] == runtime));
    assert_eq!(daemon_set["spec"]["template"]["metadata"]["annotations"]["example.com/scrape"], "true");
    assert_eq!(daemon_set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], "10%");
    let config = of_kind(&objects, "ConfigMap");
    let list: Value = serde_json::from_str(config["data"]["10-weft.conflist"].as_str().unwrap()).unwrap();
    assert_eq!((&list["name"], &list["plugins"][0]["type"]), (&json!("pods"), &json!("weft-cni")));
    assert_eq!(of_kind(&objects, "ClusterRoleBinding")["subjects"][0]["namespace"], "network");
}

#[test]
fn every_value_of_the_chart_is_in_its_schema_and_described() {
    let dir = deploy().join("helm/weft");
    let (values, schema) = (chart::defaults(), fs::read_to_string(dir.join("values.schema.json")).unwrap());
    let schema: Value = serde_json::from_str(&schema).unwrap();
    for (place, values) in
        [("", &values), ("/properties/image", &values["image"]), ("/properties/node", &values["node"])]
    {
        let schema = schema.pointer(place).unwrap();
        assert_eq!(schema["additionalProperties"], false, "{place}");
        let mut known: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().collect();
        known.retain(|name| *name != "global");
        assert_eq!(known, values.as_object().unwrap().keys().collect(), "{place}");
    }
}

/// Where there is a kubectl: what it makes of an overlay is what this test believes that it makes.
#[test]
fn kubectl_renders_the_overlays_alike() {
    for folder in KUSTOMIZATIONS.into_iter().chain([EXAMPLE]) {
        let folder = deploy().join(folder);
        let Ok(output) = Command::new("kubectl").arg("kustomize").arg(&folder).output() else { return };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = objects::parse(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(keyed(theirs), keyed(kustomize::build(&folder)), "{}", folder.display());
    }
}

#[test]
fn the_agent_may_read_what_it_names_and_write_nothing() {
    let objects = read(&deploy().join("install.yaml"));
    let rules = of_kind(&objects, "ClusterRole")["rules"].as_array().unwrap();
    let all = |field: &str| sorted(rules.iter().flat_map(|rule| rule[field].as_array().unwrap()));
    assert_eq!(all("verbs"), ["get", "list", "watch"]);
    for rule in rules {
        assert!(
            !rule["resources"].as_array().unwrap().iter().any(|name| name == "*" || name == "secrets"),
            "{rule}"
        );
        assert!(!rule["apiGroups"].as_array().unwrap().contains(&json!("*")), "{rule}");
    }
}

/// Whatever is added to this list needs its reason beside it in the manifest.
#[test]
fn the_agent_has_two_capabilities_and_is_not_privileged() {
    let objects = read(&deploy().join("install.yaml"));
    let pod = &agent(&objects)["spec"]["template"]["spec"];
    let [container] = pod["containers"].as_array().unwrap().as_slice() else {
        panic!("one container: {pod}")
    };
    let expected = json!({
        "privileged": false,
        "runAsUser": 0,
        "runAsGroup": 0,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "seccompProfile": { "type": "RuntimeDefault" },
        "appArmorProfile": { "type": "Unconfined" },
        "capabilities": { "drop": ["ALL"], "add": ["NET_ADMIN", "SYS_ADMIN"] },
    });
    assert_eq!(container["securityContext"], expected);
    let shared: Vec<_> =
        ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|of| pod[of] == true).collect();
    assert_eq!(shared, ["hostNetwork"]);
}

/// Of what is mounted, the container uses all, and all that it uses is mounted.
#[test]
fn every_volume_is_mounted() {
    let objects = read(&deploy().join("install.yaml"));
    let pod = &agent(&objects)["spec"]["template"]["spec"];
    let mounted =
        sorted(pod["containers"][0]["volumeMounts"].as_array().unwrap().iter().map(|mount| &mount["name"]));
    let volumes = sorted(pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]));
    assert_eq!(mounted, volumes);
}

#[test]
fn the_shipped_agent_knows_its_arguments() {
    let everywhere = KUSTOMIZATIONS.iter().map(|folder| kustomize::build(&deploy().join(folder)));
    for objects in everywhere.chain([read(&deploy().join("uninstall.yaml"))]) {
        let daemon_set = of_kind(&objects, "DaemonSet");
        let pod = &daemon_set["spec"]["template"]["spec"];
        let containers =
            ["initContainers", "containers"].into_iter().filter_map(|list| pod[list].as_array()).flatten();
        for args in containers.map(|container| container["args"].as_array().unwrap()) {
            // Help is given when everything before it is understood.
            let words = args.iter().map(|arg| arg.as_str().unwrap()).chain(["--help"]);
            let output = Command::new(binaries::weft("weft-node").unwrap()).args(words).output().unwrap();
            assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// The version of the workspace is that of the image and the chart.
#[test]
fn all_speak_of_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let image = json!(format!("weft.dev/weft:{version}"));
    for file in ["install.yaml", "uninstall.yaml"] {
        let objects = read(&deploy().join(file));
        let pod = &of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
        assert_eq!(pod["containers"][0]["image"], image, "{file}");
    }
    let chart = &read(&deploy().join("helm/weft/Chart.yaml"))[0];
    assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(version), &json!(version)));
}

#[test]
fn no_object_stands_twice() {
    for folder in KUSTOMIZATIONS {
        let objects = kustomize::build(&deploy().join(folder));
        let keys: BTreeSet<_> = objects.iter().map(key).collect();
        assert_eq!(keys.len(), objects.len(), "{folder}");
    }
}

/// What the agent would write of the example's Services is written here, with pods of one machine; the rest are its own files, and the
/// real Envoy serves them.
#[test]
fn the_example_sends_whoever_asks_for_the_canary_to_the_canary() {
    let objects = kustomize::build(&deploy().join(EXAMPLE));
    let own = of_kind(&objects, "ConfigMap")["data"].as_object().unwrap().clone();
    let services = objects.iter().filter(|object| object["kind"] == "Service").map(ToString::to_string);
    let pods = [("stable", "10.244.0.11", 8081), ("canary", "10.244.0.12", 8082)];
    let slices = pods.iter().flat_map(|pod| [slice("web", pod), slice(&format!("web-{}", pod.0), pod)]);
    let known = services.chain(slices).collect::<Vec<_>>().join("\n---\n");
    let mesh = Mesh::start(&pods.map(|(name, _, port)| (port, name)), |files| {
        files.save("known.yaml", &known)?;
        own.iter().try_for_each(|(name, text)| files.save(name, text.as_str().unwrap()))
    })
    .unwrap();
    for (_, address, _) in pods {
        mesh.pod.sh(&format!("ip address add {address}/32 dev lo")).unwrap();
    }
    for _ in 0..20 {
        assert_eq!(mesh.echo("/", &[("x-deployment-phase", "canary")]).unwrap().name, "canary");
        assert_eq!(mesh.echo("/", &[]).unwrap().name, "stable");
    }
}

fn slice(service: &str, (pod, address, port): &(&str, &str, u16)) -> String {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": format!("{service}-{pod}"), "namespace": "shop", "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": port }],
        "endpoints": [{ "addresses": [address] }],
    })
    .to_string()
}

/// Sidecars that follow each other: each starts when the one before says so, and what it waits for does not wait for it.
#[test]
fn the_sidecars_of_the_example_stay_and_start_before_the_application() {
    let objects = kustomize::build(&deploy().join(EXAMPLE));
    let pod = objects.iter().find(|object| object["metadata"]["name"] == "checkout").unwrap();
    let init = pod["spec"]["template"]["spec"]["initContainers"].as_array().unwrap();
    let order: Vec<_> =
        init.iter().map(|one| (one["name"].as_str().unwrap(), one["restartPolicy"].as_str())).collect();
    assert_eq!(order, [("bootstrap", None), ("weft-sidecar", Some("Always")), ("envoy", Some("Always"))]);
    assert_eq!(
        init[1]["startupProbe"]["httpGet"]["path"], "/livez",
        "readiness needs an Envoy, which comes later"
    );
    assert_eq!(init[2]["startupProbe"]["httpGet"]["path"], "/readyz");
}

/// A file of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}
