//! Network namespaces that end with the test.

use std::thread;

use nix::sched::{CloneFlags, unshare};
use weft_datapath::NetNs;

/// Runs `test` on a thread in a namespace of its own.
pub(crate) fn in_fresh_namespace(test: impl FnOnce() + Send) {
    let in_namespace = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests of the datapath need root");
        test();
    };
    let ran = thread::scope(|scope| scope.spawn(in_namespace).join());
    if let Err(panic) = ran {
        std::panic::resume_unwind(panic);
    }
}

/// A namespace in which nobody is.
pub(crate) fn fresh_namespace() -> NetNs {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        NetNs::current().unwrap()
    };
    thread::spawn(make).join().unwrap()
}
