//! What the pod tells the process: its environment, and the files of a downward API volume.
//!
//! Such a file has a line for each label or annotation, `KEY="VALUE"`, sorted, the value quoted as Go's `%q` does
//! (`fieldpath.FormatMap` of Kubernetes).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files::Content;

/// The environment and the files, as they were last looked at.
#[derive(Debug, Default)]
pub struct Surroundings {
    environment: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, Result<String, Unavailable>>,
}

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// There is none.
    Missing(String),
    /// It cannot be read, or is not in the format it should be in.
    Unreadable(String),
}

impl Surroundings {
    /// With these variables, and no files yet.
    pub fn new(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { environment: environment.into_iter().collect(), files: BTreeMap::new() }
    }

    /// Those of this process. Variables that are not text are left out.
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os();
        Self::new(
            pairs.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// Reads `wanted` and forgets other files. Those in `unsettled` are just being written: they stay what they were.
    /// Returns when what differs from before was changed.
    pub fn look(&mut self, wanted: &BTreeSet<PathBuf>, unsettled: &BTreeSet<PathBuf>) -> Option<SystemTime> {
        self.files.retain(|path, _| wanted.contains(path));
        let settled =
            wanted.iter().filter(|path| !unsettled.contains(*path) || !self.files.contains_key(*path));
        let settled: Vec<&PathBuf> = settled.collect();
        settled.into_iter().filter_map(|path| self.look_at(path)).max()
    }

    fn look_at(&mut self, path: &Path) -> Option<SystemTime> {
        let (now, changed) = match Content::read(path) {
            Ok(Content { garbled: Some(_), changed, .. }) => {
                (Err(Unavailable::Unreadable(format!("{} is not UTF-8", path.display()))), changed)
            }
            Ok(content) => (Ok(content.text), content.changed),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                (Err(Unavailable::Missing(format!("there is no file {}", path.display()))), SystemTime::now())
            }
            Err(error) => {
                let why = format!("cannot read {}: {error}", path.display());
                (Err(Unavailable::Unreadable(why)), SystemTime::now())
            }
        };
        let differs = self.files.get(path) != Some(&now);
        self.files.insert(path.to_owned(), now);
        differs.then_some(changed)
    }

    /// An environment variable.
    pub fn variable(&self, name: &str) -> Result<String, Unavailable> {
        let value = self.environment.get(name).cloned();
        value.ok_or_else(|| Unavailable::Missing(format!("the environment variable {name} is not set")))
    }

    /// The one line of a file.
    pub fn line(&self, path: &Path) -> Result<String, Unavailable> {
        let text = self.text(path)?;
        Ok(text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line)).to_owned())
    }

    /// The value of `key` in a file of the downward API.
    pub fn field(&self, path: &Path, key: &str) -> Result<String, Unavailable> {
        let prefix = format!("{key}=");
        let quoted = self.text(path)?.lines().find_map(|line| line.strip_prefix(&prefix));
        let quoted =
            quoted.ok_or_else(|| Unavailable::Missing(format!("{} has no line {key}=…", path.display())))?;
        unquoted(quoted).ok_or_else(|| {
            Unavailable::Unreadable(format!(
                "{}: the value of {key} is not quoted as it should be",
                path.display()
            ))
        })
    }

    fn text(&self, path: &Path) -> Result<&str, Unavailable> {
        match self.files.get(path) {
            Some(Ok(text)) => Ok(text),
            Some(Err(why)) => Err(why.clone()),
            None => Err(Unavailable::Missing(format!("{} has not been read", path.display()))),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) | Self::Unreadable(why) => f.write_str(why),
        }
    }
}

/// The text that Go's `strconv.Quote` would write as `quoted`; `None` if it would write nothing like it.
fn unquoted(quoted: &str) -> Option<String> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => return None,
            '\\' => escaped(&mut rest, &mut bytes)?,
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    String::from_utf8(bytes).ok()
}

/// What follows a backslash. `\x` is a byte, which Go writes where a text is not UTF-8; the others are characters.
fn escaped(rest: &mut std::str::Chars<'_>, bytes: &mut Vec<u8>) -> Option<()> {
    let character = match rest.next()? {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        c @ ('"' | '\\') => c,
        'x' => {
            bytes.push(u8::try_from(hexadecimal(rest, 2)?).ok()?);
            return Some(());
        }
        'u' => char::from_u32(hexadecimal(rest, 4)?)?,
        'U' => char::from_u32(hexadecimal(rest, 8)?)?,
        _ => return None,
    };
    bytes.extend(character.encode_utf8(&mut [0; 4]).bytes());
    Some(())
}

fn hexadecimal(rest: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0, |value, _| Some(value * 16 + rest.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn around(path: &Path) -> Surroundings {
        let mut around = Surroundings::default();
        around.look(&BTreeSet::from([path.to_owned()]), &BTreeSet::new());
        around
    }

    /// As Go does it for texts that are UTF-8 and printable or one of the short escapes.
    fn quoted(text: &str) -> String {
        let mut quoted = String::from("\"");
        for c in text.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                '\n' => quoted.push_str("\\n"),
                c if c < '\u{80}' && c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
                c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => quoted.push(c),
            }
        }
        quoted + "\""
    }

    #[test]
    fn the_example_of_the_kubernetes_documentation_is_understood() {
        let dir = tempfile::tempdir().expect("directory");
        let labels = dir.path().join("labels");
        fs::write(&labels, "cluster=\"test-cluster1\"\nrack=\"rack-22\"\nzone=\"us-est-coast\"")
            .expect("write");
        let around = around(&labels);
        assert_eq!(around.field(&labels, "rack").as_deref(), Ok("rack-22"));
        assert_eq!(around.field(&labels, "zone").as_deref(), Ok("us-est-coast"));
        assert!(matches!(around.field(&labels, "zon"), Err(Unavailable::Missing(_))));
    }

    #[test]
    fn what_is_not_quoted_as_go_does_is_refused() {
        for bad in [
            "",
            "\"",
            "x",
            "\"a",
            "a\"",
            "\"a\"b\"",
            "\"\\\"",
            "\"\\q\"",
            "\"\\x1\"",
            "\"\\ud800\"",
            "\"\\xff\"",
        ] {
            assert_eq!(unquoted(bad), None, "{bad}");
        }
        assert_eq!(
            unquoted(r#""\a\b\f\n\r\t\v\"\\\u00e4\U0001f980\xc3\xa4""#).as_deref(),
            Some("\u{7}\u{8}\u{c}\n\r\t\u{b}\"\\ä🦀ä")
        );
    }

    #[test]
    fn a_change_is_noticed_and_a_rewrite_is_none() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("build");
        let wanted = BTreeSet::from([path.clone()]);
        let mut around = Surroundings::default();
        let look = |around: &mut Surroundings| around.look(&wanted, &BTreeSet::new()).is_some();
        assert!(look(&mut around), "it is missing, which is news");
        fs::write(&path, "one\n").expect("write");
        assert!(look(&mut around));
        assert_eq!(around.line(&path).as_deref(), Ok("one"));
        fs::write(&path, "one\n").expect("write");
        assert!(!look(&mut around));
        fs::write(&path, "two\n").expect("write");
        assert!(around.look(&wanted, &wanted).is_none(), "it is being written");
        assert!(look(&mut around));
    }

    proptest! {
        #[test]
        fn quoting_and_unquoting_are_inverse(text in "\\PC*|.*") {
            prop_assert_eq!(unquoted(&quoted(&text)), Some(text));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            unquoted(&text);
        }
    }
}
