//! Whether somebody uses a network namespace, whoever has lost the record of it. There are three signs, since none can be seen
//! everywhere:
//!
//! - a process in it, where the agent sees the node's processes (a systemd unit; a container has a pid namespace of its own);
//! - a socket in it: who has none sends nothing from the pod's address. That is seen from within the namespace, whose path a
//!   container has (`/run/netns`) as long as it is mounted;
//! - where it is mounted nowhere any more, the node's end of the pod's pair: the kernel takes it away with the namespace, which is
//!   there for as long as somebody is in it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use weft_datapath::{NetNs, Rtnl};
use weft_ipam::lease::Lease;

/// What is seen of the node as a whole.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    /// The inodes of the network namespaces of processes.
    processes: HashSet<u64>,
    /// The marks that the links of the node carry.
    marks: HashSet<String>,
}

impl Signs {
    /// Looks. What cannot be seen is not there; the other signs do not depend on it.
    pub(crate) fn read() -> Self {
        let observed = Rtnl::open().and_then(|rtnl| rtnl.observe()).unwrap_or_default();
        let marks = observed.links.into_iter().filter_map(|link| link.alias).collect();
        Self { processes: of_processes(Path::new("/proc")), marks }
    }

    /// Whether somebody uses the namespace of this lease.
    pub(crate) fn of(&self, lease: &Lease) -> bool {
        let Some(netns) = &lease.netns else { return false };
        if self.processes.contains(&netns.inode) {
            return true;
        }
        if netns.is_there() { has_sockets(&netns.path) } else { self.marks.contains(&mark(lease)) }
    }
}

/// As `weft-cni` marks what is a pod's.
fn mark(lease: &Lease) -> String {
    format!("weft/{}/{}", lease.attachment.container(), lease.attachment.ifname())
}

/// Those of all processes that can be seen.
fn of_processes(proc: &Path) -> HashSet<u64> {
    let processes = fs::read_dir(proc).into_iter().flatten().flatten();
    let namespace = |process: fs::DirEntry| {
        process.file_name().to_str()?.parse::<u32>().ok()?;
        let link = fs::read_link(process.path().join("ns/net")).ok()?;
        link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
    };
    processes.filter_map(namespace).collect()
}

/// Where it cannot be told, there may be some.
fn has_sockets(netns: &Path) -> bool {
    let count = NetNs::open(netns)
        .and_then(|netns| netns.run(|| fs::read_to_string("/proc/thread-self/net/sockstat")));
    !matches!(count, Ok(Ok(text)) if sockets(&text) == Some(0))
}

/// Those of processes, of all families (`socket_seq_show` in `net/socket.c`; the kernel's own are not counted).
fn sockets(sockstat: &str) -> Option<u64> {
    sockstat.lines().find_map(|line| line.strip_prefix("sockets: used "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::thread;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    #[test]
    fn the_namespaces_of_processes_are_seen() {
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let own = own.to_str().unwrap().trim_start_matches("net:[").trim_end_matches(']').parse().unwrap();
        assert!(of_processes(Path::new("/proc")).contains(&own));
    }

    #[test]
    fn a_namespace_with_a_socket_is_used_and_one_without_is_not() {
        let in_its_own = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests of namespaces need root");
            let path = Path::new("/proc/thread-self/ns/net");
            assert!(!has_sockets(path));
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            assert!(has_sockets(path));
            drop(socket);
            assert!(!has_sockets(path));
            assert!(has_sockets(Path::new("/nowhere")), "nobody can tell");
        };
        thread::spawn(in_its_own).join().unwrap();
    }

    #[test]
    fn what_says_nothing_of_sockets_says_not_that_there_are_none() {
        assert_eq!(sockets("sockets: used 0\nTCP: inuse 0\n"), Some(0));
        assert_eq!(sockets(""), None);
    }
}
