//! A port of a service as a virtual host.

use envoy_types::pb::envoy::config::route::v3::VirtualHost;

use super::{PortOf, routes};
use crate::model::sidecar::Sidecar;

pub(super) fn virtual_host(sidecar: &Sidecar, of: PortOf<'_>) -> VirtualHost {
    VirtualHost {
        name: of.cluster_name(),
        domains: domains(sidecar, of),
        routes: routes(sidecar, of),
        ..VirtualHost::default()
    }
}

/// The names by which clients know the port, as a resolver in the workload's namespace would complete them. Names without
/// a port mean port 80, or the first port where there is no 80.
fn domains(sidecar: &Sidecar, of: PortOf<'_>) -> Vec<String> {
    let (name, namespace) = (&of.key.name, &of.key.namespace);
    let mut names = Vec::new();
    if *namespace == sidecar.namespace {
        names.push(name.clone());
    }
    names.push(format!("{name}.{namespace}"));
    names.push(format!("{name}.{namespace}.svc"));
    names.push(format!("{name}.{namespace}.svc.cluster.local"));
    let with_port: Vec<String> = names.iter().map(|name| format!("{name}:{}", of.port.number)).collect();
    if !is_default(of) {
        return with_port;
    }
    names.into_iter().chain(with_port).collect()
}

fn is_default(of: PortOf<'_>) -> bool {
    let numbers: Vec<u16> = of.service.ports.iter().map(|port| port.number).collect();
    let default = if numbers.contains(&80) { Some(80) } else { numbers.first().copied() };
    default == Some(of.port.number)
}
