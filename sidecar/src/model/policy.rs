//! `TrafficPolicy` (weft.dev/v1alpha1): what a service or route wants beyond where its requests go.
//!
//! A policy has groups of fields, each in a file of its own, and targets. Where several policies have something to say
//! about the same request, each group is taken as a whole from the one whose target is the most specific: a rule of a
//! route before the route, that before the port of a service, and that before the service. Two policies that say the
//! same group of the same target contradict each other, which is a mistake.

pub mod access;
pub mod balancing;
pub mod connections;
pub mod external_auth;
pub mod faults;
pub mod health;
pub mod jwt;
pub mod locality;
pub mod outlier;
pub mod protocols;
pub mod rate_limit;
pub mod retry;
pub mod session;
pub mod subsets;
pub mod target;
pub mod timeouts;
pub mod transcoding;
pub mod value;

use std::sync::Arc;
use std::time::Duration;

use access::Access;
use balancing::LoadBalancing;
use connections::ConnectionPool;
use external_auth::ExternalAuthorization;
use faults::Faults;
use health::HealthCheck;
use jwt::Jwt;
use outlier::OutlierDetection;
use protocols::Upgrades;
use rate_limit::RateLimit;
use retry::{Budget, Retry};
use session::Session;
use subsets::Subsets;
use target::TargetRef;
use timeouts::Timeouts;
use transcoding::JsonTranscoding;

use super::reference::BackendRef;
use crate::diagnostic::{Diagnostic, Origin};
use crate::read::Node;
use crate::read::decode::{Report, boolean};

/// A policy as its document has it.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficPolicy {
    /// What it is about. Never empty.
    pub targets: Vec<TargetRef>,
    /// What it says.
    pub policy: Policy,
}

/// What a group is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// What happens to a request; a service's, a port's, a route's or a rule's.
    Requests,
    /// What happens between Envoy and the endpoints of a service; a service's or a port's alone.
    Endpoints,
}

