//! What an allocation costs, by how many leases there are, in one run against the reference plugin host-local: in a process that
//! keeps its handle, in one that opens the store for every request, and as the plugins that a runtime executes, in turns.
//!
//! `make build && cargo run --release -p weft-ipam --example cost [DIR]`
//!
//! `WEFT_BIN_DIR` (else `target/release`) is where weft-ipam is, `REFERENCE_CNI_PATH` (else `/usr/lib/cni`) where host-local is.

#![expect(clippy::print_stdout, reason = "the table is the result")]

use std::error::Error;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weft_ipam::lease::{Attachment, NetnsIdentity, Pod};
use weft_ipam::range::Pool;
use weft_ipam::{Ipam, Request};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The last is 99 % of what a /16 hands out.
const FILLS: [usize; 4] = [1, 1_000, 4_000, 64_878];
const ROUNDS: usize = 1_000;
const EXECUTIONS: usize = 100;
/// A plugin that takes seconds is not executed a hundred times.
const ENOUGH: Duration = Duration::from_secs(60);

fn main() -> Outcome<()> {
    let parent = std::env::args().nth(1).map_or_else(|| "/dev/shm".into(), PathBuf::from);
    let plugins = [plugin("WEFT_BIN_DIR", &built(), "weft-ipam")?, reference()?];
    let rows = FILLS.iter().map(|leases| measure(&parent, *leases, &plugins)).collect::<Outcome<Vec<_>>>()?;
    println!("reserve, in a process");
    println!(
        "{:>7} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "leases", "kept p50", "kept p99", "opened p50", "opened p99", "no index p50"
    );
    for Row { leases, kept, opened, anew, .. } in &rows {
        let times = [kept.p50, kept.p99, opened.p50, opened.p99, anew.p50];
        println!("{leases:>7} {}", times.map(|time| format!("{time:>13.1?}")).concat());
    }
    let ratio = |of: fn(&Row) -> Duration| match rows.as_slice() {
        [first, .., last] => of(last).as_secs_f64() / of(first).as_secs_f64(),
        _ => 1.0,
    };
    println!("99 % of a /16 : 1 lease, p50: {:.2}", ratio(|row| row.kept.p50));
    println!("\nas a process, p50");
    println!(
        "{:>7} {:>4} {:>12} {:>12} {:>22}",
        "leases", "", "weft-ipam", "host-local", "host-local : weft-ipam"
    );
    for Row { leases, add, del, .. } in &rows {
        for (verb, [ours, reference]) in [("ADD", add), ("DEL", del)] {
            let ratio = reference.p50.as_secs_f64() / ours.p50.as_secs_f64();
            println!("{leases:>7} {verb:>4} {:>12.2?} {:>12.2?} {ratio:>22.1}", ours.p50, reference.p50);
        }
    }
    println!("99 % of a /16 : 1 lease, weft-ipam ADD, p50: {:.2}", ratio(|row| row.add[0].p50));
    Ok(())
}

/// What was measured with so many leases; of the plugins first ours, then the reference.
struct Row {
    leases: usize,
    kept: Times,
    opened: Times,
    /// Opened, where the index has to be made first.
    anew: Times,
    add: [Times; 2],
    del: [Times; 2],
}

#[derive(Clone, Copy, Default)]
struct Times {
    p50: Duration,
    p99: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let percentile = |percent| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        Self { p50: percentile(50), p99: percentile(99) }
    }
}

fn measure(parent: &Path, leases: usize, plugins: &[PathBuf; 2]) -> Outcome<Row> {
    let dir = tempfile::tempdir_in(parent)?;
    let pool = weft_ipam::config::parse_ranges(&ranges())?;
    fill(dir.path(), &pool, leases)?;
    let ipam = Ipam::open("pods", dir.path())?;
    let kept = (0..ROUNDS).map(|_| cycle(&ipam, &pool)).collect::<Outcome<_>>()?;
    let opened = (0..ROUNDS).map(|_| cycle(&Ipam::open("pods", dir.path())?, &pool));
    let opened = opened.collect::<Outcome<_>>()?;
    let anew = (0..10).map(|_| {
        fs::remove_file(dir.path().join("pods/leases.index"))?;
        cycle(&Ipam::open("pods", dir.path())?, &pool)
    });
    let anew = anew.collect::<Outcome<_>>()?;

    let reference = tempfile::tempdir_in(parent)?;
    fill_reference(reference.path(), leases)?;
    let confs =
        [("weft-ipam", dir.path()), ("host-local", reference.path())].map(|(name, dir)| conf(name, dir));
    let (mut add, mut del) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let start = Instant::now();
    for _ in 0..EXECUTIONS {
        for (((plugin, conf), add), del) in plugins.iter().zip(&confs).zip(&mut add).zip(&mut del) {
            add.push(execute(plugin, "ADD", conf)?);
            del.push(execute(plugin, "DEL", conf)?);
        }
        if start.elapsed() > ENOUGH {
            break;
        }
    }
    Ok(Row {
        leases,
        kept: Times::of(kept),
        opened: Times::of(opened),
        anew: Times::of(anew),
        add: add.map(Times::of),
        del: del.map(Times::of),
    })
}

