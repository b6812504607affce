//! The image: that it is the same whenever it is built from the same binaries, and that what is in it can do its work with the
//! privileges that the manifest gives, and not with fewer.

#![cfg(test)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use weft_e2e::kubelet::{Container, Template, on_node};
use weft_e2e::{Attachment, Containerd, Network, Node, Pod, binaries, http, output, wait};

const IMAGE: &str = concat!("weft.dev/weft:", env!("CARGO_PKG_VERSION"));
const NODE: &str = "node-a";
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn the_same_binaries_give_the_same_digest() {
    let dir = tempfile::tempdir().unwrap();
    let [one, other] = ["one.tar", "other.tar"].map(|name| build(&dir.path().join(name)));
    assert_eq!(one, other);
    assert!(one.starts_with("sha256:"), "{one}");
}

#[test]
fn there_is_nothing_in_it_but_the_programs() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("image.tar");
    build(&archive);
    output(Command::new("tar").arg("-C").arg(dir.path()).arg("-xf").arg(&archive)).unwrap();
    let read = |digest: &Value| dir.path().join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let json = |path: PathBuf| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap();
    let index = json(dir.path().join("index.json"));
    let manifest = json(read(&index["manifests"][0]["digest"]));
    let [layer] = manifest["layers"].as_array().unwrap().as_slice() else { panic!("one layer: {manifest}") };
    let content = output(Command::new("tar").arg("-tvzf").arg(read(&layer["digest"]))).unwrap();
    let mut files: Vec<_> = content.lines().filter(|line| !line.starts_with('d')).collect();
    files.sort_by_key(|line| line.split(' ').next_back().unwrap());
    for (file, name) in files.iter().zip(["weft-cni", "weft-ipam", "weft-node", "weft-sidecar"]) {
        assert!(file.starts_with("-rwxr-xr-x 0/0") && file.ends_with(&format!(" usr/bin/{name}")), "{file}");
    }
    assert_eq!(files.len(), 4, "{content}");
    let config = json(read(&manifest["config"]["digest"]));
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/weft-node"]));
}

/// As a container of the DaemonSet, and as nobody in particular, as beside an application.
#[test]
fn its_programs_run_with_a_read_only_root_and_no_rights_of_their_own() {
    let cluster = Cluster::start();
    let (ended, said) = cluster.run(&["--version"], "weft-node", |_| {});
    assert_eq!((ended, said.as_str()), (0, concat!("weft-node ", env!("CARGO_PKG_VERSION"), "\n")));
    let nobody = |container: &mut Value| {
        container["command"] = json!(["/usr/bin/weft-sidecar"]);
        container["securityContext"] = json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" } });
    };
    let (ended, said) = cluster.run(&["schema", "Sidecar"], "weft-node", nobody);
    assert_eq!(ended, 0, "{said}");
    assert!(said.contains("requestHeaders"), "{said}");
}

#[test]
fn it_installs_the_plugins_and_the_configuration_and_takes_them_away() {
    let cluster = Cluster::start();
    let (ended, said) =
        cluster.run(&["install", "--conf", "/etc/weft/10-weft.conflist"], "weft-node", |_| {});
    assert_eq!(ended, 0, "{said}");
    for program in ["weft-cni", "weft-ipam"] {
        let shipped = std::fs::read(binaries::weft(program).unwrap()).unwrap();
        assert!(
            cluster.file(&format!("/opt/cni/bin/{program}")) == Some(shipped),
            "{program} is another one"
        );
    }
    let list = cluster.file("/etc/cni/net.d/10-weft.conflist").unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&list).unwrap()["name"], "weft");

    let before = cluster.node.inventory().unwrap();
    let uninstalling = cluster.uninstall();
    for file in ["/opt/cni/bin/weft-cni", "/opt/cni/bin/weft-ipam", "/etc/cni/net.d/10-weft.conflist"] {
        assert_eq!(cluster.file(file), None, "{file}\n{}", uninstalling.log());
    }
    drop(uninstalling);
    assert_eq!(before.diff(&cluster.node.inventory().unwrap()), [""; 0]);
}

