//! `logFile` and `logLevel`: where the plugin writes down what it does, and how much of it.

use std::path::PathBuf;

use serde_json::{Map, Value};
use weft_ipam::config::{Mistake, did_you_mean};

use crate::error::mistake;

/// What is written, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// The file; standard error where there is none.
    pub file: Option<PathBuf>,
    /// Lines of this level and above; `None` writes nothing.
    pub level: Option<Level>,
}

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A verb failed.
    Error,
    /// Something was out of order, and was dealt with.
    Warn,
    /// A verb succeeded.
    Info,
    /// How long each part of it took.
    Debug,
}

pub(super) const KEYS: [&str; 2] = ["logFile", "logLevel"];

const NAMES: [(&str, Level); 4] =
    [("error", Level::Error), ("warn", Level::Warn), ("info", Level::Info), ("debug", Level::Debug)];

impl Level {
    /// As it is written in a configuration and in a line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl Logging {
    /// A file without a level gets what `info` lets through.
    pub(crate) fn read(document: &Map<String, Value>, mistakes: &mut Vec<Mistake>) -> Self {
        let said = |key: &str| document.get(key).filter(|value| !matches!(value, Value::Null));
        let file = said("logFile").and_then(|value| match value.as_str() {
            Some(path) if path.starts_with('/') => Some(path.into()),
            _ => {
                mistakes.push(mistake("logFile", format!("{value} is no absolute path")));
                None
            }
        });
        let level = said("logLevel").and_then(|value| {
            let text = value.as_str().unwrap_or_default();
            let known = NAMES.iter().find(|(name, _)| *name == text);
            if known.is_none() {
                let hint = did_you_mean(text, NAMES.iter().map(|(name, _)| *name));
                let what = format!(r#"{value} is none of "error", "warn", "info" and "debug"{hint}"#);
                mistakes.push(mistake("logLevel", what));
            }
            known.map(|(_, level)| *level)
        });
        let default = file.is_some().then_some(Level::Info);
        Self { file, level: level.or(default) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(document: &Value) -> (Logging, Vec<String>) {
        let mut mistakes = Vec::new();
        let logging = Logging::read(document.as_object().unwrap(), &mut mistakes);
        (logging, mistakes.into_iter().map(|mistake| format!("{}: {}", mistake.at, mistake.what)).collect())
    }

    #[test]
    fn a_file_has_a_level_and_a_level_needs_no_file() {
        let file = Some(PathBuf::from("/var/log/weft/cni.log"));
        for (document, expected) in [
            (json!({}), Logging::default()),
            (json!({"logFile": null, "logLevel": null}), Logging::default()),
            (json!({"logFile": file}), Logging { file: file.clone(), level: Some(Level::Info) }),
            (
                json!({"logFile": file, "logLevel": "error"}),
                Logging { file: file.clone(), level: Some(Level::Error) },
            ),
            (json!({"logLevel": "debug"}), Logging { file: None, level: Some(Level::Debug) }),
        ] {
            assert_eq!(read(&document), (expected, Vec::new()), "{document}");
        }
    }

    #[test]
    fn what_is_no_path_or_no_level_is_a_mistake() {
        let (logging, mistakes) = read(&json!({"logFile": "cni.log", "logLevel": "debg"}));
        assert_eq!(logging, Logging::default());
        assert_eq!(
            mistakes,
            [
                "logFile: \"cni.log\" is no absolute path",
                "logLevel: \"debg\" is none of \"error\", \"warn\", \"info\" and \"debug\"; did you mean \"debug\"?",
            ]
        );
        assert_eq!(read(&json!({"logFile": 7, "logLevel": 7})).1.len(), 2);
    }
}
