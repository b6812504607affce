//! `resolv.conf` as the name service of a result, with host-local's reading of it.

use weft_cni_spec::Dns;

/// Reads the lines that a result can express; comments and other keywords say nothing here. The last `domain` and
/// `search` line counts (resolv.conf(5)).
pub fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next(),
            Some("search") => dns.search = words.collect(),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_result_can_express_is_read_and_the_rest_is_not() {
        let text = "# by hand\nnameserver 10.96.0.10\nnameserver fd00::a\nsearch old\nsearch svc.local local\n\
                    domain example.org\noptions ndots:5 edns0\n; more\nsortlist 10.0.0.0\n";
        let dns = parse(text);
        assert_eq!(dns.nameservers, ["10.96.0.10", "fd00::a"]);
        assert_eq!(dns.search, ["svc.local", "local"]);
        assert_eq!(dns.domain.as_deref(), Some("example.org"));
        assert_eq!(dns.options, ["ndots:5", "edns0"]);
    }
}