/// Makes [`Policy`] from the table of its groups: field, type, the name users know it by, and what it is about.
macro_rules! groups {
    ($($(#[$doc:meta])* $field:ident: $type:ty, $name:literal, $about:ident;)*) => {
        /// What holds for the requests to a port of a service, or for those of a route. A group that is absent says
        /// nothing. Cheap to clone.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Policy {
            $($(#[$doc])* pub $field: Option<Arc<$type>>,)*
            /// The documents it was put together from, for messages.
            pub origins: Vec<Origin>,
        }

        impl Policy {
            /// This policy, and where it says nothing what `base` says.
            #[must_use]
            pub fn over(&self, base: &Self) -> Self {
                let mut origins = self.origins.clone();
                origins.extend(base.origins.iter().filter(|origin| !self.origins.contains(origin)).cloned());
                Self { $($field: self.$field.clone().or_else(|| base.$field.clone()),)* origins }
            }

            /// The groups it has something to say in.
            pub fn said(&self) -> impl Iterator<Item = (&'static str, About)> {
                [$(self.$field.as_ref().map(|_| ($name, About::$about)),)*].into_iter().flatten()
            }
        }
    };
}

groups! {
    /// Which failed requests are tried again.
    retry: Retry, "retry", Requests;
    /// How long requests may take.
    timeouts: Timeouts, "timeouts", Requests;
    /// Delays and errors made on purpose.
    faults: Faults, "faults", Requests;
    /// How many requests pass.
    rate_limit: RateLimit, "rateLimit", Requests;
    /// Sessions that stay with their endpoint.
    session: Session, "sessionPersistence", Requests;
    /// Other protocols that connections may be upgraded to.
    upgrades: Upgrades, "upgrades", Requests;
    /// Browsers that speak gRPC.
    grpc_web: bool, "grpcWeb", Requests;
    /// JSON for services that speak gRPC.
    transcoding: JsonTranscoding, "jsonTranscoding", Requests;
    /// Who is asked whether a request may pass.
    external_auth: ExternalAuthorization, "externalAuthorization", Requests;
    /// The tokens that requests must carry.
    jwt: Jwt, "jwt", Requests;
    /// Who may do what.
    access: Access, "access", Requests;
    /// How long a connection to an endpoint may take to be made.
    connect_timeout: Duration, "timeouts.connect", Endpoints;
    /// How many of the requests may be retries.
    retry_budget: Budget, "retry.budget", Endpoints;
    /// How many connections and requests there may be.
    connections: ConnectionPool, "connectionPool", Endpoints;
    /// Endpoints whose answers are bad are left alone.
    outlier: OutlierDetection, "outlierDetection", Endpoints;
    /// Endpoints are asked how they are.
    health: HealthCheck, "healthCheck", Endpoints;
    /// Which endpoint a request goes to.
    balancing: LoadBalancing, "loadBalancing", Endpoints;
    /// Endpoints that routes can choose by name.
    subsets: Subsets, "subsets", Endpoints;
}

impl TrafficPolicy {
    /// Reads the `spec` of a `TrafficPolicy`.
    pub fn decode(spec: &Node, report: &mut Report) -> Option<Self> {
        let mut fields = report.fields(spec, "TrafficPolicy spec")?;
        let targets = fields.list("targetRefs", target::target_ref);
        if spec.get("targetRefs").is_none_or(Node::is_empty) {
            let missing = Diagnostic::error("the policy is about nothing: it has no \"targetRefs\"")
                .help("for example targetRefs: [{ group: \"\", kind: Service, name: web }]");
            fields.report().add::<()>(spec.span, missing);
        }
        let (retry, retry_budget) = fields.optional("retry", retry::decode).unwrap_or_default();
        let (timeouts, connect) = fields.optional("timeouts", timeouts::decode).unwrap_or_default();
        let upgrades = protocols::upgrades(fields.list("upgrades", protocols::upgrade));
        let access = fields.list("access", access::rule);
        let subsets = fields.list("subsets", subsets::subset);
        let policy = Policy {
            retry: retry.map(Arc::new),
            timeouts: timeouts.map(Arc::new),
            faults: fields.optional("faults", faults::decode).map(Arc::new),
            rate_limit: fields.optional("rateLimit", rate_limit::decode).map(Arc::new),
            session: fields.optional("sessionPersistence", session::decode).map(Arc::new),
            upgrades: upgrades.map(Arc::new),
            grpc_web: fields.optional("grpcWeb", boolean).map(Arc::new),
            transcoding: fields.optional("jsonTranscoding", transcoding::decode).map(Arc::new),
            external_auth: fields.optional("externalAuthorization", external_auth::decode).map(Arc::new),
            jwt: fields.optional("jwt", jwt::decode).map(Arc::new),
            access: (!access.is_empty()).then(|| Arc::new(Access(access))),
            connect_timeout: connect.map(Arc::new),
            retry_budget: retry_budget.map(Arc::new),
            connections: fields.optional("connectionPool", connections::decode).map(Arc::new),
            outlier: fields.optional("outlierDetection", outlier::decode).map(Arc::new),
            health: fields.optional("healthCheck", health::decode).map(Arc::new),
            balancing: fields.optional("loadBalancing", balancing::decode).map(Arc::new),
            subsets: (!subsets.is_empty()).then(|| Arc::new(subsets::decode(subsets, fields.report()))),
            origins: Vec::new(),
        };
        check_targets(&targets, &policy, fields.report());
        fields.finish();
        Some(Self { targets, policy })
    }
}

impl Policy {
    /// The services it refers to.
    pub fn references(&mut self) -> Vec<&mut BackendRef> {
        let auth = self.external_auth.as_mut().map(|auth| Arc::make_mut(auth).reference());
        let keys = self.jwt.as_mut().map(|jwt| Arc::make_mut(jwt).references());
        auth.into_iter().chain(keys.into_iter().flatten()).collect()
    }
}

/// What is between Envoy and the endpoints of a service cannot differ from route to route.
fn check_targets(targets: &[TargetRef], policy: &Policy, report: &mut Report) {
    let endpoints = policy.said().filter(|(_, about)| *about == About::Endpoints);
    let names: Vec<&str> = endpoints.map(|(name, _)| name).collect();
    for target in targets.iter().filter(|target| target.kind.is_route() && !names.is_empty()) {
        let message = format!("{} can be said of a Service only, not of a route", names.join(", "));
        report.add::<()>(
            target.span,
            Diagnostic::error(message).help("the routes to a Service share its endpoints"),
        );
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::diagnostic::Source;
    use crate::read::yaml;

    fn run<T>(text: &str, decode: impl FnOnce(&Node, &mut Report) -> Option<T>) -> (Option<T>, Vec<String>) {
        let source = Arc::new(Source { name: "p".into(), text: format!("v: {text}\n") });
        let documents = yaml::documents(&source).expect("valid YAML");
        let mut report = Report::new(&source);
        let node = documents.first().and_then(|document| document.get("v")).expect("a value");
        let value = decode(node, &mut report);
        let summaries = report.into_diagnostics().iter().map(Diagnostic::summary).collect();
        (value, summaries)
    }

    /// What `decode` makes of `text`, which has no mistake.
    pub(crate) fn good<T>(text: &str, decode: impl FnOnce(&Node, &mut Report) -> Option<T>) -> T {
        let (value, mistakes) = run(text, decode);
        assert_eq!(mistakes, Vec::<String>::new(), "{text}");
        value.expect("a value")
    }

    /// What `decode` finds wrong with `text`: `line:column message (help)`; the text begins in column 4.
    pub(crate) fn mistakes<T>(
        text: &str,
        decode: impl FnOnce(&Node, &mut Report) -> Option<T>,
    ) -> Vec<String> {
        let (_, mistakes) = run(text, decode);
        mistakes.iter().map(|mistake| mistake.trim_start_matches("p:").replacen(": ", " ", 1)).collect()
    }

    #[test]
    fn each_group_is_taken_as_a_whole_from_the_more_specific_policy() {
        let decode = |text: &str| good(text, TrafficPolicy::decode).policy;
        let target = "targetRefs: [{group: '', kind: Service, name: web}]";
        let route = decode(&format!("{{{target}, retry: {{attempts: 1}}}}"));
        let service = decode(&format!(
            "{{{target}, retry: {{attempts: 5, perTryTimeout: 1s}}, timeouts: {{request: 2s}}}}"
        ));
        let both = route.over(&service);
        let retry = both.retry.expect("a retry");
        assert_eq!(
            (retry.attempts, retry.per_try_timeout),
            (1, None),
            "nothing of the service's is mixed in"
        );
        assert_eq!(both.timeouts, service.timeouts);
    }

    #[test]
    fn what_is_about_endpoints_cannot_be_said_of_a_route() {
        let spec = "{targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}], subsets: [{name: a, service: b}], retry: {}, outlierDetection: {}}";
        assert_eq!(
            mistakes(spec, TrafficPolicy::decode),
            [
                "1:76 outlierDetection, subsets can be said of a Service only, not of a route (the routes to a Service share its endpoints)"
            ]
        );
    }

    #[test]
    fn a_policy_about_nothing_is_a_mistake() {
        assert_eq!(
            mistakes("{retries: {}}", TrafficPolicy::decode),
            [
                "1:4 the policy is about nothing: it has no \"targetRefs\" (for example targetRefs: [{ group: \"\", kind: Service, name: web }])",
                "1:5 unknown field \"retries\" in TrafficPolicy spec",
            ]
        );
    }
}
