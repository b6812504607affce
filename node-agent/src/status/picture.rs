//! The status for a person at a terminal: this node on the left, a line to each other one, and what is wrong below.
//!
//! ```text
//! node-a  ready
//! │ 192.0.2.1  pods 10.244.0.0/24  2 of 253 addresses of 10.244.0.0/24
//! │
//! ├──────────── node-b  192.0.2.2  direct
//! │             pods 10.244.1.0/24
//! │
//! ╘════════════ node-c  198.51.100.3  VXLAN
//!               pods 10.244.2.0/24
//! ```

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use super::{By, Peer, SelfTest, Status};

/// Where a terminal is narrower, it does the wrapping.
const NARROWEST: usize = 32;
/// A line to another node, where there is room for it.
const LINE: usize = 12;

/// From so many lines on there is no empty one between them.
const AIRY: usize = 8;
/// More nodes than this are counted, but for those in trouble, and no more warnings are shown.
const MOST: usize = 24;

/// What a picture is drawn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canvas {
    /// How many columns there are.
    pub width: usize,
    /// Whether it shows colours.
    pub colours: bool,
    /// Whether each node is drawn, however many there are, and each warning shown.
    pub all: bool,
}

/// Draws it.
#[must_use]
pub fn draw(status: &Status, canvas: Canvas) -> String {
    let canvas = Canvas { width: canvas.width.max(NARROWEST), ..canvas };
    let mut lines = own(status, canvas);
    let (shown, rest) = status.network.peers.iter().partition::<Vec<_>, _>(|peer| canvas.shows(status, peer));
    let mut branches: Vec<_> =
        shown.iter().take(canvas.most()).flat_map(|peer| branches(peer, canvas)).collect();
    branches.extend(summary(rest.into_iter().chain(shown.into_iter().skip(canvas.most())), canvas));
    let (count, is_dense) = (branches.len(), branches.len() > AIRY);
    for (index, branch) in branches.iter().enumerate() {
        lines.extend((branch.is_first && !is_dense).then(|| "│".to_owned()));
        lines.extend(branch.draw(index + 1 == count, canvas));
    }
    lines.push(String::new());
    lines.extend(facts(status).into_iter().flat_map(|(label, text)| {
        canvas.fold(&canvas.dim(&format!("{label:<10} ")), &" ".repeat(11), ", ", &text)
    }));
    let warnings = status.all_warnings();
    lines.extend(warnings.first().map(|_| String::new()));
    let (most, all) = (canvas.most(), warnings.len());
    let more = (all > most).then(|| format!("and {} more: --all shows them", all - most));
    lines.extend(warnings.iter().take(most).chain(&more).flat_map(|warning| {
        let words: Vec<_> = warning.split(' ').map(str::to_owned).collect();
        canvas.fold(&canvas.bad("! "), "  ", " ", &words)
    }));
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn own(status: &Status, canvas: Canvas) -> Vec<String> {
    let node = &status.node;
    let name = if node.name.is_empty() { "this node" } else { &node.name };
    let state = match status.readiness() {
        Ok(()) if status.uninstalled => canvas.good("uninstalled"),
        Ok(()) => canvas.good("ready"),
        Err(_) => canvas.bad("not ready"),
    };
    let mut parts: Vec<_> = node.addresses.iter().map(IpAddr::to_string).collect();
    parts.extend(node.pod_cidrs.iter().map(|subnet| format!("pods {subnet}")));
    parts.extend(
        status
            .leases
            .iter()
            .map(|range| format!("{} of {} addresses of {}", range.held, rounded(range.size), range.subnet)),
    );
    let stem = if status.network.peers.is_empty() { "  " } else { "│ " };
    let mut lines = vec![format!("{}  {state}", canvas.strong(name))];
    lines.extend(canvas.fold(stem, stem, "  ", &parts));
    lines
}

/// A range of IPv6 has more addresses than anybody reads digit by digit.
pub(super) fn rounded(size: u64) -> String {
    if size < 1_000_000_000 { size.to_string() } else { format!("{:.1e}", size as f64) }
}

/// A line from the stem, and what is at its end.
struct Branch {
    by: Option<By>,
    /// Of those to one node.
    is_first: bool,
    parts: Vec<String>,
}

/// One for each kind of way and each other end, with the subnets that are reached by it.
fn branches(peer: &Peer, canvas: Canvas) -> Vec<Branch> {
    let name = canvas.strong(&peer.node.name);
    let mut branches = Vec::new();
    for ((by, through), subnets) in channels(peer) {
        let how = if by == By::Direct { "direct" } else { "VXLAN" };
        let mut parts = vec![name.clone(), through.to_string(), canvas.dim(how)];
        parts.extend(subnets.iter().map(|subnet| format!("pods {subnet}")));
        branches.push(Branch { by: Some(by), is_first: branches.is_empty(), parts });
    }
    if peer.ways.is_empty() {
        let why = if peer.unreached.is_empty() { "no pods there" } else { "not reached" };
        let mut parts = vec![name];
        parts.extend(peer.node.addresses.iter().map(IpAddr::to_string));
        parts.push(canvas.dim(why));
        branches.push(Branch { by: None, is_first: true, parts });
    }
    branches
}

/// Of many nodes, how many are reached in which way.
fn summary<'a>(peers: impl Iterator<Item = &'a Peer>, canvas: Canvas) -> Vec<Branch> {
    let mut counts = BTreeMap::<(Option<By>, &str), usize>::new();
    for peer in peers {
        let goes = |by| peer.ways.iter().any(|way| way.by == by);
        let kind = match (goes(By::Direct), goes(By::Vxlan), peer.unreached.is_empty()) {
            (true, false, true) => (Some(By::Direct), "direct"),
            (false, true, true) => (Some(By::Vxlan), "VXLAN"),
            (true, true, true) => (Some(By::Direct), "direct and VXLAN"),
            (false, false, true) => (None, "no pods there"),
            _ => (None, "not reached, or not all of it"),
        };
        *counts.entry(kind).or_default() += 1;
    }
    let branch = |((by, how), count): ((Option<By>, &str), usize)| {
        let parts =
            vec![canvas.strong(&format!("{count} nodes")), canvas.dim(how), "(--all shows each)".to_owned()];
        Branch { by, is_first: true, parts }
    };
    counts.into_iter().map(branch).collect()
}

