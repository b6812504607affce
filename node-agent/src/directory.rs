//! A directory into which files are put whole, and out of which only those are taken.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

const RECORD: &str = ".weft-node.owned";

/// What became of a file that was to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It was not there.
    New,
    /// It took the place of an older one of ours.
    Replaced,
    /// It was there already, and was not touched.
    Unchanged,
}

/// What became of a file that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Removed,
    /// It had gone before.
    Absent,
    /// Its content is not what was installed, so it is somebody else's now, and stays.
    Kept,
}

/// Why a directory could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the system failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file in the way was not put there by us, or was edited since.
    #[error("{} was not installed by weft-node, or was changed since; move it away first", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The record of what is ours cannot be read.
    #[error("{} is damaged at line {line}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Its line.
        line: usize,
    },
}

/// A directory that this process alone is changing.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// Open, with its lock held.
    handle: File,
    owned: BTreeSet<Owned>,
}

/// A content that is ours under a name. While a file is being replaced there are two for its name, so that it is ours
/// whenever the replacing is interrupted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owned {
    name: String,
    sum: String,
}

impl Directory {
    /// Opens the directory, making it where it is missing.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(io_error("create", path))?;
        Self::open(path)
    }

    /// Opens the directory. What an interrupted installation left half-made in it is removed.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let handle = File::open(path).map_err(io_error("open", path))?;
        handle.lock().map_err(io_error("lock", path))?;
        let owned = read_record(&path.join(RECORD))?;
        let directory = Self { path: path.into(), handle, owned };
        directory.remove_unfinished()?;
        Ok(directory)
    }

    /// Where `name` is or will be.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The names of all files, sorted as runtimes sort them: by their bytes.
    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        let failed = || io_error("list", &self.path);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            names.extend(entry.map_err(failed())?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// Names of the files that are recorded as ours.
    pub(crate) fn owned_names(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.owned.iter().map(|owned| owned.name.clone()).collect();
        names.into_iter().collect()
    }

    /// Fails where `name` is taken by a file that is not ours.
    pub(crate) fn check_free(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        self.found_free(name, &sum(content)).map(drop)
    }

    /// The sum of what has the name now, if that is ours, or what is to be there anyway.
    fn found_free(&self, name: &str, wanted: &str) -> Result<Option<String>, Error> {
        let path = self.join(name);
        match sum_of(&path)? {
            Some(found) if found != wanted && !self.owns(name, &found) => Err(Error::Foreign { path }),
            found => Ok(found),
        }
    }

    /// Puts a file there, so that at every moment there is the old one or the new one, whole.
    pub(crate) fn place(&mut self, name: &str, content: &[u8], mode: u32) -> Result<Placed, Error> {
        let (path, sum) = (self.join(name), sum(content));
        let before = self.found_free(name, &sum)?;
        let is_there = before.as_ref() == Some(&sum) && has_mode(&path, mode)?;
        if is_there && self.owns_only(name, &sum) {
            return Ok(Placed::Unchanged);
        }
        self.owned.insert(Owned { name: name.into(), sum: sum.clone() });
        self.write_record()?;
        if !is_there {
            self.replace(name, content, mode)?;
        }
        self.owned.retain(|owned| owned.name != name || owned.sum == sum);
        self.write_record()?;
        Ok(match before {
            _ if is_there => Placed::Unchanged,
            Some(_) => Placed::Replaced,
            None => Placed::New,
        })
    }

    /// Takes a file away, if it is still ours, and forgets it.
    pub(crate) fn remove(&mut self, name: &str) -> Result<Removed, Error> {
        let path = self.join(name);
        let outcome = match sum_of(&path)? {
            None => Removed::Absent,
            Some(found) if !self.owns(name, &found) => Removed::Kept,
            Some(_) => {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
                self.sync()?;
                Removed::Removed
            }
        };
        self.owned.retain(|owned| owned.name != name);
        self.write_record()?;
        Ok(outcome)
    }

    fn owns(&self, name: &str, sum: &str) -> bool {
        self.owned.contains(&Owned { name: name.into(), sum: sum.into() })
    }

    fn owns_only(&self, name: &str, sum: &str) -> bool {
        self.owned.iter().filter(|owned| owned.name == name).all(|owned| owned.sum == sum)
            && self.owns(name, sum)
    }

    fn write_record(&self) -> Result<(), Error> {
        if !self.owned.is_empty() {
            let lines = self.owned.iter().map(|owned| format!("{}  {}\n", owned.sum, owned.name));
            return self.replace(RECORD, lines.collect::<String>().as_bytes(), 0o644);
        }
        let path = self.join(RECORD);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
            _ => self.sync(),
        }
    }

    fn replace(&self, name: &str, content: &[u8], mode: u32) -> Result<(), Error> {
        let (path, new) = (self.join(name), self.join(&unfinished(name)));
        let written = write_synced(&new, content, mode);
        let renamed = written.and_then(|()| fs::rename(&new, &path).map_err(io_error("replace", &path)));
        if renamed.is_err() {
            drop(fs::remove_file(&new));
        }
        renamed.and_then(|()| self.sync())
    }

    fn remove_unfinished(&self) -> Result<(), Error> {
        for name in self.names()?.iter().filter(|name| is_unfinished(name)) {
            let path = self.join(name);
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Error> {
        self.handle.sync_all().map_err(io_error("sync", &self.path))
    }
}

/// The names that are recorded as ours in a directory, without its lock: for who only looks.
pub(crate) fn owned_in(path: &Path) -> Vec<String> {
    let owned = read_record(&path.join(RECORD)).unwrap_or_default();
    let names: BTreeSet<_> = owned.into_iter().map(|owned| owned.name).collect();
    names.into_iter().collect()
}

/// No runtime reads a file of such a name as a configuration, and no plugin type is called like it.
fn unfinished(name: &str) -> String {
    format!(".weft-node.{name}.new")
}

fn is_unfinished(name: &str) -> bool {
    name.starts_with(".weft-node.") && name.ends_with(".new")
}

/// The file is closed when this returns: an executable that is open for writing cannot be run.
fn write_synced(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).mode(0o600).open(path).map_err(io_error("create", path))?;
    file.write_all(content).map_err(io_error("write", path))?;
    // Not left to the umask, and done before the rename: the file never has its name without its mode.
    file.set_permissions(Permissions::from_mode(mode)).map_err(io_error("set the mode of", path))?;
    file.sync_all().map_err(io_error("sync", path))
}

