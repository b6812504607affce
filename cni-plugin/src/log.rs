//! What the plugin writes down of each run, where the configuration asks for it: a JSON object a line.
//!
//! A line is one `write` to a file that is open for appending, so that the lines of processes that run at the same time stay
//! whole. Every process opens the file anew: it may be renamed at any time, as `logrotate` does. Nothing that goes wrong with it
//! changes what a verb does or answers.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::libc;
use serde_json::Value;
use weft_cni_spec::{self as spec, Command, Conf, Environment};
use weft_ipam::lease::Pod;

use crate::clock::rfc3339;
use crate::config::{Level, Logging};

mod trace;

use trace::Trace;

/// The log of this process. A process serves one verb.
static LOG: Mutex<Option<Log>> = Mutex::new(None);

struct Log {
    level: Level,
    sink: Sink,
    /// The fields that every line has.
    context: Line,
    /// More for the last line.
    facts: Line,
    trace: Option<Trace>,
    /// Whether success is nothing to write home about: runtimes ask for STATUS every few seconds.
    is_question: bool,
    started: Instant,
    phase: Instant,
}

enum Sink {
    /// Nobody asked for a log.
    Nothing,
    Stderr,
    File(File),
}

/// Begins the log of a verb.
pub(crate) fn begin(env: &Environment, conf: &Conf) {
    // Whatever is wrong with the keys is for the verb to say.
    let logging = Logging::read(&conf.document, &mut Vec::new());
    let trace = env.traceparent.as_deref().and_then(Trace::continued);
    let now = Instant::now();
    let sink = Sink::open(&logging);
    let is_written = !matches!(sink, Sink::Nothing);
    let log = Log {
        level: logging.level.unwrap_or(Level::Error),
        sink,
        context: if is_written { context(env, conf, trace.as_ref()) } else { Line::default() },
        facts: Line::default(),
        trace,
        is_question: env.command == Command::Status,
        started: now,
        phase: now,
    };
    if let Some(malformed) = env.traceparent.as_ref().filter(|_| log.trace.is_none()) {
        log.write(
            Level::Debug,
            &format!("TRACEPARENT {:?} is malformed: ignored", beginning(malformed)),
            &Line::default(),
        );
    }
    *LOG.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    spec::tell(|line| with(|log| log.write(Level::Warn, line, &Line::default())));
}

/// Ends it with how the verb has ended.
pub(crate) fn end(outcome: Result<(), &spec::Error>) {
    with(|log| {
        let took = log.started.elapsed();
        let line = std::mem::take(&mut log.facts).number("duration_us", micros(took));
        match outcome {
            Err(error) => {
                log.write(Level::Error, &error.to_string(), &line.number("code", error.code.0.into()));
            }
            Ok(()) if log.is_question => log.write(Level::Debug, "done", &line),
            Ok(()) => log.write(Level::Info, "done", &line),
        }
    });
}

/// A part of the verb has ended, which began when the one before it ended.
pub(crate) fn phase(name: &'static str) {
    with(|log| {
        if log.writes(Level::Debug) {
            let took = log.phase.elapsed();
            let line = Line::default().text("phase", name).number("duration_us", micros(took));
            log.write(Level::Debug, "phase", &line);
            // What the line took is nobody's.
            log.phase = Instant::now();
        }
    });
}

/// A field for the last line.
pub(crate) fn fact(key: &'static str, value: impl FnOnce() -> String) {
    with(|log| {
        if log.writes(Level::Info) {
            log.facts = std::mem::take(&mut log.facts).text(key, &value());
        }
    });
}

/// `TRACEPARENT` for a program that is started.
pub(crate) fn traceparent() -> Option<String> {
    let mut parent = None;
    with(|log| parent = log.trace.as_ref().map(ToString::to_string));
    parent
}

fn with(tell: impl FnOnce(&mut Log)) {
    if let Some(log) = &mut *LOG.lock().unwrap_or_else(PoisonError::into_inner) {
        tell(log);
    }
}

impl Log {
    const fn writes(&self, level: Level) -> bool {
        level as u8 <= self.level as u8 && !matches!(self.sink, Sink::Nothing)
    }

    fn write(&self, level: Level, msg: &str, more: &Line) {
        if !self.writes(level) {
            return;
        }
        let line = Line::default()
            .text("time", &rfc3339(SystemTime::now()))
            .text("level", level.as_str())
            .and(&self.context)
            .text("msg", msg)
            .and(more)
            .finish();
        let written = match &self.sink {
            Sink::Nothing => Ok(line.len()),
            Sink::Stderr => io::stderr().write(line.as_bytes()),
            Sink::File(file) => (&mut &*file).write(line.as_bytes()),
        };
        match written {
            Ok(length) if length == line.len() => {}
            Ok(length) => complain(&format!("{length} of {} bytes of a line were written", line.len())),
            Err(error) => complain(&error.to_string()),
        }
    }
}

