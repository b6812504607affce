//! The servers. Each is its library's own, with its own way to make the next snapshot.

mod nebucloud;
mod rust_control_plane;
mod weft;

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;

use crate::contestant::Contestant;

/// A server that is controlled: `start` serves a first snapshot, `change` moves the endpoint of one cluster.
trait Server {
    /// Makes the first snapshot and serves it; returns the CPU time that the former took.
    async fn start(&mut self, port: u16) -> Result<Duration, Box<dyn Error>>;
    /// Makes the next one and publishes it; returns the CPU time that the former took.
    async fn change(&mut self, port: u32) -> Result<Duration, Box<dyn Error>>;
}

/// Serves so many clusters to so many clients until stdin ends.
pub fn serve(contestant: Contestant, clusters: usize, streams: usize) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match contestant {
            Contestant::WeftIncremental | Contestant::WeftSotw => obey(weft::Weft::new(clusters)).await,
            Contestant::RustControlPlane => obey(rust_control_plane::Rcp::new(clusters, streams)).await,
            Contestant::NebucloudIncremental | Contestant::NebucloudSotw => {
                obey(nebucloud::Nebucloud::new(clusters, streams)).await
            }
        }
    })
}

async fn obey(mut server: impl Server) -> Result<(), Box<dyn Error>> {
    let (port, mut orders) = (free_port()?, orders());
    let built = server.start(port).await?;
    say(&[port.into(), nanos(built)])?;
    let mut moved_to = 1;
    while orders.recv().await.is_some() {
        moved_to += 1;
        let built = server.change(moved_to).await?;
        say(&[nanos(built)])?;
    }
    Ok(())
}

/// Lines of stdin, read by a thread whose CPU time does not count.
fn orders() -> mpsc::Receiver<String> {
    let (sender, orders) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    orders
}

fn say(numbers: &[u64]) -> std::io::Result<()> {
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", words.join(" "))?;
    out.flush()
}

/// Not every library can be given a socket.
fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Does something, and returns the CPU time that it took. (What the kernel says in `/proc` of a thread that runs is old.)
fn timed<T>(act: impl FnOnce() -> T) -> Result<(T, Duration), Box<dyn Error>> {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime));
    let before = now()?;
    let done = act();
    Ok((done, now()? - before))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
