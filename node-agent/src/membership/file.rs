//! The nodes in a file that somebody else writes: by hand, or by what sets up the machines.
//!
//! ```json
//! { "nodes": [
//!     { "name": "a", "addresses": ["192.0.2.1", "2001:db8::1"], "podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"] },
//!     { "name": "b", "addresses": ["192.0.2.2", "2001:db8::2"], "podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"] } ] }
//! ```
//!
//! It is read again when something of its directory changes: when it was written and closed, when another file was renamed
//! over it, when the `..data` of a mounted ConfigMap was swapped. A file that cannot be read, or is not whole, changes
//! nothing: the nodes stay as they are. An entry that is wrong is held back alone ([`Members::judge`](crate::member::Members::judge)).

use std::convert::Infallible;
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use super::{Error, Register};
use crate::member::{Candidate, Unread};
use crate::readable::readable;

/// How often the file is looked at without any event: its directory may not be there yet, and some file systems report
/// nothing.
const POLL: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nodes<'a> {
    #[serde(borrow)]
    nodes: Vec<&'a RawValue>,
}

/// What a file says.
#[derive(Debug, Default, PartialEq)]
struct Told {
    nodes: Vec<Candidate>,
    unread: Vec<Unread>,
}

pub(super) async fn follow(path: PathBuf, mut register: Register) -> Result<Infallible, Error> {
    let mut changes = Changes::of(&path).map_err(|source| Error::Watch { path: path.clone(), source })?;
    let mut seen = None;
    loop {
        // The watch comes before the look, so that nothing falls between the two.
        changes.watch();
        let look = read(&path);
        if seen.as_ref() != Some(&look) {
            match &look {
                Ok(told) => register.take(&told.nodes, &told.unread),
                Err(why) => {
                    tracing::error!(file = %path.display(), "{why}; the nodes stay as they are until the file is right");
                    register.unreadable(why);
                }
            }
            seen = Some(look);
        }
        changes.next().await;
    }
}

/// The nodes in the file, or in words why there are none to be had.
fn read(path: &Path) -> Result<Told, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read the nodes: {error}"))?;
    let Nodes { nodes } =
        serde_json::from_str(&text).map_err(|error| format!("this is no list of nodes: {error}"))?;
    let mut told = Told::default();
    for (index, entry) in nodes.into_iter().enumerate() {
        match serde_json::from_str(entry.get()) {
            Ok(node) => told.nodes.push(node),
            Err(error) => told.unread.push(unread(index + 1, entry.get(), &text, &error)),
        }
    }
    Ok(told)
}

fn unread(number: usize, entry: &str, text: &str, error: &serde_json::Error) -> Unread {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let name = serde_json::from_str(entry).ok().map(|named: Named| named.name);
    // A position counts from the beginning of the entry, which is a part of the text; its words come before it.
    let whole = error.to_string();
    let why = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(why, _)| why).to_owned();
    let before = text.get(..entry.as_ptr() as usize - text.as_ptr() as usize).unwrap_or_default();
    let line = before.matches('\n').count() + error.line().max(1);
    Unread { place: format!("entry {number}, on line {line},"), name, why }
}

/// Tells when something happened in the directory of a file.
struct Changes {
    inotify: AsyncFd<Fd>,
    directory: PathBuf,
}

struct Fd(Inotify);

impl Changes {
    fn of(path: &Path) -> io::Result<Self> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self { inotify: readable(Fd(inotify))?, directory: directory.unwrap_or(Path::new(".")).into() })
    }

    /// Watches the directory that has the name now. The kernel gives the same watch again for the same directory.
    fn watch(&self) {
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF;
        if let Err(error) = self.inotify.get_ref().0.add_watch(&self.directory, events) {
            tracing::debug!(directory = %self.directory.display(), %error, "cannot watch; polling instead");
        }
    }

    /// Waits until it is time to look again.
    async fn next(&mut self) {
        if let Ok(Ok(mut ready)) = timeout(POLL, self.inotify.readable()).await {
            ready.clear_ready();
            drop(ready);
            while matches!(self.inotify.get_ref().0.read_events(), Ok(_) | Err(Errno::EINTR)) {}
        }
    }
}