impl Branch {
    fn draw(&self, is_last: bool, canvas: Canvas) -> Vec<String> {
        let length = LINE.min(canvas.width / 6);
        let stem = if is_last { "  " } else { "│ " };
        let below = format!("{stem}{}", " ".repeat(length));
        let line = stroke(self.by).repeat(length);
        canvas.fold(&format!("{}{line} ", edge(self.by, is_last)), &below, "  ", &self.parts)
    }
}

/// The ways to a node that have kind and other end in common, with the subnets behind them.
fn channels(peer: &Peer) -> BTreeMap<(By, IpAddr), Vec<&str>> {
    let mut channels = BTreeMap::<_, Vec<_>>::new();
    for way in &peer.ways {
        channels.entry((way.by, way.through)).or_default().push(way.subnet.as_str());
    }
    channels
}

/// Where a line leaves the stem, which ends with the last.
fn edge(by: Option<By>, is_last: bool) -> &'static str {
    match (by, is_last) {
        (Some(By::Vxlan), true) => "╘",
        (Some(By::Vxlan), false) => "╞",
        (_, true) => "└",
        (_, false) => "├",
    }
}

fn stroke(by: Option<By>) -> &'static str {
    match by {
        Some(By::Direct) => "─",
        Some(By::Vxlan) => "═",
        None => "╌",
    }
}

fn facts(status: &Status) -> Vec<(&'static str, Vec<String>)> {
    let (install, gc) = (&status.install, &status.gc);
    let conflist =
        install.conflist.as_ref().map_or("not installed".to_owned(), |path| path.display().to_string());
    let self_test = match &install.self_test {
        SelfTest::Pending => vec!["not run yet".to_owned()],
        SelfTest::NoRoom => vec!["waits for a free address".to_owned()],
        SelfTest::Failed { .. } => vec!["failed".to_owned()],
        SelfTest::Passed { milliseconds, addresses } => {
            let at = addresses.iter().map(|address| format!("at {address}"));
            std::iter::once(format!("passed in {milliseconds} ms")).chain(at).collect()
        }
    };
    let heals: Vec<_> = status.repair.heals.iter().map(|(what, count)| format!("{count} × {what}")).collect();
    let collected = ["collected", "suspected"].into_iter().zip([gc.collected, gc.suspected as u64]);
    let collected = collected.map(|(what, count)| format!("{count} {what}"));
    let mut facts = vec![
        ("network", vec![install.network.clone().unwrap_or_else(|| "-".into()), conflist]),
        ("self-test", self_test),
        ("healed", if heals.is_empty() { vec!["nothing".to_owned()] } else { heals }),
        ("leftovers", collected.chain([format!("{} rounds", gc.rounds)]).collect()),
    ];
    facts.extend(status.network.pod_mtu_bytes.map(|mtu| ("MTU", vec![format!("{mtu} for new pods")])));
    let adopted = Some(install.adopted).filter(|adopted| *adopted > 0);
    facts.extend(adopted.map(|adopted| ("adopted", vec![format!("{adopted} leases of host-local")])));
    facts
}

