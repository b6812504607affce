//! Debian's podman with its CNI backend, on a node of the suite.
//!
//! Everything it keeps is below the node's `/run` and `/var/lib`; its cgroups and its pid namespace are its own, so that
//! its containers and their monitors end with it, also when the test is killed.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::error::{Doing, Error, Result};
use crate::init::Init;
use crate::node::Node;
use crate::pod::Pod;
use crate::{binaries, image};

/// A podman. Its containers end when it is dropped.
#[derive(Debug)]
pub struct Podman {
    node: Node,
    dir: PathBuf,
    // Dropped in this order: the cgroup is free when the processes are gone.
    init: Init,
    cgroup: Cgroup,
}

impl Podman {
    /// Sets podman up with this configuration list as its only network, and gives it the suite's image.
    pub fn start(node: &Node, list: &Value) -> Result<Self> {
        let dir = node.dir().join("podman");
        node.write(dir.join("net.d/10-weft.conflist"), &list.to_string())?;
        node.write(dir.join("containers.conf"), &configuration(&dir, list))?;
        let podman = Self { node: node.clone(), dir, init: Init::start(node)?, cgroup: Cgroup::unique() };
        podman.load_image()?;
        Ok(podman)
    }

    /// `podman LINE` (words between blanks, no quoting). Returns its stdout.
    pub fn sh(&self, line: &str) -> Result<String> {
        let mut podman = Command::new(binaries::system("podman")?);
        // By flags: a container's monitor hands them on when it has podman clean up, which it does not with a storage.conf.
        podman.arg("--root").arg(self.dir.join("root")).arg("--runroot").arg(self.dir.join("runroot"));
        // It needs nothing of the kernel, and there is one small file to copy.
        podman.args(["--storage-driver", "vfs"]).args(line.split_whitespace());
        podman.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        // What an image is copied through.
        podman.env("TMPDIR", &self.dir);
        self.init.output(&podman)
    }

    /// `podman run --detach` of a container of this name with these options. It serves the files of its `/etc` over HTTP
    /// on port 80, `/hostname` among them, which says the name.
    pub fn run(&self, name: &str, options: &str) -> Result<()> {
        let (parent, image) = (self.cgroup.path(), image::NAME);
        let naming = format!("--name {name} --hostname {name} --cgroup-parent {parent}");
        self.sh(&format!("run --detach {naming} {options} {image} httpd -f -p 80 -h /etc")).map(drop)
    }

    /// One more network.
    pub fn add_network(&self, list: &Value) -> Result<()> {
        let name = list.get("name").and_then(Value::as_str).unwrap_or_default();
        self.node.write(self.dir.join(format!("net.d/20-{name}.conflist")), &list.to_string())
    }

    /// `podman inspect` of a container.
    pub fn inspect(&self, name: &str) -> Result<Value> {
        let text = self.sh(&format!("inspect {name}"))?;
        let shape = |_not_json| Error::Shape { what: format!("`podman inspect {name}`"), text: text.clone() };
        let mut all: Vec<Value> = serde_json::from_str(&text).map_err(shape)?;
        all.pop().ok_or_else(|| Error::Shape { what: format!("`podman inspect {name}`"), text: text.clone() })
    }

    /// The container's network, to look at and to talk from.
    pub fn pod(&self, name: &str) -> Result<Pod> {
        let container = self.inspect(name)?;
        let path = container.pointer("/NetworkSettings/SandboxKey").and_then(Value::as_str);
        Pod::at(&self.node, path.unwrap_or_default())
    }

    fn load_image(&self) -> Result<()> {
        let archive = self.dir.join("image.tar");
        self.node.run(|| image::write(&archive))??;
        self.sh(&format!("load --quiet --input {}", archive.display()))?;
        self.node.run(|| std::fs::remove_file(&archive))?.doing(|| "remove an archive".to_owned())
    }
}

/// `file` locks: the default's are in `/dev/shm`, which all the machine shares. Without a journal there are no events, and
/// without systemd it is podman that makes cgroups.
fn configuration(dir: &Path, list: &Value) -> String {
    let network = list.get("name").and_then(Value::as_str).unwrap_or_default();
    let (ours, reference) = (binaries::weft_dir(), binaries::REFERENCE_PLUGINS);
    format!(
        r#"[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "runc"
tmp_dir = "{dir}/tmp"
[network]
network_backend = "cni"
cni_plugin_dirs = ["{ours}", "{reference}"]
network_config_dir = "{dir}/net.d"
default_network = "{network}"
"#,
        dir = dir.display(),
        ours = ours.display(),
    )
}
