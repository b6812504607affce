//! stub
pub mod binaries;
pub mod cni;
pub mod error;
pub mod inventory;
pub mod node;
pub mod pod;
pub mod process;
pub mod wait;