impl Canvas {
    pub(super) fn most(self) -> usize {
        if self.all { usize::MAX } else { MOST }
    }

    /// Where there are too many nodes to look at, those in trouble are what somebody looks for.
    fn shows(self, status: &Status, peer: &Peer) -> bool {
        status.network.peers.len() <= self.most() || !peer.unreached.is_empty()
    }

    /// Parts beside each other where there is room, and below each other where there is not.
    pub(super) fn fold(self, head: &str, indent: &str, between: &str, parts: &[String]) -> Vec<String> {
        let (mut lines, mut line, mut is_fresh) = (Vec::new(), head.to_owned(), true);
        let parts: Vec<_> = parts.iter().filter(|part| !part.is_empty()).collect();
        let count = parts.len();
        for (nth, part) in parts.into_iter().enumerate() {
            let gap = if is_fresh { "" } else { between };
            // Whatever follows may be on the next line, and then this one ends with the comma.
            let end = if nth + 1 < count { between.trim_end() } else { "" };
            if !is_fresh && columns(&line) + columns(gap) + columns(part) + columns(end) > self.width {
                lines.push(line + between.trim_end());
                line = format!("{indent}{part}");
                continue;
            }
            line = format!("{line}{gap}{part}");
            is_fresh = false;
        }
        lines.push(line);
        lines
    }

    fn good(self, text: &str) -> String {
        self.paint(32, text)
    }

