//! The files that the demo writes for `weft-sidecar`, as an application's owner would write them.

/// Where they are, in the node's private `/run`.
pub(crate) const DIR: &str = "/run/node/mesh";

/// The file that is edited.
pub(crate) const ROUTE: &str = "/run/node/mesh/route.yaml";

/// The workload beside which the sidecar runs, and its tags.
pub(crate) const SIDECAR: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Sidecar
metadata: { name: client, namespace: shop }
spec:
  tags: { team: payments, version: v2, phase: canary }
  inject: { requestHeaders: [version, phase] }
";

/// The tags among [`SIDECAR`]'s that upstreams are to see, as the headers they see.
pub(crate) const TAG_HEADERS: [(&str, &str); 2] =
    [("x-weft-tag-version", "v2"), ("x-weft-tag-phase", "canary")];

/// A tag that stays at home.
pub(crate) const UNSEEN_TAG_HEADER: &str = "x-weft-tag-team";

/// A route for `web` with these rules.
pub(crate) fn route(rules: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: web, namespace: shop }}
spec:
  parentRefs: [{{ kind: Service, group: \"\", name: web }}]
  rules:
{rules}"
    )
}

/// Everything to the first version.
pub(crate) const TO_V1: &str = "    - backendRefs: [{ name: web-v1, port: 80 }]
";

/// Who asks for it gets the second version.
pub(crate) const CANARY: &str = "    - matches: [{ headers: [{ name: canary, value: \"yes\" }] }]
      backendRefs: [{ name: web-v2, port: 80 }]
    - backendRefs: [{ name: web-v1, port: 80 }]
";

/// One in four.
pub(crate) const WEIGHTS: &str = "    - backendRefs:
        - { name: web-v1, port: 80, weight: 3 }
        - { name: web-v2, port: 80, weight: 1 }
";

/// A slip of the keyboard, on line 8 of the file.
pub(crate) const BROKEN: &str = "    - backendRefs:
        - { name: web-v1, port: 80, wieght: 3 }
        - { name: web-v2, port: 80, weight: 1 }
";

/// Where the mistake of [`BROKEN`] is.
pub(crate) const BROKEN_LINE: usize = 8;
