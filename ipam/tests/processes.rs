//! Many processes on one directory, killed at random, and an audit to the last address.
//!
//! `WEFT_PROCESSES=64 WEFT_OPERATIONS=1000 cargo test --release -p weft-ipam --test processes` is the whole of it; without
//! the variables it is a part that takes seconds.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use weft_ipam::lease::{Attachment, Lease};
use weft_ipam::range::Pool;
use weft_ipam::{Ipam, Request};

/// How many a process has to do with. Those of all processes are a few more than the pool has room for, so that exhaustion
/// happens too.
const CONTAINERS: usize = 7;

const WORKER_DIR: &str = "WEFT_TEST_WORKER_DIR";
const WORKER_SEED: &str = "WEFT_TEST_WORKER_SEED";
const WORKER_NUMBER: &str = "WEFT_TEST_WORKER_NUMBER";

fn number_in(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |number| number.parse().unwrap())
}

fn processes() -> usize {
    number_in("WEFT_PROCESSES", 8)
}

fn operations() -> usize {
    number_in("WEFT_OPERATIONS", 200)
}

/// How many addresses there are of each family.
fn size() -> usize {
    processes() * CONTAINERS * 9 / 10
}

fn pool() -> Pool {
    let [v4, v6] = [0x0a00_0001, 0xfd00 << 112 | 1].map(|first: u128| first + size() as u128);
    let ranges = serde_json::json!([
        [{"subnet": "10.0.0.0/16", "rangeEnd": Ipv4Addr::from_bits(v4 as u32)}],
        [{"subnet": "fd00::/112", "rangeEnd": Ipv6Addr::from_bits(v6)}],
    ]);
    weft_ipam::config::parse_ranges(&ranges).unwrap()
}

/// Xorshift: the tests need chance, not randomness.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn addresses(lease: &Lease) -> String {
    let addresses: Vec<_> = lease.addresses.iter().map(|held| held.address.ip().to_string()).collect();
    addresses.join(",")
}

/// What a worker process does until it is killed: before each operation it says what it will do, and after it what came
/// of it. Its standard output is the answer that must not be lost.
#[test]
#[ignore = "the body of the processes that the audit starts"]
fn worker() {
    let variable = |name| std::env::var(name).unwrap();
    let number: usize = variable(WORKER_NUMBER).parse().unwrap();
    let mut dice = Dice(variable(WORKER_SEED).parse().unwrap());
    let dir = PathBuf::from(variable(WORKER_DIR));
    let mut out = std::io::stdout().lock();
    loop {
        // As often as not a new handle, which reads the log from its beginning as a plugin does.
        let ipam = Ipam::open("net", &dir).unwrap();
        for _ in 0..=dice.roll(4) {
            let container = format!("w{number}c{}", dice.roll(CONTAINERS as u64));
            writeln!(out, "\ntry {container}").unwrap();
            let outcome = toggle(&ipam, &container);
            writeln!(out, "did {container} {outcome}").unwrap();
        }
    }
}

/// Releases what the container holds, or reserves if it holds nothing.
fn toggle(ipam: &Ipam, container: &str) -> String {
    let attachment = Attachment::new("net", container, "eth0").unwrap();
    let released = match ipam.release(&attachment) {
        Ok(released) => released,
        Err(error) => return refusal(&error),
    };
    if let Some(lease) = released {
        return format!("del {}", addresses(&lease));
    }
    match ipam.reserve(&pool(), Request::new(attachment)) {
        Ok(reservation) => format!("add {}", addresses(&reservation.keep())),
        Err(error) => refusal(&error),
    }
}

/// What is no failure of the store: a runtime would try again.
fn refusal(error: &weft_ipam::Error) -> String {
    use weft_ipam::store::{Error::Local, local};
    match error {
        weft_ipam::Error::Alloc(weft_ipam::alloc::Error::Exhausted { .. }) => "full".into(),
        weft_ipam::Error::Store(Local(local::Error::Locked { .. })) => "busy".into(),
        error => panic!("{}", weft_ipam::chain(error)),
    }
}

