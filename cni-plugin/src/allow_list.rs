//! The operator's list of parameters that a network configuration may set, as the reference plugin `tuning` has it.

mod pattern;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use weft_ipam::config::{Mistake, Mistakes};

use crate::Error;
use crate::allow_list::pattern::Pattern;
use crate::config::Sysctl;
use crate::error::mistake;

/// Where the reference has it.
const FILE: &str = "/etc/cni/tuning/allowlist.conf";

/// Refuses those of `sysctls` that the list does not have. Without a list all are allowed; with an empty one, none.
///
/// # Errors
/// All that are refused, and all lines of the list that cannot be read: none of them allows anything.
pub(crate) fn allow(sysctls: &[Sysctl]) -> Result<(), Error> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let text = match fs::read_to_string(FILE) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::AllowList { path: Path::new(FILE).to_owned(), source }),
    };
    let mistakes = refused(&text, sysctls);
    if mistakes.is_empty() { Ok(()) } else { Err(Error::Config(Mistakes(mistakes))) }
}

/// A line is a regular expression for the name as the configuration has it, `IFNAME` included; it need not cover all of
/// the name.
fn refused(list: &str, sysctls: &[Sysctl]) -> Vec<Mistake> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty());
    let (mut patterns, mut mistakes) = (Vec::new(), Vec::new());
    for line in lines {
        match Pattern::parse(line) {
            Ok(pattern) => patterns.push(pattern),
            Err(what) => mistakes.push(mistake(FILE, format!("{line:?}: {what}"))),
        }
    }
    let is_refused = |sysctl: &&Sysctl| !patterns.iter().any(|pattern| pattern.is_in(&sysctl.name));
    let refused = sysctls.iter().filter(is_refused);
    mistakes.extend(
        refused.map(|sysctl| mistake(format!("sysctl.{}", sysctl.name), format!("{FILE} does not allow it"))),
    );
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(list: &str, names: &[&str]) -> Vec<String> {
        let sysctls: Vec<_> = names.iter().map(|name| Sysctl::new(name, "1").unwrap()).collect();
        refused(list, &sysctls)
            .into_iter()
            .map(|mistake| format!("{}: {}", mistake.at, mistake.what))
            .collect()
    }

    #[test]
    fn what_a_line_matches_is_allowed_and_nothing_else() {
        let list = "\n  ^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$\nnet.core.somaxconn\r\n";
        let allowed = ["net.ipv4.conf.IFNAME.arp_filter", "net.core.somaxconn"];
        assert_eq!(refusals(list, &allowed), Vec::<String>::new());
        assert_eq!(
            refusals(list, &["net.ipv4.conf.all.arp_filter", "net.core.somaxconn", "net.ipv4.ip_forward"]),
            [
                "sysctl.net.ipv4.conf.all.arp_filter: /etc/cni/tuning/allowlist.conf does not allow it",
                "sysctl.net.ipv4.ip_forward: /etc/cni/tuning/allowlist.conf does not allow it",
            ]
        );
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        assert_eq!(refusals("\n \n", &["net.core.somaxconn"]).len(), 1);
    }

    #[test]
    fn a_line_that_cannot_be_read_is_an_error_and_allows_nothing() {
        assert_eq!(
            refusals("net.core.(\n", &["net.core.x"]),
            [
                "/etc/cni/tuning/allowlist.conf: \"net.core.(\": a group is not closed",
                "sysctl.net.core.x: /etc/cni/tuning/allowlist.conf does not allow it",
            ]
        );
    }
}