    pub(super) fn bad(self, text: &str) -> String {
        self.paint(31, text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint(2, text)
    }

    fn strong(self, text: &str) -> String {
        self.paint(1, text)
    }

    fn paint(self, code: impl Display, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// How many columns a text takes: all that is drawn is one wide, and a colour takes none.
fn columns(text: &str) -> usize {
    let mut is_colour = false;
    text.chars()
        .filter(|letter| {
            let was_colour = is_colour;
            is_colour = *letter == '\x1b' || (is_colour && *letter != 'm');
            !was_colour && !is_colour
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::super::{Node, Range, Way};
    use super::*;

    fn node(name: &str, address: &str) -> Node {
        Node { name: name.into(), addresses: vec![address.parse().unwrap()], pod_cidrs: vec![] }
    }

    fn way(subnet: &str, by: By, through: &str) -> Way {
        Way { subnet: subnet.into(), by, through: through.parse().unwrap(), link: "eth0".into() }
    }

    fn status() -> Status {
        let mut status = Status { node: node("node-a", "192.0.2.1"), ..Status::default() };
        status.node.pod_cidrs = vec!["10.244.0.0/24".into()];
        status.install.conflist = Some("/etc/cni/net.d/10-weft.conflist".into());
        status.install.network = Some("weft".into());
        status.install.self_test =
            SelfTest::Passed { milliseconds: 31, addresses: vec!["10.244.0.2".parse().unwrap()] };
        status.network.is_known = true;
        status.network.peers = vec![
            Peer {
                node: node("node-b", "192.0.2.2"),
                ways: vec![
                    way("10.244.1.0/24", By::Direct, "192.0.2.2"),
                    way("fd00:1::/64", By::Direct, "192.0.2.2"),
                ],
                unreached: vec![],
            },
            Peer {
                node: node("node-d", "192.0.2.4"),
                ways: vec![],
                unreached: vec!["no way to fd00:4::/64".into()],
            },
            Peer {
                node: node("node-c", "198.51.100.3"),
                ways: vec![way("10.244.2.0/24", By::Vxlan, "198.51.100.3")],
                unreached: vec![],
            },
        ];
        status.leases =
            vec![Range { network: "weft".into(), subnet: "10.244.0.0/24".into(), held: 2, size: 253 }];
        status.repair.heals = [("route".to_owned(), 3)].into();
        status
    }

    #[test]
    fn a_wide_terminal_has_a_line_for_each_way() {
        let drawn = draw(&status(), Canvas { width: 100, colours: false, all: false });
        let expected = "\
node-a  ready
│ 192.0.2.1  pods 10.244.0.0/24  2 of 253 addresses of 10.244.0.0/24
│
├──────────── node-b  192.0.2.2  direct  pods 10.244.1.0/24  pods fd00:1::/64
│
├╌╌╌╌╌╌╌╌╌╌╌╌ node-d  192.0.2.4  not reached
│
╘════════════ node-c  198.51.100.3  VXLAN  pods 10.244.2.0/24

network    weft, /etc/cni/net.d/10-weft.conflist
self-test  passed in 31 ms, at 10.244.0.2
healed     3 × route
leftovers  0 collected, 0 suspected, 0 rounds

! node-d: no way to fd00:4::/64
";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn every_line_to_a_node_leaves_the_stem_and_the_stem_ends_with_the_last() {
        let mut status = status();
        let both = |name: &str| Peer {
            node: node(name, "192.0.2.9"),
            ways: vec![
                way("10.244.9.0/24", By::Direct, "192.0.2.9"),
                way("fd00:9::/64", By::Vxlan, "2001:db8::9"),
            ],
            unreached: vec![],
        };
        status.network.peers = vec![both("node-b"), both("node-c")];
        let drawn = draw(&status, Canvas { width: 100, colours: false, all: false });
        let expected = "\
│
├──────────── node-b  192.0.2.9  direct  pods 10.244.9.0/24
╞════════════ node-b  2001:db8::9  VXLAN  pods fd00:9::/64
│
├──────────── node-c  192.0.2.9  direct  pods 10.244.9.0/24
╘════════════ node-c  2001:db8::9  VXLAN  pods fd00:9::/64
";
        assert!(drawn.contains(expected), "{drawn}");
    }

    #[test]
    fn of_a_thousand_nodes_those_in_trouble_are_drawn_and_the_others_counted() {
        let mut status = status();
        let near = |number: u16| Peer {
            node: node(&format!("n{number}"), "192.0.2.9"),
            ways: vec![way("10.244.9.0/24", if number < 900 { By::Direct } else { By::Vxlan }, "192.0.2.9")],
            unreached: vec![],
        };
        status.network.peers.retain(|peer| peer.node.name == "node-d");
        status.network.peers.extend((0..1000).map(near));
        let canvas = Canvas { width: 80, colours: false, all: false };
        let drawn = draw(&status, canvas);
        let expected = "\
│
├╌╌╌╌╌╌╌╌╌╌╌╌ node-d  192.0.2.4  not reached
│
├──────────── 900 nodes  direct  (--all shows each)
│
╘════════════ 100 nodes  VXLAN  (--all shows each)
";
        assert!(drawn.contains(expected), "{drawn}");
        assert!(draw(&status, Canvas { all: true, ..canvas }).lines().count() > 1000);
        status.network.peers.iter_mut().for_each(|peer| peer.unreached = vec!["10.0.0.0/24: no".into()]);
        let drawn = draw(&status, canvas);
        assert!(drawn.lines().count() < 80 && drawn.contains("! and 977 more: --all shows them"), "{drawn}");
    }

    #[test]
    fn a_narrow_terminal_is_never_exceeded_and_nothing_is_lost() {
        for width in [32, 40, 60] {
            let drawn = draw(&status(), Canvas { width, colours: false, all: false });
            let widest = drawn.lines().max_by_key(|line| columns(line)).unwrap();
            // A single word may be longer than the terminal is wide.
            let is_one_word = widest.contains("/etc/cni") || widest.contains("addresses of");
            assert!(columns(widest) <= width || is_one_word, "{width}: {widest}");
            for part in ["node-c", "VXLAN", "pods 10.244.2.0/24", "fd00:4::/64", "3 × route"] {
                assert!(drawn.contains(part), "{part} is not in\n{drawn}");
            }
        }
    }

    #[test]
    fn a_line_that_breaks_at_a_comma_ends_with_it_within_the_terminal() {
        let canvas = Canvas { width: 10, colours: false, all: false };
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let folded = |parts| canvas.fold("- ", "  ", ", ", &words(parts));
        assert_eq!(folded(&["one", "two", "three"]), ["- one,", "  two,", "  three"]);
        assert_eq!(folded(&["one", "two"]), ["- one, two"]);
        assert_eq!(canvas.fold("- ", "  ", "  ", &words(&["one", "three"])), ["- one", "  three"]);
    }

    #[test]
    fn colours_change_nothing_but_the_colour() {
        let plain = draw(&status(), Canvas { width: 70, colours: false, all: false });
        let coloured = draw(&status(), Canvas { width: 70, colours: true, all: false });
        assert!(!plain.contains('\x1b') && coloured.contains("\x1b[32mready\x1b[0m"));
        let stripped = ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m"];
        assert_eq!(stripped.iter().fold(coloured, |text, code| text.replace(code, "")), plain);
    }

    #[test]
    fn a_node_that_knows_nothing_yet_is_drawn_too() {
        let drawn = draw(&Status::default(), Canvas { width: 80, colours: false, all: false });
        assert!(drawn.starts_with("this node  not ready\n"), "{drawn}");
        assert!(drawn.contains("self-test  not run yet"), "{drawn}");
    }
}
