//! Requests that run all the while, to see whether a change costs one.

use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use weft_e2e::{Client, Pod, Result, chain};

/// A request every few milliseconds, on one connection.
#[derive(Debug)]
pub(crate) struct Traffic {
    stop: Sender<()>,
    thread: JoinHandle<Tally>,
}

/// What came of them.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many there were.
    pub(crate) requests: usize,
    /// What the ones that failed said.
    pub(crate) failures: Vec<String>,
}

impl Traffic {
    /// Starts asking `host` through `through`, in the pod.
    pub(crate) fn start(pod: &Pod, through: SocketAddr, host: &'static str) -> Result<Self> {
        let mut client = Client::from(pod, through)?;
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || {
            let mut tally = Tally::default();
            while stopped.recv_timeout(Duration::from_millis(2)) == Err(RecvTimeoutError::Timeout) {
                tally.count(&client.get(host, "/", &[]));
            }
            tally
        });
        Ok(Self { stop, thread })
    }

    /// Ends it and returns what came of it.
    pub(crate) fn end(self) -> Tally {
        drop(self.stop);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Tally {
    fn count(&mut self, answer: &Result<weft_e2e::Answer>) {
        self.requests += 1;
        match answer {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => self.failures.push(format!("status {}: {}", answer.status, answer.body)),
            Err(error) => self.failures.push(chain(error)),
        }
    }
}
