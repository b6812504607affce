//! `resolv.conf` as the name service of a result, with host-local's reading of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use weft_cni_spec::Dns;

/// More than any resolver reads.
const LIMIT: u64 = 64 << 10;

/// Reads the file at `path`.
///
/// # Errors
/// Where it cannot be read, or is no file of the size of a `resolv.conf`: a pipe might never end, nor a device.
pub fn read(path: &Path) -> io::Result<Dns> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LIMIT {
        return Err(io::Error::other(format!("it is longer than {LIMIT} bytes")));
    }
    Ok(parse(&text))
}

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
    fn only_a_file_of_a_reasonable_size_is_read() {
        let refused = |path: &Path| read(path).unwrap_err().to_string();
        assert_eq!(refused(Path::new("/dev/zero")), "it is not a regular file");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "nameserver 10.96.0.10\n").unwrap();
        assert_eq!(read(file.path()).unwrap().nameservers, ["10.96.0.10"]);
        fs::write(file.path(), "#".repeat(LIMIT as usize + 1)).unwrap();
        assert_eq!(refused(file.path()), "it is longer than 65536 bytes");
    }

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
