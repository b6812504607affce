//! Which ports of the node lead where.

use std::net::SocketAddr;

use weft_datapath::Published;
use weft_ipam::lease::Assigned;

use crate::config::ports::PortMapping;

/// A mapping for both families is one port of each that the pod has an address of; the first address, as the reference
/// takes it.
pub(crate) fn published(mappings: &[PortMapping], addresses: &[Assigned], owner: &str) -> Vec<Published> {
    let leads = |mapping: &PortMapping| {
        let container_port = mapping.container_port;
        let to = move |is_v4: bool| {
            let ip =
                addresses.iter().map(|assigned| assigned.address.ip()).find(|ip| ip.is_ipv4() == is_v4)?;
            Some(SocketAddr::new(ip, container_port))
        };
        mapping.host_ports().into_iter().filter_map(move |at| {
            Some(Published { at, to: to(at.address.is_ipv4())?, owner: owner.to_owned() })
        })
    };
    mappings.iter().flat_map(leads).collect()
}

#[cfg(test)]
mod tests {
    use weft_datapath::Protocol;

    use super::*;

    fn written(host_ip: Option<&str>, addresses: &[&str]) -> Vec<String> {
        let mapping = PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        };
        let assigned = |address: &&str| Assigned { address: address.parse().unwrap(), gateway: None };
        let addresses: Vec<_> = addresses.iter().map(assigned).collect();
        let ports = published(&[mapping], &addresses, "weft/c1/eth0");
        ports.iter().map(|port| format!("{} on {} to {}", port.at, port.at.address, port.to)).collect()
    }

    #[test]
    fn a_mapping_is_one_port_for_each_family_that_the_pod_has() {
        let both = ["10.244.0.5/24", "10.244.0.6/24", "fd00::5/64"];
        let v4 = "8080/tcp on 0.0.0.0 to 10.244.0.5:80";
        let v6 = "8080/tcp on :: to [fd00::5]:80";
        assert_eq!(written(None, &both), [v4, v6]);
        assert_eq!(written(None, &["fd00::5/64"]), [v6]);
        assert_eq!(written(Some("0.0.0.0"), &both), [v4]);
        assert_eq!(written(Some("::"), &both), [v6]);
        let single = "192.0.2.1:8080/tcp on 192.0.2.1 to 10.244.0.5:80";
        assert_eq!(written(Some("192.0.2.1"), &both), [single]);
    }
}
