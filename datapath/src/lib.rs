//! Weft's one door to the kernel: network namespaces, rtnetlink, nftables, conntrack and sysctl.
//!
//! Nothing here decides anything. The callers say what they want as plain values ([`Interface`], [`Masquerade`]); this
//! crate turns them into as few messages as the kernel allows, and the kernel's refusals into errors that say what was
//! being done, to what, and why not, in the kernel's own words where it gave any.
//!
//! Rules of the hot path: no exec, no dump, no sleep. A whole side of an attachment is one message batch with one
//! acknowledgement.
//!
//! ```no_run
//! use weft_datapath::{Interface, NetNs, Rtnl, Veth};
//!
//! # fn main() -> Result<(), weft_datapath::Error> {
//! let host = Rtnl::open()?;
//! let pod = NetNs::open("/run/netns/pod".as_ref())?;
//! let inside = pod.run(Rtnl::open)??;
//! let veth = Veth {
//!     host: Interface::named("weft0"),
//!     pod: Interface {
//!         addresses: vec!["10.244.0.2/24".parse().expect("a valid address")],
//!         ..Interface::named("eth0")
//!     },
//! };
//! let ends = host.create_veth(&veth, &pod)?;
//! host.configure_link(&veth.host, &ends.host)?;
//! inside.configure_link(&veth.pod, &ends.pod)?;
//! inside.settle_link(&ends.pod, &veth.pod.addresses)?;
//! host.settle_link(&ends.host, &veth.host.addresses)?;
//! # Ok(())
//! # }
//! ```

mod bridge;
pub mod conntrack;
mod error;
mod heap;
mod interface;
mod listening;
mod mac;
mod marked;
mod mtu;
mod netlink;
mod netns;
pub mod nft;
mod observe;
mod rtnl;
mod settle;
#[cfg(all(target_feature = "crt-static", target_env = "gnu"))]
mod start;
pub mod sysctl;
mod tc;
mod vxlan;
mod watch;

pub use bridge::{Bridge, Port};
pub use error::{Error, Refusal};
pub use heap::Heap;
pub use interface::{Interface, LinkLocal, Neighbour, Route, Veth};
pub use listening::listened_to;
pub use mac::Mac;
pub use marked::{Maker, MarkedRoute};
pub use netns::{NetNs, NetNsIdentity};
pub use nft::{
    BaseChain, Chain, Hook, HostPort, Masquerade, Masqueraded, Nft, PinnedSource, PortSources, Protocol,
    Published, Resettled,
};
pub use observe::{Link, Observed};
pub use rtnl::{Ends, Rtnl};
pub use tc::{Shaped, Shaping};
pub use vxlan::{Ensured, FarEnd, Vxlan, VxlanLink};
pub use watch::{Heard, Watch};
