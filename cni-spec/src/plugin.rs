//! Running a plugin: validation, dispatch, and the one document on standard output.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::{
    AddResult, Args, Code, Command, Conf, ContainerId, EnvSource, Environment, Error, IfName, NetworkName,
    Version, conf, log,
};

/// The verbs of a plugin. Every request has been validated when it arrives.
pub trait Plugin {
    /// What a person reads who runs the plugin by hand.
    fn about(&self) -> String;

    /// Whether it works in the container's namespace. Where it does not, as an IPAM plugin, nothing about that namespace keeps its
    /// DEL from being done: neither that it is the plugin's own, nor that it cannot be looked at.
    fn enters_namespace(&self) -> bool {
        true
    }

    /// Device and inode of the network namespace that it is in itself, for one that has a faster way to it than the file system.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    fn own_namespace(&self) -> io::Result<(u64, u64)> {
        identity(Path::new("/proc/self/ns/net"))
    }

    /// Hears of a verb as soon as environment and configuration have been read, before anything else of it is validated.
    fn begin(&self, _env: &Environment, _conf: &Conf) {}

    /// Hears how a verb has ended that it has heard of, before anybody is answered.
    fn end(&self, _outcome: Result<(), &Error>) {}

    /// Attaches a container. On failure nothing is left behind.
    ///
    /// # Errors
    /// The answer to the runtime.
    fn add(&self, request: &AddRequest) -> Result<AddResult, Error>;

    /// Undoes an ADD that has succeeded, but of which the runtime never heard.
    ///
    /// # Errors
    /// What is left.
    fn retract(&self, request: AddRequest) -> Result<(), Error> {
        self.del(&request.into())
    }

    /// Undoes an ADD: best effort, idempotent, without a namespace if need be.
    ///
    /// # Errors
    /// The answer to the runtime; it will try again.
    fn del(&self, request: &DelRequest) -> Result<(), Error>;

    /// Verifies that an attachment is as ADD left it.
    ///
    /// # Errors
    /// What differs.
    fn check(&self, request: &CheckRequest) -> Result<(), Error>;

    /// Removes what belongs to the network but to none of the valid attachments.
    ///
    /// # Errors
    /// What could not be removed; all the rest has been.
    fn gc(&self, request: &GcRequest) -> Result<(), Error>;

    /// Says whether ADD could be served.
    ///
    /// # Errors
    /// [`Code::NOT_AVAILABLE`] or [`Code::LIMITED_CONNECTIVITY`].
    fn status(&self, request: &StatusRequest) -> Result<(), Error>;
}

/// What identifies an attachment within a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttachmentId {
    /// The container.
    pub container: ContainerId,
    /// Its interface.
    pub ifname: IfName,
}

/// A request to attach.
#[derive(Clone, Debug)]
pub struct AddRequest {
    /// The configuration.
    pub conf: Conf,
    /// The attachment to make.
    pub id: AttachmentId,
    /// The container's network namespace. It exists, and is not the plugin's own.
    pub netns: PathBuf,
    /// Arguments of the runtime.
    pub args: Args,
    /// Where other plugins are found.
    pub path: Vec<PathBuf>,
}

/// A request to detach.
#[derive(Clone, Debug)]
pub struct DelRequest {
    /// The configuration.
    pub conf: Conf,
    /// The attachment to undo.
    pub id: AttachmentId,
    /// The container's network namespace, where it still exists. It is not the plugin's own.
    pub netns: Option<PathBuf>,
    /// Arguments of the runtime.
    pub args: Args,
    /// Where other plugins are found.
    pub path: Vec<PathBuf>,
}

impl From<AddRequest> for DelRequest {
    fn from(AddRequest { conf, id, netns, args, path }: AddRequest) -> Self {
        Self { conf, id, netns: Some(netns), args, path }
    }
}

