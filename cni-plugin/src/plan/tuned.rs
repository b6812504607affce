//! What the configuration asks of an interface, whoever made it.

use weft_datapath::{Interface, Shaping};

use super::{Inputs, shaping};
use crate::config::Sysctl;

/// What an interface in the container that another plugin has made is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// The interface, with nothing but its attributes. What else it holds is not Weft's, nor whether it is up.
    pub pod: Interface,
    /// How what comes from it is slowed down.
    pub from_pod: Option<Shaping>,
    /// How what goes to it is slowed down.
    pub to_pod: Option<Shaping>,
    /// Parameters of its namespace.
    pub sysctls: Vec<Sysctl>,
}

impl Tuned {
    /// Decides it. An MTU of 0 stays as it is.
    #[must_use]
    pub fn of(inputs: &Inputs<'_>) -> Self {
        let mtu = Some(inputs.mtu).filter(|mtu| *mtu != 0);
        let attributes = Interface { mac: inputs.mac, mtu, up: false, shaping: None, ..pod(inputs) };
        Self {
            pod: attributes,
            from_pod: inputs.bandwidth.egress.map(shaping::shaping),
            to_pod: to_pod(inputs),
            sysctls: inputs.tuning.sysctls.clone(),
        }
    }

    /// Whether everything may stay as it is.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let is_shaped = self.from_pod.or(self.to_pod).is_some();
        !self.has_attributes() && !is_shaped && self.sysctls.is_empty()
    }

    /// Whether any attribute of the interface is asked for.
    #[must_use]
    pub fn has_attributes(&self) -> bool {
        self.pod != Interface { up: false, ..Interface::named(&self.pod.name) }
    }
}

/// The pod's end, with nothing but what is asked of it.
pub(super) fn pod(inputs: &Inputs<'_>) -> Interface {
    Interface {
        promisc: inputs.tuning.promisc.then_some(true),
        allmulti: inputs.tuning.allmulti,
        tx_queue_len: inputs.tuning.tx_queue_len,
        shaping: inputs.bandwidth.egress.map(shaping::shaping),
        ..Interface::named(inputs.ifname)
    }
}

pub(super) fn to_pod(inputs: &Inputs<'_>) -> Option<Shaping> {
    inputs.bandwidth.ingress.map(shaping::shaping)
}
