//! The runtime's side of CNI: what libcni does, so that a plugin cannot tell the difference.
//!
//! [`call`] execs one plugin with exactly what it is given. [`Network`] runs a configuration list: it gives every
//! plugin the list's name and version, its share of `runtimeConfig` and the previous result, and takes the list
//! backwards on DEL.

use std::ffi::OsString;
use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::binaries;
use crate::error::{Doing, Error, Result};
use crate::node::Node;
use crate::pod::Pod;

/// What a plugin answered, as it came.
#[derive(Debug, Clone)]
pub struct Reply {
    /// How it ended.
    pub status: ExitStatus,
    /// The document, or nothing.
    pub stdout: String,
    /// Its log.
    pub stderr: String,
    /// From before it was started until it had ended and its answer was read.
    pub took: Duration,
}

impl Reply {
    /// The document on stdout.
    pub fn json(&self) -> Result<Value> {
        let not_json =
            |_error| Error::Shape { what: "a plugin's stdout".to_owned(), text: self.stdout.clone() };
        serde_json::from_str(&self.stdout).map_err(not_json)
    }
}

/// An error document, with the plugin and the verb that it came from.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The plugin's type.
    pub plugin: String,
    /// The verb.
    pub command: String,
    /// The document's code, 0 where it has none.
    pub code: u64,
    /// The document's message.
    pub msg: String,
    /// The document's details.
    pub details: String,
    /// Everything the plugin said.
    pub reply: Reply,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, command, code, msg, details, reply } = self;
        write!(f, "{command} by {plugin} failed with {} and code {code}: {msg}", reply.status)?;
        let rest = if msg.is_empty() { format!("{}{}", reply.stdout, reply.stderr) } else { details.clone() };
        if rest.is_empty() { Ok(()) } else { write!(f, " ({})", rest.trim_end()) }
    }
}

impl std::error::Error for Refusal {}

/// Execs `plugin` in the node with this environment and nothing else, and `stdin`.
pub fn call(node: &Node, plugin: &Path, env: &[(&str, OsString)], stdin: &str) -> Result<Reply> {
    node.run(|| call_here(plugin, env, stdin))?
}

/// The same, from where the calling thread is.
pub fn call_here(plugin: &Path, env: &[(&str, OsString)], stdin: &str) -> Result<Reply> {
    let mut command = Command::new(plugin);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(env.iter().map(|(key, value)| (key, value)));
    run_here(&mut command, stdin)
}

/// Runs any program as a plugin is run.
pub fn run_here(command: &mut Command, stdin: &str) -> Result<Reply> {
    exec(command, stdin).doing(|| format!("run {}", command.get_program().display()))
}

fn exec(command: &mut Command, stdin: &str) -> std::io::Result<Reply> {
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A plugin need not read it (VERSION), and may be gone before it is written.
        drop(pipe.write_all(stdin.as_bytes()));
    }
    let output = child.wait_with_output()?;
    let took = begun.elapsed();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Reply { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr), took })
}

/// What a runtime says about one attachment of a container to a network.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_NETNS`; empty on a DEL after the namespace is gone.
    pub netns: PathBuf,
    /// `CNI_ARGS`.
    pub args: String,
    /// What the runtime offers as `runtimeConfig`; a plugin gets the keys that its `capabilities` ask for.
    pub runtime_config: Map<String, Value>,
}

impl Attachment {
    /// `eth0` of a pod, as containerd attaches it.
    pub fn of(pod: &Pod) -> Self {
        Self {
            container: pod.name().to_owned(),
            ifname: "eth0".to_owned(),
            netns: pod.netns().to_owned(),
            args: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}", pod.name()),
            runtime_config: Map::new(),
        }
    }

    /// The same attachment, with one more key of `runtimeConfig`.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.runtime_config.insert(key.to_owned(), value);
        self
    }
}

/// A configuration list and the folders that its plugins are in.
#[derive(Debug, Clone)]
pub struct Network {
    list: Value,
    path: Vec<PathBuf>,
}

impl Network {
    /// A network of this list. Plugins are looked for among ours first, then among the reference's.
    pub fn new(list: Value) -> Self {
        Self { list, path: vec![binaries::weft_dir(), binaries::reference_dir()] }
    }

    /// The same network, whose plugins are looked for in this folder (of the host, not of the node) first.
    #[must_use]
    pub fn with_plugins_in(mut self, dir: &Path) -> Self {
        self.path.insert(0, dir.to_owned());
        self
    }

    /// The list.
    pub fn list(&self) -> &Value {
        &self.list
    }

    /// `weft-cni` in routed mode: IPv4 and IPv6 from the node's own ranges `10.244.N.0/24` and `fd00:10:244:N::/64`,
    /// a default route, masqueraded.
    pub fn routed(n: u8) -> Self {
        Self::new(json!({
            "cniVersion": "1.0.0", "name": "weft",
            "plugins": [{
                "type": "weft-cni", "mode": "routed", "ipMasq": true,
                "ipam": { "type": "weft-ipam", "ranges": ranges(n), "routes": routes() },
            }],
        }))
    }

