//! The directory: `DIR/NAMESPACE/KIND.NAME.json`, of which no more than a hash is kept in memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::kind::Kind;

/// A file in the making. Sidecars do not read what begins with a dot.
const UNFINISHED: &str = ".weft-node.new";
/// Routes of Gateways are below their namespace's directory, so that only who asks for them reads them.
const GATEWAYS: &str = "gateways";

/// What is in the directory when the agent starts.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    /// By kind, as their names begin.
    found: HashMap<String, BTreeMap<Box<str>, Known>>,
}

/// The files of one kind.
#[derive(Debug)]
pub(super) struct Shelf {
    root: PathBuf,
    known: BTreeMap<Box<str>, Known>,
    /// Which list is being told.
    round: u32,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy)]
struct Known {
    hash: u64,
    /// The list in which it was told of last.
    round: u32,
}

impl Tree {
    /// Looks at what is there, making the directory where it is missing. Files that were half written when the machine lost
    /// its power are removed: they have not been synced, since the API has what they say.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        directories().create(root)?;
        let mut tree = Self { root: root.to_owned(), found: HashMap::new() };
        for namespace in entries(root)? {
            tree.look(&namespace)?;
            tree.look(&format!("{namespace}/{GATEWAYS}"))?;
        }
        Ok(tree)
    }

    /// The files of a kind.
    pub(super) fn shelf(&self, kind: &Kind) -> Shelf {
        let known = self.found.get(kind.prefix).cloned().unwrap_or_default();
        Shelf { root: self.root.clone(), known, round: 0 }
    }

    fn look(&mut self, directory: &str) -> io::Result<()> {
        let path = self.root.join(directory);
        if !is_directory(&path) {
            return Ok(());
        }
        for name in entries(&path)? {
            let file = path.join(&name);
            if name == UNFINISHED {
                fs::remove_file(&file)?;
            } else if let Some((prefix, _)) = name.split_once('.').filter(|_| name.ends_with(".json")) {
                // What cannot be read is as if it were not there: it is written anew, or that fails.
                let Ok(content) = fs::read(&file) else { continue };
                if content.ends_with(b"}\n") {
                    let known = Known { hash: hash(&content), round: 0 };
                    let of_kind = self.found.entry(prefix.to_owned()).or_default();
                    of_kind.insert(format!("{directory}/{name}").into(), known);
                } else if super::kind::KINDS.iter().any(|kind| kind.prefix == prefix) {
                    fs::remove_file(&file)?;
                }
            }
        }
        Ok(())
    }
}

impl Shelf {
    /// A list begins.
    pub(super) fn begin(&mut self) {
        self.round += 1;
    }

    /// The file is to have this content. Returns whether it had another. Where that fails it keeps what it had.
    pub(super) fn put(&mut self, path: &str, text: &str) -> io::Result<bool> {
        let hash = hash(text.as_bytes());
        let round = self.round;
        if let Some(known) = self.known.get_mut(path) {
            known.round = round;
            if known.hash == hash && self.is_there(path, text.len()) {
                return Ok(false);
            }
        }
        write(&self.root, path, text)?;
        self.known.insert(path.into(), Known { hash, round });
        Ok(true)
    }

    /// The file is to stay as it is, if it is there.
    pub(super) fn keep(&mut self, path: &str) {
        if let Some(known) = self.known.get_mut(path) {
            known.round = self.round;
        }
    }

