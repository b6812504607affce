//! The path that Envoy compares routes with where `normalize_path` is set: without dot segments and with the escapes of
//! characters that need none undone (`source/common/http/legacy_path_canonicalizer.cc`). `%2F` stays, and so do
//! repeated slashes.

/// `path` with its query, normalised.
pub(super) fn normalized(path: &str) -> String {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (path, query) = path.split_at(end);
    without_dots(&unescaped(path)) + query
}

/// Escapes of what never needs one are undone, what always needs one gets it.
fn unescaped(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path.bytes().enumerate();
    while let Some((at, byte)) = rest.next() {
        let escaped = (byte == b'%').then(|| path.get(at + 1..at + 3)).flatten();
        let code = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(code) if code.is_ascii_alphanumeric() || b"-._~".contains(&code) => {
                plain.push(char::from(code));
                rest.nth(1);
            }
            _ if byte == b'\\' => plain.push('/'),
            _ if needs_escape(byte) => plain.push_str(&format!("%{byte:02X}")),
            _ => plain.push(char::from(byte)),
        }
    }
    plain
}

fn needs_escape(byte: u8) -> bool {
    !(0x21..0x7f).contains(&byte) || b"\"#<>?^`{|}".contains(&byte)
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                kept.pop();
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_what_the_upstream_would_take_it_for() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/../../a", "/a"),
            ("/%61%2e%2E/b%2Fc", "/a../b%2Fc"),
            ("/a/%2e%2E/b?c=../d", "/b?c=../d"),
            ("/a//b", "/a//b"),
            ("/a%", "/a%"),
        ] {
            assert_eq!(normalized(path), normal, "{path}");
        }
    }
}
