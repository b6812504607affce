//! What can go wrong while parts of the real world are driven.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::cni;

/// The harness's error: what was being done, and to what.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A binary that the suite needs is not there. The suite fails then: it never skips.
    #[error("{program} is not at {}; run `{remedy}`", path.display())]
    Missing {
        /// The program's name.
        program: String,
        /// Where it was looked for.
        path: PathBuf,
        /// The command that puts it there.
        remedy: &'static str,
    },
    /// A system call or a file operation failed.
    #[error("cannot {doing}")]
    Io {
        /// What was being done, as an infinitive with its object.
        doing: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A command ended with another status than 0.
    #[error("`{command}` ended with {status}: {said}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of what it printed.
        said: String,
    },
    /// A plugin refused its work with an error document.
    #[error(transparent)]
    Plugin(#[from] Box<cni::Refusal>),
    /// An awaited event did not come.
    #[error("waited {limit:?} for {what}, in vain: {last}")]
    Deadline {
        /// The event.
        what: String,
        /// How long it was waited for.
        limit: Duration,
        /// What the last look at it showed.
        last: String,
    },
    /// A CRI call failed.
    #[error("CRI {call} failed: {}", status.message())]
    Cri {
        /// The call.
        call: &'static str,
        /// What containerd answered.
        status: Box<tonic::Status>,
    },
    /// The socket of a daemon cannot be reached.
    #[error("cannot connect to {to}")]
    Connect {
        /// The address.
        to: String,
        /// What the transport said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An HTTP exchange broke off.
    #[error("no HTTP answer from {to}")]
    Http {
        /// The peer.
        to: String,
        /// What the connection said.
        #[source]
        source: hyper::Error,
    },
    /// Something that should be JSON of a certain shape is not.
    #[error("{what} is not what it should be: {text}")]
    Shape {
        /// The document.
        what: String,
        /// Its text.
        text: String,
    },
}

/// A result of the harness.
pub type Result<T> = std::result::Result<T, Error>;

/// Says what was being done when a call to the kernel failed.
pub(crate) trait Doing<T> {
    /// Wraps the error; `doing` is only made up when there is one.
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { doing: doing(), source: source.into() })
    }
}

/// The error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
