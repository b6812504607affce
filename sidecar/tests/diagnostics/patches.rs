//! Patches: each field is held against Envoy's descriptors, where it stands.

use super::{SIDECAR, WEB, summaries};

/// The good documents with a patch after them, whose `spec` begins in line 19.
fn patch(spec: &str) -> Vec<String> {
    let head = "---\napiVersion: weft.dev/v1alpha1\nkind: EnvoyPatch\nmetadata: {name: p}\nspec:\n";
    summaries(&format!("{SIDECAR}{WEB}{head}{spec}\n"))
}

#[test]
fn a_field_that_envoy_does_not_have_is_shown_with_the_nearest_that_it_has() {
    assert_eq!(
        patch("  merge: [{type: Cluster, name: shop/web/80, patch: {connectTimeot: 1s}}]"),
        [
            "21:54 error: unknown field \"connectTimeot\" in envoy.config.cluster.v3.Cluster; did you mean \"connectTimeout\"?"
        ]
    );
    assert_eq!(
        patch(
            "  merge:\n  - type: Listener\n    name: outbound\n    patch: {filterChains: [{filters: [{name: a, typedConfig: {\"@type\": x/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, statPrefx: a}}]}]}"
        ),
        [
            "24:130 error: unknown field \"statPrefx\" in envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy; did you mean \"statPrefix\"?"
        ]
    );
}

#[test]
fn what_a_patch_is_for_must_be_there_and_what_it_adds_must_not() {
    assert_eq!(
        patch("  merge: [{type: Cluster, name: shop/wbe/80, patch: {connectTimeout: 1s}}]"),
        ["21:33 error: no Cluster \"shop/wbe/80\" is generated; did you mean \"shop/web/80\"?"]
    );
    assert_eq!(
        patch("  add: [{type: Cluster, resource: {name: shop/web/80}}]"),
        [
            "21:35 error: there is a Cluster \"shop/web/80\" already; merge into it, or give this one another name"
        ]
    );
    assert_eq!(
        patch("  merge: [{type: Cluster, name: shop/web/80, patch: {name: x}}]"),
        ["21:33 error: \"name\" of a Cluster cannot be changed"]
    );
    assert_eq!(patch("  {}"), ["21:3 error: the patch has neither \"add\" nor \"merge\""]);
}
