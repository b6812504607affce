//! The environment of a request (SPEC.md, "Parameters").

use std::collections::HashMap;
use std::path::PathBuf;

use crate::{Code, ContainerId, Error, IfName, InvalidName};

/// Where variables come from: the process, or a map in a test.
pub trait EnvSource {
    /// The value of `name`; a variable that is set but empty is as good as none.
    fn get(&self, name: &str) -> Option<String>;
}

impl EnvSource for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        HashMap::get(self, name).filter(|value| !value.is_empty()).cloned()
    }
}

/// A verb of the protocol, or what stood in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach a container to the network.
    Add,
    /// Undo an ADD. Best effort, and idempotent.
    Del,
    /// Verify that an attachment is as ADD left it.
    Check,
    /// Remove what belongs to no valid attachment.
    Gc,
    /// Say whether ADD could be served.
    Status,
    /// Say which versions are supported.
    Version,
    /// None of these; refused after the configuration was read, as the reference does.
    Unknown(String),
}

impl Command {
    fn parse(text: &str) -> Self {
        match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            other => Self::Unknown(other.to_owned()),
        }
    }

    /// The word in `CNI_COMMAND`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
            Self::Unknown(other) => other,
        }
    }

    fn needs_container(&self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }

    fn needs_netns(&self) -> bool {
        matches!(self, Self::Add | Self::Check)
    }
}

/// What the environment says. Which fields are there depends on the verb; [`run`](crate::run) has checked it.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: Command,
    /// `CNI_CONTAINERID`.
    pub container: Option<ContainerId>,
    /// `CNI_IFNAME`.
    pub ifname: Option<IfName>,
    /// `CNI_NETNS`.
    pub netns: Option<PathBuf>,
    pub(crate) netns_override: bool,
    /// `CNI_ARGS`.
    pub args: Args,
    /// `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// `TRACEPARENT`, as newer releases of libcni set it: the span of the runtime that this run is a part of. It may be
    /// malformed.
    pub traceparent: Option<String>,
}

impl Environment {
    /// Reads the `CNI_*` variables. A malformed name beats a missing one, and all that are missing are named at
    /// once, which is the reference's order.
    ///
    /// # Errors
    /// [`Code::INVALID_ENVIRONMENT`] with the names of the variables.
    pub fn read(source: &impl EnvSource) -> Result<Self, Error> {
        let command =
            source.get("CNI_COMMAND").map_or(Command::Unknown(String::new()), |c| Command::parse(&c));
        let container = valid("CNI_CONTAINERID", source, &command, ContainerId::new)?;
        let ifname = valid("CNI_IFNAME", source, &command, IfName::new)?;
        let netns = source.get("CNI_NETNS").map(PathBuf::from);
        let absent = [
            ("CNI_CONTAINERID", command.needs_container() && container.is_none()),
            ("CNI_NETNS", command.needs_netns() && netns.is_none()),
            ("CNI_IFNAME", command.needs_container() && ifname.is_none()),
        ];
        complain_of_missing(&absent)?;
        Ok(Self {
            container,
            ifname,
            netns,
            netns_override: source
                .get("CNI_NETNS_OVERRIDE")
                .is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true")),
            args: Args::parse(&source.get("CNI_ARGS").unwrap_or_default()).map_err(|e| invalid(&e))?,
            path: source.get("CNI_PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default(),
            traceparent: source.get("TRACEPARENT"),
            command,
        })
    }
}

fn valid<T>(
    variable: &'static str,
    source: &impl EnvSource,
    command: &Command,
    parse: impl FnOnce(String) -> Result<T, InvalidName>,
) -> Result<Option<T>, Error> {
    if !command.needs_container() {
        return Ok(None);
    }
    let malformed = |e: InvalidName| Error::new(Code::INVALID_ENVIRONMENT, format!("{variable}: {e}"));
    source.get(variable).map(parse).transpose().map_err(malformed)
}

fn complain_of_missing(absent: &[(&str, bool)]) -> Result<(), Error> {
    let names: Vec<_> = absent.iter().filter(|(_, missing)| *missing).map(|(name, _)| *name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let msg = format!("required env variables [{}] missing", names.join(","));
    Err(Error::new(Code::INVALID_ENVIRONMENT, msg))
}

fn invalid(cause: &dyn std::error::Error) -> Error {
    Error::caused(Code::INVALID_ENVIRONMENT, cause)
}

/// `CNI_ARGS`: `K=V;K2=V2`. Which keys a plugin knows is its own business: see [`Args::only`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args(Vec<(String, String)>);

/// `CNI_ARGS` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    /// A pair does not have exactly one `=`.
    #[error("CNI_ARGS: invalid pair {0:?}: a pair is KEY=VALUE")]
    InvalidPair(String),
    /// Keys that the plugin does not know, while `IgnoreUnknown` is not set.
    #[error("CNI_ARGS: unknown args {0:?}: set IgnoreUnknown=1 to have them ignored")]
    Unknown(Vec<String>),
}

impl Args {
    /// Splits the pairs of `text`; an empty text has none.
    ///
    /// # Errors
    /// [`ArgsError::InvalidPair`].
    pub fn parse(text: &str) -> Result<Self, ArgsError> {
        text.split(';').filter(|pair| !pair.is_empty()).map(pair).collect::<Result<_, _>>().map(Self)
    }

