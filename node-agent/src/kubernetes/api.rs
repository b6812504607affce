//! The connection to the API.

use std::path::Path;
use std::time::Duration;

use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, Client, ConfigExt};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Config, Error as ClientError};
use tower::{BoxError, ServiceBuilder};

/// For how long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(10);
/// A connection on which nothing comes for this long is asked whether it is still there, and after three more
/// [`PROBE`]s counts as broken. A watch is silent for minutes, and a router that forgets it tells nobody.
const SILENT: Duration = Duration::from_secs(20);
const PROBE: Duration = Duration::from_secs(5);

/// A connection to the API; its clones share it.
#[derive(Clone)]
pub struct Api {
    client: Client,
    server: String,
}

/// Why there is no connection to the API. That it does not answer is no reason: it is asked again for ever.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig is not there, or says something that cannot be.
    #[error("cannot use the kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: String,
        /// Why.
        source: Box<KubeconfigError>,
    },
    /// There is no kubeconfig, and this is no pod with a service account.
    #[error("this is no pod with a service account, and no kubeconfig is given (KUBECONFIG, --kubeconfig)")]
    InCluster(#[source] InClusterError),
    /// Certificates or credentials cannot be used.
    #[error("cannot use the certificates or credentials for the Kubernetes API at {server}")]
    Credentials {
        /// The API's address.
        server: String,
        /// Why.
        source: Box<ClientError>,
    },
}

impl Api {
    /// By the current context of this kubeconfig, or else of those in `$KUBECONFIG`, or else by the service account of this
    /// pod. Nothing is connected to before the first question. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If there is none of these, or what it says cannot be.
    pub async fn new(kubeconfig: Option<&Path>) -> Result<Self, Error> {
        let config = config(kubeconfig).await?;
        let server = config.cluster_url.to_string();
        let client = connect(config)
            .map_err(|source| Error::Credentials { server: server.clone(), source: Box::new(source) })?;
        Ok(Self { client, server })
    }

    /// Where it is, for messages.
    pub fn server(&self) -> &str {
        &self.server
    }

    pub(super) async fn get(&self, path: &str) -> Result<http::Response<Body>, BoxError> {
        let request =
            http::Request::get(path).header(http::header::ACCEPT, "application/json").body(Body::empty())?;
        Ok(self.client.send(request).await?)
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("server", &self.server).finish_non_exhaustive()
    }
}

async fn config(given: Option<&Path>) -> Result<Config, Error> {
    let path = given.map_or_else(|| "$KUBECONFIG".to_owned(), |path| path.display().to_string());
    let failed = |source| Error::Kubeconfig { path: path.clone(), source: Box::new(source) };
    let kubeconfig = match given {
        Some(path) => Kubeconfig::read_from(path).map(Some),
        None => Kubeconfig::from_env(),
    };
    match kubeconfig.map_err(failed)? {
        Some(found) => {
            Config::from_custom_kubeconfig(found, &KubeConfigOptions::default()).await.map_err(failed)
        }
        None => Config::incluster().map_err(Error::InCluster),
    }
}

/// As `kube` does it, except for the timeouts of TCP: its own client takes a connection that is gone for a silent one, and
/// notices when the watch should have ended, minutes later.
fn connect(config: Config) -> Result<Client, ClientError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(SILENT));
    tcp.set_keepalive_interval(Some(PROBE));
    tcp.set_keepalive_retries(Some(3));
    tcp.set_tcp_user_timeout(Some(SILENT + 3 * PROBE));
    let https = config.rustls_https_connector_with_connector(tcp)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build(https));
    Ok(Client::new(service, config.default_namespace))
}
