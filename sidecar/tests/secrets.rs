//! What is secret in a configuration is in nothing that is shown: not in messages, excerpts, plans, graphs or translations.

#![cfg(test)]

use std::fs;
use std::path::Path;
use std::process::Command;

/// In base64 of base64, too: whoever shows the document's text shows this.
const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgc2VjcmV0";

const SIDECAR: &str = "apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: {name: a, namespace: shop}\n";

const GATEWAY: &str = "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public}
spec:
  gatewayClassName: weft
  listeners:
    - {name: https, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: www}]}}
";

fn secret() -> String {
    format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: www}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n    \
         -----BEGIN CERTIFICATE-----\n    AAAA\n    -----END CERTIFICATE-----\n  tls.key: |\n    \
         -----BEGIN PRIVATE KEY-----\n    {KEY}\n    -----END PRIVATE KEY-----\n"
    )
}

/// What the program says in all, and whether it was content.
fn run(dir: &Path, args: &[&str]) -> (String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-sidecar"));
    let done = command.args(args).arg(dir).output().expect("the program runs");
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    (said, done.status.success())
}

#[test]
fn no_command_shows_a_private_key() {
    let dir = tempfile::tempdir().expect("directory");
    fs::write(dir.path().join("a.yaml"), format!("{SIDECAR}{}{GATEWAY}", secret())).expect("write");
    let commands: &[&[&str]] = &[
        &["validate"],
        &["translate", "--config"],
        &["translate", "--output", "json", "--config"],
        &["bootstrap", "--config"],
        &["graph", "--config"],
    ];
    for args in commands {
        let (said, content) = run(dir.path(), args);
        assert!(content, "{args:?}: {said}");
        assert!(!said.contains(KEY), "{args:?}: {said}");
    }
    let (said, _) = run(dir.path(), &["translate", "--config"]);
    assert!(said.contains("(not shown)") && said.contains("BEGIN CERTIFICATE"), "{said}");
}

/// Every way to spoil the document that the text of a person has: a character less, or a line.
#[test]
fn no_mistake_shows_a_private_key() {
    let dir = tempfile::tempdir().expect("directory");
    let good = secret();
    let lines: Vec<&str> = good.lines().collect();
    let mut spoilt: Vec<String> = (1..lines.len())
        .map(|without| {
            let rest = lines.iter().enumerate().filter(|(at, _)| *at != without);
            rest.map(|(_, line)| format!("{line}\n")).collect()
        })
        .collect();
    spoilt.push(good.replace("stringData:", "data:"));
    spoilt.push(good.replace("stringData:", "dat:"));
    spoilt.push(good.replace("tls.key: |", "tls.key: ["));
    spoilt.push(good.replace("tls.key: |", "tls.key:\n"));
    spoilt.push(good.replace("tls.key: |", "tls.key: >-\n  tls.key:"));
    spoilt.push(good.replace("stringData:\n", "stringData: |\n"));
    spoilt.push(good.replace("kind: Secret", "kind: Secrt"));
    spoilt.push(good.replace("kind: Secret", "kind: HTTPRoute"));
    spoilt.push(good.replace("    -----BEGIN PRIVATE", "-----BEGIN PRIVATE"));
    let mut mistakes = 0;
    for text in spoilt {
        fs::write(dir.path().join("a.yaml"), format!("{SIDECAR}{text}{GATEWAY}")).expect("write");
        for output in ["human", "json", "github"] {
            let (said, content) = run(dir.path(), &["validate", "--output", output]);
            mistakes += usize::from(!content);
            assert!(!said.contains(KEY) && !said.contains(&KEY[..20]), "{text}\n{said}");
        }
    }
    assert!(mistakes > 20, "{mistakes}");
}
