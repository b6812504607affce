//! Failures, in two layers: what was being done, and what the kernel said to it.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// Something the kernel was asked to do failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct Error {
    /// What was being done, to what, as it completes "cannot …".
    pub doing: String,
    /// Why not.
    #[source]
    pub refusal: Refusal,
}

/// The kernel's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// The extended acknowledgement: the kernel's explanation in words, where it gave one.
    pub explanation: Option<String>,
}

impl Error {
    /// The refusal of an attempt at `doing`.
    pub fn new(doing: impl Into<String>, refusal: impl Into<Refusal>) -> Self {
        Self { doing: doing.into(), refusal: refusal.into() }
    }

    /// The error number of the refusal.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        self.refusal.errno
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.explanation {
            Some(words) => write!(f, "{words} ({})", self.errno),
            None => write!(f, "{}", self.errno),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, explanation: None }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Errno::from_raw(number).into(),
            None => Self { errno: Errno::EIO, explanation: Some(error.to_string()) },
        }
    }
}

/// Names what was being done when a step failed: `step().doing(|| …)?`.
pub(crate) trait Doing<T> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Error>;
}

impl<T, E: Into<Refusal>> Doing<T> for Result<T, E> {
    fn doing<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T, Error> {
        self.map_err(|refusal| Error::new(what(), refusal))
    }
}
