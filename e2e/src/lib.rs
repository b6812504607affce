//! Weft on real parts: containerd, runc, Envoy, several hosts in namespaces