    /// `weft-cni` in bridge mode, configured as [`Network::reference`] is: the mode follows from the keys.
    pub fn bridged(n: u8) -> Self {
        Self::new(json!({
            "cniVersion": "1.0.0", "name": "weft",
            "plugins": [{
                "type": "weft-cni", "bridge": "cni0", "isGateway": true, "ipMasq": true,
                "ipam": { "type": "weft-ipam", "ranges": ranges(n), "routes": routes() },
            }],
        }))
    }

    /// The same network, whose first plugin has these keys as well.
    #[must_use]
    pub fn with(mut self, keys: Value) -> Self {
        let plugin = self.list.pointer_mut("/plugins/0").and_then(Value::as_object_mut);
        if let (Some(plugin), Value::Object(keys)) = (plugin, keys) {
            plugin.extend(keys);
        }
        self
    }

    /// The same network with what a runtime may ask of it: host ports, rates, addresses and a MAC. The reference has two more plugins
    /// for that.
    #[must_use]
    pub fn with_capabilities(self) -> Self {
        if self.is_of_one_plugin() {
            return self.with(json!({ "capabilities": { "portMappings": true, "bandwidth": true, "ips": true, "mac": true } }));
        }
        self.with(json!({ "capabilities": { "ips": true, "mac": true } }))
            .followed_by(json!({ "type": "portmap", "capabilities": { "portMappings": true } }))
            .followed_by(json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }))
    }

    /// The same network with these keys of the reference's plugin `tuning`.
    #[must_use]
    pub fn tuned(self, keys: Value) -> Self {
        if self.is_of_one_plugin() {
            return self.with(keys);
        }
        let mut tuning = json!({ "type": "tuning" });
        if let (Some(tuning), Value::Object(keys)) = (tuning.as_object_mut(), keys) {
            tuning.extend(keys);
        }
        self.followed_by(tuning)
    }

    fn is_of_one_plugin(&self) -> bool {
        self.list.pointer("/plugins/0/type").and_then(Value::as_str) == Some("weft-cni")
    }

    fn followed_by(mut self, plugin: Value) -> Self {
        if let Some(plugins) = self.list.get_mut("plugins").and_then(Value::as_array_mut) {
            plugins.push(plugin);
        }
        self
    }

    /// The reference with the same features: a bridge that is the gateway, `host-local`, masqueraded.
    pub fn reference(n: u8) -> Self {
        Self::new(json!({
            "cniVersion": "1.0.0", "name": "reference",
            "plugins": [{
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
                "ipam": { "type": "host-local", "dataDir": "/run/cni/host-local", "ranges": ranges(n), "routes": routes() },
            }],
        }))
    }

    /// ADD: the plugins in their order. Returns the last one's result.
    pub fn add(&self, node: &Node, attachment: &Attachment) -> Result<Value> {
        node.run(|| self.add_here(attachment))?
    }

    /// The same, from where the calling thread is: inside [`Node::run`], to see what the plugins alone take.
    pub fn add_here(&self, attachment: &Attachment) -> Result<Value> {
        self.timed_add_here(attachment).map(|(_, result)| result)
    }

    /// The same, with how long the plugins took: not what this side does before, between and after them.
    pub fn timed_add_here(&self, attachment: &Attachment) -> Result<(Duration, Value)> {
        let (mut took, mut result) = (Duration::ZERO, Value::Null);
        for plugin in self.plugins() {
            let reply = self.exec("ADD", plugin, attachment, &result)?;
            took += reply.took;
            result = reply.json()?;
        }
        Ok((took, result))
    }

    /// CHECK against the result of ADD.
    pub fn check(&self, node: &Node, attachment: &Attachment, result: &Value) -> Result<()> {
        node.run(|| {
            self.plugins().try_for_each(|plugin| self.exec("CHECK", plugin, attachment, result).map(drop))
        })?
    }

    /// DEL: the plugins backwards. `result` is what ADD returned, or null when the runtime has lost it.
    pub fn del(&self, node: &Node, attachment: &Attachment, result: &Value) -> Result<()> {
        node.run(|| self.del_here(attachment, result))?
    }

    /// The same, from where the calling thread is.
    pub fn del_here(&self, attachment: &Attachment, result: &Value) -> Result<()> {
        self.timed_del_here(attachment, result).map(drop)
    }

    /// The same, with how long the plugins took.
    pub fn timed_del_here(&self, attachment: &Attachment, result: &Value) -> Result<Duration> {
        self.plugins().rev().map(|plugin| Ok(self.exec("DEL", plugin, attachment, result)?.took)).sum()
    }

    fn plugins(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.list.get("plugins").and_then(Value::as_array).into_iter().flatten()
    }

    fn exec(&self, command: &str, plugin: &Value, to: &Attachment, previous: &Value) -> Result<Reply> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let binary = self.find(kind)?;
        let stdin = self.config_of(plugin, to, previous).to_string();
        let reply = call_here(&binary, &self.environment(command, to), &stdin)?;
        if reply.status.success() { Ok(reply) } else { Err(Box::new(refusal(kind, command, reply)).into()) }
    }

    fn find(&self, kind: &str) -> Result<PathBuf> {
        match self.path.iter().map(|dir| dir.join(kind)).find(|path| path.is_file()) {
            Some(path) => Ok(path),
            None if kind.starts_with("weft-") => binaries::weft(kind),
            None => binaries::reference(kind),
        }
    }

    /// libcni's `buildOneConfig` and `injectRuntimeConfig`.
    fn config_of(&self, plugin: &Value, to: &Attachment, previous: &Value) -> Value {
        let mut config = plugin.as_object().cloned().unwrap_or_default();
        for key in ["cniVersion", "name"] {
            config.insert(key.to_owned(), self.list.get(key).cloned().unwrap_or_default());
        }
        if !previous.is_null() {
            config.insert("prevResult".to_owned(), previous.clone());
        }
        let asked =
            |key: &String| plugin.pointer(&format!("/capabilities/{key}")) == Some(&Value::Bool(true));
        let share: Map<_, _> = to.runtime_config.clone().into_iter().filter(|(key, _)| asked(key)).collect();
        if !share.is_empty() {
            config.insert("runtimeConfig".to_owned(), share.into());
        }
        config.into()
    }

    fn environment(&self, command: &str, to: &Attachment) -> Vec<(&'static str, OsString)> {
        let path = std::env::join_paths(&self.path).unwrap_or_default();
        vec![
            ("CNI_COMMAND", command.into()),
            ("CNI_CONTAINERID", to.container.clone().into()),
            ("CNI_NETNS", to.netns.clone().into()),
            ("CNI_IFNAME", to.ifname.clone().into()),
            ("CNI_ARGS", to.args.clone().into()),
            ("CNI_PATH", path),
        ]
    }
}

