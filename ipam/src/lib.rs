//! Address ranges, leases and their stores.
//!
//! A plugin opens the leases of its network and reserves addresses; whatever goes wrong before it says that they are to
//! be kept gives them back:
//!
//! ```
//! use weft_ipam::config::Config;
//! use weft_ipam::lease::Attachment;
//! use weft_ipam::{Ipam, Request};
//!
//! # let dir = tempfile::tempdir()?;
//! let document = serde_json::json!({
//!     "name": "pods",
//!     "ipam": {
//!         "ranges": [[{ "subnet": "10.244.0.0/24" }], [{ "subnet": "fd00:10:244::/64" }]],
//!         "dataDir": dir.path(),
//!     }
//! });
//! let config = Config::parse(document.as_object().ok_or("not an object")?)?;
//! let ipam = Ipam::open("pods", &config.data_dir)?;
//!
//! let attachment = Attachment::new("pods", "3f2a9c", "eth0")?;
//! let reservation = ipam.reserve(&config.pool, Request::new(attachment.clone()))?;
//! // Set the interface up here; on an early return the addresses are free again.
//! let lease = reservation.keep();
//! assert_eq!(lease.addresses[0].address.to_string(), "10.244.0.2/24");
//! assert_eq!(lease.addresses[1].address.to_string(), "fd00:10:244::2/64");
//!
//! // DEL needs only the names. A second one finds nothing, and that is fine.
//! assert_eq!(ipam.release(&attachment)?, Some(lease));
//! assert_eq!(ipam.release(&attachment)?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`range`] and [`alloc`] decide, and touch nothing. [`store`] keeps what was decided: [`store::local`] in a directory of
//! the node, `store::etcd` (with the feature of that name) for nodes together, [`store::memory`] for tests. The [`Ipam`] above puts them together.

#![forbid(unsafe_code)]

pub mod address;
pub mod alloc;
pub mod config;
mod ipam;
pub mod lease;
pub mod range;
pub mod resolv_conf;
mod spans;
pub mod state;
pub mod store;
pub mod table;

pub use ipam::{Error, Evict, Import, Imported, Ipam, Request, Reservation, Utilisation, chain};
