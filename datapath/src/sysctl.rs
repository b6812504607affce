//! Network parameters of the namespace that the calling thread is in, under `/proc/sys/net`.
//!
//! Each namespace has a directory `ipv4` and `ipv6` of its own there, all of the same name and in the same place, and the kernel keeps
//! those that somebody has looked into in one list, which it goes through for the next file that is opened below (`proc_sys_compare` in
//! `fs/proc/proc_sysctl.c`). With a thousand pods whose `ipv6` had been looked into, opening a file there took 1.2 ms instead of 10 µs,
//! also of the node's own. So no pod's parameter is touched where a message says the same.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::Doing;
use crate::{Error, Refusal};

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
    match File::options().read(true).write(true).open(&file) {
        Ok(opened) if holds(&opened, value) => Ok(()),
        // A parameter takes what is written at its beginning only.
        Ok(opened) => opened.write_all_at(value.as_bytes(), 0).doing(doing),
        // Some can only be written; and where nothing can be, as in many a container, what has the value is right.
        Err(e) if e.kind() == ErrorKind::NotFound => Err(e).doing(doing),
        Err(_) if fs::read_to_string(&file).is_ok_and(|now| now.trim_end() == value) => Ok(()),
        Err(_) => fs::write(&file, value).map_err(refusal).doing(doing),
    }
}

/// Whether a parameter has this value. It is read in one piece: one that does not fit has another.
fn holds(parameter: &File, value: &str) -> bool {
    let mut now = [0; 256];
    let length = parameter.read_at(&mut now, 0).unwrap_or_default();
    now.get(..length).is_some_and(|now| now.trim_ascii_end() == value.as_bytes())
}

/// Reads the parameter at `path`; `None` where the kernel does not have it.
///
/// # Errors
/// Where it exists but cannot be read.
pub fn get(path: &[&str]) -> Result<Option<String>, Error> {
    let file = locate(path);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).doing(|| format!("read {}", file.display())),
    }
}

/// `EACCES` says nothing to root: the kernel shows some parameters in every namespace, and lets only the node set them.
fn refusal(error: io::Error) -> Refusal {
    let mut refusal = Refusal::from(error);
    if refusal.errno == Errno::EACCES {
        refusal.explanation =
            Some("it is the node's, and cannot be set in another network namespace".to_owned());
    }
    refusal
}

fn locate(path: &[&str]) -> PathBuf {
    path.iter().fold(Path::new("/proc/sys/net").to_owned(), |parent, component| {
        parent.join(component.replace('/', ""))
    })
}
