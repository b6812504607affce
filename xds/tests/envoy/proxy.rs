//! An Envoy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};
use weft_xds::stream::Variant;

use crate::Way;
use crate::resources::{CLUSTERS, LISTENERS};

/// What takes longer on a busy machine than it should: thousands of clusters cost an Envoy seconds of CPU.
pub(crate) const PATIENCE: Duration = Duration::from_secs(80);

/// How often something that tells nobody of its change is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// A running Envoy. It ends when dropped, or with the thread that has started it.
pub(crate) struct Envoy {
    directory: PathBuf,
    process: Child,
}

impl Envoy {
    /// Starts Envoy in `directory`, where it finds the server at `xds.sock`.
    pub(crate) fn start(way: Way, directory: &Path) -> Self {
        Self::start_with(way, directory, "")
    }

    /// The same, with these `listeners` beside those of the server.
    pub(crate) fn start_with(way: Way, directory: &Path, listeners: &str) -> Self {
        Self::launch(directory, &(bootstrap(way, directory) + listeners))
    }

    /// Starts Envoy in `directory`, with the clusters in the file `now.pb` of `watched`.
    pub(crate) fn start_on_files(directory: &Path, watched: &Path, listeners: &str) -> Self {
        let watched = watched.display();
        let clusters = format!(
            "cds_config: {{ resource_api_version: V3, path_config_source: \
             {{ path: {watched}/now.pb, watched_directory: {{ path: {watched} }} }} }}"
        );
        let dynamic = format!("dynamic_resources:\n  {clusters}\nstatic_resources:\n{listeners}");
        Self::launch(directory, &(preamble(directory) + &dynamic))
    }

    fn launch(directory: &Path, bootstrap: &str) -> Self {
        let config = directory.join("envoy.yaml");
        fs::write(&config, bootstrap).unwrap();
        let log = fs::File::create(directory.join("envoy.log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program()).arg("--config-path").arg(config);
        // Hot restart claims shared memory by a number that is global to the host.
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { directory: directory.to_owned(), process: command.spawn().unwrap() }
    }

    /// Waits until a listener answers, and returns the status and the body.
    pub(crate) async fn answer(&self, listener: &str) -> (u16, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match get(&self.directory.join(listener), "/").await {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < deadline, "{listener}: {error}; {}", self.log()),
            }
            sleep_until(Instant::now() + GLANCE).await;
        }
    }

    /// Waits until a listener answers so.
    pub(crate) async fn await_answer(&self, listener: &str, expected: (u16, &str)) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.answer(listener).await;
            if (status, &*body) == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{listener} says {status} {body}; {}", self.log());
            sleep_until(Instant::now() + GLANCE).await;
        }
    }

    /// The same without a pause between two requests: its time is measured.
    pub(crate) async fn await_answer_at_once(&self, listener: &str, expected: (u16, &str)) {
        let deadline = Instant::now() + PATIENCE;
        while self.answer(listener).await != (expected.0, expected.1.to_owned()) {
            assert!(Instant::now() < deadline, "{listener} never says {expected:?}; {}", self.log());
        }
    }

    /// A counter or gauge of it; 0 if it has none of this name yet.
    pub(crate) async fn stat(&self, name: &str) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match get(&self.directory.join("admin.sock"), &format!("/stats?filter=^{name}$")).await {
                Ok((200, text)) => {
                    let value = text.trim().rsplit(' ').next().and_then(|value| value.parse().ok());
                    return value.unwrap_or_default();
                }
                other => assert!(Instant::now() < deadline, "{other:?}; {}", self.log()),
            }
            sleep_until(Instant::now() + GLANCE).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("envoy.log")).unwrap_or_default()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

async fn get(socket: &Path, path: &str) -> Result<(u16, String), Box<dyn std::error::Error>> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its failure shows in the request that it carries.
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(path).header("host", "test").body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok((head.status.as_u16(), String::from_utf8_lossy(&body).into_owned()))
}

/// The pinned Envoy, as `make envoy` leaves it; `WEFT_ENVOY` names another one.
fn program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("scripts").join("envoy");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().into()
}

/// Its last section are the static resources, so that listeners may follow.
fn bootstrap(way: Way, directory: &Path) -> String {
    let api_type = match way.variant {
        Variant::Incremental => "DELTA_GRPC",
        Variant::StateOfTheWorld => "GRPC",
    };
    let server = format!(
        "api_type: {api_type}, transport_api_version: V3, set_node_on_first_message_only: true, \
         grpc_services: [{{ envoy_grpc: {{ cluster_name: xds }} }}]"
    );
    let locators = if way.collections {
        format!("cds_resources_locator: '{CLUSTERS}/*'\n  lds_resources_locator: '{LISTENERS}/*'")
    } else {
        String::new()
    };
    let (ads, source) = if way.aggregated {
        (format!("ads_config: {{ {server} }}"), "ads: {}".to_owned())
    } else {
        (String::new(), format!("api_config_source: {{ {server} }}"))
    };
    format!(
        "\
{}dynamic_resources:
  {ads}
  cds_config: {{ resource_api_version: V3, initial_fetch_timeout: 0s, {source} }}
  lds_config: {{ resource_api_version: V3, initial_fetch_timeout: 0s, {source} }}
  {locators}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: xds
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ pipe: {{ path: {}/xds.sock }} }} }} }}] }}]
",
        preamble(directory),
        directory.display()
    )
}

/// Statistics are a large part of an Envoy's work with thousands of clusters; few are looked at.
fn preamble(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "\
node: {{ id: test, cluster: test }}
admin: {{ address: {{ pipe: {{ path: {directory}/admin.sock }} }} }}
stats_config:
  stats_matcher:
    inclusion_list:
      patterns: [{{ prefix: cluster_manager }}, {{ prefix: listener_manager }}, {{ prefix: cluster.xds }}, {{ prefix: cluster.watched }}]
"
    )
}
