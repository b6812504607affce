//! Debian's containerd and runc on a node of the suite, driven through CRI as kubelet drives them.
//!
//! It has its own root, state, socket and pid namespace: when it goes, its shims and pods go with it, also when the
//! test is killed. Its cgroups are below one parent of its own; what a killed test has left of them, the next one
//! sweeps away.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PodSandboxStatusRequest,
    RemovePodSandboxRequest, RunPodSandboxRequest, StatusRequest, StopPodSandboxRequest,
};
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

use crate::binaries;
use crate::error::{Doing, Error, Result};
use crate::node::Node;
use crate::pod::Pod;
use crate::process::{self, Process};
use crate::wait;

const START: Duration = Duration::from_secs(30);
/// More than kubelet's patience with a sandbox would only hide a hanging plugin.
const CALL: Duration = Duration::from_secs(60);
const SANDBOX_IMAGE: &str = "weft.test/pause:1";
const CGROUPS: &str = "/sys/fs/cgroup";

/// A running containerd. It and its pods end when it is dropped.
#[derive(Debug)]
pub struct Containerd {
    node: Node,
    dir: PathBuf,
    cgroup: String,
    process: Process,
}

/// What CRI says about a sandbox.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// Its id, which is the container id that the plugin gets.
    pub id: String,
    /// Its first address.
    pub ip: String,
    /// Its other addresses.
    pub additional_ips: Vec<String>,
    /// Its network namespace, empty after it has been stopped.
    pub netns: PathBuf,
}

impl Containerd {
    /// Starts containerd on the node with this configuration list, and waits until it says that runtime and network
    /// are ready. Plugins are ours and the reference's (containerd needs the latter's `loopback`).
    pub fn start(node: &Node, list: &Value) -> Result<Self> {
        sweep_cgroups();
        let dir = node.dir().join("containerd");
        let cgroup = unique_cgroup();
        node.run(|| gather_plugins(&dir.join("bin")))??;
        node.write(dir.join("net.d/10-weft.conflist"), &list.to_string())?;
        node.write(dir.join("config.toml"), &configuration(&dir))?;
        let process = node.spawn(daemon(&dir)?)?;
        let mut containerd = Self { node: node.clone(), dir, cgroup, process };
        containerd.await_socket()?;
        containerd.import_sandbox_image()?;
        containerd.await_ready()?;
        Ok(containerd)
    }

    /// `RunPodSandbox`, as for a pod of this name, then its status.
    pub fn run_sandbox(&self, name: &str) -> Result<Sandbox> {
        let request = RunPodSandboxRequest { config: Some(self.sandbox_config(name)), ..Default::default() };
        let run = async |mut client: Client| client.run_pod_sandbox(request).await;
        let id = self.call("RunPodSandbox", run)?.pod_sandbox_id;
        self.sandbox(&id)
    }

