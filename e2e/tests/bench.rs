//! `make bench` works; what it measures is for people to read.

#![cfg(test)]

use std::process::Command;

use weft_e2e::output;

const FEW: [&str; 12] = [
    "--pods",
    "2",
    "--burst",
    "3",
    "--at-once",
    "2",
    "--standing",
    "10",
    "--reference-standing",
    "1",
    "--rounds",
    "1",
];

#[test]
fn a_short_benchmark_has_a_row_for_every_comparison() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_weft-bench"));
    // Debian's, which have one backend: the other one's row must not be there, and that must be said.
    let table = output(bench.args(FEW).env("REFERENCE_CNI_PATH", "/usr/lib/cni")).unwrap();
    for who in ["reference, iptables", "bare netlink", "weft-cni"] {
        for (verb, rows) in [("ADD", 3), ("DEL", 3)] {
            let of_verb = table.lines().filter(|line| line.starts_with(verb) && line.contains(who));
            let numbers = of_verb.map(|line| line.split_once(who).unwrap().1.split_whitespace());
            let measured = numbers.filter(|numbers| numbers.clone().all(is_positive_or_left_out));
            assert!(measured.count() >= rows, "{verb} by {who} in\n{table}");
        }
    }
    for target in ["ADD / reference, iptables", "ADD / bare netlink", "DEL / bare netlink", "answer / "] {
        let line = table.lines().find(|line| line.starts_with(target)).unwrap_or_default();
        assert!(line.ends_with("met") || line.ends_with("missed"), "{target} in\n{table}");
    }
    assert!(table.contains("NOT MEASURED with nftables"), "{table}");
    assert!(table.contains("with iptables v"), "{table}");
}

fn is_positive_or_left_out(text: &str) -> bool {
    text == "–" || text.parse::<f64>().is_ok_and(|number| number > 0.0)
}
