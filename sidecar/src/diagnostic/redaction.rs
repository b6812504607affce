//! Which lines of a file are not shown, because a private key may be in them.
//!
//! By the text alone: the file may be no YAML at all, and the mistake may be in the very line that says what the document
//! is. Rather too much than too little: a mistake has its file, line and column all the same.

/// What stands in the place of such a line.
pub(super) const NOT_SHOWN: &str = "(a line of a Secret, not shown)";

/// How a private key begins, and `-----BEGIN` in base64.
const SIGNS: &[&str] = &["PRIVATE KEY", "LS0tLS1CRUdJTi", "stringData"];

/// Whether the line, counted from 1, is in a document that may hold something secret.
pub(super) fn is_secret(text: &str, line: usize) -> bool {
    let at = line.saturating_sub(1);
    let lines: Vec<&str> = text.lines().collect();
    let is_border = |line: &&str| line.trim_end() == "---" || line.starts_with("--- ");
    let before = lines.iter().take(at + 1).rposition(is_border).map_or(0, |border| border + 1);
    let after = lines.iter().skip(at + 1).position(is_border).map_or(lines.len(), |on| at + 1 + on);
    let document = lines.get(before..after).unwrap_or_default();
    let is_json = document
        .iter()
        .find(|line| !line.trim().is_empty())
        .is_some_and(|line| line.trim_start().starts_with(['{', '[']));
    document.iter().any(|line| SIGNS.iter().any(|sign| line.contains(sign)) || says_secret(line, is_json))
}

/// `kind: Secret` of the document itself, not of a reference in it; in JSON that cannot be told.
fn says_secret(line: &str, is_json: bool) -> bool {
    line.contains("Secret") && line.contains("kind") && (is_json || line.starts_with(['k', '"', '\'']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_secret_are_secret_and_those_around_it_are_not() {
        let text = "kind: Gateway\nspec: [{kind: Secret}]\n---\nkind: Secret\ndata:\n  tls.key: c2VjcmV0\n---\nkind: Service\n";
        let hidden: Vec<usize> = (1..=8).filter(|line| is_secret(text, *line)).collect();
        assert_eq!(hidden, [3, 4, 5, 6]);
    }

    #[test]
    fn a_private_key_is_secret_wherever_it_is() {
        assert!(is_secret("kind: Secrt\nx: |\n  -----BEGIN EC PRIVATE KEY-----\n  abc\n", 4));
        assert!(is_secret("data: {tls.key: LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0t}\n", 1));
        assert!(is_secret("{\"kind\": \"Secret\", \"data\": {\"tls.key\": \"c2VjcmV0\"}}", 1));
        assert!(is_secret("\n{\n \"kind\":\n \"Secret\", \"kind\": \"Secret\",\n \"data\": 1}", 5));
        assert!(!is_secret("kind: HTTPRoute\n", 1));
        assert!(!is_secret("", 7));
    }
}
