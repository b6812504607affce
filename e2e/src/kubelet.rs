//! A container of a manifest, started as kubelet starts it: what the manifest says is what the runtime is asked for.
//!
//! Of the pod's template there is what Weft's manifests use; anything else of a container is refused, so that a test cannot pass
//! because something was left out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{
    Capability, ContainerConfig, ContainerMetadata, ContainerState, ContainerStatusRequest,
    CreateContainerRequest, ImageSpec, Int64Value, KeyValue, LinuxContainerConfig,
    LinuxContainerSecurityContext, Mount, MountPropagation, NamespaceMode, NamespaceOption, PodSandboxConfig,
    RunPodSandboxRequest, SeLinuxOption, SecurityProfile, StartContainerRequest,
};
use serde_json::{Map, Value};

use crate::containerd::{Client, Containerd, PodSpec};
use crate::error::{Doing, Error, Result};
use crate::node::Node;
use crate::wait;

/// What kubelet asks a runtime to hide and to write-protect in every container that is not privileged (`DefaultProcMount`).
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The fields of a container that are understood here, or that only kubelet acts upon.
const FIELDS: [&str; 13] = [
    "name",
    "image",
    "imagePullPolicy",
    "command",
    "args",
    "env",
    "securityContext",
    "volumeMounts",
    "resources",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "restartPolicy",
];

/// A container that was started. It and its sandbox go when it is dropped.
#[derive(Debug)]
pub struct Container<'c> {
    containerd: &'c Containerd,
    sandbox: String,
    id: String,
    log: PathBuf,
}

/// A pod of which one container after another may be started, each in a sandbox of its own.
#[derive(Debug, Clone)]
pub struct Template<'t> {
    /// `spec.template.spec`, say.
    pub pod: &'t Value,
    /// The objects that it may refer to: its ConfigMaps.
    pub objects: &'t [Value],
    /// What the fields of the downward API are here, such as `spec.nodeName`.
    pub fields: &'t [(&'t str, &'t str)],
}

impl<'c> Container<'c> {
    /// Starts the container `name` of a template; the image must have been loaded.
    pub fn start(containerd: &'c Containerd, template: &Template<'_>, name: &str) -> Result<Self> {
        let config = template.container_config(name, containerd.node())?;
        let sandbox = template.sandbox_config(containerd, name);
        let mut container = Self::with_sandbox(containerd, sandbox.clone())?;
        container.create(config, sandbox)?;
        let request = StartContainerRequest { container_id: container.id.clone() };
        let start = async |mut client: Client| client.start_container(request).await;
        containerd.call("StartContainer", start)?;
        Ok(container)
    }

    fn with_sandbox(containerd: &'c Containerd, config: PodSandboxConfig) -> Result<Self> {
        let logs = PathBuf::from(&config.log_directory);
        let request = RunPodSandboxRequest { config: Some(config), ..Default::default() };
        let run = async |mut client: Client| client.run_pod_sandbox(request).await;
        let sandbox = containerd.call("RunPodSandbox", run)?.pod_sandbox_id;
        let log = logs.join(&sandbox);
        Ok(Self { containerd, sandbox, id: String::new(), log })
    }

    fn create(&mut self, config: ContainerConfig, sandbox: PodSandboxConfig) -> Result<()> {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.sandbox.clone(),
            config: Some(ContainerConfig { log_path: self.sandbox.clone(), ..config }),
            sandbox_config: Some(sandbox),
        };
        let create = async |mut client: Client| client.create_container(request).await;
        self.id = self.containerd.call("CreateContainer", create)?.container_id;
        Ok(())
    }

    /// Waits until it has ended, and returns its exit code.
    pub fn await_end(&self, limit: Duration) -> Result<i32> {
        wait::until("the end of a container", limit, || {
            let request = ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
            let ask = async |mut client: Client| client.container_status(request).await;
            let answer = self.containerd.call("ContainerStatus", ask).map_err(|error| error.to_string())?;
            let status = answer.status.unwrap_or_default();
            if status.state() == ContainerState::ContainerExited {
                Ok(status.exit_code)
            } else {
                Err(self.log())
            }
        })
    }

    /// What it has written so far, to both of its outputs.
    pub fn log(&self) -> String {
        let text = self.containerd.node().run(|| std::fs::read_to_string(&self.log)).ok();
        let text = text.and_then(std::result::Result::ok).unwrap_or_default();
        // Time, stream and a tag stand before each line.
        text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // With its container. Whatever stays because of an error goes with containerd.
        drop(self.containerd.stop_sandbox(&self.sandbox));
        drop(self.containerd.remove_sandbox(&self.sandbox));
    }
}

