//! What the kernel tells of changes, made by other programs than ours.

#![cfg(test)]

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use weft_datapath::Watch;

#[path = "shared/namespace.rs"]
#[expect(dead_code, reason = "it is shared, and one of its functions is enough here")]
mod namespace;

use namespace::in_fresh_namespace;

fn sh(line: &str) {
    let words: Vec<_> = line.split(' ').collect();
    let status = Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(status.success(), "{line}");
}

fn feed(program: &str, args: &[&str], lines: &str) {
    let mut child = Command::new(program).args(args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Each line, and whether it is a loss. The kernel has told of it when the program ends.
fn told(watch: &Watch, lines: &[(&str, bool)]) {
    for (line, is_loss) in lines {
        sh(line);
        assert_eq!(watch.heard().unwrap(), *is_loss, "{line}");
        assert!(!watch.heard().unwrap(), "{line}: it is told once");
    }
}

#[test]
fn what_is_taken_from_the_network_is_a_loss_and_what_is_added_is_not() {
    in_fresh_namespace(|| {
        sh("sysctl -qw net.ipv4.ip_forward=1");
        let watch = Watch::of_network().unwrap();
        told(
            &watch,
            &[
                ("ip link set lo up", false),
                ("ip link add w0 type veth peer name w1", false),
                ("ip link set w0 up", false),
                ("ip link set w1 up", false),
                ("ip address add 192.0.2.1/24 dev w0", false),
                ("ip route add 10.1.0.0/24 via 192.0.2.2", false),
                ("ip -6 route add fd00:1::/64 dev w0", false),
                ("ip neigh add 192.0.2.3 lladdr 02:00:00:00:00:03 dev w0 nud permanent", false),
                ("ip neigh del 192.0.2.3 dev w0", false),
                ("ip route del 10.1.0.0/24", true),
                ("ip -6 route del fd00:1::/64", true),
                ("sysctl -qw net.ipv4.ip_forward=0", true),
                ("sysctl -qw net.ipv4.ip_forward=1", false),
                ("ip link set w0 down", true),
                ("ip link set w0 up", false),
                ("ip address del 192.0.2.1/24 dev w0", true),
                ("ip link add v type vxlan id 7 dstport 4789 nolearning", false),
                ("bridge fdb append 02:00:00:00:00:04 dev v dst 192.0.2.4", false),
                ("bridge fdb del 02:00:00:00:00:04 dev v dst 192.0.2.4", true),
                ("ip link del v", true),
            ],
        );
        // A pod's pair comes and goes.
        sh("ip link add w2 type veth peer name w3");
        sh("ip link del w2");
        assert!(!watch.heard().unwrap());
    });
}

#[test]
fn what_is_taken_from_wefts_table_is_a_loss_and_what_becomes_of_others_is_not() {
    in_fresh_namespace(|| {
        let watch = Watch::of_firewall().unwrap();
        told(
            &watch,
            &[
                ("nft add table inet weft", false),
                ("nft add chain inet weft ports", false),
                ("nft add rule inet weft ports accept", false),
                ("nft add set inet weft pods { type ipv4_addr ; }", false),
                ("nft add element inet weft pods { 10.0.0.1 }", false),
                ("nft delete element inet weft pods { 10.0.0.1 }", true),
                ("nft flush chain inet weft ports", true),
                ("nft delete chain inet weft ports", true),
                ("nft add table inet other", false),
                ("nft add chain inet other c", false),
                ("nft add rule inet other c accept", false),
                ("nft delete table inet other", false),
                ("nft flush ruleset", true),
            ],
        );
    });
}

#[test]
fn more_than_fits_is_a_loss() {
    in_fresh_namespace(|| {
        sh("ip link set lo up");
        let watch = Watch::of_network().unwrap();
        let routes: String = (0..20_000_u32)
            .map(|n| format!("route add {} dev lo\n", Ipv4Addr::from(0x0a00_0000 + n)))
            .collect();
        feed("ip", &["-batch", "-"], &routes);
        assert!(watch.heard().unwrap(), "nobody knows what it missed");
        told(&watch, &[("ip route add 10.9.0.0/24 dev lo", false), ("ip route del 10.9.0.0/24", true)]);
    });
}
