//! A network configuration list, as far as it can be judged before a runtime reads it.

use std::path::Path;

use serde_json::Value;

/// What a runtime would refuse, or never read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The name has another ending than the runtime looks for.
    #[error("its name does not end in .conflist; a runtime would not read it as a list")]
    Name,
    /// It is not JSON.
    #[error("it is not JSON: {0}")]
    Json(String),
    /// A key of the list is not as the specification wants it.
    #[error("{key} must be {expected}")]
    Key {
        /// The key's place.
        key: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// The plugin types that a list names, or everything that is wrong with it (specification, section 1).
pub(crate) fn plugin_types(path: &Path, text: &[u8]) -> Result<Vec<String>, Vec<Flaw>> {
    let mut flaws = Vec::new();
    if path.extension().is_none_or(|extension| extension != "conflist") {
        flaws.push(Flaw::Name);
    }
    let list: Value = match serde_json::from_slice(text) {
        Ok(list) => list,
        Err(error) => {
            flaws.push(Flaw::Json(error.to_string()));
            return Err(flaws);
        }
    };
    for key in ["cniVersion", "name"] {
        if !is_text(list.get(key)) {
            flaws.push(Flaw::Key { key: key.into(), expected: "a text" });
        }
    }
    let plugins = list.get("plugins").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if plugins.is_empty() {
        flaws.push(Flaw::Key { key: "plugins".into(), expected: "a list of at least one plugin" });
    }
    let mut types = Vec::new();
    for (index, plugin) in plugins.iter().enumerate() {
        match plugin.get("type").and_then(Value::as_str).filter(|text| !text.is_empty()) {
            Some(text) => types.push(text.to_owned()),
            None => flaws.push(Flaw::Key { key: format!("plugins[{index}].type"), expected: "a text" }),
        }
    }
    if flaws.is_empty() { Ok(types) } else { Err(flaws) }
}

/// Whether a runtime takes a file of this name for a configuration.
pub(crate) fn is_read_by_runtimes(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("conf" | "conflist" | "json"))
}

fn is_text(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str).is_some_and(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(name: &str, text: &str) -> Result<Vec<String>, Vec<String>> {
        plugin_types(Path::new(name), text.as_bytes())
            .map_err(|flaws| flaws.iter().map(Flaw::to_string).collect())
    }

    #[test]
    fn a_good_list_gives_its_plugin_types() {
        let text =
            r#"{"cniVersion": "1.1.0", "name": "pods", "plugins": [{"type": "weft-cni"}, {"type": "sbr"}]}"#;
        assert_eq!(judge("/x/10-weft.conflist", text), Ok(vec!["weft-cni".into(), "sbr".into()]));
    }

    #[test]
    fn everything_wrong_with_a_list_is_found_at_once() {
        let found =
            judge("x.conf", r#"{"name": "", "plugins": [{}, {"type": "a"}, {"type": 7}]}"#).unwrap_err();
        assert_eq!(
            found,
            [
                "its name does not end in .conflist; a runtime would not read it as a list",
                "cniVersion must be a text",
                "name must be a text",
                "plugins[0].type must be a text",
                "plugins[2].type must be a text",
            ]
        );
        let found = judge("x.conflist", "{\n  \"name\": \"a\"\n  \"plugins\": []\n}").unwrap_err();
        assert_eq!(found, ["it is not JSON: expected `,` or `}` at line 3 column 3"]);
        let found =
            judge("x.conflist", r#"{"cniVersion": "1.0.0", "name": "a", "plugins": []}"#).unwrap_err();
        assert_eq!(found, ["plugins must be a list of at least one plugin"]);
    }

    #[test]
    fn files_in_the_making_are_not_read_by_runtimes() {
        assert!(["a.conf", "a.conflist", "a.json"].into_iter().all(is_read_by_runtimes));
        assert!(
            [".weft-node.10-weft.conflist.new", ".weft-node.owned", "conf"]
                .iter()
                .all(|n| !is_read_by_runtimes(n))
        );
    }
}
