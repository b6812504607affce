//! Debian's containerd and runc on a node of the suite, driven through CRI as kubelet drives them.
//!
//! It has its own root, state, socket, cgroups and pid namespace: when it goes, its shims and pods go with it, also when
//! the test is killed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    DnsConfig, LinuxPodSandboxConfig, ListPodSandboxRequest, PodSandboxConfig, PodSandboxMetadata,
    PodSandboxStatusRequest, PortMapping, RemovePodSandboxRequest, RunPodSandboxRequest, StatusRequest,
    StopPodSandboxRequest,
};
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, Result};
use crate::init::Init;
use crate::node::Node;
use crate::pod::Pod;
use crate::process::Process;
use crate::{binaries, image, wait};

pub use k8s_cri::v1::Protocol;

const START: Duration = Duration::from_secs(30);
/// Kubelet's patience with a sandbox; more would only hide a hanging plugin.
const CALL: Duration = Duration::from_secs(240);

/// A running containerd. It and its pods end when it is dropped.
#[derive(Debug)]
pub struct Containerd {
    node: Node,
    dir: PathBuf,
    process: Process,
    // Dropped in this order: the cgroup is free when the processes are gone.
    init: Init,
    cgroup: Cgroup,
}

/// What kubelet says of a pod when it asks for its sandbox.
#[derive(Debug, Clone)]
pub struct PodSpec {
    name: String,
    ports: Vec<PortMapping>,
    annotations: HashMap<String, String>,
    dns: Option<DnsConfig>,
}