    /// `PodSandboxStatus`.
    pub fn sandbox(&self, id: &str) -> Result<Sandbox> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let status = async |mut client: Client| client.pod_sandbox_status(request).await;
        let answer = self.call("PodSandboxStatus", status)?;
        let network = answer.status.and_then(|status| status.network).unwrap_or_default();
        let info: Value =
            serde_json::from_str(answer.info.get("info").map_or("", String::as_str)).unwrap_or_default();
        Ok(Sandbox {
            id: id.to_owned(),
            ip: network.ip,
            additional_ips: network.additional_ips.into_iter().map(|ip| ip.ip).collect(),
            netns: netns_of(&info),
        })
    }

    /// The sandbox's network, to look at and to talk from.
    pub fn pod(&self, sandbox: &Sandbox) -> Result<Pod> {
        Pod::at(&self.node, &sandbox.netns)
    }

    /// `StopPodSandbox`: DEL is called in it.
    pub fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let stop = async |mut client: Client| client.stop_pod_sandbox(request).await;
        self.call("StopPodSandbox", stop).map(drop)
    }

    /// `RemovePodSandbox`.
    pub fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let remove = async |mut client: Client| client.remove_pod_sandbox(request).await;
        self.call("RemovePodSandbox", remove).map(drop)
    }

    /// containerd's log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    fn sandbox_config(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            linux: Some(LinuxPodSandboxConfig { cgroup_parent: self.cgroup.clone(), ..Default::default() }),
            ..Default::default()
        }
    }

    fn await_socket(&mut self) -> Result<()> {
        let (node, socket, process) = (&self.node, self.socket(), &mut self.process);
        wait::until("containerd's socket", START, || {
            match node.run(|| std::os::unix::net::UnixStream::connect(&socket)) {
                Ok(Ok(_connection)) => Ok(()),
                Ok(Err(error)) => Err(format!("{error}; {}", process.last_words())),
                Err(error) => Err(error.to_string()),
            }
        })
    }

    fn await_ready(&self) -> Result<()> {
        wait::until("containerd to be ready", START, || {
            let status = async |mut client: Client| client.status(StatusRequest { verbose: false }).await;
            let answer = self.call("Status", status).map_err(|error| error.to_string())?;
            let conditions = answer.status.unwrap_or_default().conditions;
            match conditions.iter().find(|condition| !condition.status) {
                None => Ok(()),
                Some(unmet) => Err(format!("{}: {}", unmet.r#type, unmet.message)),
            }
        })
    }

    fn import_sandbox_image(&self) -> Result<()> {
        let archive = self.dir.join("pause.tar");
        self.node.run(|| write_image(&self.dir.join("image"), &archive))??;
        let (ctr, socket) = (binaries::system("ctr")?, self.socket());
        let line = format!(
            "{} --address {} -n k8s.io image import {}",
            ctr.display(),
            socket.display(),
            archive.display()
        );
        self.node.sh(&line).map(drop)
    }

    fn call<T: Send>(
        &self,
        call: &'static str,
        ask: impl AsyncFnOnce(Client) -> std::result::Result<tonic::Response<T>, tonic::Status> + Send,
    ) -> Result<T> {
        let endpoint = format!("unix://{}", self.socket().display());
        self.node.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.doing(|| "start an async runtime".to_owned())?.block_on(async {
                let client = connect(endpoint).await?;
                let answer = ask(client).await;
                answer
                    .map(tonic::Response::into_inner)
                    .map_err(|status| Error::Cri { call, status: Box::new(status) })
            })
        })?
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        drop(self.process.signal(nix::sys::signal::Signal::SIGKILL));
        let limit = Duration::from_secs(10);
        drop(self.process.await_end(limit));
        // The kernel is still burying the pods; their cgroups can be removed when it is done.
        drop(wait::until("the cgroups to be free", limit, || remove_cgroups(&self.cgroup)));
    }
}

type Client = RuntimeServiceClient<Channel>;

async fn connect(endpoint: String) -> Result<Client> {
    let refused =
        |source: tonic::transport::Error| Error::Connect { to: endpoint.clone(), source: source.into() };
    let channel = Endpoint::from_shared(endpoint.clone()).map_err(refused)?.timeout(CALL).connect().await;
    Ok(RuntimeServiceClient::new(channel.map_err(refused)?))
}

fn netns_of(info: &Value) -> PathBuf {
    let namespaces = info.pointer("/runtimeSpec/linux/namespaces").and_then(Value::as_array);
    let network = namespaces.into_iter().flatten().find(|namespace| namespace["type"] == "network");
    network.and_then(|network| network["path"].as_str()).unwrap_or_default().into()
}

/// containerd as the first process of a pid namespace: its end is the end of all that it started. Its mount table is
/// a copy of the node's in which `/run` stays shared with it.
fn daemon(dir: &Path) -> Result<Command> {
    let mut command = Command::new(binaries::system("unshare")?);
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "unchanged", "--"]);
    command.arg(binaries::system("containerd")?).arg("--config").arg(dir.join("config.toml"));
    Ok(command)
}

