//! A pod for tests of the plugin's binary.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

/// A pod: a namespace that is there as long as this is.
pub(crate) struct Pod {
    pub(crate) name: &'static str,
    pub(crate) netns: String,
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pod {
    pub(crate) fn new(name: &'static str) -> Self {
        let (ready, path) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ready.send(format!("/proc/{}/task/{}/ns/net", std::process::id(), gettid())).unwrap();
            ended.recv().unwrap_err();
        });
        Self { name, netns: path.recv().unwrap(), end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }
}
