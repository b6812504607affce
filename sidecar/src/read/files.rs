//! Which files make up a configuration, and one coherent look at them.
//!
//! A Kubernetes ConfigMap volume is a directory of links into `..data`, itself a link to a directory that is never
//! changed, only replaced. Such a volume is read through `..data`, resolved once, so that one look sees one revision;
//! following each file's own link could see two.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType, Metadata};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use thiserror::Error;

use crate::diagnostic::Span;

/// A larger file is refused. Kubernetes bounds a ConfigMap to 1 MiB.
pub const MAX_FILE_BYTES: u64 = 8 << 20;
/// More files than this in one configuration are refused.
pub const MAX_FILES: usize = 10_000;

/// A file last changed this short a time before it was read may change again without its times showing it: the clock
/// of a file system ticks every few milliseconds.
const RACY: Duration = Duration::from_secs(1);

/// Where a configuration is: directories and single files, as given by the user.
#[derive(Debug, Clone)]
pub struct Roots {
    paths: Vec<PathBuf>,
    /// Those of them in which others write.
    discovered: Vec<PathBuf>,
}

/// What one look at the roots found: the files by the name the user knows, with the path to read them by.
#[derive(Debug, Default)]
pub struct Listing {
    /// The files, sorted by name.
    pub files: BTreeMap<String, PathBuf>,
    /// Roots and entries that could not be looked at.
    pub failures: Vec<Failure>,
    /// The directories in which a change would change the listing or a file.
    pub directories: BTreeSet<PathBuf>,
    /// The names of the files that links lead to, which need not end as a configuration's does.
    pub targets: BTreeSet<OsString>,
    /// The directories in which a root is an entry, or would be.
    pub ancestors: BTreeSet<PathBuf>,
}

/// A directory or file that could not be read.
#[derive(Debug, Error)]
#[error("cannot read {path}", path = path.display())]
pub struct Failure {
    /// The directory or file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// What tells one state of a file from another, as cheaply as the file system can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
    racy: bool,
}

/// A file as it was read.
#[derive(Debug)]
pub struct Content {
    /// Its text.
    pub text: String,
    /// Where it is no text: the first bytes that are not UTF-8.
    pub garbled: Option<Span>,
    /// A hash of its bytes.
    pub hash: u64,
    /// Its state when it was opened.
    pub stamp: Stamp,
    /// When it was last changed, renamed or linked, by the file system's clock.
    pub changed: SystemTime,
}

impl Roots {
    /// The configuration in `paths`: directories, or files.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { paths: paths.into_iter().collect(), discovered: Vec::new() }
    }

    /// The same with directories that somebody keeps for the workload, with what others wrote.
    #[must_use]
    pub fn with_discovered(mut self, paths: impl IntoIterator<Item = PathBuf>) -> Self {
        self.discovered.extend(paths);
        self.paths.extend_from_slice(&self.discovered);
        self
    }

    /// Whether a file or root is the workload's own, and not one that was discovered for it.
    pub fn is_own(&self, path: &Path) -> bool {
        !self.discovered.iter().any(|root| path.starts_with(root))
    }

    /// Whether there is any such directory.
    pub fn has_discovered(&self) -> bool {
        !self.discovered.is_empty()
    }

    /// The paths as the user gave them.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// What the file at `path`, an absolute one, is called in the directories among the roots, and how it is read there.
    pub fn files_at(&self, path: &Path) -> Vec<(String, PathBuf)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
        let roots = self.paths.iter().filter(|root| absolute(root) == parent);
        roots.map(|root| root.join(name)).map(|path| (path.display().to_string(), path)).collect()
    }

    /// Looks at the roots once.
    pub fn list(&self) -> Listing {
        let mut listing = Listing::default();
        for root in &self.paths {
            if let Err(source) = listing.add_root(root) {
                listing.failures.push(Failure { path: root.clone(), source });
            }
        }
        listing
    }
}

impl Listing {
    /// When a directory of the listing last got or lost an entry.
    pub fn changed(&self) -> Option<SystemTime> {
        self.directories.iter().filter_map(|path| changed(&fs::metadata(path).ok()?)).max()
    }

