//! The pinned Envoy, in a pod.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::binaries;
use crate::error::Result;
use crate::http::{self, Answer};
use crate::pod::Pod;
use crate::process::Process;
use crate::wait;

/// A real Envoy starts in well under a second; a busy machine takes longer.
const START: Duration = Duration::from_secs(20);

/// A running Envoy. It ends when dropped.
#[derive(Debug)]
pub struct Envoy {
    pod: Pod,
    admin: SocketAddr,
    process: Process,
}

impl Envoy {
    /// Starts Envoy in the pod with this bootstrap (JSON or YAML) and waits until its admin interface, which must be
    /// where the bootstrap has put it, says `LIVE`: then its listeners have been asked for once.
    pub fn start(pod: &Pod, bootstrap: &str, admin: SocketAddr) -> Result<Self> {
        let mut envoy = Self::launch(pod, bootstrap, admin)?;
        envoy.await_ready(START)?;
        Ok(envoy)
    }

    /// Starts Envoy and does not wait.
    pub fn launch(pod: &Pod, bootstrap: &str, admin: SocketAddr) -> Result<Self> {
        let file = pod.node().dir().join(format!("envoy-{}.yaml", pod.name()));
        pod.node().write(&file, bootstrap)?;
        let mut command = Command::new(binaries::envoy()?);
        command.arg("--config-path").arg(&file);
        // Hot restart claims shared memory by a number that is global to the host.
        command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]);
        Ok(Self { pod: pod.clone(), admin, process: pod.spawn(command)? })
    }

    /// Waits until `/ready` says `LIVE`.
    pub fn await_ready(&mut self, limit: Duration) -> Result<()> {
        let (pod, admin, process) = (&self.pod, self.admin, &mut self.process);
        wait::until("Envoy to be LIVE", limit, || match http::get(pod, admin, "admin", "/ready", &[]) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("/ready says {} {}", answer.status, answer.body)),
            Err(error) => Err(format!("{error}; {}", process.last_words())),
        })
    }

    /// GET on the admin interface, for example `/config_dump` or `/stats?format=json`.
    pub fn admin(&self, path: &str) -> Result<Answer> {
        http::get(&self.pod, self.admin, "admin", path, &[])
    }

    /// The process, for its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
