//! Network parameters of the namespace that the calling thread is in, under `/proc/sys/net`.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::error::Doing;

/// Sets the parameter at `path`, such as `["ipv4", "ip_forward"]`, unless it has that value already. Components may
/// hold any character but `/`, so an interface's name is safe whatever it is.
///
/// The look first is not for speed alone: writing `forwarding` takes the kernel's network lock and walks every
/// interface, even where nothing changes.
///
/// # Errors
/// Where there is no such parameter, or it may not be written.
pub fn set(path: &[&str], value: &str) -> Result<(), Error> {
    let file = locate(path);
    let doing = || format!("set {} to {value}", file.display());
    // Some can only be written.
    if fs::read_to_string(&file).is_ok_and(|now| now.trim_end() == value) {
        return Ok(());
    }
    fs::write(&file, value).doing(doing)
}

/// Reads the parameter at `path`; `None` where the kernel does not have it.
///
/// # Errors
/// Where it exists but cannot be read.
pub fn get(path: &[&str]) -> Result<Option<String>, Error> {
    let file = locate(path);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).doing(|| format!("read {}", file.display())),
    }
}

fn locate(path: &[&str]) -> PathBuf {
    path.iter().fold(Path::new("/proc/sys/net").to_owned(), |parent, component| {
        parent.join(component.replace('/', ""))
    })
}
