//! What the kernel tells of changes, made by other programs than ours.

#![cfg(test)]

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use weft_datapath::Heard::{Gain, Loss, Ruin};
use weft_datapath::{Heard, Watch};

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

const NOTHING: Option<Heard> = None;
const GAIN: Option<Heard> = Some(Gain);
const LOSS: Option<Heard> = Some(Loss);
const RUIN: Option<Heard> = Some(Ruin);

/// Each line, and what is heard of it. The kernel has told of it when the program ends.
fn told(watch: &Watch, lines: &[(&str, Option<Heard>)]) {
    for (line, heard) in lines {
        sh(line);
        assert_eq!(watch.heard().unwrap(), *heard, "{line}");
        assert_eq!(watch.heard().unwrap(), None, "{line}: it is told once");
    }
}

#[test]
fn what_is_taken_from_the_network_or_replaced_in_it_is_a_loss_and_what_is_added_is_not() {
    in_fresh_namespace(|| {
        sh("sysctl -qw net.ipv4.ip_forward=1");
        let watch = Watch::of_network("w9").unwrap();
        told(
            &watch,
            &[
                ("ip link set lo up", GAIN),
                ("ip link add w0 type veth peer name w1", NOTHING),
                ("ip link set w0 up", GAIN),
                ("ip link set w1 up", GAIN),
                ("ip address add 192.0.2.1/24 dev w0", GAIN),
                ("ip route add 10.1.0.0/24 via 192.0.2.2", NOTHING),
                ("ip -6 route add fd00:1::/64 dev w0", NOTHING),
                ("ip neigh add 192.0.2.3 lladdr 02:00:00:00:00:03 dev w0 nud permanent", NOTHING),
                ("ip neigh del 192.0.2.3 dev w0", NOTHING),
                ("ip route append 10.1.0.0/24 via 192.0.2.4", NOTHING),
                ("ip route del 10.1.0.0/24 via 192.0.2.4", LOSS),
                ("ip route replace 10.1.0.0/24 via 192.0.2.3", LOSS),
                ("ip route change 10.1.0.0/24 via 192.0.2.2", LOSS),
                ("ip route replace blackhole 10.1.0.0/24", LOSS),
                ("ip route replace 10.1.0.0/24 via 192.0.2.3 table 7", NOTHING),
                ("ip -6 route replace fd00:1::/64 dev w1", LOSS),
                ("ip route del blackhole 10.1.0.0/24", GAIN),
                ("ip route add 10.1.0.0/24 via 192.0.2.2", NOTHING),
                ("ip route del 10.1.0.0/24", LOSS),
                ("ip -6 route del fd00:1::/64", LOSS),
                ("sysctl -qw net.ipv4.ip_forward=0", RUIN),
                ("sysctl -qw net.ipv4.ip_forward=1", NOTHING),
                ("ip link set w0 down", LOSS),
                ("ip link set w0 up", GAIN),
                ("ip address del 192.0.2.1/24 dev w0", LOSS),
                ("ip link add v type vxlan id 7 dstport 4789 nolearning", NOTHING),
                ("bridge fdb append 02:00:00:00:00:04 dev v dst 192.0.2.4", NOTHING),
                ("bridge fdb del 02:00:00:00:00:04 dev v dst 192.0.2.4", LOSS),
                ("ip link del v", RUIN),
                ("ip link add w9 type vxlan id 9 dstport 4790 nolearning", GAIN),
                ("ip neigh add 192.0.2.8 lladdr 02:00:00:00:00:08 dev w9 nud permanent", NOTHING),
                ("ip neigh del 192.0.2.8 dev w9", LOSS),
                ("ip neigh add fd00::8 lladdr 02:00:00:00:00:08 dev w9 nud permanent", NOTHING),
                ("ip neigh flush nud all dev w9", LOSS),
                ("ip link set w9 mtu 1300", GAIN),
                ("ip link del w9", RUIN),
            ],
        );
        // A pod's pair comes and goes.
        sh("ip link add w2 type veth peer name w3");
        sh("ip link del w2");
        assert_eq!(watch.heard().unwrap(), None);
    });
}

#[test]
fn a_tunnel_that_was_there_before_is_known() {
    in_fresh_namespace(|| {
        sh("ip link add w9 type vxlan id 9 dstport 4790 nolearning");
        sh("ip neigh add 192.0.2.8 lladdr 02:00:00:00:00:08 dev w9 nud permanent");
        let watch = Watch::of_network("w9").unwrap();
        told(&watch, &[("ip neigh del 192.0.2.8 dev w9", LOSS)]);
    });
}

#[test]
fn what_is_taken_from_wefts_table_is_a_loss_and_what_becomes_of_others_is_not() {
    in_fresh_namespace(|| {
        let watch = Watch::of_firewall().unwrap();
        told(
            &watch,
            &[
                ("nft add table inet weft", NOTHING),
                ("nft add chain inet weft ports", NOTHING),
                ("nft add rule inet weft ports accept", NOTHING),
                ("nft add set inet weft pods { type ipv4_addr ; }", NOTHING),
                ("nft add element inet weft pods { 10.0.0.1 }", NOTHING),
                ("nft delete element inet weft pods { 10.0.0.1 }", LOSS),
                ("nft flush chain inet weft ports", RUIN),
                ("nft delete chain inet weft ports", RUIN),
                ("nft add table inet other", NOTHING),
                ("nft add chain inet other c", NOTHING),
                ("nft add rule inet other c accept", NOTHING),
                ("nft delete table inet other", NOTHING),
                ("nft flush ruleset", RUIN),
            ],
        );
    });
}

#[test]
fn more_than_fits_is_a_loss() {
    in_fresh_namespace(|| {
        sh("ip link set lo up");
        let watch = Watch::of_network("w9").unwrap();
        let routes: String = (0..20_000_u32)
            .map(|n| format!("route add {} dev lo\n", Ipv4Addr::from(0x0a00_0000 + n)))
            .collect();
        feed("ip", &["-batch", "-"], &routes);
        assert_eq!(watch.heard().unwrap(), RUIN, "nobody knows what it missed");
        told(&watch, &[("ip route add 10.9.0.0/24 dev lo", NOTHING), ("ip route del 10.9.0.0/24", LOSS)]);
    });
}