/// A request to verify.
#[derive(Clone, Debug)]
pub struct CheckRequest {
    /// The configuration.
    pub conf: Conf,
    /// The attachment to verify.
    pub id: AttachmentId,
    /// The container's network namespace. It exists, and is not the plugin's own.
    pub netns: PathBuf,
    /// What ADD answered, after all plugins of the list.
    pub prev_result: AddResult,
    /// Arguments of the runtime.
    pub args: Args,
    /// Where other plugins are found.
    pub path: Vec<PathBuf>,
}

/// A request to remove what nobody owns.
#[derive(Clone, Debug)]
pub struct GcRequest {
    /// The configuration.
    pub conf: Conf,
    /// The attachments that are to stay.
    pub valid: Vec<AttachmentId>,
    /// Where other plugins are found.
    pub path: Vec<PathBuf>,
}

/// A question for readiness.
#[derive(Clone, Debug)]
pub struct StatusRequest {
    /// The configuration.
    pub conf: Conf,
    /// Where other plugins are found.
    pub path: Vec<PathBuf>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The verb succeeded: exit status 0.
    Success,
    /// It failed, and the error is on standard output: exit status 1.
    Failure,
}

impl Outcome {
    /// Whether the verb succeeded.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Success)
    }
}

impl From<Outcome> for std::process::ExitCode {
    fn from(outcome: Outcome) -> Self {
        if outcome.is_success() { Self::SUCCESS } else { Self::FAILURE }
    }
}

/// Runs one verb: reads, validates, dispatches, and writes one document to `stdout` where the verb has one.
///
/// The checks come in the order of the reference (`pkg/skel`): malformed variables, missing variables, standard
/// input, JSON, network name, version, verb. Unlike there, the plugin's own namespace is refused before any work.
/// Without `CNI_COMMAND` the plugin explains itself on `stderr`.
pub fn run(
    plugin: &impl Plugin,
    env: &impl EnvSource,
    stdin: impl Read,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> Outcome {
    if env.get("CNI_COMMAND").is_none() {
        return explain(plugin, stderr);
    }
    let mut version = Version::LATEST;
    let (document, added, outcome) = match serve(plugin, env, stdin, &mut version) {
        Ok(Answer { document, added }) => (document, added, Outcome::Success),
        Err(error) => (Some(error.to_json(version)), None, Outcome::Failure),
    };
    let Some(document) = document else { return outcome };
    // In one piece: standard output would take each token by itself.
    let answer = format!("{document}\n");
    let Err(error) = stdout.write_all(answer.as_bytes()).and_then(|()| stdout.flush()) else {
        return outcome;
    };
    log(format_args!("cannot write the answer to standard output: {error}; it was {document}"));
    if let Some(request) = added {
        // Whoever does not know of an attachment never asks for its DEL.
        retract(plugin, request);
    }
    Outcome::Failure
}

/// What a verb has to say, and the ADD to undo where it cannot be said.
struct Answer {
    document: Option<Value>,
    added: Option<AddRequest>,
}

impl Answer {
    const NOTHING: Self = Self { document: None, added: None };

    const fn document(document: Value) -> Self {
        Self { document: Some(document), added: None }
    }
}

fn retract(plugin: &impl Plugin, request: AddRequest) {
    match plugin.retract(request) {
        Ok(()) => log("nobody has the result of the ADD: it is undone"),
        Err(error) => log(format_args!("nobody has the result of the ADD, and it cannot be undone: {error}")),
    }
}

fn explain(plugin: &impl Plugin, stderr: &mut impl Write) -> Outcome {
    let supported = Version::ALL.map(Version::as_str).join(", ");
    let told = writeln!(stderr, "{}\nCNI protocol versions supported: {supported}", plugin.about());
    if told.is_ok() { Outcome::Success } else { Outcome::Failure }
}

fn serve(
    plugin: &impl Plugin,
    env: &impl EnvSource,
    stdin: impl Read,
    version: &mut Version,
) -> Result<Answer, Error> {
    let env = Environment::read(env)?;
    let document = conf::object(&read(stdin)?);
    if let Some(spoken) = document.as_ref().ok().and_then(|document| conf::version(document).ok()) {
        *version = spoken;
    }
    if env.command == Command::Version {
        return Ok(Answer::document(versions(document.as_ref().ok())));
    }
    let conf = Conf::read(document?)?;
    plugin.begin(&env, &conf);
    let answer = dispatch(plugin, env, conf);
    plugin.end(answer.as_ref().map(|_answer| ()));
    answer
}

fn dispatch(plugin: &impl Plugin, env: Environment, conf: Conf) -> Result<Answer, Error> {
    let done = |()| Answer::NOTHING;
    match env.command {
        Command::Add => add(plugin, add_request(plugin, env, conf)?),
        Command::Del => plugin.del(&del_request(plugin, env, conf)?).map(done),
        Command::Check => plugin.check(&check_request(plugin, env, conf)?).map(done),
        Command::Gc => plugin.gc(&gc_request(env, conf)?).map(done),
        Command::Status => plugin.status(&status_request(env, conf)?).map(done),
        // VERSION was answered before the configuration was read.
        Command::Version => Ok(Answer::NOTHING),
        Command::Unknown(verb) => {
            Err(Error::new(Code::INVALID_ENVIRONMENT, format!("unknown CNI_COMMAND: {verb}")))
        }
    }
}

fn add(plugin: &impl Plugin, request: AddRequest) -> Result<Answer, Error> {
    match plugin.add(&request)?.to_json(request.conf.version) {
        Ok(result) => Ok(Answer { document: Some(result), added: Some(request) }),
        Err(unsayable) => {
            retract(plugin, request);
            Err(Error::caused(Code::INCOMPATIBLE_VERSION, &unsayable))
        }
    }
}

/// The reference bounds nothing here; a configuration of more than this is a mistake, or an attack.
const STDIN_LIMIT: u64 = 16 << 20;

fn read(stdin: impl Read) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    match stdin.take(STDIN_LIMIT + 1).read_to_end(&mut bytes) {
        Ok(_) if bytes.len() as u64 > STDIN_LIMIT => Err(Error::new(
            Code::IO,
            format!("the configuration on stdin is longer than {STDIN_LIMIT} bytes"),
        )),
        Ok(_) => Ok(bytes),
        Err(e) => {
            Err(Error::new(Code::IO, "cannot read the configuration on stdin").with_details(e.to_string()))
        }
    }
}