    /// The file is to be gone. Returns whether it was there.
    pub(super) fn remove(&mut self, path: &str) -> io::Result<bool> {
        if !self.known.contains_key(path) {
            return Ok(false);
        }
        match fs::remove_file(self.root.join(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => self.known.remove(path),
        };
        Ok(true)
    }

    /// The files that were not told of since the list began.
    pub(super) fn untold(&self) -> Vec<Box<str>> {
        let untold = self.known.iter().filter(|(_, known)| known.round != self.round);
        untold.map(|(path, _)| path.clone()).collect()
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// That nobody has removed or cut it; a file that somebody has edited is found out when the agent starts.
    fn is_there(&self, path: &str, length: usize) -> bool {
        let metadata = fs::symlink_metadata(self.root.join(path));
        metadata.is_ok_and(|file| file.is_file() && usize::try_from(file.len()) == Ok(length))
    }
}

/// Removes all files of the agent below `root`, and every directory that is empty then. Returns how many files there were.
///
/// # Errors
/// Where something cannot be read or removed.
pub(super) fn remove(root: &Path) -> io::Result<usize> {
    if !is_directory(root) {
        return Ok(0);
    }
    let tree = Tree::open(root)?;
    let of_kind = |kind: &Kind| tree.found.get(kind.prefix).into_iter().flat_map(BTreeMap::keys);
    let files: Vec<_> = super::kind::KINDS.iter().flat_map(of_kind).collect();
    files.iter().try_for_each(|path| fs::remove_file(root.join(&***path)))?;
    for namespace in entries(root)?.iter().map(|name| root.join(name)).filter(|path| is_directory(path)) {
        remove_empty(&namespace.join(GATEWAYS))?;
        remove_empty(&namespace)?;
    }
    remove_empty(root)?;
    Ok(files.len())
}

/// What is not empty, no directory, or mounted, as the root is in a container, stays.
fn remove_empty(directory: &Path) -> io::Result<()> {
    use ErrorKind::{DirectoryNotEmpty, NotADirectory, NotFound, ReadOnlyFilesystem, ResourceBusy};
    match fs::remove_dir(directory) {
        Err(error) => match error.kind() {
            NotFound | NotADirectory | DirectoryNotEmpty | ResourceBusy | ReadOnlyFilesystem => Ok(()),
            _ => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

/// Whole or not at all. Nothing is synced: after a power cut the API tells it again, and [`Tree::open`] removes halves.
fn write(root: &Path, path: &str, text: &str) -> io::Result<()> {
    let path = root.join(path);
    let directory = path.parent().unwrap_or(root);
    make(root, directory)?;
    let unfinished = directory.join(UNFINISHED);
    let written = create(&unfinished).and_then(|mut file| file.write_all(text.as_bytes()));
    let placed = written.and_then(|()| fs::rename(&unfinished, &path));
    if placed.is_err() {
        fs::remove_file(&unfinished).ok();
    }
    placed
}

/// Never through a link: whoever may write into a namespace's directory could lead the agent out of it.
fn make(root: &Path, directory: &Path) -> io::Result<()> {
    if is_directory(directory) {
        return Ok(());
    }
    if fs::symlink_metadata(directory).is_ok() {
        return Err(io::Error::other(format!("{} is no directory", directory.display())));
    }
    match directory.parent().filter(|parent| *parent != root && parent.starts_with(root)) {
        Some(parent) => make(root, parent)?,
        None => directories().create(root)?,
    }
    DirBuilder::new().mode(0o755).create(directory)
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create_new(true).mode(0o644);
    match options.open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            options.open(path)
        }
        outcome => outcome,
    }
}

fn directories() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// The names that are texts; others are not ours.
fn entries(directory: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect()
}

/// Of a file's content, to see whether it is another.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::super::kind::KINDS;
    use super::*;

    const WEB: &str = "shop/service.web.json";

    fn services(root: &Path) -> Shelf {
        Tree::open(root).unwrap().shelf(&KINDS[0])
    }

    fn all(root: &Path) -> Vec<String> {
        let mut all = Vec::new();
        for namespace in entries(root).unwrap() {
            for name in entries(&root.join(&namespace)).unwrap() {
                all.push(format!("{namespace}/{name}"));
            }
        }
        all.sort();
        all
    }

    #[test]
    fn a_file_is_written_when_it_differs_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = services(dir.path());
        assert!(shelf.put(WEB, "{1}\n").unwrap());
        let inode = fs::metadata(dir.path().join(WEB)).unwrap().ino();
        assert!(!shelf.put(WEB, "{1}\n").unwrap());
        assert_eq!(fs::metadata(dir.path().join(WEB)).unwrap().ino(), inode);
        assert!(shelf.put(WEB, "{2}\n").unwrap());
        assert_eq!(fs::read_to_string(dir.path().join(WEB)).unwrap(), "{2}\n");
        assert_eq!(all(dir.path()), [WEB]);
    }

    #[test]
    fn what_is_the_agent_s_goes_and_the_directories_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("discovery");
        services(&root).put(WEB, "{}\n").unwrap();
        services(&root).put("pay/gateways/service.web.json", "{}\n").unwrap();
        services(&root).put("other/service.web.json", "{}\n").unwrap();
        fs::write(root.join("other/theirs.x.json"), "{}\n").unwrap();
        symlink(dir.path(), root.join("out")).unwrap();
        assert_eq!(remove(&root).unwrap(), 3);
        assert_eq!(all(&root.join("..")), ["discovery/other", "discovery/out"]);
        assert_eq!(entries(&root.join("other")).unwrap(), ["theirs.x.json"]);
        fs::remove_file(root.join("other/theirs.x.json")).unwrap();
        fs::remove_file(root.join("out")).unwrap();
        assert_eq!(remove(&root).unwrap(), 0);
        assert!(!root.exists());
        assert_eq!(remove(&root).unwrap(), 0);
    }