fn read_record(path: &Path) -> Result<BTreeSet<Owned>, Error> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let lines = text.lines().enumerate().map(|(index, line)| {
        parse_owned(line).ok_or_else(|| Error::Record { path: path.into(), line: index + 1 })
    });
    lines.collect()
}

/// A name with a `/` in it would be a way out of the directory.
fn parse_owned(line: &str) -> Option<Owned> {
    let (sum, name) = line.split_once("  ")?;
    let is_sum = sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    (is_sum && is_name).then(|| Owned { name: name.into(), sum: sum.into() })
}

fn sum(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The sum of a file; `None` where there is none.
fn sum_of(path: &Path) -> Result<Option<String>, Error> {
    match fs::read(path) {
        Ok(content) => Ok(Some(sum(&content))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

fn has_mode(path: &Path, mode: u32) -> Result<bool, Error> {
    let metadata = fs::symlink_metadata(path).map_err(io_error("inspect", path))?;
    Ok(metadata.is_file() && metadata.permissions().mode() & 0o7777 == mode)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_read_by_sha256sum_and_holds_no_way_out() {
        let sum = sum(b"abc");
        assert_eq!(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(parse_owned(&format!("{sum}  weft-cni")).is_some());
        for line in
            [format!("{sum}  ../x"), format!("{sum}  "), format!("{sum} x"), "12  x".into(), String::new()]
        {
            assert_eq!(parse_owned(&line), None, "{line:?}");
        }
    }

    #[test]
    fn an_interrupted_replacement_leaves_a_file_that_is_ours_either_way() {
        let dir = tempfile::tempdir().unwrap();
        Directory::open(dir.path()).unwrap().place("a", b"old", 0o755).unwrap();
        // The state between the two records: both contents are known, and the new file is half-made.
        let both = format!("{}  a\n{}  a\n", sum(b"old"), sum(b"new"));
        fs::write(dir.path().join(RECORD), both).unwrap();
        fs::write(dir.path().join(unfinished("a")), "ne").unwrap();
        let mut directory = Directory::open(dir.path()).unwrap();
        assert!(!dir.path().join(unfinished("a")).exists());
        assert_eq!(directory.place("a", b"new", 0o755).unwrap(), Placed::Replaced);
        assert_eq!(directory.remove("a").unwrap(), Removed::Removed);
        assert_eq!(directory.names().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        assert!(directory.replace("a", b"x", 0o755).is_err(), "a directory is in the way");
        assert_eq!(directory.names().unwrap(), ["a"]);
    }
}
