//! Puts Weft on a node, and takes it off.
//!
//! [`install()`] copies plugins and a network configuration to where the container runtime looks for them, and [`uninstall()`]
//! removes what was put there and nothing else. That is all a node agent does so far.
//!
//! What the runtime may be doing at the same moment decides how it is done:
//!
//! - It may be running a plugin. So a binary is never written to, but replaced: a new file is written beside it, synced,
//!   and renamed over it. A process that runs keeps the old file, and nobody ever executes half of the new one or is told
//!   `ETXTBSY`, which libcni answers after six tries by pretending that the plugin succeeded.
//! - It watches the configuration directory, and reads `*.conf`, `*.conflist` and `*.json`. So the file in the making has
//!   a name that is none of these, and lies in the same directory: containerd ignores what is moved in from elsewhere.
//! - From the moment that the configuration is there pods are attached with it. So it comes last, when the plugins it
//!   names are in their place, and goes first.
//!
//! # Ownership
//!
//! Each directory has a file `.weft-node.owned` with the names and SHA-256 sums of what was installed there, in the format
//! of `sha256sum`. A file is ours while its content is. What somebody else put there, or has edited since, is neither
//! replaced nor removed.

#![forbid(unsafe_code)]

pub mod admin;
mod adopt;
pub mod agent;
mod alone;
mod aside;
pub mod cli;
mod clock;
mod cni;
mod conflist;
mod directory;
pub mod discovery;
mod gc;
mod install;
pub mod kubernetes;
mod leases;
pub mod member;
pub mod membership;
mod metrics;
pub mod network;
mod readable;
mod repair;
mod selftest;
mod setup;
pub mod status;
mod sysctls;
mod watched;

pub use conflist::Flaw;
pub use directory::{Error, Placed, Removed};
pub use install::{Failure, Installation, Installed, Mistake, Uninstalled, Warning, install, uninstall};