/// What a drained node has is gone when its pod says that it is ready; a node with pods keeps what they talk through.
#[test]
fn uninstalling_takes_everything_when_no_pod_is_left_and_cuts_nobody_off_before() {
    let cluster = Cluster::start();
    let node = &cluster.node;
    let pod = Pod::create(node, "web").unwrap();
    let network = Network::routed(0);
    for line in [
        "link add uplink type bridge",
        "link set uplink up",
        "address add 192.0.2.1/24 dev uplink",
        "route add 10.244.1.0/24 via 192.0.2.2 proto 87",
    ] {
        node.sh(&format!("ip {line}")).unwrap();
    }
    let attached = network.add(node, &Attachment::of(&pod)).unwrap();
    node.write("/var/lib/weft/discovery/shop/service.web.json", "{}\n").unwrap();
    let routes = || node.sh("ip route show proto 87").unwrap();

    let uninstalling = cluster.uninstall();
    assert!(routes().starts_with("10.244.1.0/24"), "{}", uninstalling.log());
    assert!(cluster.file("/var/lib/weft/discovery/shop/service.web.json").is_some());
    assert!(uninstalling.log().contains("pods are attached here"), "{}", uninstalling.log());
    drop(uninstalling);

    network.del(node, &Attachment::of(&pod), &attached).unwrap();
    let uninstalling = cluster.uninstall();
    assert_eq!(routes(), "", "{}", uninstalling.log());
    assert_eq!(node.sh("find /run/weft /var/lib/weft -not -type d").unwrap(), "", "{}", uninstalling.log());
    assert!(node.sh("nft list table inet weft").is_err(), "{}", uninstalling.log());
}

/// On a machine that has never had a pod forwarding is off, and what is below `/proc/sys` is write-protected in every container that is
/// not privileged.
#[test]
fn the_agent_makes_its_node_ready() {
    let cluster = Cluster::start();
    let nodes = json!({ "nodes": [{ "name": NODE, "addresses": ["192.0.2.1"], "podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"] }] });
    cluster.node.write("/run/weft/nodes.json", &nodes.to_string()).unwrap();
    let args = ["run", "--template=/etc/weft/10-weft.conflist", "--nodes=/run/weft/nodes.json"];
    let agent =
        cluster.start_container(&cluster.objects, "weft-node", |container| container["args"] = json!(args));
    let host = Pod::host(&cluster.node).unwrap();
    let list = wait::until("the configuration, which comes after the self-test", PATIENCE, || {
        cluster.file("/etc/cni/net.d/10-weft.conflist").ok_or_else(|| agent.log())
    });
    let list: Value = serde_json::from_slice(&list.unwrap()).unwrap();
    assert_eq!(list["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.0.0/24", "{list}");
    for parameter in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        assert_eq!(host.sh(&format!("cat /proc/sys/net/{parameter}")).unwrap(), "1\n", "{parameter}");
    }
}

/// What the agent asks of the plugin: to look into pods and at the node, and to put back what is not there any more.
#[test]
fn pods_are_repaired_with_each_of_the_privileges_and_not_with_one_fewer() {
    let cluster = Cluster::start();
    let node = &cluster.node;
    let network = Network::routed(0);
    let pod = Pod::create(node, "web").unwrap();
    let attached = network.add(node, &Attachment::of(&pod)).unwrap();
    node.write(Path::new("/run/weft/10-weft.conflist"), &network.list().to_string()).unwrap();
    let repair = ["audit", "--repair", "--conf-dir", "/run/weft"];
    let without = |capability: &'static str| {
        move |container: &mut Value| {
            container["command"] = json!(["/usr/bin/weft-cni"]);
            let kept = container["securityContext"]["capabilities"]["add"].as_array_mut().unwrap();
            kept.retain(|kept| kept != capability);
        }
    };
    for capability in ["NET_ADMIN", "SYS_ADMIN"] {
        harm(node, &pod);
        let (ended, said) = cluster.run(&repair, "weft-node", without(capability));
        assert_ne!(ended, 0, "without {capability}: {said}");
    }
    harm(node, &pod);
    let (ended, said) = cluster.run(&repair, "weft-node", without("none"));
    assert_eq!(ended, 0, "{said}");
    assert!(pod.sh("ip route show default").unwrap().contains("default via"), "{said}");
    network.del(node, &Attachment::of(&pod), &attached).unwrap();
}