    /// The value of `key`; the last one counts where there are several.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Refuses keys other than `known`, unless `IgnoreUnknown` is `1` or `true` (CONVENTIONS.md, "`CNI_ARGS`").
    ///
    /// # Errors
    /// [`ArgsError::Unknown`] with all of them.
    pub fn only(&self, known: &[&str]) -> Result<(), ArgsError> {
        let ignore = self.get("IgnoreUnknown").is_some_and(|v| v == "1" || v.eq_ignore_ascii_case("true"));
        let is_strange = |key: &str| key != "IgnoreUnknown" && !known.contains(&key);
        let strange: Vec<_> = self.0.iter().map(|(k, _)| k.clone()).filter(|k| is_strange(k)).collect();
        if ignore || strange.is_empty() { Ok(()) } else { Err(ArgsError::Unknown(strange)) }
    }
}

fn pair(text: &str) -> Result<(String, String), ArgsError> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.contains('=') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(ArgsError::InvalidPair(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, String> {
        let source: HashMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Environment::read(&source).map_err(|e| {
            assert_eq!(e.code, Code::INVALID_ENVIRONMENT);
            e.msg
        })
    }

    #[test]
    fn all_missing_variables_are_named_at_once() {
        let error = read(&[("CNI_COMMAND", "ADD")]).unwrap_err();
        assert_eq!(error, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing");
        let error = read(&[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "eth0")]).unwrap_err();
        assert_eq!(error, "required env variables [CNI_CONTAINERID] missing");
    }

    #[test]
    fn a_malformed_variable_beats_a_missing_one() {
        let error = read(&[("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "a/b")]).unwrap_err();
        assert!(error.starts_with("CNI_CONTAINERID: container id \"a/b\" is not valid"), "{error}");
    }

    #[test]
    fn del_needs_no_namespace() {
        let env = read(&[
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "c"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_NETNS", ""),
        ]);
        assert_eq!(env.unwrap().netns, None);
    }

    #[test]
    fn verbs_without_a_container_ignore_what_the_library_sets_as_dummies() {
        assert!(read(&[("CNI_COMMAND", "VERSION"), ("CNI_IFNAME", "a/b")]).is_ok());
        assert!(read(&[("CNI_COMMAND", "GC"), ("CNI_CONTAINERID", "")]).is_ok());
    }

    #[test]
    fn args_are_pairs_and_unknown_ones_are_refused_unless_told_otherwise() {
        let args = Args::parse("IgnoreUnknown=1;K8S_POD_NAME=web;X=").unwrap();
        assert_eq!(args.get("K8S_POD_NAME"), Some("web"));
        assert_eq!(args.get("X"), Some(""));
        assert_eq!(args.only(&[]), Ok(()));
        let args = Args::parse("IP=10.0.0.1;FOO=1;BAR=2").unwrap();
        assert_eq!(args.only(&["IP"]), Err(ArgsError::Unknown(vec!["FOO".into(), "BAR".into()])));
        for bad in ["novalue", "a=b=c", "=x", "a=b;c"] {
            assert!(matches!(Args::parse(bad), Err(ArgsError::InvalidPair(_))), "{bad}");
        }
    }
}
