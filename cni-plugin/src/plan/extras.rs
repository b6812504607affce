//! What the configuration asks for over and above an interface with addresses.

use weft_datapath::Masquerade;
use weft_ipam::lease::Assigned;

use super::Inputs;

/// What is decided from addresses alone, whoever made the interface: the same for a pod of Weft's own and for one that
/// another plugin has attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extras {
    /// Addresses whose traffic to the outside gets the node's address.
    pub masquerade: Vec<Masquerade>,
}

impl Extras {
    /// Decides them.
    #[must_use]
    pub fn of(inputs: &Inputs<'_>) -> Self {
        Self { masquerade: if inputs.masquerade { masqueraded(inputs) } else { Vec::new() } }
    }
}

fn masqueraded(inputs: &Inputs<'_>) -> Vec<Masquerade> {
    let element =
        |assigned: &Assigned| Masquerade { address: assigned.address, owner: inputs.identity.mark() };
    inputs.addresses.iter().map(element).collect()
}
