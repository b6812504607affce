//! What the configuration asks for over and above an interface with addresses.

use weft_datapath::{Masquerade, PortSources, Published};
use weft_ipam::lease::Assigned;

use super::{Inputs, ports};

/// What is decided from addresses alone, whoever made the interface: the same for a pod of Weft's own and for one that
/// another plugin has attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extras {
    /// Addresses whose traffic to the outside gets the node's address.
    pub masquerade: Vec<Masquerade>,
    /// Ports of the node that lead to the pod.
    pub published: Vec<Published>,
    /// Which connections over those ports get another source.
    pub port_sources: PortSources,
}

impl Extras {
    /// Decides them.
    #[must_use]
    pub fn of(inputs: &Inputs<'_>) -> Self {
        Self {
            masquerade: if inputs.masquerade { masqueraded(inputs) } else { Vec::new() },
            published: ports::published(inputs.ports, inputs.addresses, &inputs.identity.mark()),
            port_sources: inputs.port_sources,
        }
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.masquerade.is_empty() && self.published.is_empty()
    }
}

fn masqueraded(inputs: &Inputs<'_>) -> Vec<Masquerade> {
    let element =
        |assigned: &Assigned| Masquerade { address: assigned.address, owner: inputs.identity.mark() };
    inputs.addresses.iter().map(element).collect()
}