impl Sink {
    fn open(logging: &Logging) -> Self {
        match (&logging.level, &logging.file) {
            (None, _) => Self::Nothing,
            (Some(_), None) => Self::Stderr,
            (Some(_), Some(path)) => open(path).map_or_else(
                |error| {
                    complain(&format!("cannot open {}: {error}", path.display()));
                    Self::Nothing
                },
                Self::File,
            ),
        }
    }
}

/// Opens `path` for appending, and makes the directory that it is in, but not that one's. Whatever it is, it is not waited
/// for: a pipe that nobody reads is no log.
fn open(path: &Path) -> io::Result<File> {
    let open = || {
        let mut options = OpenOptions::new();
        options
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
    };
    match (open(), path.parent()) {
        (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
            match DirBuilder::new().mode(0o750).create(directory) {
                // Somebody else may have been faster.
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => open(),
            }
        }
        (outcome, _) => outcome,
    }
}

/// Runtimes log standard error.
fn complain(what: &str) {
    drop(writeln!(io::stderr().lock(), "weft-cni: the log is not written: {what}"));
}

fn context(env: &Environment, conf: &Conf, trace: Option<&Trace>) -> Line {
    let mut line = Line::default().text("verb", env.command.as_str()).text("network", conf.name.as_str());
    let pod = Pod::from_args(&env.args).map(|pod| pod.to_string());
    let netns = env.netns.as_ref().map(|path| path.to_string_lossy());
    let fields = [
        ("container", env.container.as_ref().map(spec::ContainerId::as_str)),
        ("ifname", env.ifname.as_ref().map(spec::IfName::as_str)),
        ("pod", pod.as_deref()),
        ("netns", netns.as_deref()),
        ("trace_id", trace.map(|trace| trace.id.as_str())),
        ("parent_id", trace.map(|trace| trace.parent.as_str())),
        ("span_id", trace.map(|trace| trace.span.as_str())),
    ];
    for (key, value) in fields {
        if let Some(value) = value {
            line = line.text(key, value);
        }
    }
    line.number("pid", std::process::id().into())
}

/// Enough of `text` to know it by; the whole may be as long as an environment.
fn beginning(text: &str) -> String {
    const LENGTH: usize = 64;
    text.chars().take(LENGTH).collect()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Fields of an object, in the order in which they are read.
#[derive(Default)]
struct Line(String);

impl Line {
    fn text(self, key: &str, value: &str) -> Self {
        self.field(key, &Value::from(value).to_string())
    }

    fn number(self, key: &str, value: u64) -> Self {
        self.field(key, &value.to_string())
    }

    fn field(mut self, key: &str, value: &str) -> Self {
        for part in [",\"", key, "\":", value] {
            self.0.push_str(part);
        }
        self
    }

    fn and(mut self, more: &Self) -> Self {
        self.0.push_str(&more.0);
        self
    }

    fn finish(mut self) -> String {
        // The first field's comma.
        self.0.replace_range(..self.0.len().min(1), "{");
        self.0.push_str("}\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn fields(env: &[(&str, &str)]) -> String {
        let env: HashMap<_, _> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let env = Environment::read(&env).unwrap();
        let conf = Conf::parse(br#"{"cniVersion": "1.1.0", "name": "pods"}"#).unwrap();
        let trace = env.traceparent.as_deref().and_then(Trace::continued);
        let line =
            context(&env, &conf, trace.as_ref()).text("msg", "a \"b\"\n").number("duration_us", 7).finish();
        let span = trace.map(|trace| trace.span).unwrap_or_default();
        line.replace(&std::process::id().to_string(), "PID")
            .replace(&span, if span.is_empty() { "" } else { "SPAN" })
    }

    #[test]
    fn a_line_is_an_object_with_what_is_known() {
        assert_eq!(
            fields(&[("CNI_COMMAND", "STATUS")]),
            "{\"verb\":\"STATUS\",\"network\":\"pods\",\"pid\":PID,\"msg\":\"a \\\"b\\\"\\n\",\"duration_us\":7}\n"
        );
        assert_eq!(
            fields(&[
                ("CNI_COMMAND", "ADD"),
                ("CNI_CONTAINERID", "3f2a"),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", "/n"),
                ("CNI_ARGS", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"),
                ("TRACEPARENT", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ]),
            "{\"verb\":\"ADD\",\"network\":\"pods\",\"container\":\"3f2a\",\"ifname\":\"eth0\",\"pod\":\"shop/web\",\
             \"netns\":\"/n\",\"trace_id\":\"0af7651916cd43dd8448eb211c80319c\",\"parent_id\":\"b7ad6b7169203331\",\
             \"span_id\":\"SPAN\",\"pid\":PID,\"msg\":\"a \\\"b\\\"\\n\",\"duration_us\":7}\n"
        );
    }
}