/// `restrict_oom_score_adj`: a container need not have CAP_SYS_RESOURCE, and kubelet's -998 for the sandbox needs it.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{dir}/containerd.sock"
[ttrpc]
address = "{dir}/containerd.sock.ttrpc"
[debug]
level = "debug"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{SANDBOX_IMAGE}"
restrict_oom_score_adj = true
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{dir}/bin"
conf_dir = "{dir}/net.d"
"#
    )
}

/// containerd knows one folder of plugins; this one has ours and the reference's, by link.
fn gather_plugins(bin: &Path) -> Result<()> {
    let doing = || format!("fill {}", bin.display());
    std::fs::create_dir_all(bin).doing(doing)?;
    binaries::reference("loopback")?;
    for dir in [binaries::weft_dir(), binaries::REFERENCE_PLUGINS.into()] {
        for plugin in std::fs::read_dir(&dir).into_iter().flatten().flatten().filter(is_program) {
            std::os::unix::fs::symlink(plugin.path(), bin.join(plugin.file_name())).doing(doing)?;
        }
    }
    Ok(())
}

fn is_program(entry: &std::fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_file()) && entry.path().extension().is_none()
}

/// A docker-archive of one layer, which holds one static binary that waits for its end.
fn write_image(dir: &Path, archive: &Path) -> Result<()> {
    let doing = || format!("make an image in {}", dir.display());
    let root = dir.join("root");
    std::fs::create_dir_all(&root).doing(doing)?;
    std::fs::copy(binaries::system("busybox")?, root.join("pause")).doing(doing)?;
    let (layer, manifest) = (dir.join("layer.tar"), dir.join("manifest.json"));
    process::output(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&layer).arg("pause"))?;
    let sum = process::output(Command::new("sha256sum").arg(&layer))?;
    let digest = sum.split_whitespace().next().unwrap_or_default();
    std::fs::write(dir.join("config.json"), image_config(digest).to_string()).doing(doing)?;
    let entry = serde_json::json!([{ "Config": "config.json", "RepoTags": [SANDBOX_IMAGE], "Layers": ["layer.tar"] }]);
    std::fs::write(&manifest, entry.to_string()).doing(doing)?;
    let files = ["manifest.json", "config.json", "layer.tar"];
    process::output(Command::new("tar").arg("-C").arg(dir).arg("-cf").arg(archive).args(files)).map(drop)
}

fn image_config(layer: &str) -> Value {
    serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        // busybox finds its applet by argv[0]'s last part; `pause` is none, so the first argument names it.
        "config": { "Entrypoint": ["/pause", "sleep", "2147483647"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
    })
}

fn unique_cgroup() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/weft-e2e-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Removes the cgroups of tests that are no more: a killed test cannot do it itself.
fn sweep_cgroups() {
    for cgroup in hierarchies().iter().flat_map(std::fs::read_dir).flatten().flatten() {
        let name = cgroup.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("weft-e2e-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            remove_tree(&cgroup.path());
        }
    }
}

/// Where cgroups may be: the one tree of version 2, or the controllers' trees of version 1.
fn hierarchies() -> Vec<PathBuf> {
    let controllers = std::fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(CGROUPS.into()).chain(controllers.filter(|path| path.is_dir())).collect()
}

fn remove_cgroups(name: &str) -> std::result::Result<(), String> {
    let left = hierarchies().into_iter().map(|tree| tree.join(name.trim_start_matches('/')));
    let left: Vec<_> = left.filter(|path| path.exists()).inspect(|path| remove_tree(path)).collect();
    match left.into_iter().find(|path| path.exists()) {
        None => Ok(()),
        Some(path) => Err(format!("{} is in use", path.display())),
    }
}

fn remove_tree(cgroup: &Path) {
    let children = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    children.filter(|entry| entry.path().is_dir()).for_each(|entry| remove_tree(&entry.path()));
    // Busy until its last process is buried; the caller looks again.
    drop(std::fs::remove_dir(cgroup));
}