/// What somebody else does to a node and a pod of it.
fn harm(node: &Node, pod: &Pod) {
    node.sh("nft flush ruleset").unwrap();
    pod.sh("ip route flush default").ok();
}

/// A node with containerd, and the image loaded into it.
struct Cluster {
    node: Node,
    containerd: Containerd,
    objects: Vec<Value>,
}

impl Cluster {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("image.tar");
        build(&archive);
        let node = Node::start().unwrap();
        let containerd = Containerd::start(&node, Network::routed(0).list()).unwrap();
        containerd.load_image(&archive).unwrap();
        for folder in ["/etc/cni/net.d", "/run/containerd"] {
            let folder = on_node(&node, Path::new(folder));
            node.run(|| std::fs::create_dir_all(folder)).unwrap().unwrap();
        }
        Self { node, containerd, objects: manifest("install.yaml") }
    }

    /// Runs a container of the agent's DaemonSet with other arguments, changed by `change`, to its end.
    fn run(&self, args: &[&str], name: &str, change: impl FnOnce(&mut Value)) -> (i32, String) {
        let container = self.start_container(&self.objects, name, |container| {
            container["args"] = args.into();
            change(container);
        });
        let ended = container.await_end(PATIENCE).unwrap();
        (ended, container.log())
    }

    /// Starts what takes Weft off the node, and waits until it says that it is ready.
    fn uninstall(&self) -> Container<'_> {
        let container = self.start_container(&manifest("uninstall.yaml"), "weft-node", |_| {});
        let host = Pod::host(&self.node).unwrap();
        let admin = ([127, 0, 0, 1], 15090).into();
        wait::until("the end of uninstalling", PATIENCE, || {
            match http::get(&host, admin, "localhost", "/readyz", &[]) {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}\n{}", container.log())),
            }
        })
        .unwrap();
        container
    }

    fn start_container(
        &self,
        objects: &[Value],
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Container<'_> {
        let daemon_set = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
        let mut pod = daemon_set["spec"]["template"]["spec"].clone();
        let lists = ["containers", "initContainers"];
        let list = lists
            .into_iter()
            .find(|list| pod[list].as_array().is_some_and(|list| list.iter().any(|one| one["name"] == name)));
        let containers = pod[list.unwrap()].as_array_mut().unwrap();
        change(containers.iter_mut().find(|container| container["name"] == name).unwrap());
        let template = Template { pod: &pod, objects, fields: &[("spec.nodeName", NODE)] };
        Container::start(&self.containerd, &template, name).unwrap()
    }

    /// A file of the machine's.
    fn file(&self, path: &str) -> Option<Vec<u8>> {
        let path = on_node(&self.node, Path::new(path));
        self.node.run(|| std::fs::read(path).ok()).unwrap()
    }
}

/// Builds the image, and returns its digest.
fn build(archive: &Path) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/image");
    let mut command = Command::new(script);
    command.arg(archive).env("WEFT_BIN_DIR", binaries::weft_dir()).env("WEFT_IMAGE", IMAGE);
    output(&mut command).unwrap().split_whitespace().next_back().unwrap().to_owned()
}

fn manifest(name: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
    serde_saphyr::from_multiple(&std::fs::read_to_string(file).unwrap()).unwrap()
}