    /// Adds a single file that is no configuration but that one depends on, so that a change to it is noticed. It need not
    /// be there.
    pub fn add_source(&mut self, path: &Path) {
        let parent = existing_parent(path);
        self.targets
            .extend(path.strip_prefix(&parent).iter().flat_map(|rest| rest.iter()).map(OsStr::to_owned));
        match path.parent() == Some(parent.as_path()) {
            true => self.directories.insert(parent),
            false => self.ancestors.insert(parent),
        };
        if let Ok(target) = fs::canonicalize(path) {
            self.directories.extend(target.parent().map(Path::to_owned));
            self.targets.extend(target.file_name().map(OsStr::to_owned));
        }
    }

    fn add_root(&mut self, root: &Path) -> io::Result<()> {
        let parent = existing_parent(root);
        self.ancestors.extend(links_above(root));
        let metadata = fs::metadata(root).inspect_err(|_| {
            self.ancestors.insert(parent.clone());
        })?;
        if metadata.is_dir() {
            self.ancestors.insert(parent);
            self.directories.insert(absolute(root));
            return self.add_directory(root);
        }
        self.directories.insert(parent);
        let kind = fs::symlink_metadata(root)?.file_type();
        self.add_file(root.display().to_string(), root.to_owned(), kind)
    }

    fn add_directory(&mut self, directory: &Path) -> io::Result<()> {
        let data = directory.join("..data");
        let readable = match fs::canonicalize(&data) {
            Ok(resolved) => resolved,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !data.is_symlink() => {
                directory.to_owned()
            }
            Err(error) => return Err(error),
        };
        for entry in fs::read_dir(&readable)? {
            let entry = entry?;
            let (name, kind) = (entry.file_name(), entry.file_type()?);
            let Some(shown) = name.to_str().filter(|name| is_configuration(name)) else { continue };
            if !kind.is_dir() {
                self.add_file(directory.join(shown).display().to_string(), entry.path(), kind)?;
            }
        }
        Ok(())
    }

    /// A link is watched at its end, too. Where it leads to a directory there is nothing to read.
    fn add_file(&mut self, shown: String, path: PathBuf, kind: FileType) -> io::Result<()> {
        if kind.is_symlink() {
            if path.is_dir() {
                return Ok(());
            }
            let target = fs::canonicalize(&path).ok();
            self.directories.extend(target.iter().filter_map(|target| target.parent()).map(Path::to_owned));
            self.targets.extend(target.iter().filter_map(|target| target.file_name()).map(OsStr::to_owned));
        }
        if self.files.len() >= MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files")));
        }
        self.files.insert(shown, path);
        Ok(())
    }
}

impl Stamp {
    /// Whether a file that now looks like `now` surely holds what it held when it was read with this stamp.
    pub fn still_holds(&self, now: &Stamp) -> bool {
        !self.racy
            && (self.device, self.inode, self.size, self.changed)
                == (now.device, now.inode, now.size, now.changed)
    }

    /// The present state of the file at `path`.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        let age = changed(metadata).and_then(|changed| SystemTime::now().duration_since(changed).ok());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            racy: age.is_none_or(|age| age < RACY),
        }
    }
}

impl Content {
    /// Reads the file at `path`, if it is a regular file of a sane size.
    pub fn read(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        if metadata.len() > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
        }
        let bytes = fs::read(path)?;
        let hash = hash(&bytes);
        let changed = changed(&metadata).unwrap_or(SystemTime::UNIX_EPOCH);
        let (text, garbled) = text(bytes);
        Ok(Self { text, garbled, hash, stamp: Stamp::from(&metadata), changed })
    }
}

/// Whether a file of this name is read: YAML or JSON, and not hidden.
pub fn is_configuration(name: &str) -> bool {
    !name.starts_with('.')
        && Path::new(name).extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json")
}

