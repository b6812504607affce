//! What is measured: clients that have everything, and one endpoint that moves.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::broadcast;
use tokio::time::timeout;

use crate::client::{Asking, Received};
use crate::contestant::Contestant;
use crate::process::Process;

/// How long clients may take to receive something.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many clients connect at once: beyond what a socket queues, the kernel makes them wait for seconds.
const TOGETHER: usize = 50;

/// How large, how many, how often.
pub struct Scenario {
    pub clusters: usize,
    pub streams: usize,
    pub rounds: usize,
    /// How many changes a round has, one after the other.
    pub changes: usize,
}

/// What one server does in a scenario; the middle of all rounds.
pub struct Measured {
    /// CPU time of the server for one change, its next snapshot included.
    pub cpu: Duration,
    /// Bytes that all clients receive for it.
    pub bytes: u64,
    /// Until the last of them has.
    pub latency: Duration,
    /// CPU time for the first snapshot, and for the next one.
    pub build: Duration,
    pub rebuild: Duration,
    /// Memory for each stream.
    pub per_stream: u64,
}

/// Runs a server through a scenario.
pub fn measure(contestant: Contestant, scenario: &Scenario) -> Result<Measured, Box<dyn Error>> {
    let (mut process, port, build) = Process::start(contestant, scenario.clusters, scenario.streams)?;
    process.await_idle()?;
    let empty = process.resident()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let received = Arc::new(Received::default());
    let (again, _) = broadcast::channel(4);
    let asking = |at| Asking {
        at,
        port,
        clusters: scenario.clusters,
        incremental: contestant.is_incremental(),
        received: Arc::clone(&received),
        again: again.clone(),
    };
    let all = (scenario.clusters * scenario.streams) as u64;
    runtime.block_on(async {
        for at in 0..scenario.streams {
            tokio::spawn(asking(at).run());
            if at % TOGETHER == TOGETHER - 1 {
                reach(&received, &received.clusters, (scenario.clusters * (at + 1)) as u64).await?;
            }
        }
        reach(&received, &received.clusters, all).await?;
        reach(&received, &received.endpoints, all).await
    })?;
    settle(&runtime, &process)?;
    let per_stream = process.resident()?.saturating_sub(empty) / scenario.streams as u64;

    let mut rounds = Rounds::default();
    for _ in 0..scenario.rounds {
        let (cpu, bytes) = (process.cpu()?, received.bytes.load(Ordering::Relaxed));
        for _ in 0..scenario.changes {
            let updates = received.updates.load(Ordering::Relaxed) + scenario.streams as u64;
            let begun = Instant::now();
            process.change()?;
            rounds.rebuild.push(process.built()?);
            if !contestant.pushes() {
                again.send(())?;
            }
            runtime.block_on(reach(&received, &received.updates, updates))?;
            rounds.latency.push(begun.elapsed());
        }
        settle(&runtime, &process)?;
        rounds.cpu.push((process.cpu()? - cpu) / u32::try_from(scenario.changes)?);
        let bytes = received.bytes.load(Ordering::Relaxed) - bytes;
        rounds.bytes.push(bytes / scenario.changes as u64);
    }
    Ok(Measured {
        cpu: middle(rounds.cpu),
        bytes: middle(rounds.bytes),
        latency: middle(rounds.latency),
        build,
        rebuild: middle(rounds.rebuild),
        per_stream,
    })
}

#[derive(Default)]
struct Rounds {
    cpu: Vec<Duration>,
    bytes: Vec<u64>,
    latency: Vec<Duration>,
    rebuild: Vec<Duration>,
}

/// Waits until clients have received so many.
async fn reach(received: &Received, counter: &AtomicU64, wanted: u64) -> Result<(), String> {
    let reaching = async {
        while counter.load(Ordering::Relaxed) < wanted {
            received.arrived.notified().await;
        }
    };
    let late = |_| format!("clients have received {} of {wanted}", counter.load(Ordering::Relaxed));
    timeout(PATIENCE, reaching).await.map_err(late)
}

/// Lets clients answer, and waits until the server has nothing more to do.
fn settle(runtime: &tokio::runtime::Runtime, process: &Process) -> Result<(), Box<dyn Error>> {
    for _ in 0..2 {
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
        process.await_idle()?;
    }
    Ok(())
}

fn middle<T: Ord + Copy + Default>(mut all: Vec<T>) -> T {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}
