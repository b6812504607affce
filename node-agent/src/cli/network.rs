//! The options of `weft-node run` that say how packets travel to other nodes.

use clap::{Args, ValueEnum};

use crate::network::{self, Encapsulation, ID, PORT};

#[derive(Debug, Args)]
#[group(skip)]
pub(super) struct Options {
    /// Which nodes are reached through a VXLAN tunnel; all nodes of a cluster should say the same
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = Vxlan::Auto)]
    vxlan: Vxlan,
    /// The tunnel's UDP port, the same on all nodes
    #[arg(long, value_name = "PORT", default_value_t = PORT, value_parser = clap::value_parser!(u16).range(1..))]
    vxlan_port: u16,
    /// The tunnel's VXLAN network identifier, the same on all nodes
    #[arg(long, value_name = "NUMBER", default_value_t = ID, value_parser = clap::value_parser!(u32).range(1..1 << 24))]
    vxlan_id: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Vxlan {
    /// Those that share no link with this one
    Auto,
    /// All, for networks that drop packets from addresses of pods
    Always,
    /// None
    Never,
}

impl Options {
    pub(super) fn network(&self) -> network::Options {
        let encapsulation = match self.vxlan {
            Vxlan::Auto => Encapsulation::Auto,
            Vxlan::Always => Encapsulation::Always,
            Vxlan::Never => Encapsulation::Never,
        };
        network::Options { encapsulation, port: self.vxlan_port, id: self.vxlan_id }
    }
}
