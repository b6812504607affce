//! What an allocation costs, by how many leases there are: in a process that keeps its handle, and in one that opens the
//! log for every request as a plugin does.
//!
//! `cargo run --release -p weft-ipam --example cost [DIR]`

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use weft_ipam::lease::{Attachment, NetnsIdentity, Pod};
use weft_ipam::range::Pool;
use weft_ipam::{Ipam, Request};

const ROUNDS: usize = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args().nth(1).map_or_else(|| "/dev/shm".into(), PathBuf::from);
    let ranges = serde_json::json!([[{"subnet": "10.0.0.0/16"}]]);
    let pool = weft_ipam::config::parse_ranges(&ranges)?;
    println!(
        "{:>7}  {:>10}  {:>12}  {:>12}  {:>12}  {:>12}",
        "leases", "log", "kept p50", "kept p99", "opened p50", "opened p99"
    );
    for leases in [1, 1_000, 4_000, 64_878] {
        let dir = tempfile::tempdir_in(&parent)?;
        let ipam = Ipam::open("pods", dir.path())?;
        for container in 0..leases {
            ipam.reserve(&pool, request(container)?)?.keep();
        }
        let log = std::fs::metadata(dir.path().join("pods/leases.log"))?.len() / 1024;
        let mut kept = measure(|| cycle(&ipam, &pool))?;
        let mut opened = measure(|| cycle(&Ipam::open("pods", dir.path())?, &pool))?;
        let [a, b, c, d] = [
            percentile(&mut kept, 50),
            percentile(&mut kept, 99),
            percentile(&mut opened, 50),
            percentile(&mut opened, 99),
        ];
        println!("{leases:>7}  {log:>6} KiB  {a:>12.1?}  {b:>12.1?}  {c:>12.1?}  {d:>12.1?}");
    }
    Ok(())
}

fn request(container: usize) -> Result<Request, Box<dyn Error>> {
    let id = format!("{container:064x}");
    let pod = Pod {
        namespace: "default".into(),
        name: format!("web-6d4cf56db6-{container:05}"),
        uid: "1b0e3a4e-3c4e-4f0e-9d0a-0a1b2c3d4e5f".into(),
    };
    let netns = NetnsIdentity { path: format!("/var/run/netns/cni-{id:.36}").into(), inode: 4_026_531_840 };
    Ok(Request { pod: Some(pod), netns: Some(netns), ..Request::new(Attachment::new("pods", &id, "eth0")?) })
}

/// One reservation, measured; its release is not.
fn cycle(ipam: &Ipam, pool: &Pool) -> Result<Duration, Box<dyn Error>> {
    let request = request(usize::MAX)?;
    let attachment = request.attachment.clone();
    let start = Instant::now();
    ipam.reserve(pool, request)?.keep();
    let took = start.elapsed();
    ipam.release(&attachment)?;
    Ok(took)
}

fn measure(
    mut cycle: impl FnMut() -> Result<Duration, Box<dyn Error>>,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    (0..ROUNDS).map(|_| cycle()).collect()
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times.get(times.len() * percent / 100).copied().unwrap_or_default()
}
