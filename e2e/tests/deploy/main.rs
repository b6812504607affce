//! What is in `deploy`, without a cluster: that the API knows every field of it, that the three ways to apply it say the same, and
//! that it asks for no more than it says it does, each thing with its reason.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod api;
mod chart;
mod kustomize;
mod objects;
mod reasons;
mod rendered;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use weft_e2e::{Mesh, binaries, output, wait};

use objects::{agent, deploy, key, keyed, of_kind, read, sorted, without_hash};

/// The folders that can be given to `kubectl apply -k` for the agent.
const KUSTOMIZATIONS: [&str; 4] = ["base", "overlays/kind", "overlays/production", "overlays/uninstall"];

/// What an overlay may add, and what tells the chart the same.
const COMPONENTS: [&str; 6] = ["crio", "k3s", "microk8s", "api-server", "before-1.30", "uninstall"];

/// And the one for an application.
const EXAMPLE: &str = "examples/canary";

#[test]
fn the_api_knows_every_field() {
    let folders = KUSTOMIZATIONS.iter().chain([&EXAMPLE]);
    let rendered = folders.flat_map(|folder| kustomize::build(&deploy().join(folder)));
    let changed = COMPONENTS.iter().flat_map(|component| base_with(component));
    let chart = COMPONENTS.iter().flat_map(|component| {
        let values = values_of(component).unwrap_or_else(|| json!({}));
        chart::template(&values, "weft-system")
    });
    let plain = ["install.yaml", "uninstall.yaml", "examples/discovery-policy.yaml"]
        .iter()
        .flat_map(|file| read(&deploy().join(file)));
    let all = rendered.chain(changed).chain(chart).chain(plain);
    let strays: Vec<_> = all.filter_map(|object| api::stray(&object)).collect();
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
fn install_yaml_and_uninstall_yaml_are_the_base_in_one_file() {
    for (name, expected, objects) in [
        ("install.yaml", rendered::install(), kustomize::build(&deploy().join("base"))),
        ("uninstall.yaml", rendered::uninstall(), base_with("uninstall")),
    ] {
        let file = deploy().join(name);
        if std::env::var_os("WEFT_BLESS").is_some() {
            fs::write(&file, &expected).unwrap();
        }
        let is_new = fs::read_to_string(&file).is_ok_and(|text| text == expected);
        assert!(is_new, "WEFT_BLESS=1 writes {name} anew");
        assert_eq!(keyed(read(&file)), keyed(objects), "{name}");
    }
}

/// Except for the namespace, which Helm makes (`--create-namespace`), and for what replaces the agents when the template is another.
#[test]
fn the_chart_gives_the_same_objects() {
    let same = |component: Option<&str>| {
        let base = component.map_or_else(|| kustomize::build(&deploy().join("base")), base_with);
        let mut base = keyed(without_hash(base));
        base.retain(|(kind, _), _| kind != "Namespace");
        let values = component.map_or_else(|| json!({}), |name| values_of(name).unwrap());
        assert_eq!(keyed(without_hash(chart::template(&values, "weft-system"))), base, "{component:?}");
    };
    same(None);
    COMPONENTS.into_iter().filter(|name| values_of(name).is_some()).for_each(|name| same(Some(name)));
}

/// The base as a component changes it.
fn base_with(component: &str) -> Vec<Value> {
    let mut objects = kustomize::build(&deploy().join("base"));
    kustomize::change(&mut objects, &deploy().join("components").join(component));
    objects
}

/// What tells the chart the same as a component; an older Kubernetes has no chart.
fn values_of(component: &str) -> Option<Value> {
    match component {
        "api-server" => Some(json!({ "apiServer": { "host": "api.example.com", "port": 6443 } })),
        "uninstall" => Some(json!({ "uninstall": true })),
        "before-1.30" => None,
        platform => Some(read(&deploy().join(format!("helm/weft/platforms/{platform}.yaml"))).remove(0)),
    }
}

#[test]
fn another_template_is_another_daemon_set() {
    let hash = |values: Value| {
        let objects = chart::template(&values, "weft-system");
        agent(&objects)["spec"]["template"]["metadata"]["annotations"]["weft.dev/config"].clone()
    };
    assert!(hash(json!({})).is_string());
    assert_ne!(hash(json!({})), hash(json!({ "conflist": { "name": "pods" } })));
    assert_eq!(
        hash(json!({})),
        hash(json!({ "args": ["--log-format=json"] })),
        "that is in the DaemonSet anyway"
    );

    let copy = tempfile::tempdir().unwrap();
    output(Command::new("cp").arg("-r").arg(deploy().join("base")).arg(copy.path())).unwrap();
    let base = copy.path().join("base");
    let template = fs::read_to_string(base.join("10-weft.conflist")).unwrap();
    fs::write(base.join("10-weft.conflist"), template.replace("\"weft\"", "\"pods\"")).unwrap();
    let name = |objects: &[Value]| {
        let volumes = &agent(objects)["spec"]["template"]["spec"]["volumes"];
        let named =
            volumes.as_array().unwrap().iter().find_map(|volume| volume["configMap"]["name"].as_str());
        assert_eq!(of_kind(objects, "ConfigMap")["metadata"]["name"], named.unwrap());
        named.unwrap().to_owned()
    };
    let (before, after) = (kustomize::build(&deploy().join("base")), kustomize::build(&base));
    assert_ne!(name(&before), name(&after));
}

/// Where there is a helm: what it makes of the chart is what these tests believe that it makes.
#[test]
fn helm_renders_the_chart_alike() {
    let told = json!({
        "image": { "digest": format!("sha256:{}", "0".repeat(64)), "pullSecrets": ["one"] },
        "args": ["--log-format=json"],
        "env": [{ "name": "A", "value": "1" }],
        "podAnnotations": { "example.com/scrape": "true" },
        "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [] } } },
        "updateStrategy": { "rollingUpdate": { "maxUnavailable": "10%" } },
    });
    for values in COMPONENTS.into_iter().filter_map(values_of).chain([json!({}), told]) {
        let Some(output) = chart::helm(&["template", "weft", "--namespace", "weft-system"], &values) else {
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = objects::parse(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(keyed(theirs), keyed(chart::template(&values, "weft-system")), "{values}");
    }
}

/// Where there is a helm, for only it reads the schema.
#[test]
fn helm_refuses_values_that_cannot_be() {
    for (values, place) in [
        (json!({ "maxUnavailable": 1 }), "maxUnavailable"),
        (json!({ "image": { "digest": "sha256:abc" } }), "/image/digest"),
        (json!({ "image": { "tag": "a b" } }), "/image/tag"),
        (json!({ "image": { "pullPolicy": "Sometimes" } }), "/image/pullPolicy"),
        (json!({ "apiServer": { "host": "https://api.example.com" } }), "/apiServer/host"),
        (json!({ "apiServer": { "port": "6443" } }), "/apiServer/port"),
        (json!({ "updateStrategy": { "rollingUpdate": { "maxUnavailable": 0 } } }), "maxUnavailable"),
        (json!({ "updateStrategy": { "rollingUpdate": { "maxSurge": 1 } } }), "maxSurge"),
        (json!({ "node": { "binDir": "opt/cni/bin" } }), "/node/binDir"),
        (json!({ "conflist": { "plugins": [] } }), "/conflist/plugins"),
        (json!({ "tolerations": { "operator": "Exists" } }), "/tolerations"),
        (json!({ "affinity": { "node": {} } }), "/affinity"),
        (json!({ "env": [{ "value": "1" }] }), "/env/0"),
        (json!({ "uninstall": "yes" }), "/uninstall"),
    ] {
        let Some(output) = chart::helm(&["template", "weft"], &values) else { return };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(place), "{values}: {said}");
    }
    let lint = chart::helm(&["lint", "--strict"], &json!({})).unwrap();
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
}

#[test]
fn what_the_chart_is_told_is_where_it_belongs() {
    let affinity = json!({ "nodeAffinity": {} });
    let values = json!({
        "image": { "repository": "registry.example.com/weft", "tag": "1.2.3", "pullSecrets": ["one", "two"] },
        "args": ["--log-format=json"],
        "env": [{ "name": "HTTPS_PROXY", "value": "http://proxy" }],
        "apiServer": { "host": "10.0.0.1" },
        "node": { "runtimeDir": "/run/crio" },
        "affinity": affinity,
        "podAnnotations": { "example.com/scrape": "true" },
        "updateStrategy": { "rollingUpdate": { "maxUnavailable": "10%" } },
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
    let env = container["env"].as_array().unwrap().iter().skip(1);
    let env: Vec<_> = env.map(|variable| [&variable["name"], &variable["value"]]).collect();
    let expected = [
        ["KUBERNETES_SERVICE_HOST", "10.0.0.1"],
        ["KUBERNETES_SERVICE_PORT", "6443"],
        ["HTTPS_PROXY", "http://proxy"],
    ];
    assert_eq!(env, expected);
    let runtime = json!({ "path": "/run/crio", "type": "Directory" });
    assert!(pod["volumes"].as_array().unwrap().iter().any(|volume| volume["hostPath"] == runtime));
    assert_eq!(pod["affinity"], affinity);
    assert_eq!(daemon_set["spec"]["template"]["metadata"]["annotations"]["example.com/scrape"], "true");
    assert_eq!(daemon_set["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], "10%");
    let config = of_kind(&objects, "ConfigMap");
    let list: Value = serde_json::from_str(config["data"]["10-weft.conflist"].as_str().unwrap()).unwrap();
    assert_eq!((&list["name"], &list["plugins"][0]["type"]), (&json!("pods"), &json!("weft-cni")));
    assert_eq!(of_kind(&objects, "ClusterRoleBinding")["subjects"][0]["namespace"], "network");
    let digest = format!("sha256:{}", "0".repeat(64));
    let pinned = chart::template(&json!({ "image": { "digest": digest, "tag": "1.2.3" } }), "network");
    let image = &agent(&pinned)["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, &json!(format!("weft.dev/weft@{digest}")));
}

#[test]
fn every_value_of_the_chart_is_in_its_schema_and_described() {
    let dir = deploy().join("helm/weft");
    let (values, schema) = (chart::defaults(), fs::read_to_string(dir.join("values.schema.json")).unwrap());
    let schema: Value = serde_json::from_str(&schema).unwrap();
    for (place, values) in [
        ("", &values),
        ("/properties/image", &values["image"]),
        ("/properties/node", &values["node"]),
        ("/properties/apiServer", &values["apiServer"]),
    ] {
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
    let copy = tempfile::tempdir().unwrap();
    output(Command::new("cp").arg("-r").arg(deploy()).arg(copy.path())).unwrap();
    let overlays = copy.path().join("deploy/overlays");
    for component in COMPONENTS {
        let text = format!(
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../../base]\ncomponents: [../../components/{component}]\n"
        );
        let overlay = overlays.join(format!("with-{component}"));
        fs::create_dir(&overlay).unwrap();
        fs::write(overlay.join("kustomization.yaml"), text).unwrap();
    }
    let folders = KUSTOMIZATIONS.into_iter().chain([EXAMPLE]).map(|folder| deploy().join(folder));
    for folder in folders.chain(COMPONENTS.map(|component| overlays.join(format!("with-{component}")))) {
        let Ok(output) = Command::new("kubectl").arg("kustomize").arg(&folder).output() else { return };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = objects::parse(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(keyed(theirs), keyed(kustomize::build(&folder)), "{}", folder.display());
    }
}

/// What the runtime does not have is told at once, and what is ours or comes later is made.
#[test]
fn a_folder_that_must_be_there_is_not_made() {
    for (objects, folders) in [
        (
            base_with("k3s"),
            [
                "/var/lib/rancher/k3s/data/cni",
                "/var/lib/rancher/k3s/agent/etc/cni/net.d",
                "/run/k3s/containerd",
            ],
        ),
        (base_with("crio"), ["/opt/cni/bin", "/etc/cni/net.d", "/run/crio"]),
        (kustomize::build(&deploy().join("base")), ["/opt/cni/bin", "/etc/cni/net.d", "/run/containerd"]),
    ] {
        let volumes = agent(&objects)["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
        let of_type = |wanted: &str| {
            let paths =
                volumes.iter().map(|volume| &volume["hostPath"]).filter(|path| path["type"] == wanted);
            paths.map(|path| path["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of_type("Directory"), folders[1..]);
        assert_eq!(
            of_type("DirectoryOrCreate"),
            [folders[0], "/run/weft", "/var/lib/weft/discovery", "/run/netns", "/var/lib/cni"]
        );
        assert_eq!(volumes.len(), 8, "and the template");
        // The agent looks for the socket where the node has it.
        let mounts =
            agent(&objects)["spec"]["template"]["spec"]["containers"][0]["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().any(|mount| mount["mountPath"] == folders[2]), "{mounts:?}");
    }
}

/// Taking Weft off needs what putting it there needed: the same image, nodes, folders and rights.
#[test]
fn uninstalling_is_the_same_daemon_set_with_other_arguments() {
    let (before, after) = (
        kustomize::build(&deploy().join("overlays/production")),
        kustomize::build(&deploy().join("overlays/uninstall")),
    );
    let mut expected = agent(&before).clone();
    let args = json!(["uninstall", "--network=unused", "--discovery-dir=/var/lib/weft/discovery", "--wait"]);
    expected["spec"]["template"]["spec"]["containers"][0]["args"] = args;
    expected["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = json!("100%");
    assert_eq!(agent(&after), &expected);
}

/// Killing an agent that is slow makes its node slower: it has two minutes to start, and one to answer again.
#[test]
fn an_agent_is_given_time() {
    let objects = read(&deploy().join("install.yaml"));
    let container = &agent(&objects)["spec"]["template"]["spec"]["containers"][0];
    let allowed = |probe: &str| {
        let number = |field: &str| container[probe][field].as_u64().unwrap();
        number("periodSeconds") * number("failureThreshold")
    };
    assert_eq!((allowed("startupProbe"), allowed("livenessProbe")), (120, 60));
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
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
        "seLinuxOptions": { "type": "spc_t" },
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
    for objects in everywhere.chain(COMPONENTS.map(base_with)) {
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

/// As the pod's own containers do it, with what its agent would have written and what a stranger wrote besides.
#[test]
fn the_programs_of_the_example_take_what_it_gives_them() {
    let objects = kustomize::build(&deploy().join(EXAMPLE));
    let dir = tempfile::tempdir().unwrap();
    let [mesh, cluster, run] = ["mesh", "cluster", "run"].map(|name| dir.path().join(name));
    [&mesh, &cluster, &run].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    for (name, text) in of_kind(&objects, "ConfigMap")["data"].as_object().unwrap() {
        fs::write(mesh.join(name), text.as_str().unwrap()).unwrap();
    }
    for service in objects.iter().filter(|object| object["kind"] == "Service") {
        let name = service["metadata"]["name"].as_str().unwrap();
        fs::write(cluster.join(format!("service.{name}.json")), service.to_string()).unwrap();
    }
    let sidecar = binaries::weft("weft-sidecar").unwrap();
    output(Command::new(&sidecar).arg("validate").args([&mesh, &cluster])).unwrap();
    fs::write(cluster.join("httproute.strange.json"), "{\"kind\": \"HTTPRoute\"}").unwrap();
    let pod = objects.iter().find(|object| object["metadata"]["name"] == "checkout").unwrap();
    let init = &pod["spec"]["template"]["spec"]["initContainers"];
    let here = |args: &Value| -> Vec<String> {
        let place = |text: &str| {
            let text = text.replace("/etc/weft/mesh", mesh.to_str().unwrap());
            let text = text.replace("/etc/weft/cluster", cluster.to_str().unwrap());
            text.replace("/run/weft", run.to_str().unwrap())
        };
        args.as_array().unwrap().iter().map(|arg| place(arg.as_str().unwrap())).collect()
    };
    output(Command::new(&sidecar).args(here(&init[0]["args"]))).unwrap();
    let validate = ["--mode", "validate"].map(str::to_owned);
    output(Command::new(binaries::envoy().unwrap()).args(here(&init[2]["args"])).args(validate)).unwrap();

    let own = mesh.join("sidecar.yaml");
    let text = fs::read_to_string(&own).unwrap().replace("/run/weft", run.to_str().unwrap());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fs::write(&own, text.replace("0.0.0.0:15020", &free.to_string())).unwrap();
    let running = Command::new(&sidecar).args(here(&init[1]["args"])).stderr(Stdio::null()).spawn();
    let mut running = running.unwrap();
    let serving = wait::until("the sidecar to serve", Duration::from_secs(30), || {
        if run.join("xds.sock").exists() { Ok(()) } else { Err("no socket".to_owned()) }
    });
    running.kill().unwrap();
    running.wait().unwrap();
    serving.unwrap();
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