impl Debug for Changes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::sync::watch;

    use super::*;
    use crate::membership::Known;
    use crate::status::Board;

    const DEADLINE: Duration = Duration::from_secs(4);

    fn nodes(subnet: &str) -> String {
        format!(r#"{{"nodes": [{{"name": "a", "addresses": ["192.0.2.1"], "podCIDRs": ["{subnet}"]}}]}}"#)
    }

    /// The subnet of the node once it is `expected`, which must be before the next poll.
    async fn is_told(known: &mut watch::Receiver<Known>, expected: &str) {
        let is_expected = |known: &Known| {
            let own = known.as_deref().and_then(|members| members.own.as_ref());
            own.is_some_and(|own| own.pod_cidrs == [expected.parse().unwrap()])
        };
        timeout(DEADLINE, known.wait_for(is_expected)).await.expect("told in time").unwrap();
    }

    #[tokio::test]
    async fn a_file_is_followed_through_writing_renaming_mistakes_and_absence() {
        let dir = tempfile::tempdir().unwrap();
        let (path, new) = (dir.path().join("nodes.json"), dir.path().join("new"));
        let (publish, mut known) = watch::channel(None);
        let register = Register::new("a".parse().unwrap(), publish, Board::default());
        let script = async {
            fs::write(&path, nodes("10.244.0.0/24")).unwrap();
            is_told(&mut known, "10.244.0.0/24").await;
            fs::write(&new, nodes("10.244.1.0/24")).unwrap();
            fs::rename(&new, &path).unwrap();
            is_told(&mut known, "10.244.1.0/24").await;
            fs::write(&path, r#"{"nodes": [{"name": "a"#).unwrap();
            fs::remove_file(&path).unwrap();
            fs::write(&path, nodes("10.244.2.0/24")).unwrap();
            is_told(&mut known, "10.244.2.0/24").await;
        };
        tokio::select! {
            ended = follow(path.clone(), register) => panic!("{ended:?}"),
            () = script => {}
        }
    }

    #[tokio::test]
    async fn a_mounted_configmap_is_followed_through_its_swap() {
        let dir = tempfile::tempdir().unwrap();
        for (name, subnet) in [("one", "10.244.1.0/24"), ("two", "10.244.2.0/24")] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("nodes.json"), nodes(subnet)).unwrap();
        }
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, dir.path().join(name)).unwrap();
        link("one", "..data");
        link("..data/nodes.json", "nodes.json");
        let (publish, mut known) = watch::channel(None);
        let register = Register::new("a".parse().unwrap(), publish, Board::default());
        let script = async {
            is_told(&mut known, "10.244.1.0/24").await;
            link("two", "..data_tmp");
            fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
            is_told(&mut known, "10.244.2.0/24").await;
        };
        tokio::select! {
            ended = follow(dir.path().join("nodes.json"), register) => panic!("{ended:?}"),
            () = script => {}
        }
    }

    #[test]
    fn a_file_that_is_no_list_of_nodes_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.json");
        assert!(read(&path).unwrap_err().starts_with("cannot read the nodes: No such file"));
        fs::write(&path, "{\"nodse\": [\n {\"nam\": 7}]}").unwrap();
        let why = read(&path).unwrap_err();
        assert!(why.contains("unknown field `nodse`") && why.ends_with("at line 1 column 8"), "{why}");
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_held_back_alone_and_says_where_and_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.json");
        let text = r#"{ "nodes": [
            { "name": "a", "addresses": ["192.0.2.1"] },
            { "name": "b",
              "adresses": ["192.0.2.2"] }, { "nam": "c" }, 7,
            { "name": "d", "addresses": ["192.0.2.4"] } ] }"#;
        fs::write(&path, text).unwrap();
        let told = read(&path).unwrap();
        assert_eq!(told.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["a", "d"]);
        let unread: Vec<_> =
            told.unread.iter().map(|entry| (entry.place.as_str(), entry.name.as_deref())).collect();
        let expected = [
            ("entry 2, on line 4,", Some("b")),
            ("entry 3, on line 4,", None),
            ("entry 4, on line 4,", None),
        ];
        assert_eq!(unread, expected);
        assert!(told.unread[0].why.starts_with("unknown field `adresses`, expected one of"), "{told:?}");
    }
}
