//! `weft-node status`.

use std::io::{self, IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use super::{Directories, Outcome};
use crate::status::Status;
use crate::status::picture::{self, Canvas};
use crate::status::seen::Seen;
use crate::{admin, conflist, leases, network};

/// The agent is on this very node.
const PATIENCE: Duration = Duration::from_secs(3);
/// Where nobody says how wide the paper is.
const WIDTH: usize = 100;

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    directories: Directories,
    /// The agent's --admin
    #[arg(long, value_name = "ADDRESS", default_value = admin::ADDRESS)]
    admin: SocketAddr,
    /// Prints one JSON document
    #[arg(long)]
    json: bool,
    /// Draws each node and shows each warning, however many there are
    #[arg(long)]
    all: bool,
}

/// The agent did not say.
#[derive(Debug, thiserror::Error)]
enum Silence {
    #[error(
        "the agent does not answer at {address}: is it running (`systemctl status weft-node`, or its pod's log)?"
    )]
    Unreachable { address: SocketAddr, source: io::Error },
    #[error("what answers at {0} is not weft-node: --admin takes another address")]
    Other(SocketAddr),
}

impl Show {
    pub(super) fn execute(self) -> Outcome {
        let (asked, canvas) = (ask(self.admin), canvas(self.all));
        let text = match &asked {
            Ok(status) if self.json => serde_json::to_string_pretty(status)? + "\n",
            Ok(status) => picture::draw(status, canvas),
            Err(silence) if self.json => serde_json::to_string_pretty(&self.look(silence))? + "\n",
            Err(silence) => self.look(silence).draw(canvas),
        };
        match io::stdout().write_all(text.as_bytes()) {
            // Whoever reads it may stop reading.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
        asked.map(drop).map_err(Into::into)
    }

    /// What can be seen without the agent.
    fn look(&self, silence: &Silence) -> Seen {
        let mut seen = Seen::without_agent(format!("{silence}; what is above was seen without it"));
        match network::look() {
            Ok(kernel) => seen.kernel = Some(kernel),
            Err(error) => seen.kernel_problem = Some(format!("{error}: {}", error.refusal)),
        }
        let names = crate::directory::owned_in(&self.directories.conf_dir);
        let ours = names.into_iter().find(|name| name.ends_with(".conflist"));
        if let Some(path) = ours.map(|name| self.directories.conf_dir.join(name)).filter(|path| path.exists())
        {
            let list = std::fs::read(&path).ok().and_then(|text| conflist::List::parse(&path, &text).ok());
            seen.network = list.as_ref().map(|list| list.name.clone());
            seen.leases = list.as_ref().map(leases::ranges).unwrap_or_default();
            seen.conflist = Some(path);
        }
        seen
    }
}

fn ask(address: SocketAddr) -> Result<Status, Silence> {
    let answer = exchange(address).map_err(|source| Silence::Unreachable { address, source })?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(Silence::Other(address))?;
    let is_ok = head.split(' ').nth(1) == Some("200");
    let status = serde_json::from_str(body).ok().filter(|_| is_ok);
    status.ok_or(Silence::Other(address))
}

/// HTTP/1.0, so that the answer is one piece and ends with the connection.
fn exchange(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /status HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn canvas(all: bool) -> Canvas {
    let terminal = io::stdout().is_terminal();
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let seen = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0)).filter(|_| terminal);
    let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Canvas { width: columns.or_else(seen).unwrap_or(WIDTH), colours, all }
}
