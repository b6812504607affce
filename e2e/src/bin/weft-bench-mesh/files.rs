//! The documents, and ways to put them where they are watched.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use weft_e2e::{Node, Pod, Process, binaries, output, wait};

use crate::Result;

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const SIDECAR: &str = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: { name: bench, namespace: shop }\nspec: { tags: { version: v1 } }\n";

/// A service with its endpoints, all on one port.
pub(crate) fn service(name: &str, port: u16, addresses: &[String]) -> String {
    let endpoints: String = addresses.iter().map(|address| format!("  - addresses: [{address}]\n")).collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: shop }}\nspec: {{ ports: [{{ port: 80 }}] }}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{ name: {name}-1, namespace: shop, labels: {{ kubernetes.io/service-name: {name} }} }}\n\
         addressType: IPv4\nports: [{{ port: {port} }}]\nendpoints:\n{endpoints}"
    )
}

/// All requests to `web` go to another service.
pub(crate) fn route_to(name: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: web, namespace: shop }}\nspec:\n  \
         parentRefs: [{{ group: \"\", kind: Service, name: web }}]\n  rules: [{{ backendRefs: [{{ name: {name}, port: 80 }}] }}]\n"
    )
}

/// Replaces a file as editors do: written beside it, and renamed over it.
pub(crate) fn rename_over(file: &Path, text: &str) -> std::io::Result<()> {
    let beside = file.with_extension("new");
    fs::write(&beside, text)?;
    fs::rename(&beside, file)
}

pub(crate) fn weft_sidecar(node: &Node, arguments: &[&str], config: &Path) -> Result<String> {
    let mut command = Command::new(binaries::weft("weft-sidecar")?);
    command.args(arguments).arg("--config").arg(config);
    Ok(node.run(|| output(&mut command))??)
}

pub(crate) fn run_sidecar(pod: &Pod, config: &Path) -> Result<Process> {
    let mut run = Command::new(binaries::weft("weft-sidecar")?);
    run.args(["run", "--log-format", "json", "--config"]).arg(config);
    Ok(pod.spawn(run)?)
}

/// Waits until the sidecar has said `count` times that Envoy has everything; returns what it said last.
pub(crate) fn await_in_force(sidecar: &mut Process, count: usize) -> Result<String> {
    let seen = wait::until(&format!("revision {count} to be in force"), PATIENCE, || {
        let log = sidecar.log();
        let mut lines = log.lines().filter(|line| line.contains("\"in force\""));
        lines.nth(count.saturating_sub(1)).map(str::to_owned).ok_or_else(|| sidecar.last_words())
    });
    Ok(seen?)
}

/// How long it was from the save to Envoy's acknowledgement, as the sidecar has it.
pub(crate) fn save_to_ack(line: &str) -> Option<Duration> {
    let said: serde_json::Value = serde_json::from_str(line).ok()?;
    Some(Duration::from_secs_f64(said.get("save_to_ack_ms")?.as_f64()? / 1e3))
}
