//! Certificates for tests: an authority, and servers that it vouches for; a client and a server that speak TLS.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::error::{Doing, Error, Result};
use crate::pod::Pod;

/// Somebody who vouches for servers.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its private key.
#[derive(Debug)]
pub struct Proof {
    /// The certificate, in PEM.
    pub certificate: String,
    /// The private key, in PEM.
    pub key: String,
    der: (CertificateDer<'static>, Vec<u8>),
}

impl Authority {
    /// A new one, whom nobody knows yet.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new()).map_err(unusable)?;
        // Of one that bears the name of its issuer BoringSSL says that it has signed itself.
        params.distinguished_name.push(DnType::CommonName, "an authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().map_err(unusable)?;
        CertifiedIssuer::self_signed(params, key).map(Self).map_err(unusable)
    }

    /// Its own certificate, in PEM.
    pub fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A proof for a server with these names.
    pub fn vouch_for(&self, names: &[&str]) -> Result<Proof> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().map_err(unusable)?;
        let params = CertificateParams::new(names).map_err(unusable)?;
        let certificate = params.signed_by(&key, &self.0).map_err(unusable)?;
        let der = (certificate.der().clone(), key.serialize_der());
        Ok(Proof { certificate: certificate.pem(), key: key.serialize_pem(), der })
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).map_err(unusable)?;
        Ok(roots)
    }
}

/// What a server of TLS said.
#[derive(Debug)]
pub struct Said {
    /// The certificate that it showed, in DER.
    pub certificate: Vec<u8>,
    /// Everything it sent until it closed the connection.
    pub text: String,
}

impl Proof {
    /// Whether this is what a server showed.
    pub fn is(&self, certificate: &[u8]) -> bool {
        self.der.0.as_ref() == certificate
    }
}

/// Connects from a pod, asks for `name` by SNI, believes this authority, and sends `text`.
pub fn say(pod: &Pod, to: SocketAddr, name: &str, authority: &Authority, text: &str) -> Result<Said> {
    let roots = authority.roots()?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let server = ServerName::try_from(name.to_owned()).map_err(unusable)?;
    let doing = || format!("speak TLS with {name} at {to}");
    let socket = pod.run(|| std::net::TcpStream::connect(to))?.doing(doing)?;
    socket.set_read_timeout(Some(crate::http::PATIENCE)).doing(doing)?;
    let connection = ClientConnection::new(Arc::new(config), server).map_err(unusable)?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(text.as_bytes()).doing(doing)?;
    let mut said = Vec::new();
    let ended = stream.read_to_end(&mut said);
    // A peer may close without the goodbye of TLS.
    ended.map(drop).or_else(|error| if said.is_empty() { Err(error) } else { Ok(()) }).doing(doing)?;
    let shown = stream.conn.peer_certificates().and_then(|all| all.first());
    let certificate = shown.map(|one| one.as_ref().to_vec()).unwrap_or_default();
    Ok(Said { certificate, text: String::from_utf8_lossy(&said).into_owned() })
}

/// A server in a pod that answers whatever comes over a connection with one HTTP response, then closes it: its name, and the
/// name that it was asked for. With a proof it speaks TLS. It ends with the test.
pub fn serve(pod: &Pod, port: u16, name: &str, proof: Option<&Proof>) -> Result<()> {
    let doing = || format!("listen on port {port}");
    let listener = pod.run(|| std::net::TcpListener::bind(("127.0.0.1", port)))?.doing(doing)?;
    let config = proof.map(|proof| {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(proof.der.1.clone()));
        let config = ServerConfig::builder().with_no_client_auth();
        config.with_single_cert(vec![proof.der.0.clone()], key).map(Arc::new).map_err(unusable)
    });
    let (config, name) = (config.transpose()?, name.to_owned());
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            // A connection that breaks off concerns its peer alone.
            drop(match &config {
                Some(config) => answer_in_tls(socket, config, &name),
                None => answer(socket, &name, ""),
            });
        }
    });
    Ok(())
}

fn answer_in_tls(socket: std::net::TcpStream, config: &Arc<ServerConfig>, name: &str) -> std::io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    let mut request = [0; 4096];
    let read = stream.read(&mut request)?;
    let asked = stream.conn.server_name().unwrap_or_default().to_owned();
    stream.write_all(response(name, &asked, request.get(..read).unwrap_or_default()).as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}

fn answer(mut socket: std::net::TcpStream, name: &str, asked: &str) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let read = socket.read(&mut request)?;
    socket.write_all(response(name, asked, request.get(..read).unwrap_or_default()).as_bytes())
}

/// The first line of the request comes back, too.
fn response(name: &str, asked: &str, request: &[u8]) -> String {
    let request = String::from_utf8_lossy(request);
    let host =
        request.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("host: ").map(str::to_owned));
    let body = format!("{name} sni={asked} host={}\n", host.unwrap_or_default());
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// `resources` with a good certificate and key instead of those that are not shown, or not real.
pub fn with_proofs(resources: &Value) -> Result<Value> {
    let authority = Authority::new()?;
    let mut resources = resources.clone();
    let secrets = resources.get_mut("secrets").and_then(Value::as_array_mut);
    for secret in secrets.into_iter().flatten() {
        let proof = authority.vouch_for(&["example.com"])?;
        for name in ["tlsCertificate", "tls_certificate"] {
            let Some(pair) = secret.get_mut(name) else { continue };
            *pair = json!({
                "certificateChain": { "inlineString": proof.certificate },
                "privateKey": { "inlineString": proof.key },
            });
        }
        for place in ["/validationContext/trustedCa", "/validation_context/trusted_ca"] {
            let Some(authorities) = secret.pointer_mut(place) else { continue };
            *authorities = json!({ "inlineString": authority.certificate() });
        }
    }
    Ok(resources)
}

fn unusable(error: impl std::fmt::Display) -> Error {
    Error::Shape { what: "a certificate".to_owned(), text: error.to_string() }
}
