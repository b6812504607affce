//! A large mesh: read once, held, and changed at one place.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use weft_e2e::{Envoy, Node, Pod, Process};

use crate::files::{SIDECAR, await_in_force, rename_over, run_sidecar, save_to_ack, service, weft_sidecar};
use crate::{Result, pause, spread};

const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
const ENDPOINTS: usize = 10;

pub(crate) fn measure(services: usize, changes: usize) -> Result<String> {
    let node = Node::start()?;
    let pod = Pod::create(&node, "large")?;
    let config = node.dir().join("large");
    node.run(|| fs::create_dir_all(&config))??;
    node.run(|| fs::write(config.join("sidecar.yaml"), SIDECAR))??;
    let idle = idle(&pod, &config)?;
    node.run(|| (0..services).try_for_each(|at| fs::write(config.join(file(at)), text(at, 0))))??;
    let started = Instant::now();
    weft_sidecar(&node, &["translate", "--name", "none"], &config)?;
    let read = started.elapsed();
    let mut sidecar = run_sidecar(&pod, &config)?;
    let _envoy = Envoy::start(&pod, &weft_sidecar(&node, &["bootstrap"], &config)?, ADMIN)?;
    await_in_force(&mut sidecar, 1)?;
    let held = resident(&sidecar)?;
    let (mut acked, before) = (Vec::new(), cpu(&sidecar)?);
    for change in 1..=changes {
        let at = (change * 37) % services;
        pause();
        node.run(|| rename_over(&config.join(file(at)), &text(at, change)))??;
        acked.extend(save_to_ack(&await_in_force(&mut sidecar, change + 1)?));
    }
    let spent = cpu(&sidecar)?.saturating_sub(before);
    let each = spent.as_secs_f64() * 1e3 / f64::from(u32::try_from(changes.max(1))?);
    Ok(format!(
        "{services} services with {ENDPOINTS} endpoints, a file each; {changes} changes of one endpoint, one after the other\n\
         parsed, resolved, translated and shown as JSON, a process from start to end  {:7.1} ms\n\
         one endpoint saved to acknowledged  {}\n\
         CPU of weft-sidecar for each of them, reading and xDS included  {each:6.2} ms\n\
         resident, idle {:.1} MiB, with all of it in force {held:.1} MiB, after the changes {:.1} MiB\n",
        read.as_secs_f64() * 1e3,
        spread(&acked),
        idle,
        resident(&sidecar)?,
    ))
}

/// With a `Sidecar` alone, and nobody connected.
fn idle(pod: &Pod, config: &Path) -> Result<f64> {
    let mut sidecar = run_sidecar(pod, config)?;
    let serving = |line: &str| line.contains("serving Envoy").then_some(());
    sidecar.await_line("it to serve", Duration::from_secs(10), serving)?;
    resident(&sidecar)
}

fn file(at: usize) -> String {
    format!("s{at}.yaml")
}

/// A service of which one endpoint changes.
fn text(at: usize, change: usize) -> String {
    let address = |endpoint: usize| {
        let last = if endpoint == 0 { 100 + change % 150 } else { endpoint };
        format!("10.{}.{}.{last}", at / 250, at % 250)
    };
    service(&format!("s{at}"), 8080, &(0..ENDPOINTS).map(address).collect::<Vec<_>>())
}

/// In MiB.
fn resident(process: &Process) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// What all its threads have spent so far: the first number of `schedstat`.
fn cpu(process: &Process) -> Result<Duration> {
    let mut spent = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{}/task", process.id()))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        spent += Duration::from_nanos(text.split(' ').next().unwrap_or_default().parse()?);
    }
    Ok(spent)
}
