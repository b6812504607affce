//! The world beyond a node.

use crate::error::Result;
use crate::node::Node;
use crate::pod::Pod;

/// The node's addresses on the network it shares with [`beyond`].
pub const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// A machine next to the node, at `192.0.2.2` and `2001:db8::2`. It knows the node, and nothing of its pods.
pub fn beyond(node: &Node) -> Result<Pod> {
    let outside = Pod::create(node, "internet")?;
    node.sh("ip link add uplink type veth peer name eth0 netns internet")?;
    let host = Pod::host(node)?;
    for (end, link, number) in [(&host, "uplink", 1), (&outside, "eth0", 2)] {
        end.sh(&format!("ip address add 192.0.2.{number}/24 dev {link}"))?;
        end.sh(&format!("ip address add 2001:db8::{number}/64 dev {link} nodad"))?;
        // A link-local address would settle at some time later on.
        end.sh(&format!("ip link set {link} up addrgenmode none"))?;
    }
    Ok(outside)
}
