//! `make bench` works; what it measures is for people to read.

#![cfg(test)]

use std::process::Command;

use weft_e2e::output;

#[test]
fn a_short_benchmark_has_a_row_for_every_comparison() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_weft-bench"));
    let table = output(bench.args(["--pods", "2", "--burst", "3", "--rounds", "1"])).unwrap();
    for row in
        ["ADD, one by one", "DEL, one by one", "ADD, 3 at once", "DEL, 3 at once", "all 3 ADDs", "all 3 DELs"]
    {
        let line = table
            .lines()
            .find(|line| line.starts_with(row))
            .unwrap_or_else(|| panic!("no {row} in\n{table}"));
        let numbers =
            line.trim_start_matches(row).split_whitespace().map(|number| number.parse::<f64>().unwrap());
        assert_eq!(numbers.filter(|number| *number > 0.0).count(), 6, "{line}");
    }
}
