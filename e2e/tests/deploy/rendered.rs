//! The base as one file, with its comments.

use std::fs;

use crate::kustomize::{build, resources};
use crate::objects::{deploy, of_kind, parse, read};

/// What `deploy/install.yaml` is to be.
pub(crate) fn install() -> String {
    let base = deploy().join("base");
    let objects = build(&base);
    let name = of_kind(&objects, "ConfigMap")["metadata"]["name"].as_str().unwrap();
    let mut files: Vec<_> =
        resources(&base).into_iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let daemon_set =
        files.pop().unwrap().replace("configMap: {name: weft-node}", &format!("configMap: {{name: {name}}}"));
    let header =
        "# Made from deploy/base: `WEFT_BLESS=1 cargo test -p weft-e2e --test deploy` writes it anew.\n";
    files.extend([config_map(name), daemon_set]);
    header.to_owned() + &files.join("---\n")
}

/// What `deploy/uninstall.yaml` is to be: the same with what the component replaces.
pub(crate) fn uninstall() -> String {
    let patch = fs::read_to_string(deploy().join("components/uninstall/patch.yaml")).unwrap();
    let args: String = patch
        .lines()
        .skip_while(|line| !line.starts_with("  value:"))
        .skip(1)
        .take_while(|line| line.starts_with("    "))
        .map(|line| format!("        {line}\n"))
        .collect();
    assert_eq!(
        parse(&args),
        [read(&deploy().join("components/uninstall/patch.yaml"))[0][0]["value"].clone()]
    );
    let installed = install();
    let (before, rest) = installed.split_once("          args:\n").unwrap();
    let (_, after) = rest.split_once("          env:\n").unwrap();
    let text = format!("{before}          args:\n{args}          env:\n{after}");
    let text = text.replace("maxUnavailable: 1\n", "maxUnavailable: 100%\n");
    "# Takes Weft off the nodes: docs/operating.md, \"Uninstalling\".\n".to_owned() + &text
}

fn config_map(name: &str) -> String {
    let template = fs::read_to_string(deploy().join("base/10-weft.conflist")).unwrap();
    let lines: String = template.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "# The template of the configuration list. The agent of each node puts the node's podCIDRs into `ipam.ranges`, sets `mtu`, and
# installs it when a pod of its own could be attached with it. Keys: docs/configuration.md. The name ends with a hash of the
# content; who changes it here says `kubectl -n weft-system rollout restart daemonset/weft-node` afterwards.
apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
  namespace: weft-system
  labels:
    app.kubernetes.io/name: weft-node
    app.kubernetes.io/part-of: weft
data:
  10-weft.conflist: |
{lines}"
    )
}
