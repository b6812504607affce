//! A server in a process of its own, and the kernel's account of it.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::contestant::Contestant;

/// How often it is looked at, and how long it must have done nothing to be idle.
const GLANCE: Duration = Duration::from_millis(2);
const IDLE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. It ends when dropped.
pub struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a server with so many clusters, for so many clients; also returns its port, and the CPU time that its snapshot took.
    pub fn start(
        contestant: Contestant,
        clusters: usize,
        streams: usize,
    ) -> Result<(Self, u16, Duration), Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", contestant.name(), &clusters.to_string(), &streams.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let orders = child.stdin.take().ok_or("no stdin")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut process = Self { child, orders, answers };
        let [port, built] = process.answer()?;
        Ok((process, port.try_into()?, Duration::from_nanos(built)))
    }

    /// Moves an endpoint.
    pub fn change(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(writeln!(self.orders, "change")?)
    }

    /// The CPU time that the next snapshot took.
    pub fn built(&mut self) -> Result<Duration, Box<dyn Error>> {
        let [built] = self.answer()?;
        Ok(Duration::from_nanos(built))
    }

    fn answer<const N: usize>(&mut self) -> Result<[u64; N], Box<dyn Error>> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let numbers: Result<Vec<u64>, _> = line.split_whitespace().map(str::parse).collect();
        numbers?.try_into().map_err(|_| format!("the server says {line:?}").into())
    }

    /// The CPU time it has had, to the nanosecond if it is idle. It has one thread that matters.
    pub fn cpu(&self) -> Result<Duration, Box<dyn Error>> {
        let schedstat = fs::read_to_string(format!("/proc/{}/schedstat", self.child.id()))?;
        Ok(Duration::from_nanos(schedstat.split(' ').next().ok_or("no schedstat")?.parse()?))
    }

    /// Its memory, in bytes.
    pub fn resident(&self) -> Result<u64, Box<dyn Error>> {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages: u64 = statm.split(' ').nth(1).ok_or("no pages")?.parse()?;
        Ok(pages * 4096)
    }

    /// Waits until it has nothing to do: it sleeps, and its CPU time stands still. One that waits for a CPU does not sleep.
    pub fn await_idle(&self) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        let (mut since, mut last) = (Instant::now(), self.cpu()?);
        while since.elapsed() < IDLE {
            sleep(GLANCE);
            let now = self.cpu()?;
            if now != last || !self.sleeps()? {
                (since, last) = (Instant::now(), now);
            }
            if begun.elapsed() > PATIENCE {
                return Err("the server does not come to rest".into());
            }
        }
        Ok(())
    }

    fn sleeps(&self) -> Result<bool, Box<dyn Error>> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        Ok(stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S')))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