struct Worker {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(dir: &Path, number: usize, seed: u64) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["worker", "--exact", "--ignored", "--nocapture"])
            .env(WORKER_DIR, dir)
            .env(WORKER_NUMBER, number.to_string())
            .env(WORKER_SEED, seed.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// The next line of the protocol; what the test harness prints is not part of it.
    fn next(&mut self) -> Option<String> {
        self.lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| line.starts_with("try ") || line.starts_with("did "))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// What the parent of a worker was told.
#[derive(Default)]
struct Answers {
    held: BTreeMap<String, String>,
    /// Begun by a worker that lives.
    open: BTreeSet<String>,
    /// Begun by a worker that was killed before it answered.
    unknown: BTreeSet<String>,
    operations: usize,
    kills: usize,
    /// Waited for the lock for too long.
    busy: usize,
    /// Kills that an operation was cut off by.
    interrupted: usize,
}

impl Answers {
    fn note(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["try", container] => drop(self.open.insert(container.into())),
            ["did", container, "full"] => self.confirm(container, None),
            // Its answer tells nothing of what was before it.
            ["did", container, "busy"] => {
                self.busy += 1;
                self.open.remove(container);
            }
            ["did", container, "add", addresses] => {
                self.confirm(container, None);
                self.held.insert(container.into(), addresses.into());
            }
            ["did", container, "del", addresses] => self.confirm(container, Some(addresses)),
            _ => panic!("not of the protocol: {line}"),
        }
    }

    /// An operation was answered, and so tells what the one before it had left.
    fn confirm(&mut self, container: &str, found: Option<&str>) {
        self.operations += 1;
        self.open.remove(container);
        let expected = self.held.remove(container);
        let unknown = self.unknown.remove(container);
        assert!(unknown || expected.as_deref() == found, "{container} held {expected:?}, and then {found:?}");
    }
}

/// Lets one worker after the other work and die, until enough operations were answered.
fn torment(dir: &Path, number: usize) -> Answers {
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ ((number as u64 + 1) << 32));
    let mut answers = Answers::default();
    while answers.operations < operations() {
        let mut worker = Worker::start(dir, number, dice.roll(u64::MAX) | 1);
        for _ in 0..dice.roll(60) {
            let line = worker.next().expect("a worker works until it is killed");
            answers.note(&line);
        }
        // From here to the middle of whatever it is about. This is not a wait for anything: any moment will do.
        let until = Instant::now() + Duration::from_micros(dice.roll(400));
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        worker.process.kill().unwrap();
        while let Some(line) = worker.next() {
            answers.note(&line);
        }
        answers.kills += 1;
        answers.interrupted += answers.open.len();
        answers.unknown.append(&mut answers.open);
    }
    answers
}

#[test]
fn nothing_is_lost_or_doubled_when_processes_are_killed_at_random() {
    let parent = Path::new("/dev/shm");
    let dir = if parent.is_dir() { tempfile::tempdir_in(parent) } else { tempfile::tempdir() }.unwrap();
    let answers: Vec<Answers> = thread::scope(|scope| {
        let path = dir.path();
        let threads: Vec<_> =
            (0..processes()).map(|number| scope.spawn(move || torment(path, number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answers| answers.kills > 2));
    let sum = |count: fn(&Answers) -> usize| answers.iter().map(count).sum::<usize>();
    println!(
        "{} processes, {} operations, {} of them refused for the lock, {} kills, {} of them in the middle of one",
        answers.len(),
        sum(|answers| answers.operations),
        sum(|answers| answers.busy),
        sum(|answers| answers.kills),
        sum(|answers| answers.interrupted),
    );
    let leases = Ipam::open("net", dir.path()).unwrap().leases().unwrap();
    audit_answers(&answers, &leases);
    audit_addresses(dir.path(), &leases);
}

/// Every answer is true, and where there was none it is one of the two things that may have happened.
fn audit_answers(answers: &[Answers], leases: &[Lease]) {
    let mut found: BTreeMap<String, String> =
        leases.iter().map(|lease| (lease.attachment.container().to_owned(), addresses(lease))).collect();
    for answers in answers {
        for container in &answers.unknown {
            found.remove(container);
        }
        for (container, addresses) in answers.held.iter().filter(|(name, _)| !answers.unknown.contains(*name))
        {
            assert_eq!(found.remove(container).as_ref(), Some(addresses), "{container}");
        }
    }
    assert_eq!(found, BTreeMap::new(), "nobody was told of these");
}

/// No address is held twice, and every other one can still be had.
fn audit_addresses(dir: &Path, leases: &[Lease]) {
    let held: Vec<IpAddr> =
        leases.iter().flat_map(|lease| &lease.addresses).map(|held| held.address.ip()).collect();
    let distinct: BTreeSet<_> = held.iter().copied().collect();
    assert_eq!(distinct.len(), held.len());
    let ipam = Ipam::open("net", dir).unwrap();
    let mut fresh = 0;
    let exhausted = loop {
        let attachment = Attachment::new("net", &format!("audit{fresh}"), "eth0").unwrap();
        match ipam.reserve(&pool(), Request::new(attachment)) {
            Ok(reservation) => drop(reservation.keep()),
            Err(error) => break error,
        }
        fresh += 1;
    };
    assert_eq!(leases.len() + fresh, size(), "all that there is");
    let all = format!("{0} of {0} are held", size());
    assert!(exhausted.to_string().contains(&all), "{exhausted}");
}
