//! Delegation to another IPAM plugin (SPEC.md, section 4, "Plugin Delegation").
//!
//! The plugin is looked up by its name in `CNI_PATH` and gets what Weft got: the environment, where only the span in
//! `TRACEPARENT` is Weft's own, and the whole configuration on standard input. Its standard error is Weft's. What it refuses is passed on with the code it chose.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{fmt, fs};

use serde_json::Value;
use weft_cni_spec::{self as spec, AddResult, Code, Conf};

use crate::error::code;
use crate::log;

mod exec;

use exec::Finished;

/// How long a verb may take. kubelet gives up on a pod after four minutes, and only an answer before that is read by
/// anybody; an IPAM that asks a server in another network may well need some seconds.
const ADD_LIMIT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(30);

/// The name of a plugin: a file in one of the directories of `CNI_PATH`, and never a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginName(String);

impl PluginName {
    /// The name, unless it could lead out of the directory.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn new(name: &str) -> Result<Self, String> {
        match name {
            "" | "." | ".." => Err(format!("{name:?} is not the name of a plugin")),
            // It would call itself for ever.
            "weft-cni" => Err(r#""weft-cni" is no IPAM plugin: say "weft-ipam""#.to_owned()),
            _ if name.contains(['/', '\0']) => {
                Err(format!("{name:?} is not the name of a plugin: it must not hold a /"))
            }
            _ => Ok(Self(name.to_owned())),
        }
    }

    /// Whether it gives an address back over the link that has it: a DHCP server is told there.
    pub(crate) fn needs_link(&self) -> bool {
        self.0 == "dhcp"
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A delegate did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nowhere to look for it.
    #[error("required env variables [CNI_PATH] missing: ipam.type {:?} is looked up there", .0.as_str())]
    NoPath(PluginName),
    /// It is not installed.
    #[error("cannot find the IPAM plugin {:?} in CNI_PATH {}: install it there, for only it can give and free its addresses", name.as_str(), shown(path))]
    NotFound {
        /// Its name.
        name: PluginName,
        /// Where it was looked for.
        path: Vec<PathBuf>,
    },
    /// It could not be run to its end.
    #[error("cannot run {verb} of the IPAM plugin {name}")]
    Exec {
        /// Its name.
        name: PluginName,
        /// What it was asked.
        verb: &'static str,
        /// Why.
        source: exec::Failure,
    },
    /// It ended in another way than the specification allows.
    #[error("{verb} of the IPAM plugin {name} ended with {status}, and without an error document")]
    Ended {
        /// Its name.
        name: PluginName,
        /// What it was asked.
        verb: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// What it printed is no JSON.
    #[error("the IPAM plugin {name} answered with something that is no JSON document")]
    Garbage {
        /// Its name.
        name: PluginName,
        /// Why.
        source: serde_json::Error,
    },
    /// What it printed is no result.
    #[error("the IPAM plugin {name} answered with something that is no result")]
    NoResult {
        /// Its name.
        name: PluginName,
        /// Why.
        source: spec::ResultError,
    },
    /// Its result cannot be used.
    #[error("the result of the IPAM plugin {name} cannot be used: {why}")]
    Unusable {
        /// Its name.
        name: PluginName,
        /// Why.
        why: String,
    },
    /// It refused.
    #[error("{0}")]
    Refused(spec::Error),
}

impl Error {
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::NoPath(_) => Code::INVALID_ENVIRONMENT,
            Self::NotFound { .. } => Code::INVALID_CONFIG,
            Self::Refused(error) => error.code,
            _ => code::DELEGATE,
        }
    }

    /// Whether the plugin has said in the protocol's words that it did nothing. Otherwise it may have done its work,
    /// or half of it.
    const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::NoPath(_) | Self::NotFound { .. })
    }
}

/// A plugin that was found, and the request to hand on.
#[derive(Clone, Debug)]
pub(crate) struct Delegate {
    name: PluginName,
    program: PathBuf,
    stdin: Vec<u8>,
    version: spec::Version,
}

impl Delegate {
    /// Finds `name` in the directories of `path`.
    pub(crate) fn find(name: &PluginName, path: &[PathBuf], conf: &Conf) -> Result<Self, Error> {
        let program = find(name, path)?;
        let stdin = Value::Object(conf.document.clone()).to_string().into_bytes();
        Ok(Self { name: name.clone(), program, stdin, version: conf.version })
    }