fn versions(document: Option<&Map<String, Value>>) -> Value {
    let spoken = document.and_then(|document| document.get("cniVersion")).and_then(Value::as_str);
    json!({
        "cniVersion": spoken.unwrap_or(Version::LATEST.as_str()),
        "supportedVersions": Version::ALL.map(Version::as_str),
    })
}

fn add_request(plugin: &impl Plugin, env: Environment, conf: Conf) -> Result<AddRequest, Error> {
    let id = attachment(&env)?;
    let netns = foreign_netns(plugin, &env)?;
    Ok(AddRequest { conf, id, netns, args: env.args, path: env.path })
}

fn del_request(plugin: &impl Plugin, env: Environment, conf: Conf) -> Result<DelRequest, Error> {
    let id = attachment(&env)?;
    let netns = match foreign_netns(plugin, &env) {
        Ok(path) => Some(path),
        // Not asked for beforehand: it may go at any moment.
        Err(error) if error.code == Code::UNKNOWN_CONTAINER || !plugin.enters_namespace() => None,
        Err(error) => return Err(error),
    };
    Ok(DelRequest { conf, id, netns, args: env.args, path: env.path })
}

fn check_request(plugin: &impl Plugin, env: Environment, conf: Conf) -> Result<CheckRequest, Error> {
    allowed_since(Version::V0_4_0, "CHECK", conf.version)?;
    let id = attachment(&env)?;
    let netns = foreign_netns(plugin, &env)?;
    let absent =
        || Error::new(Code::INVALID_CONFIG, "CHECK needs prevResult, the result of the ADD to verify");
    let prev_result = conf.prev_result()?.ok_or_else(absent)?;
    Ok(CheckRequest { conf, id, netns, prev_result, args: env.args, path: env.path })
}

