//! Clusters that are spoken to in TLS: what a BackendTLSPolicy demands.

use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, UpstreamTlsContext,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};

use crate::model::backend_tls::SubjectAltName;
use crate::model::hostname::Hostname;
use crate::model::ingress::Trust;
use crate::model::service::AppProtocol;
use crate::translate::any;
use crate::translate::listener::{TLS_SOCKET, secret};

/// Where Debian and its descendants, Alpine and Envoy's own images keep the certificates of the authorities that the system
/// trusts. Envoy has no name for them: `system_root_certs` is for other users of its API.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub(super) fn client(trust: &Trust, protocol: AppProtocol) -> TransportSocket {
    let alpn: &[&str] = match protocol {
        AppProtocol::Http => &["http/1.1"],
        AppProtocol::H2c => &["h2"],
        AppProtocol::Tcp => &[],
    };
    let common = CommonTlsContext {
        alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
        validation_context_type: Some(validation(trust)),
        ..CommonTlsContext::default()
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: trust.server_name.to_string(),
        ..UpstreamTlsContext::default()
    };
    TransportSocket { name: TLS_SOCKET.into(), config_type: Some(ConfigType::TypedConfig(any(&context))) }
}

fn validation(trust: &Trust) -> ValidationContextType {
    let names = CertificateValidationContext {
        match_typed_subject_alt_names: trust.names.iter().map(matcher).collect(),
        ..CertificateValidationContext::default()
    };
    match &trust.authorities {
        Some(name) => {
            ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(names),
                validation_context_sds_secret_config: Some(secret(name)),
                ..CombinedCertificateValidationContext::default()
            })
        }
        None => {
            let file = Specifier::Filename(SYSTEM_AUTHORITIES.into());
            let authorities = DataSource { specifier: Some(file), ..DataSource::default() };
            ValidationContextType::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(authorities),
                ..names
            })
        }
    }
}

/// Envoy compares a DNS name in a certificate that has a wildcard as RFC 6125 says; `*.` of the API means more than one label.
fn matcher(name: &SubjectAltName) -> SubjectAltNameMatcher {
    let (san_type, pattern) = match name {
        SubjectAltName::Dns(host) => {
            let suffix = Hostname::suffix(host).map(|suffix| MatchPattern::Suffix(suffix.to_owned()));
            (SanType::Dns, suffix.unwrap_or_else(|| MatchPattern::Exact(host.to_string())))
        }
        SubjectAltName::Uri(uri) => (SanType::Uri, MatchPattern::Exact(uri.clone())),
    };
    let matcher = StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() };
    SubjectAltNameMatcher {
        san_type: san_type.into(),
        matcher: Some(matcher),
        ..SubjectAltNameMatcher::default()
    }
}
