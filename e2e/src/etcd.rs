//! A cluster of real etcd servers, all on the loopback of one node.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::error::Result;
use crate::node::{DIR, Node};
use crate::process::{Process, output};
use crate::{binaries, wait};

/// An election takes one to two seconds with etcd's own timeouts, and a start a little more.
const PATIENCE: Duration = Duration::from_secs(30);

/// Servers that are one cluster. They end with this.
#[derive(Debug)]
pub struct Cluster {
    node: Node,
    members: Vec<Member>,
    is_secure: bool,
}

#[derive(Debug)]
struct Member {
    name: String,
    process: Option<Process>,
}

/// The certificates of a cluster, as files below [`Certificates::DIR`]: `ca.pem`, `server.pem`, and one for every client that was named,
/// each with its key beside it, as `NAME.key`.
#[derive(Debug)]
pub struct Certificates;

impl Certificates {
    /// Where the files are, in the node.
    pub const DIR: &'static str = "/run/node/pki";

    /// Makes an authority and another one (`stranger.pem`), a certificate for 127.0.0.1, and certificates for clients with these names.
    pub fn create(node: &Node, clients: &[&str]) -> Result<Self> {
        let dir = Self::DIR;
        node.write(
            format!("{dir}/server.ext"),
            "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n",
        )?;
        node.write(format!("{dir}/client.ext"), "extendedKeyUsage=clientAuth\n")?;
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        for name in ["ca", "stranger"] {
            node.sh(&format!(
                "openssl req -x509 {key} -keyout {dir}/{name}.key -out {dir}/{name}.pem -days 2 -subj /CN={name}"
            ))?;
        }
        for (name, kind) in
            [("server", "server")].into_iter().chain(clients.iter().map(|name| (*name, "client")))
        {
            node.sh(&format!(
                "openssl req {key} -keyout {dir}/{name}.key -out {dir}/{name}.csr -subj /CN={name}"
            ))?;
            node.sh(&format!(
                "openssl x509 -req -in {dir}/{name}.csr -CA {dir}/ca.pem -CAkey {dir}/ca.key -CAcreateserial -out {dir}/{name}.pem \
                 -days 2 -extfile {dir}/{kind}.ext"
            ))?;
        }
        Ok(Self)
    }
}

impl Cluster {
    /// Starts `size` servers, and waits until they have a leader.
    pub fn start(node: &Node, size: usize) -> Result<Self> {
        Self::start_with(node, size, None)
    }

    /// The same with TLS: clients need a certificate of the authority.
    pub fn start_secure(node: &Node, size: usize, certificates: &Certificates) -> Result<Self> {
        Self::start_with(node, size, Some(certificates))
    }

    fn start_with(node: &Node, size: usize, certificates: Option<&Certificates>) -> Result<Self> {
        let members = (0..size).map(|index| Member { name: format!("m{index}"), process: None });
        let mut cluster =
            Self { node: node.clone(), members: members.collect(), is_secure: certificates.is_some() };
        for index in 0..size {
            cluster.run_member(index)?;
        }
        cluster.await_leader()?;
        Ok(cluster)
    }

