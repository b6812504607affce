//! The Container Network Interface protocol as types: requests, results, errors, versions.
//!
//! A plugin implements [`Plugin`] and hands it to [`run`], which does what the specification asks of every plugin
//! alike: it reads the environment and standard input, validates both in the order the reference implementation
//! does, dispatches the verb, and prints exactly one JSON document. Nothing here knows of a kernel or of addresses.
//!
//! ```
//! use std::collections::HashMap;
//! use weft_cni_spec::{AddRequest, AddResult, CheckRequest, DelRequest, Error, GcRequest, Plugin, StatusRequest};
//!
//! struct Nothing;
//!
//! impl Plugin for Nothing {
//!     fn about(&self) -> String {
//!         "attaches nothing".to_owned()
//!     }
//!     fn add(&self, _: &AddRequest) -> Result<AddResult, Error> {
//!         Ok(AddResult::default())
//!     }
//!     fn del(&self, _: &DelRequest) -> Result<(), Error> {
//!         Ok(())
//!     }
//!     fn check(&self, _: &CheckRequest) -> Result<(), Error> {
//!         Ok(())
//!     }
//!     fn gc(&self, _: &GcRequest) -> Result<(), Error> {
//!         Ok(())
//!     }
//!     fn status(&self, _: &StatusRequest) -> Result<(), Error> {
//!         Ok(())
//!     }
//! }
//!
//! let env = HashMap::from([("CNI_COMMAND".to_owned(), "VERSION".to_owned())]);
//! let mut out = Vec::new();
//! let outcome = weft_cni_spec::run(&Nothing, &env, &br#"{"cniVersion":"1.0.0"}"#[..], &mut out, &mut Vec::new());
//! assert!(outcome.is_success());
//! assert!(out.starts_with(br#"{"cniVersion":"1.0.0","supportedVersions":["0.1.0""#));
//! ```

#![forbid(unsafe_code)]

mod capabilities;
mod conf;
mod env;
mod error;
mod log;
mod names;
mod plugin;
mod result;
mod version;

pub use conf::Conf;
pub use env::{Args, ArgsError, Command, EnvSource, Environment};
pub use error::{Code, Error};
pub use log::{log, tell};
pub use names::{ContainerId, IfName, InvalidName, NetworkName};
pub use plugin::{
    AddRequest, AttachmentId, CheckRequest, DelRequest, GcRequest, Outcome, Plugin, StatusRequest, run,
};
pub use result::{AddResult, Dns, Interface, IpConfig, ResultError, Route};
pub use version::{UnknownVersion, Version};
