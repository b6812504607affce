//! Sessions that stay with their endpoint.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3::stateful_session_per_route::Override;
use envoy_types::pb::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute,
};
use envoy_types::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use envoy_types::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use envoy_types::pb::envoy::r#type::http::v3::Cookie as HttpCookie;
use envoy_types::pb::google::protobuf::Any;

use crate::model::policy::session::{Cookie, Session, SessionBy};
use crate::translate::{any, duration};

pub(super) fn session(session: &Session) -> StatefulSessionPerRoute {
    let (kind, state) = match &session.by {
        SessionBy::Cookie(cookie) => {
            ("cookie", any(&CookieBasedSessionState { cookie: Some(in_cookie(cookie)) }))
        }
        SessionBy::Header(name) => ("header", any(&HeaderBasedSessionState { name: name.clone() })),
    };
    let state = extension(&format!("envoy.http.stateful_session.{kind}"), state);
    let session =
        StatefulSession { session_state: Some(state), strict: session.strict, ..StatefulSession::default() };
    StatefulSessionPerRoute { r#override: Some(Override::StatefulSession(session)) }
}

fn extension(name: &str, config: Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.into(), typed_config: Some(config) }
}

fn in_cookie(cookie: &Cookie) -> HttpCookie {
    HttpCookie {
        name: cookie.name.clone(),
        ttl: cookie.ttl.map(duration),
        path: cookie.path.clone().unwrap_or_else(|| "/".into()),
        ..HttpCookie::default()
    }
}