fn ranges() -> Value {
    json!([[{"subnet": "10.0.0.0/16"}]])
}

fn conf(plugin: &str, dir: &Path) -> String {
    let ipam = json!({"type": plugin, "ranges": ranges(), "dataDir": dir});
    json!({"cniVersion": "1.0.0", "name": "pods", "type": "bridge", "ipam": ipam}).to_string()
}

fn fill(dir: &Path, pool: &Pool, leases: usize) -> Outcome<()> {
    let ipam = Ipam::open("pods", dir)?;
    for container in 0..leases {
        drop(ipam.reserve(pool, request(container)?)?.keep());
    }
    Ok(())
}

/// As host-local writes it, which would take it hours to do by itself (`backend/disk/backend.go`).
fn fill_reference(dir: &Path, leases: usize) -> Outcome<()> {
    let dir = dir.join("pods");
    fs::create_dir(&dir)?;
    let mut last = Ipv4Addr::from_bits(0x0a00_0001);
    for container in 0..leases {
        last = Ipv4Addr::from_bits(last.to_bits() + 1);
        fs::write(dir.join(last.to_string()), format!("{container:064x}\r\neth0"))?;
    }
    fs::write(dir.join("last_reserved_ip.0"), last.to_string())?;
    Ok(())
}

fn request(container: usize) -> Outcome<Request> {
    let id = format!("{container:064x}");
    let pod = Pod {
        namespace: "default".into(),
        name: format!("web-6d4cf56db6-{container:05}"),
        uid: "1b0e3a4e-3c4e-4f0e-9d0a-0a1b2c3d4e5f".into(),
    };
    let netns = NetnsIdentity::new(format!("/var/run/netns/cni-{id:.36}"), 4_026_531_840);
    Ok(Request { pod: Some(pod), netns: Some(netns), ..Request::new(Attachment::new("pods", &id, "eth0")?) })
}

/// One reservation, measured; its release is not.
fn cycle(ipam: &Ipam, pool: &Pool) -> Outcome<Duration> {
    let request = request(usize::MAX)?;
    let attachment = request.attachment.clone();
    let start = Instant::now();
    drop(ipam.reserve(pool, request)?.keep());
    let took = start.elapsed();
    ipam.release(&attachment)?;
    Ok(took)
}

fn execute(plugin: &Path, verb: &str, conf: &str) -> Outcome<Duration> {
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-6d4cf56db6-00000";
    let id = format!("{:064x}", usize::MAX);
    let start = Instant::now();
    let mut process = Command::new(plugin)
        .env_clear()
        .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", &id), ("CNI_IFNAME", "eth0"), ("CNI_ARGS", args)])
        // Neither goes into it.
        .envs([("CNI_NETNS", "/proc/self/ns/uts"), ("CNI_PATH", "/nowhere")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    process.stdin.take().ok_or("it has an input")?.write_all(conf.as_bytes())?;
    let output = process.wait_with_output()?;
    let took = start.elapsed();
    if output.status.success() { Ok(took) } else { Err(String::from_utf8_lossy(&output.stdout).into()) }
}

/// `target/release`, seen from `target/release/examples/cost`.
fn built() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    this.ancestors().nth(2).unwrap_or(Path::new(".")).to_owned()
}

fn reference() -> Outcome<PathBuf> {
    plugin("REFERENCE_CNI_PATH", Path::new("/usr/lib/cni"), "host-local")
}

fn plugin(variable: &str, dir: &Path, name: &str) -> Outcome<PathBuf> {
    let dir = std::env::var_os(variable).map_or_else(|| dir.to_owned(), PathBuf::from);
    let path = dir.join(name);
    if path.is_file() { Ok(path) } else { Err(format!("{} is missing ({variable})", path.display()).into()) }
}
