//! What the kernel and the leases hold, as the system's own tools see it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use weft_datapath::{NetNs, Observed, Rtnl, sysctl};

use crate::scenario::Node;

/// Links, addresses, routes and permanent neighbours of both families, rules, queues and firewall of the calling thread's
/// namespace.
const LOOK: &str = r"
printf 'link\naddress\nroute show table all\nneighbour show nud permanent\nrule\n' | ip -d -o -batch -
tc qdisc
nft list ruleset
";

/// The parameters that are not an interface's own.
const PARAMETERS: [&str; 4] = ["ipv4/conf/all", "ipv4/conf/default", "ipv6/conf/all", "ipv6/conf/default"];

/// A node and its pods, line by line, without what changes by itself.
#[derive(PartialEq, Eq)]
pub(crate) struct State(BTreeSet<String>);

impl State {
    /// All of it, as the system's own tools see it.
    pub(crate) fn of(node: &Node) -> Self {
        Self::seen_by(look, node)
    }

    /// Nearly all of it, in a fraction of the time.
    pub(crate) fn at_a_glance(node: &Node) -> Self {
        let mut state = Self::seen_by(glance, node);
        state.0.extend(output("exec nft list ruleset").lines().map(str::to_owned));
        state
    }

    fn seen_by(look: fn(&str) -> Vec<String>, node: &Node) -> Self {
        let mut lines = look("node");
        for (name, netns) in node.pods() {
            let netns = NetNs::open(netns.as_ref()).unwrap();
            lines.extend(netns.run(|| look(name)).unwrap());
        }
        lines.extend(node.leases());
        Self(lines.into_iter().collect())
    }

    /// What came (`+`) and what went (`-`) until `now`.
    pub(crate) fn diff(&self, now: &Self) -> Vec<String> {
        let gone = self.0.difference(&now.0).map(|line| format!("- {line}"));
        gone.chain(now.0.difference(&self.0).map(|line| format!("+ {line}"))).collect()
    }
}

fn glance(place: &str) -> Vec<String> {
    let Observed { links, addresses, neighbours, routes, shaped } = Rtnl::open().unwrap().observe().unwrap();
    let mut lines: Vec<_> = links.iter().map(|link| format!("{place}: {link:?}")).collect();
    lines.extend(addresses.iter().map(|address| format!("{place}: {address:?}")));
    lines.extend(neighbours.iter().map(|neighbour| format!("{place}: {neighbour:?}")));
    lines.extend(routes.iter().map(|route| format!("{place}: {route:?}")));
    lines.extend(shaped.iter().map(|shaped| format!("{place}: {shaped:?}")));
    lines.retain(|line| is_lasting(line));
    lines.extend(sysctl::get(&["ipv4", "conf", "eth0", "arp_filter"]).unwrap());
    lines
}

fn look(place: &str) -> Vec<String> {
    let text = output(LOOK);
    let lines = text.lines().filter(|line| is_lasting(line)).map(without_timers);
    lines.chain(parameters()).map(|line| format!("{place}: {line}")).collect()
}

fn output(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn parameters() -> impl Iterator<Item = String> {
    let directories = PARAMETERS.map(|name| fs::read_dir(Path::new("/proc/sys/net").join(name)).unwrap());
    let files = directories.into_iter().flatten().map(|file| file.unwrap().path());
    // Some can only be written.
    files
        .filter_map(|file| Some(format!("{} {}", file.display(), fs::read_to_string(&file).ok()?.trim_end())))
}

/// Not so are the addresses and routes that the kernel makes by itself, some time after a link has come up or an address
/// was added.
fn is_lasting(line: &str) -> bool {
    ["fe80::", "ff00::", "table local", "table: Some(255)"].iter().all(|passing| !line.contains(passing))
}

fn without_timers(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut lasting = Vec::new();
    while let Some(word) = words.next() {
        if word.ends_with("_timer") {
            words.next();
        } else {
            lasting.push(word);
        }
    }
    lasting.join(" ")
}