    /// What the plugin gives the attachment. It is undone when the answer is dropped, also where nobody can tell whether
    /// there is something to undo.
    pub(crate) fn add(&self) -> Result<Delegated<'_>, Error> {
        let mut delegated = Delegated { delegate: self, result: AddResult::default(), kept: false };
        match self.result() {
            Ok(result) => delegated.result = result,
            Err(error) => {
                // A plugin that refuses has left nothing; what there is belongs to somebody else.
                delegated.kept = error.is_refusal();
                return Err(error);
            }
        }
        Ok(delegated)
    }

    fn result(&self) -> Result<AddResult, Error> {
        let stdout = self.run("ADD", ADD_LIMIT)?;
        let garbage = |source| Error::Garbage { name: self.name.clone(), source };
        let document: Value = serde_json::from_slice(&stdout).map_err(garbage)?;
        let no_result = |source| Error::NoResult { name: self.name.clone(), source };
        AddResult::from_json(&document, self.version).map_err(no_result)
    }

    pub(crate) fn del(&self) -> Result<(), Error> {
        self.run("DEL", LIMIT).map(drop)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.run("CHECK", LIMIT).map(drop)
    }

    pub(crate) fn gc(&self) -> Result<(), Error> {
        self.run("GC", LIMIT).map(drop)
    }

    pub(crate) fn status(&self, limit: Duration) -> Result<(), Error> {
        self.run("STATUS", limit).map(drop)
    }

    /// What the plugin printed, if it succeeded.
    fn run(&self, verb: &'static str, limit: Duration) -> Result<Vec<u8>, Error> {
        let mut command = Command::new(&self.program);
        command.env("CNI_COMMAND", verb);
        if let Some(parent) = log::traceparent() {
            command.env("TRACEPARENT", parent);
        }
        let failed = |source| Error::Exec { name: self.name.clone(), verb, source };
        let Finished { status, stdout } = exec::run(&mut command, &self.stdin, limit).map_err(failed)?;
        if status.success() {
            return Ok(stdout);
        }
        let refused = refusal(&self.name, &stdout).map(Error::Refused);
        Err(refused.unwrap_or_else(|| Error::Ended { name: self.name.clone(), verb, status }))
    }
}

/// What a delegate gave, until it is kept.
#[derive(Debug)]
#[must_use = "dropping it gives the addresses back"]
pub(crate) struct Delegated<'a> {
    delegate: &'a Delegate,
    pub(crate) result: AddResult,
    kept: bool,
}

impl Delegated<'_> {
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    pub(crate) fn unusable(&self, why: impl Into<String>) -> Error {
        Error::Unusable { name: self.delegate.name.clone(), why: why.into() }
    }
}

impl Drop for Delegated<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // The failure that led here is the answer, and the runtime's DEL repeats this.
        if let Err(error) = self.delegate.del() {
            spec::log(format_args!("weft-cni: while undoing a failed ADD: {}", weft_ipam::chain(&error)));
        }
    }
}

/// The error document in `stdout`, with the plugin's name before its message.
fn refusal(name: &PluginName, stdout: &[u8]) -> Option<spec::Error> {
    let document: Value = serde_json::from_slice(stdout).ok()?;
    let code = document.get("code")?.as_u64().and_then(|code| u32::try_from(code).ok())?;
    let text = |key| document.get(key).and_then(Value::as_str).unwrap_or_default();
    let error = spec::Error::new(Code(code), format!("{name}: {}", text("msg")));
    (code != 0).then(|| error.with_details(text("details")))
}

fn find(name: &PluginName, path: &[PathBuf]) -> Result<PathBuf, Error> {
    if path.is_empty() {
        return Err(Error::NoPath(name.clone()));
    }
    let found = path.iter().map(|dir| dir.join(&name.0)).find(|file| is_program(file));
    found.ok_or_else(|| Error::NotFound { name: name.clone(), path: path.to_vec() })
}

fn is_program(file: &Path) -> bool {
    const EXECUTABLE: u32 = 0o111;
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & EXECUTABLE != 0)
}

fn shown(path: &[PathBuf]) -> String {
    path.iter().map(|dir| dir.to_string_lossy()).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugins_name_never_leads_out_of_its_directory() {
        for good in ["host-local", "static", "..."] {
            assert!(PluginName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../sh", "/bin/sh", "a/b", "a\0", "weft-cni"] {
            assert!(PluginName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_a_regular_file_that_may_be_executed_is_a_plugin() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = [first.path().to_owned(), second.path().to_owned()];
        let name = PluginName::new("ipam").unwrap();
        assert!(matches!(find(&name, &[]), Err(Error::NoPath(_))));
        fs::create_dir(first.path().join("ipam")).unwrap();
        let file = second.path().join("ipam");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let error = find(&name, &path).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot find the IPAM plugin \"ipam\" in CNI_PATH {}: install it there, for only it can give and free \
                 its addresses",
                shown(&path)
            )
        );
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(&name, &path).unwrap(), file);
    }

    #[test]
    fn an_error_document_keeps_its_code_and_gets_the_plugins_name() {
        let name = PluginName::new("ipam").unwrap();
        let error = refusal(&name, br#"{"code": 11, "msg": "full", "details": "really"}"#).unwrap();
        assert_eq!((error.code, error.to_string().as_str()), (Code::TRY_AGAIN, "ipam: full: really"));
        for none in ["", "no", "{}", r#"{"code": 0}"#, r#"{"code": -1, "msg": "x"}"#, r#"{"code": "7"}"#] {
            assert_eq!(refusal(&name, none.as_bytes()), None, "{none}");
        }
    }
}