fn unexpected(expected: String, text: &Value) -> Error {
    Error::Shape { what: expected, text: text.to_string() }
}

impl Template<'_> {
    fn container(&self, name: &str) -> Result<&Value> {
        let lists = ["initContainers", "containers"].into_iter().filter_map(|list| self.pod[list].as_array());
        let found = lists.flatten().find(|container| container["name"] == name);
        let found = found.ok_or_else(|| unexpected(format!("a container {name}"), self.pod))?;
        match found
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .find(|field| !FIELDS.contains(&field.as_str()))
        {
            Some(field) => Err(unexpected(format!("no field {field}, which is not understood here"), found)),
            None => Ok(found),
        }
    }

    fn container_config(&self, name: &str, node: &Node) -> Result<ContainerConfig> {
        let container = self.container(name)?;
        Ok(ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: text(container, "image"), ..Default::default() }),
            command: texts(container, "command"),
            args: texts(container, "args"),
            envs: self.environment(container)?,
            mounts: self.mounts(container, node)?,
            linux: Some(LinuxContainerConfig {
                security_context: Some(self.security(container)),
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    fn sandbox_config(&self, containerd: &Containerd, name: &str) -> PodSandboxConfig {
        let mut config = containerd.sandbox_config(&PodSpec::named(name));
        config.log_directory = containerd.dir().join("logs").display().to_string();
        if self.pod["hostNetwork"] == true {
            // The machine's name is not its to set.
            config.hostname.clear();
        }
        let context = config.linux.get_or_insert_default().security_context.get_or_insert_default();
        context.namespace_options = Some(self.namespaces());
        config
    }

    fn namespaces(&self) -> NamespaceOption {
        let of_node = |field: &str, otherwise: NamespaceMode| {
            if self.pod[field] == true { NamespaceMode::Node } else { otherwise }.into()
        };
        NamespaceOption {
            network: of_node("hostNetwork", NamespaceMode::Pod),
            pid: of_node("hostPID", NamespaceMode::Container),
            ipc: of_node("hostIPC", NamespaceMode::Pod),
            ..Default::default()
        }
    }

    fn security(&self, container: &Value) -> LinuxContainerSecurityContext {
        let context = &container["securityContext"];
        let number = |field: &str| context[field].as_i64().map(|value| Int64Value { value });
        let seccomp = match at(context, "/seccompProfile/type") {
            Some("RuntimeDefault") => ProfileType::RuntimeDefault,
            _ => ProfileType::Unconfined,
        };
        let apparmor = (at(context, "/appArmorProfile/type") == Some("Unconfined"))
            .then(|| SecurityProfile { profile_type: ProfileType::Unconfined.into(), ..Default::default() });
        let selinux = at(context, "/seLinuxOptions/type")
            .map(|kind| SeLinuxOption { r#type: kind.to_owned(), ..Default::default() });
        let strings = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        LinuxContainerSecurityContext {
            capabilities: Some(Capability {
                add_capabilities: texts(&context["capabilities"], "add"),
                drop_capabilities: texts(&context["capabilities"], "drop"),
                ..Default::default()
            }),
            privileged: context["privileged"] == true,
            namespace_options: Some(self.namespaces()),
            run_as_user: number("runAsUser"),
            run_as_group: number("runAsGroup"),
            readonly_rootfs: context["readOnlyRootFilesystem"] == true,
            no_new_privs: context["allowPrivilegeEscalation"] == false,
            masked_paths: strings(&MASKED),
            readonly_paths: strings(&READ_ONLY),
            seccomp: Some(SecurityProfile { profile_type: seccomp.into(), ..Default::default() }),
            apparmor,
            selinux_options: selinux,
            ..Default::default()
        }
    }

    fn environment(&self, container: &Value) -> Result<Vec<KeyValue>> {
        let value = |entry: &Value| match at(entry, "/valueFrom/fieldRef/fieldPath") {
            Some(path) => self.field(path),
            None => Ok(text(entry, "value")),
        };
        let entries = container["env"].as_array().into_iter().flatten();
        entries.map(|entry| Ok(KeyValue { key: text(entry, "name"), value: value(entry)? })).collect()
    }

    fn field(&self, path: &str) -> Result<String> {
        let found =
            self.fields.iter().find(|(field, _)| *field == path).map(|(_, value)| (*value).to_owned());
        found.ok_or_else(|| unexpected(format!("a value for the field {path}"), self.pod))
    }

    fn mounts(&self, container: &Value, node: &Node) -> Result<Vec<Mount>> {
        let mounts = container["volumeMounts"].as_array().into_iter().flatten();
        mounts.map(|mount| self.mount(mount, node)).collect()
    }

    fn mount(&self, mount: &Value, node: &Node) -> Result<Mount> {
        let volumes = self.pod["volumes"].as_array();
        let volume = volumes.into_iter().flatten().find(|volume| volume["name"] == mount["name"]);
        let volume = volume.ok_or_else(|| unexpected(format!("a volume for {mount}"), self.pod))?;
        let propagation = match mount["mountPropagation"].as_str() {
            Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
            _ => MountPropagation::PropagationPrivate,
        };
        Ok(Mount {
            container_path: text(mount, "mountPath"),
            host_path: self.provide(volume, node)?.display().to_string(),
            readonly: mount["readOnly"] == true,
            propagation: propagation.into(),
            ..Default::default()
        })
    }

    /// The directory of a volume, which is there afterwards; or was before, where the volume says so.
    fn provide(&self, volume: &Value, node: &Node) -> Result<PathBuf> {
        let dir = match at(volume, "/hostPath/path") {
            Some(path) => on_node(node, Path::new(path)),
            None => node.dir().join("volumes").join(text(volume, "name")),
        };
        let must_be_there = at(volume, "/hostPath/type") == Some("Directory");
        if must_be_there && !node.run(|| dir.is_dir())? {
            return Err(unexpected("hostPath type check failed: no such directory".to_owned(), volume));
        }
        node.run(|| std::fs::create_dir_all(&dir))?.doing(|| format!("make {}", dir.display()))?;
        for (name, content) in self.config_map(volume)? {
            node.write(dir.join(name), content.as_str().unwrap_or_default())?;
        }
        Ok(dir)
    }

    fn config_map(&self, volume: &Value) -> Result<Map<String, Value>> {
        let Some(name) = at(volume, "/configMap/name") else { return Ok(Map::new()) };
        let is_it =
            |object: &&Value| object["kind"] == "ConfigMap" && at(object, "/metadata/name") == Some(name);
        let found = self.objects.iter().find(is_it).and_then(|object| object["data"].as_object());
        found.cloned().ok_or_else(|| unexpected(format!("a ConfigMap {name}"), self.pod))
    }
}

/// Where a path of the machine is on a node of the suite, which has `/run` and `/var/lib` of its own, and nothing else: what is
/// written elsewhere goes below a folder that stands for the root.
pub fn on_node(node: &Node, path: &Path) -> PathBuf {
    let of_node = ["/run", "/var/lib"].iter().any(|own| path.starts_with(own));
    if of_node {
        path.to_owned()
    } else {
        node.dir().join("root").join(path.strip_prefix("/").unwrap_or(path))
    }
}

fn at<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let items = value[field].as_array().into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}
