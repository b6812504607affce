//! What the configuration asks of an interface, whoever made it.

use weft_datapath::{Interface, Shaping};

use super::{Inputs, shaping};
use crate::config::Sysctl;

/// What an interface in the container that another plugin has made is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuned {
    /// The interface: its attributes, and how what comes from it is slowed down. What else it holds is not Weft's.
    pub pod: Interface,
    /// How what goes to it is slowed down.
    pub to_pod: Option<Shaping>,
    /// Parameters of its namespace.
    pub sysctls: Vec<Sysctl>,
}

impl Tuned {
    /// Decides it.
    #[must_use]
    pub fn of(inputs: &Inputs<'_>) -> Self {
        Self { pod: pod(inputs), to_pod: to_pod(inputs), sysctls: inputs.tuning.sysctls.clone() }
    }

    /// Whether everything may stay as it is.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        let untouched = Interface::named(&self.pod.name);
        self.pod == untouched && self.to_pod.is_none() && self.sysctls.is_empty()
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