impl PodSpec {
    /// A pod of this name that asks for nothing else.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ports: Vec::new(), annotations: HashMap::new(), dns: None }
    }

    /// The same pod, with a port of the node that leads to one of its own. `host_ip` may be empty.
    #[must_use]
    pub fn with_port(
        mut self,
        protocol: Protocol,
        host_ip: &str,
        host_port: u16,
        container_port: u16,
    ) -> Self {
        self.ports.push(PortMapping {
            protocol: protocol.into(),
            container_port: container_port.into(),
            host_port: host_port.into(),
            host_ip: host_ip.to_owned(),
        });
        self
    }

    /// The same pod, with an annotation.
    #[must_use]
    pub fn with_annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The same pod, with the cluster's name service.
    #[must_use]
    pub fn with_dns(mut self, server: &str, search: &str) -> Self {
        let (servers, searches) = (vec![server.to_owned()], vec![search.to_owned()]);
        self.dns = Some(DnsConfig { servers, searches, options: Vec::new() });
        self
    }
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
        let dir = node.dir().join("containerd");
        node.run(|| gather_plugins(&dir.join("bin")))??;
        node.write(dir.join("net.d/10-weft.conflist"), &list.to_string())?;
        node.write(dir.join("config.toml"), &configuration(&dir))?;
        let (cgroup, init) = (Cgroup::unique(), Init::start(node)?);
        let process = init.spawn(&daemon(&dir)?)?;
        let mut containerd = Self { node: node.clone(), dir, process, init, cgroup };
        containerd.await_socket()?;
        containerd.import_sandbox_image()?;
        containerd.await_ready()?;
        Ok(containerd)
    }

    /// Kills the daemon, and nothing that it has started.
    pub fn kill(&self) -> Result<()> {
        let pid = self.node.run(|| std::fs::read_to_string(pid_file(&self.dir)))?;
        let pid = pid.doing(|| "learn containerd's process id".to_owned())?;
        self.init.output(Command::new("kill").args(["-KILL", pid.trim()])).map(drop)
    }

    /// Starts the daemon again after it was killed. Its log begins anew.
    pub fn start_again(&mut self) -> Result<()> {
        self.process.await_end(START)?;
        self.process = self.init.spawn(&daemon(&self.dir)?)?;
        self.await_socket()?;
        self.await_ready()
    }

    /// `ListPodSandbox`: the ids of those that it knows.
    pub fn sandboxes(&self) -> Result<Vec<String>> {
        let list = async |mut client: Client| client.list_pod_sandbox(ListPodSandboxRequest::default()).await;
        let answer = self.call("ListPodSandbox", list)?;
        Ok(answer.items.into_iter().map(|sandbox| sandbox.id).collect())
    }

    /// `RunPodSandbox`, as for a pod of this name, then its status.
    pub fn run_sandbox(&self, name: &str) -> Result<Sandbox> {
        self.run_pod(&PodSpec::named(name))
    }

    /// `RunPodSandbox`, then its status.
    pub fn run_pod(&self, spec: &PodSpec) -> Result<Sandbox> {
        let request = RunPodSandboxRequest { config: Some(self.sandbox_config(spec)), ..Default::default() };
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

    /// Ends a sandbox behind CRI's back, so that a daemon that starts again knows nothing of it: DEL is never called, and its
    /// namespace stays.
    pub fn lose_sandbox(&self, id: &str) -> Result<()> {
        let killed = self.ctr(&format!("task rm --force {id}"));
        // CRI's own watch of exits deletes the task too. Whoever of the two comes second is refused, in one of several ways
        // ("cannot delete a deleted process", "ttrpc: closed"), so what counts is that the task is gone.
        wait::until("the sandbox's task to go", START, || {
            let tasks = self.ctr("task ls --quiet").map_err(|error| error.to_string())?;
            if tasks.lines().any(|task| task == id) { Err(format!("{killed:?}")) } else { Ok(()) }
        })?;
        self.ctr(&format!("container rm {id}")).map(drop)
    }

    /// What containerd's own client says, in the namespace of CRI.
    fn ctr(&self, what: &str) -> Result<String> {
        let (ctr, socket) = (binaries::system("ctr")?, self.socket());
        self.node.sh(&format!("{} --address {} -n k8s.io {what}", ctr.display(), socket.display()))
    }

    /// Where CRI is spoken.
    pub fn cri_socket(&self) -> PathBuf {
        self.socket()
    }

    /// Where it looks for plugins, and for network configurations.
    pub fn cni_dirs(&self) -> [PathBuf; 2] {
        ["bin", "net.d"].map(|dir| self.dir.join(dir))
    }

    /// containerd's log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    pub(crate) fn sandbox_config(&self, spec: &PodSpec) -> PodSandboxConfig {
        let cgroup_parent = self.cgroup.path().to_owned();
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: spec.name.clone(),
                uid: format!("uid-{}", spec.name),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            hostname: spec.name.clone(),
            port_mappings: spec.ports.clone(),
            annotations: spec.annotations.clone(),
            dns_config: spec.dns.clone(),
            linux: Some(LinuxPodSandboxConfig { cgroup_parent, ..Default::default() }),
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
        let archive = self.dir.join("image.tar");
        self.node.run(|| image::write(&archive))??;
        self.load_image(&archive)
    }

    /// Loads an image from an archive, for containers of pods.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let (ctr, socket) = (binaries::system("ctr")?, self.socket());
        let line = format!(
            "{} --address {} -n k8s.io image import {}",
            ctr.display(),
            socket.display(),
            archive.display()
        );
        self.node.sh(&line).map(drop)
    }

    pub(crate) fn call<T: Send>(
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

pub(crate) type Client = RuntimeServiceClient<Channel>;

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

/// containerd, which has left its process id in a file.
fn daemon(dir: &Path) -> Result<Command> {
    let containerd = binaries::system("containerd")?;
    let script = format!(
        "echo $$ > {} && exec {} --config {}",
        pid_file(dir).display(),
        containerd.display(),
        dir.join("config.toml").display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    Ok(command)
}

fn pid_file(dir: &Path) -> PathBuf {
    dir.join("pid")
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
sandbox_image = "{}"
restrict_oom_score_adj = true
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{dir}/bin"
conf_dir = "{dir}/net.d"
"#,
        image::NAME
    )
}

/// containerd knows one folder of plugins; this one has ours and the reference's, by link.
fn gather_plugins(bin: &Path) -> Result<()> {
    let doing = || format!("fill {}", bin.display());
    std::fs::create_dir_all(bin).doing(doing)?;
    binaries::reference("loopback")?;
    for dir in [binaries::weft_dir(), binaries::reference_dir()] {
        for plugin in std::fs::read_dir(&dir).into_iter().flatten().flatten().filter(is_program) {
            std::os::unix::fs::symlink(plugin.path(), bin.join(plugin.file_name())).doing(doing)?;
        }
    }
    Ok(())
}

fn is_program(entry: &std::fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_file()) && entry.path().extension().is_none()
}
