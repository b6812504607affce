//! The Kubernetes API as far as the agent needs it: objects of a resource, followed.
//!
//! [`Api`] is the connection (in-cluster or by kubeconfig, TLS and credentials by `kube`). [`follow()`] lists a resource in
//! pages and watches it from there, for ever, and hands every object to a [`Follower`] as the bytes that the API sent:
//! nothing is kept here, and of a page no more than one object is in memory. What it has to remember is a
//! [`Position`], a value whose steps know no socket and no clock.

mod api;
mod backoff;
mod follow;
mod items;
mod position;

pub use api::{Api, Error};
pub use follow::{Follower, Resource, Retry, follow};
pub use position::Position;