    #[test]
    fn everybody_can_read_and_only_the_owner_can_write() {
        let dir = tempfile::tempdir().unwrap();
        services(dir.path()).put("shop/gateways/service.web.json", "{}\n").unwrap();
        for (path, mode) in
            [("shop", 0o755), ("shop/gateways", 0o755), ("shop/gateways/service.web.json", 0o644)]
        {
            let found = fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{path}");
        }
    }

    #[test]
    fn the_next_agent_knows_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        services(dir.path()).put(WEB, "{1}\n").unwrap();
        services(dir.path()).put("shop/service.old.json", "{1}\n").unwrap();
        let mut shelf = services(dir.path());
        shelf.begin();
        assert!(!shelf.put(WEB, "{1}\n").unwrap());
        assert_eq!(shelf.untold(), ["shop/service.old.json".into()]);
        assert!(shelf.remove("shop/service.old.json").unwrap());
        assert_eq!(all(dir.path()), [WEB]);
        assert!(!shelf.remove("shop/service.old.json").unwrap());
    }

    #[test]
    fn halves_are_removed_and_what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("shop")).unwrap();
        for (name, content) in [
            ("service.web.json", "{\"a"),
            (UNFINISHED, "{"),
            ("notes.txt", "x"),
            ("mine.json", "7"),
            ("sidecar.yaml", "a: 1"),
        ] {
            fs::write(dir.path().join("shop").join(name), content).unwrap();
        }
        services(dir.path());
        assert_eq!(all(dir.path()), ["shop/mine.json", "shop/notes.txt", "shop/sidecar.yaml"]);
    }

    #[test]
    fn a_file_that_somebody_has_removed_comes_back_with_the_next_list() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = services(dir.path());
        shelf.put(WEB, "{1}\n").unwrap();
        fs::remove_dir_all(dir.path().join("shop")).unwrap();
        assert!(shelf.put(WEB, "{1}\n").unwrap());
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_whole_and_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut shelf = services(dir.path());
        shelf.put(WEB, "{1}\n").unwrap();
        fs::create_dir_all(dir.path().join("shop").join(UNFINISHED)).unwrap();
        assert!(shelf.put(WEB, "{2}\n").is_err());
        assert_eq!(fs::read_to_string(dir.path().join(WEB)).unwrap(), "{1}\n");
        fs::remove_dir(dir.path().join("shop").join(UNFINISHED)).unwrap();
        assert!(shelf.put(WEB, "{2}\n").unwrap());
    }

    #[test]
    fn a_link_leads_nowhere() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut shelf = services(dir.path());
        symlink(outside.path(), dir.path().join("shop")).unwrap();
        assert!(shelf.put(WEB, "{1}\n").is_err());
        fs::create_dir(dir.path().join("other")).unwrap();
        let target = outside.path().join("target");
        fs::write(&target, "untouched").unwrap();
        symlink(&target, dir.path().join("other/service.web.json")).unwrap();
        shelf.put("other/service.web.json", "{1}\n").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