fn gc_request(env: Environment, conf: Conf) -> Result<GcRequest, Error> {
    allowed_since(Version::V1_1_0, "GC", conf.version)?;
    let valid = valid_attachments(&conf)?;
    Ok(GcRequest { conf, valid, path: env.path })
}

fn status_request(env: Environment, conf: Conf) -> Result<StatusRequest, Error> {
    allowed_since(Version::V1_1_0, "STATUS", conf.version)?;
    Ok(StatusRequest { conf, path: env.path })
}

fn allowed_since(since: Version, verb: &str, version: Version) -> Result<(), Error> {
    if version >= since {
        return Ok(());
    }
    Err(Error::new(Code::INCOMPATIBLE_VERSION, format!("config version {version} does not allow {verb}")))
}

fn attachment(env: &Environment) -> Result<AttachmentId, Error> {
    match (&env.container, &env.ifname) {
        (Some(container), Some(ifname)) => {
            Ok(AttachmentId { container: container.clone(), ifname: ifname.clone() })
        }
        _ => Err(Error::new(
            Code::INVALID_ENVIRONMENT,
            "required env variables [CNI_CONTAINERID,CNI_IFNAME] missing",
        )),
    }
}

/// The container's namespace, which must exist and must not be the plugin's own: work in that would change the
/// node's own interfaces.
fn foreign_netns(plugin: &impl Plugin, env: &Environment) -> Result<PathBuf, Error> {
    let path = env.netns.clone().unwrap_or_default();
    let theirs = identity(&path).map_err(|e| {
        let gone = matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
        // Of a namespace that may not be looked at nobody can say that it is gone.
        let (code, doing) = if gone { (Code::UNKNOWN_CONTAINER, "find") } else { (Code::IO, "look at") };
        Error::new(code, format!("cannot {doing} the network namespace {}", path.display()))
            .with_details(e.to_string())
    })?;
    let ours = plugin.own_namespace().map_err(|e| {
        Error::new(Code::IO, "cannot tell the plugin's own network namespace").with_details(e.to_string())
    })?;
    if theirs == ours && !env.netns_override {
        let msg = format!("CNI_NETNS {} is the plugin's own network namespace", path.display());
        return Err(Error::new(Code::INVALID_NETNS, msg));
    }
    Ok(path)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// `cni.dev/valid-attachments`, or the key that libcni also sets. An absent key is refused: `cnitool gc` leaves it out,
/// and "nothing is valid" would delete the network of every running container.
fn valid_attachments(conf: &Conf) -> Result<Vec<AttachmentId>, Error> {
    const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];
    let refused = |why: String| Error::new(Code::INVALID_CONFIG, why);
    let (key, value) = KEYS
        .iter()
        .find_map(|key| conf.document.get(*key).filter(|v| !v.is_null()).map(|value| (*key, value)))
        .ok_or_else(|| refused(format!("GC needs {}: to remove everything, give an empty list", KEYS[0])))?;
    let list = value.as_array().ok_or_else(|| refused(format!("{key} must be a list")))?;
    list.iter()
        .enumerate()
        .map(|(i, item)| valid_attachment(item).map_err(|e| refused(format!("{key}[{i}]: {e}"))))
        .collect()
}

fn valid_attachment(item: &Value) -> Result<AttachmentId, String> {
    let text = |key: &str| item.get(key).and_then(Value::as_str).ok_or_else(|| format!("{key} is missing"));
    Ok(AttachmentId {
        container: ContainerId::new(text("containerID")?).map_err(|e| e.to_string())?,
        ifname: IfName::new(text("ifname")?).map_err(|e| e.to_string())?,
    })
}

impl AddRequest {
    /// The network of the attachment.
    #[must_use]
    pub const fn network(&self) -> &NetworkName {
        &self.conf.name
    }
}

#[cfg(test)]
mod tests;
