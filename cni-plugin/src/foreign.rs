//! What others have put on the node that is in the way of pods although all of Weft's stands as planned. It is a remark and no
//! difference: nothing of it was in a plan, and no repair may touch it.

use std::collections::BTreeSet;
use std::fs;

use ipnetwork::IpNetwork;
use weft_datapath::{BaseChain, Hook, HostPort, Nft, listened_to};

use crate::Error;

/// Where Weft's own chain translates destinations.
const PRIORITY_OF_PORTS: i32 = -100;

/// What may keep packets from pods in `subnets` and from their host `ports`, and who loses packets to those.
pub(crate) fn remarks(
    subnets: &BTreeSet<IpNetwork>,
    ports: impl Iterator<Item = HostPort>,
) -> Result<Vec<String>, Error> {
    let legacy = LEGACY.iter().filter_map(|(file, tools)| legacy(&fs::read_to_string(file).ok()?, tools));
    let legacy: Vec<_> = legacy.filter(|_| !subnets.is_empty()).collect();
    let Some(nft) = Nft::open_if_any()? else { return Ok(legacy) };
    let (chains, ports) = (nft.foreign_chains()?, ports.collect::<Vec<_>>());
    let chains = chains.iter().filter_map(|chain| remark(chain, subnets, !ports.is_empty()));
    Ok(legacy.into_iter().chain(chains).chain(deaf(&ports)?).collect())
}

/// The names of the tables of the old iptables that stand in the namespace, and with what they are looked at.
const LEGACY: [(&str, &str); 2] =
    [("/proc/net/ip_tables_names", "iptables-legacy"), ("/proc/net/ip6_tables_names", "ip6tables-legacy")];

/// What is in these tables nobody can ask nf_tables for.
fn legacy(names: &str, tools: &str) -> Option<String> {
    let names: Vec<_> = names.lines().collect();
    (!names.is_empty()).then(|| {
        format!(
            "tables of {tools} stand here ({}): their rules see what pods send and get, too, and are not looked at; `{tools}-save` \
             shows them",
            names.join(", ")
        )
    })
}

/// A process of the node that listens on a pod's port hears nothing of it. The ADD does not refuse that: the process may just be
/// ending, or have reserved the port for this very pod.
fn deaf(ports: &[HostPort]) -> Result<BTreeSet<String>, Error> {
    let found = listened_to(ports.iter().copied())?;
    // Who listens for both families is one.
    Ok(found
        .iter()
        .map(|port| format!("a process of the node listens on {port}, but what comes there goes to a pod"))
        .collect())
}

fn remark(chain: &BaseChain, subnets: &BTreeSet<IpNetwork>, have_ports: bool) -> Option<String> {
    match chain.hook {
        Hook::Forward if chain.drops => dropping(chain, subnets),
        Hook::TranslatesDestination if have_ports && chain.priority < PRIORITY_OF_PORTS => Some(format!(
            "the nftables chain {chain} translates destinations before Weft: a rule of it for a host port wins"
        )),
        Hook::Forward | Hook::TranslatesDestination => None,
    }
}

/// Whether its rules accept the pods is more than can be told here.
fn dropping(chain: &BaseChain, subnets: &BTreeSet<IpNetwork>) -> Option<String> {
    let concerns = |subnet: &&IpNetwork| match chain.family {
        "ip" => subnet.is_ipv4(),
        "ip6" => subnet.is_ipv6(),
        _ => true,
    };
    let remedies: Vec<_> = subnets.iter().filter(concerns).map(|subnet| remedy(chain, *subnet)).collect();
    (!remedies.is_empty()).then(|| {
        format!(
            "the nftables chain {chain} drops by default what is forwarded: unless a rule of it accepts them, packets from \
             and to pods are lost; to accept them: {}",
            remedies.join("; ")
        )
    })
}

/// In the words of whose chain it is; what is put into the tables of iptables or firewalld by other means is gone with their
/// next reload.
fn remedy(chain: &BaseChain, subnet: IpNetwork) -> String {
    let tables = if subnet.is_ipv4() { "iptables" } else { "ip6tables" };
    match (chain.table.as_str(), chain.name.as_str()) {
        ("filter", "FORWARD") => format!(
            "the plugin `firewall` behind Weft in the list, or `{tables} -I FORWARD -s {subnet} -j ACCEPT` and `{tables} -I \
             FORWARD -d {subnet} -j ACCEPT`"
        ),
        ("firewalld", _) => {
            format!(
                "`firewall-cmd --permanent --zone=trusted --add-source={subnet}` and `firewall-cmd --reload`"
            )
        }
        _ => {
            let ip = if subnet.is_ipv4() { "ip" } else { "ip6" };
            let rule = |side| format!("`nft insert rule {chain} {ip} {side} {subnet} accept`");
            format!("{} and {}", rule("saddr"), rule("daddr"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(family: &'static str, table: &str, hook: Hook, priority: i32, drops: bool) -> BaseChain {
        BaseChain { family, table: table.to_owned(), name: "FORWARD".to_owned(), hook, priority, drops }
    }

    fn said(chain: &BaseChain, subnets: &[&str]) -> Option<String> {
        remark(chain, &subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(), true)
    }

    #[test]
    fn what_drops_by_default_is_told_with_the_line_to_add() {
        let both = ["10.1.0.0/24", "fd01::/64"];
        for (family, table, lines) in [
            ("ip", "filter", vec!["`iptables -I FORWARD -s 10.1.0.0/24 -j ACCEPT`", "the plugin `firewall`"]),
            ("ip6", "filter", vec!["`ip6tables -I FORWARD -d fd01::/64 -j ACCEPT`"]),
            ("inet", "firewalld", vec!["--add-source=10.1.0.0/24`", "--add-source=fd01::/64`"]),
            (
                "inet",
                "mine",
                vec![
                    "`nft insert rule inet mine FORWARD ip saddr 10.1.0.0/24 accept`",
                    "`nft insert rule inet mine FORWARD ip6 daddr fd01::/64 accept`",
                ],
            ),
        ] {
            let said = said(&chain(family, table, Hook::Forward, 0, true), &both).unwrap();
            assert!(said.contains(&format!("chain {family} {table} FORWARD drops by default")), "{said}");
            assert!(lines.iter().all(|line| said.contains(line)), "{lines:?}: {said}");
        }
    }

    #[test]
    fn tables_of_the_old_iptables_are_named() {
        assert_eq!(legacy("", "iptables-legacy"), None);
        let said = legacy("nat\nfilter\n", "iptables-legacy").unwrap();
        assert!(said.contains("(nat, filter)") && said.contains("`iptables-legacy-save`"), "{said}");
    }

    #[test]
    fn what_concerns_no_pod_is_not_told() {
        assert_eq!(said(&chain("ip6", "filter", Hook::Forward, 0, true), &["10.1.0.0/24"]), None);
        assert_eq!(said(&chain("inet", "filter", Hook::Forward, 0, true), &[]), None);
        assert_eq!(said(&chain("ip", "filter", Hook::Forward, 0, false), &["10.1.0.0/24"]), None);
        let later = chain("ip", "nat", Hook::TranslatesDestination, PRIORITY_OF_PORTS, false);
        assert_eq!(said(&later, &["10.1.0.0/24"]), None);
        let earlier = chain("ip", "nat", Hook::TranslatesDestination, -150, false);
        assert!(said(&earlier, &[]).unwrap().contains("chain ip nat FORWARD translates destinations before"));
    }
}
