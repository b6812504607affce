//! What `docs/sidecar/sidecar.md`, `policies.md` and `patches.md` show is right: each of their examples, together with what it refers to.

#![cfg(test)]

use std::fs;
use std::path::Path;

use weft_sidecar::configuration::Configuration;
use weft_sidecar::read::files::Roots;

const SIDECAR: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Sidecar
metadata: { name: checkout, namespace: shop }
---
";

/// What the examples take for granted.
const SURROUNDINGS: &str = "\
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { ports: [{ name: http, port: 80 }] }
---
apiVersion: v1
kind: Service
metadata: { name: web-v2 }
spec: { ports: [{ name: http, port: 80 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ name: http, port: 8080 }]
endpoints: [{ addresses: [10.0.0.1] }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-v2, labels: { kubernetes.io/service-name: web-v2 } }
addressType: IPv4
ports: [{ name: http, port: 8080 }]
endpoints: [{ addresses: [10.0.0.1] }]
";

const ROUTE: &str = "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web }
spec:
  parentRefs: [{ group: '', kind: Service, name: web }]
  rules: [{ backendRefs: [{ name: web, port: 80 }] }]
";

fn examples() -> Vec<String> {
    let page = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/sidecar").join(name);
    let read = |name: &str| fs::read_to_string(page(name)).expect("the page");
    let text = read("sidecar.md") + &read("policies.md") + &read("patches.md");
    let blocks = text.split("```yaml\n").skip(1);
    blocks.map(|block| block.split("```").next().expect("an end").to_owned()).collect()
}

#[test]
fn every_example_about_sidecars_policies_and_patches_is_right() {
    let examples = examples();
    assert!(examples.len() >= 4, "{}", examples.len());
    for example in examples {
        let dir = tempfile::tempdir().expect("directory");
        let route = if example.contains("kind: HTTPRoute\n") { "" } else { ROUTE };
        let sidecar = if example.contains("kind: Sidecar\n") { "" } else { SIDECAR };
        fs::write(dir.path().join("a.yaml"), format!("{sidecar}{SURROUNDINGS}{route}")).expect("write");
        fs::write(dir.path().join("b.yaml"), &example).expect("write");
        let mut configuration = Configuration::new(Roots::new([dir.path().to_owned()]));
        let listing = configuration.roots().list();
        configuration.look(&listing, &Default::default());
        let mistakes: Vec<String> = configuration.mistakes().iter().map(ToString::to_string).collect();
        assert!(mistakes.is_empty(), "{}\n{example}", mistakes.join("\n\n"));
    }
}
