//! What would become of a request, from the files alone: Envoy's own choice, made on the resources that it would get.
//!
//! The rules are those of Envoy's router (`source/common/router/config_impl.cc`): the virtual host with the most exact
//! domain, in it the first route all of whose conditions hold. An end-to-end test compares this with a real Envoy on random
//! routes and requests (`e2e/tests/mesh_explain.rs`).

mod action;
mod chain;
mod condition;
mod host;
mod path;
mod request;

use thiserror::Error;

use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};

pub(crate) use action::action_of;
pub use action::{Action, Chosen, Destination, Target};
pub(crate) use chain::destinations_of;
pub use request::{BadRequest, Request};

use crate::diagnostic::Origin;
use crate::translate::{Part, Resources, Sourced, json};
use chain::Chain;

/// What would become of a request.
#[derive(Debug)]
pub struct Explanation {
    /// The listener that takes it.
    pub listener: Named,
    /// The path that routes are compared with: without dot segments and needless escapes; and the query.
    pub path: String,
    /// The virtual host; `None` if its name is nobody's.
    pub host: Option<Host>,
    /// The routes that come before the one that is taken, and why each of them is not.
    pub passed: Vec<Passed>,
    /// What happens to it.
    pub outcome: Outcome,
}

/// A part of Envoy's configuration and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// The document behind it.
    pub origin: Option<Origin>,
}

/// A virtual host and the domain by which it was found.
#[derive(Debug)]
pub struct Host {
    /// Which it is.
    pub named: Named,
    /// One of its domains.
    pub domain: String,
}

/// A route that is not taken.
#[derive(Debug)]
pub struct Passed {
    /// Which it is.
    pub named: Named,
    /// The first of its conditions that does not hold.
    pub why: String,
}

/// What happens to a request.
#[derive(Debug)]
pub enum Outcome {
    /// Envoy answers with 404: no virtual host has the name.
    NoHost,
    /// Envoy answers with 404: no route of the virtual host matches.
    NoRoute,
    /// A route takes it.
    Routed(Box<Chosen>),
    /// The listener passes the connection on, and what is in it is nobody's business.
    Passed(Vec<Destination>),
}

/// Why nothing can be said.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no such listener.
    #[error("there is no listener {name:?}; there are {known}")]
    NoListener {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The listener takes no such connection.
    #[error("listener {0:?} has no filter chain for this name, so that it closes the connection")]
    NoChain(String),
    /// A listener or route uses what this does not know.
    #[error("{0} cannot be explained")]
    Unknown(String),
    /// A message cannot be shown.
    #[error("a message cannot be shown")]
    Json(#[from] json::Error),
}

/// Says what becomes of `request` on `listener`.
pub fn explain(resources: &Resources, listener: &str, request: &Request) -> Result<Explanation, Error> {
    let found = resources.listeners.iter().find(|known| known.name == listener);
    let listener = found.ok_or_else(|| no_listener(resources, listener))?;
    let named = Named { name: listener.name.clone(), origin: first_origin(&listener.parts) };
    let path = path::normalized(&request.path);
    let (routes, parts, filters) = match Chain::of(&listener.message, request, resources)? {
        Chain::Http { routes, parts, filters } => (routes, parts, filters),
        Chain::Tcp(clusters) => {
            let to = clusters.iter().map(|name| Destination::of(resources, name, None, None));
            let outcome = Outcome::Passed(to.collect::<Result<_, _>>()?);
            return Ok(Explanation { listener: named, path, host: None, passed: Vec::new(), outcome });
        }
    };
    let Some((host, domain)) = host::find(&routes, &request.authority) else {
        return Ok(Explanation {
            listener: named,
            path,
            host: None,
            passed: Vec::new(),
            outcome: Outcome::NoHost,
        });
    };
    let asked = Request { path: path.clone(), ..request.clone() };
    let (passed, route) = choose(host, &asked, parts)?;
    let host_named = Host { named: name(&host.name, parts), domain };
    let outcome = match route {
        None => Outcome::NoRoute,
        Some(route) => {
            let scope = Scope { resources, routes: &routes, host, filters: &filters };
            let named = name(&route.name, parts);
            Outcome::Routed(Box::new(Chosen::of(&scope, route, named, &asked)?))
        }
    };
    Ok(Explanation { listener: named, path, host: Some(host_named), passed, outcome })
}

/// Where a route stands, which adds to what it says.
struct Scope<'r> {
    resources: &'r Resources,
    routes: &'r RouteConfiguration,
    host: &'r VirtualHost,
    filters: &'r [String],
}

/// The first route that matches, and those before it.
fn choose<'h>(
    host: &'h VirtualHost,
    request: &Request,
    parts: &[Part],
) -> Result<(Vec<Passed>, Option<&'h Route>), Error> {
    let mut passed = Vec::new();
    for route in &host.routes {
        let Some(matching) = &route.r#match else { continue };
        match condition::first_failing(matching, request).map_err(Error::Unknown)? {
            None => return Ok((passed, Some(route))),
            Some(why) => passed.push(Passed { named: name(&route.name, parts), why }),
        }
    }
    Ok((passed, None))
}

fn no_listener(resources: &Resources, name: &str) -> Error {
    let known: Vec<&str> = resources.listeners.iter().map(|listener| listener.name.as_str()).collect();
    Error::NoListener { name: name.to_owned(), known: known.join(", ") }
}

fn first_origin(parts: &[Part]) -> Option<Origin> {
    parts.first().map(|part| part.origin.clone())
}

/// What has the name, and the part of the resource that mentions it.
fn name(name: &str, parts: &[Part]) -> Named {
    let part = parts.iter().find(|part| part.mentions.iter().any(|mention| mention == name));
    Named { name: name.to_owned(), origin: part.map(|part| part.origin.clone()) }
}

fn sourced<'r, M>(all: &'r [Sourced<M>], name: &str) -> Option<&'r Sourced<M>> {
    all.iter().find(|resource| resource.name == name)
}
