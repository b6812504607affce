//! Each privilege has its reason beside it: a comment in the line above, or above the first of what it is about.

use std::fs;

use crate::deploy;

/// The DaemonSet's manifests, of the base and of the chart.
const MANIFESTS: [&str; 2] = ["base/daemonset.yaml", "helm/weft/templates/daemonset.yaml"];

/// Lines that give something which a pod does not have by itself.
fn is_privilege(line: &str) -> bool {
    let fields = [
        "hostNetwork:",
        "hostPID:",
        "hostIPC:",
        "hostUsers:",
        "runAsUser: 0",
        "seLinuxOptions:",
        "seccompProfile:",
        "appArmorProfile:",
        "procMount:",
        "priorityClassName:",
        "terminationGracePeriodSeconds:",
        "tolerations:",
        "mountPath:",
    ];
    let line = line.trim();
    fields.iter().any(|field| line.starts_with(field)) || is_capability(line)
}

fn is_capability(line: &str) -> bool {
    let name = line.strip_prefix("- ").unwrap_or_default();
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// A mount's fields follow its name, and the comment is above that; the second of two mounts of a volume has the first's.
fn has_reason(lines: &[&str], at: usize) -> bool {
    let mount = lines[..=at].iter().rposition(|line| line.trim().starts_with("- name:"));
    let first = if lines[at].contains("mountPath:") { mount.unwrap() } else { at };
    let is_comment = |at: usize| lines[at].trim().starts_with('#');
    is_comment(first - 1)
        || lines[..first].iter().any(|line| line == &lines[first] && lines[at].contains("mountPath:"))
}

#[test]
fn every_privilege_has_its_reason_beside_it() {
    for manifest in MANIFESTS {
        let text = fs::read_to_string(deploy().join(manifest)).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let bare: Vec<_> = lines
            .iter()
            .enumerate()
            .filter(|(at, line)| is_privilege(line) && !has_reason(&lines, *at))
            .map(|(_, line)| line.trim())
            .collect();
        // What is in it is the template, which is no folder of the node's.
        assert_eq!(bare, ["mountPath: /etc/weft"], "{manifest}");
        assert_eq!(lines.iter().filter(|line| is_capability(line.trim())).count(), 2, "{manifest}");
    }
}
