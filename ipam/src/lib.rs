//! Address ranges, leases and their stores.

#![forbid(unsafe_code)]

pub mod address;
pub mod alloc;
mod ipam;
pub mod lease;
pub mod range;
mod spans;
pub mod state;
pub mod store;

pub use ipam::{Error, Ipam, Request, Reservation, Utilisation, chain};