/// The nth address of a result, without its prefix length.
pub fn address(result: &Value, nth: usize) -> Result<IpAddr> {
    let text = result.pointer(&format!("/ips/{nth}/address")).and_then(Value::as_str).unwrap_or_default();
    let address = text.split('/').next().unwrap_or_default().parse();
    address.map_err(|_error| Error::Shape { what: "a CNI result".to_owned(), text: result.to_string() })
}

fn ranges(n: u8) -> Value {
    json!([[{ "subnet": format!("10.244.{n}.0/24") }], [{ "subnet": format!("fd00:10:244:{n:x}::/64") }]])
}

fn routes() -> Value {
    json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }])
}

fn refusal(plugin: &str, command: &str, reply: Reply) -> Refusal {
    let document = reply.json().unwrap_or_default();
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = document.get("code").and_then(Value::as_u64).unwrap_or_default();
    Refusal {
        plugin: plugin.to_owned(),
        command: command.to_owned(),
        code,
        msg: text("msg"),
        details: text("details"),
        reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment() -> Attachment {
        Attachment {
            container: "c1".to_owned(),
            ifname: "eth0".to_owned(),
            netns: PathBuf::new(),
            args: String::new(),
            runtime_config: Map::new(),
        }
    }

    #[test]
    fn a_plugin_gets_the_lists_name_and_version_and_only_the_capabilities_it_asks_for() {
        let network = Network::new(json!({
            "cniVersion": "1.0.0", "name": "net",
            "plugins": [{ "type": "p", "capabilities": { "mac": true, "ips": false } }],
        }));
        let asked =
            attachment().with("mac", json!("02::")).with("ips", json!(["10.0.0.9"])).with("dns", json!({}));
        let plugin = &network.list["plugins"][0];
        let config = network.config_of(plugin, &asked, &json!({ "ips": [] }));
        assert_eq!(
            config,
            json!({
                "cniVersion": "1.0.0", "name": "net", "type": "p", "capabilities": { "mac": true, "ips": false },
                "runtimeConfig": { "mac": "02::" }, "prevResult": { "ips": [] },
            })
        );
    }

    #[test]
    fn the_first_add_has_no_previous_result_and_no_empty_runtime_config() {
        let network = Network::routed(3);
        let config = network.config_of(&network.list["plugins"][0], &attachment(), &Value::Null);
        assert_eq!(config.get("prevResult"), None);
        assert_eq!(config.get("runtimeConfig"), None);
        assert_eq!(config["ipam"]["ranges"][1][0]["subnet"], "fd00:10:244:3::/64");
    }
}
