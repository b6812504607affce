//! The firewall of the thread's namespace, as `nft` shows it.

use std::process::Command;

pub(crate) fn ruleset() -> String {
    let nft = Command::new("nft").args(["list", "ruleset"]).output().expect("nft is installed by make");
    assert!(nft.status.success(), "{}", String::from_utf8_lossy(&nft.stderr));
    String::from_utf8(nft.stdout).unwrap()
}

pub(crate) fn assert_shown(lines: &[&str]) {
    let shown = ruleset();
    for line in lines {
        assert!(shown.contains(line), "{line:?} is missing from\n{shown}");
    }
}
