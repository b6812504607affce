//! Whether somebody may still live on an address that no lease gives away.
//!
//! Behind another plugin Weft has no lease and makes no interface: all that stands for such a pod are elements, and to
//! remove them cuts it off. So they are nobody's only where the address is surely nobody's: nothing on the node leads
//! to it or holds it, and no namespace does.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use weft_datapath::{NetNs, Observed};

/// The namespace of processes that all processes are in (`PROC_PID_INIT_INO`). From another one some cannot be seen, and
/// neither can their networks.
const ALL_PROCESSES: &str = "pid:[4026531836]";

/// Who lives on which of `addresses`, in words; those that it does not have are surely nobody's.
pub(super) fn living(addresses: &HashSet<IpAddr>, node: &Observed) -> HashMap<IpAddr, String> {
    let mut found = on_node(addresses, node);
    let wanted: HashSet<_> = addresses.iter().filter(|ip| !found.contains_key(ip)).copied().collect();
    if wanted.is_empty() {
        return found;
    }
    match in_namespaces(&wanted) {
        Ok(inside) => found.extend(inside),
        Err(why) => found.extend(wanted.into_iter().map(|ip| (ip, format!("may be in use: {why}")))),
    }
    found
}

fn on_node(addresses: &HashSet<IpAddr>, node: &Observed) -> HashMap<IpAddr, String> {
    let name = |index: u32| {
        let link = node.links.iter().find(|link| link.index == index);
        link.map_or_else(|| index.to_string(), |link| link.name.clone())
    };
    let is_host =
        |route: &weft_datapath::Route| route.dst.prefix() == if route.dst.is_ipv4() { 32 } else { 128 };
    let routes = node.routes.iter().filter(|(_, route)| is_host(route));
    let routes = routes.map(|(index, route)| (route.dst.ip(), index, "the node has a route to it over"));
    let neighbours =
        node.neighbours.iter().map(|(index, neighbour)| (neighbour.ip, index, "it is a neighbour at"));
    let own = node.addresses.iter().map(|(index, address)| (address.ip(), index, "the node has it on"));
    let all = routes.chain(neighbours).chain(own).filter(|(ip, ..)| addresses.contains(ip));
    all.map(|(ip, index, how)| (ip, format!("{how} {}", name(*index)))).collect()
}

fn in_namespaces(addresses: &HashSet<IpAddr>) -> Result<HashMap<IpAddr, String>, String> {
    if fs::read_link("/proc/self/ns/pid").is_ok_and(|all| all != Path::new(ALL_PROCESSES)) {
        return Err("from within a container not all namespaces can be seen".to_owned());
    }
    let mut found = HashMap::new();
    let namespaces = namespaces().map_err(|error| format!("not all namespaces can be listed: {error}"))?;
    for path in namespaces.into_values() {
        let observed = NetNs::open(&path).and_then(|netns| netns.rtnl()?.observe());
        match observed {
            Ok(observed) => {
                let held = observed.addresses.iter().map(|(_, address)| address.ip());
                let held = held.filter(|ip| addresses.contains(ip));
                found.extend(held.map(|ip| (ip, format!("it is in use in {}", path.display()))));
            }
            // It went with its last process.
            Err(error) if matches!(error.errno(), Errno::ENOENT | Errno::ESRCH) => {}
            Err(error) => return Err(weft_ipam::chain(&error)),
        }
    }
    Ok(found)
}

/// Every other network namespace that a thread is in or that is mounted somewhere, once, by what tells it from the others.
fn namespaces() -> io::Result<HashMap<PathBuf, PathBuf>> {
    let mut found = HashMap::new();
    // The first is the node's own init, and no pod's; it may hide where it is.
    let is_pods = |process: &PathBuf| *process != Path::new("/proc/1");
    for process in numbered(Path::new("/proc"))?.into_iter().filter(is_pods) {
        // Of a process that is gone there are none.
        for thread in numbered(&process.join("task")).unwrap_or_default() {
            let path = thread.join("ns/net");
            match fs::read_link(&path) {
                Ok(which) => drop(found.entry(which).or_insert(path)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
                Err(_) => {}
            }
        }
    }
    // proc_pid_mountinfo(5): the root is the fourth field, the place the fifth.
    for line in fs::read_to_string("/proc/thread-self/mountinfo")?.lines() {
        let mut fields = line.split(' ').skip(3);
        if let (Some(which), Some(place)) = (fields.next(), fields.next())
            && which.starts_with("net:[")
        {
            found.entry(which.into()).or_insert_with(|| place.into());
        }
    }
    found.remove(&fs::read_link("/proc/thread-self/ns/net")?);
    Ok(found)
}

/// The entries of `dir` that are numbers.
fn numbered(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir)?.flatten();
    let is_number = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().parse::<u32>().is_ok();
    Ok(entries.filter(is_number).map(|entry| entry.path()).collect())
}