/// The directory in which `path` is, or would be created: the nearest ancestor that exists.
fn existing_parent(path: &Path) -> PathBuf {
    absolute(path).ancestors().skip(1).find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// The directories in which links are on the way to `path`: what it means changes with them.
fn links_above(path: &Path) -> Vec<PathBuf> {
    let absolute = absolute(path);
    let links = absolute.ancestors().skip(1).filter(|ancestor| ancestor.is_symlink());
    links.filter_map(Path::parent).map(Path::to_owned).collect()
}

/// The path from the root of the file system; links are left as they are.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The change time, because unlike the modification time it also moves when a file is renamed over another.
fn changed(metadata: &Metadata) -> Option<SystemTime> {
    let seconds = u64::try_from(metadata.ctime()).ok()?;
    let nanoseconds = u32::try_from(metadata.ctime_nsec()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// The text, with a substitute for what is not UTF-8, and the place of the first of it.
fn text(bytes: Vec<u8>) -> (String, Option<Span>) {
    String::from_utf8(bytes).map_or_else(
        |error| {
            let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let place = end_of(&String::from_utf8_lossy(good));
            (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some(place))
        },
        |text| (text, None),
    )
}

/// The place right behind `text`.
fn end_of(text: &str) -> Span {
    let last = text.rsplit('\n').next().unwrap_or_default();
    Span { line: text.matches('\n').count() + 1, column: last.chars().count() + 1, width: 1 }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let listing = Roots::new([root.to_owned()]).list();
        assert!(listing.failures.is_empty(), "{:?}", listing.failures);
        let strip = |name: &String| name.strip_prefix(&format!("{}/", root.display())).map(str::to_owned);
        listing.files.keys().filter_map(strip).collect()
    }

    #[test]
    fn a_directory_means_its_yaml_and_json_files() {
        let dir = tempfile::tempdir().expect("directory");
        for name in ["b.yml", "a.yaml", "c.json", ".hidden.yaml", "a.yaml~", "#a.yaml#", "README.md"] {
            fs::write(dir.path().join(name), "").expect("write");
        }
        fs::create_dir(dir.path().join("sub.yaml")).expect("directory");
        assert_eq!(names(dir.path()), ["a.yaml", "b.yml", "c.json"]);
    }

    #[test]
    fn a_config_map_volume_is_read_through_its_data_link() {
        let dir = tempfile::tempdir().expect("directory");
        let volume = dir.path();
        fs::create_dir(volume.join("..2026_a")).expect("directory");
        fs::write(volume.join("..2026_a/routes.yaml"), "a: 1").expect("write");
        symlink("..2026_a", volume.join("..data")).expect("link");
        // The kubelet makes the links the user sees after the swap, and leaves those of removed keys until later.
        symlink("..data/gone.yaml", volume.join("gone.yaml")).expect("link");
        assert_eq!(names(volume), ["routes.yaml"]);
        let listing = Roots::new([volume.to_owned()]).list();
        let path = listing.files.values().next().expect("one file");
        assert!(path.parent().expect("parent").ends_with("..2026_a"), "{path:?}");
    }

    #[test]
    fn a_missing_root_is_a_failure_and_its_nearest_ancestor_is_watched() {
        let dir = tempfile::tempdir().expect("directory");
        let listing = Roots::new([dir.path().join("a/b")]).list();
        assert_eq!(listing.failures.len(), 1);
        assert_eq!(listing.ancestors, BTreeSet::from([dir.path().to_owned()]));
    }

    #[test]
    fn what_is_not_utf_8_has_its_place() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("a.yaml");
        let garbled = |bytes: &[u8]| {
            fs::write(&path, bytes).expect("write");
            Content::read(&path).expect("readable").garbled.map(|span| (span.line, span.column))
        };
        assert_eq!(garbled("a: ä\nb: \u{fffd}\n".as_bytes()), None);
        assert_eq!(garbled(b"a: \xc3\xa4\nb: \xc3\x28\n"), Some((2, 4)));
        assert_eq!(garbled(b"\xff\xfea\0"), Some((1, 1)));
    }

    #[test]
    fn what_is_no_file_of_a_sane_size_is_refused() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("a.yaml");
        let large = fs::File::create(&path).expect("create");
        large.set_len(MAX_FILE_BYTES + 1).expect("grow");
        assert!(Content::read(&path).expect_err("large").to_string().contains("larger"));
    }
}
