//! Certificates, which Envoy asks for by name.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate,
};

use super::{Part, Sourced};
use crate::model::Proxy;
use crate::model::ingress::{Proof, ProofContent};

pub(super) fn secrets(proxy: &Proxy) -> impl Iterator<Item = Sourced<Secret>> {
    proxy.proofs.iter().map(|(name, proof)| secret(name, proof))
}

fn secret(name: &str, proof: &Proof) -> Sourced<Secret> {
    let content = match &proof.content {
        ProofContent::KeyPair(pair) => Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(&pair.chain)),
            private_key: Some(inline(&pair.key)),
            ..TlsCertificate::default()
        }),
        ProofContent::Authorities(pem) => Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(pem)),
            ..CertificateValidationContext::default()
        }),
    };
    let message = Secret { name: name.to_owned(), r#type: Some(content) };
    let parts = vec![Part { origin: proof.origin.clone(), mentions: Vec::new() }];
    Sourced { name: name.to_owned(), message, parts }
}

fn inline(bytes: &Arc<[u8]>) -> DataSource {
    let specifier = match String::from_utf8(bytes.to_vec()) {
        Ok(text) => Specifier::InlineString(text),
        Err(other) => Specifier::InlineBytes(other.into_bytes()),
    };
    DataSource { specifier: Some(specifier), ..DataSource::default() }
}