    /// What a client is told, in the members' order.
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|index| self.endpoint(index)).collect()
    }

    fn endpoint(&self, index: usize) -> String {
        format!("{}://127.0.0.1:{}", if self.is_secure { "https" } else { "http" }, 2379 + 10 * index)
    }

    /// Kills a member with SIGKILL. Its data stays.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        let killed = self.members.get_mut(index).and_then(|member| member.process.take());
        if let Some(mut process) = killed {
            process.signal(Signal::SIGKILL)?;
            process.await_end(PATIENCE)?;
        }
        Ok(())
    }

    /// Starts a member that was killed, and waits until the cluster answers through it.
    pub fn restart(&mut self, index: usize) -> Result<()> {
        self.run_member(index)?;
        let endpoint = self.endpoint(index);
        wait::until("a member to be healthy", PATIENCE, || {
            self.ctl_at(&endpoint, "endpoint health").map(drop).map_err(|error| crate::chain(&error))
        })
    }

    /// Sends a member a signal: a stopped one keeps its connections and answers nothing, like one that is cut off.
    pub fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        let process = self.members.get(index).and_then(|member| member.process.as_ref());
        process.map_or(Ok(()), |process| process.signal(signal))
    }

    /// The member that leads. All must be running.
    pub fn leader(&self) -> Result<usize> {
        self.await_leader()
    }

    fn await_leader(&self) -> Result<usize> {
        wait::until("etcd to elect a leader", PATIENCE, || {
            let status = self.ctl("endpoint status -w json").map_err(|error| crate::chain(&error))?;
            let members: Vec<Value> = serde_json::from_str(&status).map_err(|error| error.to_string())?;
            let id = |one: &Value, pointer: &str| one.pointer(pointer).and_then(Value::as_u64);
            let leads = |one: &Value| {
                let leader = id(one, "/Status/leader").filter(|leader| *leader != 0);
                leader.is_some() && leader == id(one, "/Status/header/member_id")
            };
            members.iter().position(leads).ok_or(status)
        })
    }

    /// Runs `etcdctl` with these words against all members, and returns what it prints.
    pub fn ctl(&self, words: &str) -> Result<String> {
        self.ctl_at(&self.endpoints().join(","), words)
    }

    fn ctl_at(&self, endpoints: &str, words: &str) -> Result<String> {
        let mut command = Command::new(binaries::system("etcdctl")?);
        // Debian's release speaks the second version of the API unless told otherwise.
        command.env("ETCDCTL_API", "3").args(["--endpoints", endpoints]);
        if self.is_secure {
            let dir = Certificates::DIR;
            command.args(["--cacert", &format!("{dir}/ca.pem"), "--cert", &format!("{dir}/server.pem")]);
            command.args(["--key", &format!("{dir}/server.key")]);
        }
        command.args(words.split_whitespace());
        self.node.run(|| output(&mut command))?
    }

    /// The state of every member and the end of its log: what a failed test needs.
    pub fn last_words(&mut self) -> String {
        self.members.iter_mut().map(Member::describe).collect::<Vec<_>>().join("\n")
    }

    fn run_member(&mut self, index: usize) -> Result<()> {
        let command = self.command(index)?;
        let process = self.node.spawn(command)?;
        match self.members.get_mut(index) {
            Some(member) => drop(member.process.insert(process)),
            None => drop(process),
        }
        Ok(())
    }

    fn command(&self, index: usize) -> Result<Command> {
        let peer = |index: usize| format!("http://127.0.0.1:{}", 2380 + 10 * index);
        let name = |index: usize| format!("m{index}");
        let all: Vec<_> =
            (0..self.members.len()).map(|index| format!("{}={}", name(index), peer(index))).collect();
        let mut command = Command::new(binaries::system("etcd")?);
        let data = format!("{DIR}/etcd-{}", name(index));
        let (client, own_peer, cluster) = (self.endpoint(index), peer(index), all.join(","));
        for (option, value) in [
            ("--name", name(index).as_str()),
            ("--data-dir", &data),
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &own_peer),
            ("--initial-advertise-peer-urls", &own_peer),
            ("--initial-cluster", &cluster),
            ("--logger", "zap"),
        ] {
            command.args([option, value]);
        }
        if self.is_secure {
            let dir = Certificates::DIR;
            command.args(["--client-cert-auth", "--trusted-ca-file", &format!("{dir}/ca.pem")]);
            command.args([
                "--cert-file",
                &format!("{dir}/server.pem"),
                "--key-file",
                &format!("{dir}/server.key"),
            ]);
        }
        Ok(command)
    }
}

impl Member {
    fn describe(&mut self) -> String {
        match &mut self.process {
            Some(process) => process.last_words(),
            None => format!("{} was killed", self.name),
        }
    }
}
