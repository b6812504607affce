//! Every way of saving a file is noticed, on the real inotify, and what is seen is whole.

#![cfg(test)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weft_sidecar::configuration::Configuration;
use weft_sidecar::read::files::Roots;
use weft_sidecar::watch::{GATHER, POLL, Watcher};

/// Less than the poll, so that what is found is found by an event.
const SOON: Duration = Duration::from_secs(3);

struct Following {
    configuration: Configuration,
    watcher: Watcher,
}

impl Following {
    fn of(root: &Path) -> Self {
        assert!(SOON < POLL);
        let roots = Roots::new([root.to_owned()]);
        let watcher = Watcher::new(&roots).expect("inotify");
        let mut following = Self { configuration: Configuration::new(roots), watcher };
        following.look();
        following
    }

    fn look(&mut self) -> bool {
        let mut listing = self.configuration.roots().list();
        while self.watcher.follow(&listing) {
            listing = self.configuration.roots().list();
        }
        self.configuration.look(&listing, &self.watcher.unsettled()).changed
    }

    fn name(&self) -> Option<String> {
        self.configuration.resolve().mesh.map(|mesh| mesh.proxy.sidecar.name.clone())
    }

    /// Looks whenever the watcher says so, until the configuration names the workload `name`; returns every name seen.
    async fn until(&mut self, name: &str) -> Vec<Option<String>> {
        let deadline = Instant::now() + SOON;
        let mut seen = Vec::new();
        while self.name().as_deref() != Some(name) {
            let left = deadline.saturating_duration_since(Instant::now());
            let due = tokio::time::timeout(left, self.watcher.due()).await;
            assert!(due.is_ok(), "{name} was not noticed; seen {seen:?}");
            self.look();
            seen.push(self.name());
        }
        seen
    }
}

fn sidecar(name: &str) -> String {
    format!("apiVersion: weft.dev/v1alpha1\nkind: Sidecar\nmetadata: {{name: {name}}}\n")
}

fn start() -> (TempDir, PathBuf, Following) {
    let dir = tempfile::tempdir().expect("directory");
    let config = dir.path().join("config");
    fs::create_dir(&config).expect("directory");
    fs::write(config.join("a.yaml"), sidecar("one")).expect("write");
    let following = Following::of(&config);
    assert_eq!(following.name().as_deref(), Some("one"));
    (dir, config, following)
}

#[tokio::test]
async fn a_write_in_place_is_noticed() {
    let (_dir, config, mut following) = start();
    fs::write(config.join("a.yaml"), sidecar("two")).expect("write");
    following.until("two").await;
}

#[tokio::test]
async fn a_rename_over_the_file_is_noticed() {
    let (_dir, config, mut following) = start();
    fs::write(config.join(".a.yaml.new"), sidecar("two")).expect("write");
    fs::rename(config.join(".a.yaml.new"), config.join("a.yaml")).expect("rename");
    following.until("two").await;
}

#[tokio::test]
async fn half_of_a_file_is_never_seen() {
    let (_dir, config, mut following) = start();
    let mut file = fs::File::create(config.join("a.yaml")).expect("create");
    // Each half is a valid configuration in itself.
    file.write_all(sidecar("half").as_bytes()).expect("write");
    // Something else is complete, so there is a look while the file is half written.
    fs::write(config.join("b.yaml"), "# nothing\n").expect("write");
    following.watcher.due().await;
    following.look();
    assert_eq!(following.name().as_deref(), Some("one"));
    file.write_all(b"spec: {tags: {a: b}}\n").expect("write");
    drop(file);
    following.until("half").await;
}

#[tokio::test]
async fn an_editor_that_moves_the_file_away_first_leaves_no_gap() {
    let (_dir, config, mut following) = start();
    fs::rename(config.join("a.yaml"), config.join("a.yaml~")).expect("rename");
    fs::write(config.join("b.yaml"), "# nothing\n").expect("something else is complete");
    following.watcher.due().await;
    following.look();
    assert_eq!(following.name().as_deref(), Some("one"));
    fs::write(config.join("a.yaml"), sidecar("two")).expect("write");
    let seen = following.until("two").await;
    assert!(!seen.contains(&None), "{seen:?}");
}

#[tokio::test]
async fn a_config_map_swap_is_noticed() {
    let dir = tempfile::tempdir().expect("directory");
    let volume = dir.path();
    let revision = |name: &str| {
        fs::create_dir(volume.join(format!("..{name}"))).expect("directory");
        fs::write(volume.join(format!("..{name}/a.yaml")), sidecar(name)).expect("write");
        symlink(format!("..{name}"), volume.join("..data_tmp")).expect("link");
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("rename");
    };
    revision("one");
    symlink("..data/a.yaml", volume.join("a.yaml")).expect("link");
    let mut following = Following::of(volume);
    assert_eq!(following.name().as_deref(), Some("one"));
    revision("two");
    fs::remove_dir_all(volume.join("..one")).expect("the kubelet removes the old revision");
    let seen = following.until("two").await;
    assert!(!seen.contains(&None), "{seen:?}");
}

#[tokio::test]
async fn a_directory_that_is_deleted_and_made_again_is_followed() {
    let (_dir, config, mut following) = start();
    fs::remove_dir_all(&config).expect("remove");
    following.watcher.due().await;
    following.look();
    assert_eq!(following.name().as_deref(), Some("one"), "its files are not taken for deleted");
    fs::create_dir(&config).expect("directory");
    fs::write(config.join("a.yaml"), sidecar("two")).expect("write");
    following.until("two").await;
    fs::write(config.join("a.yaml"), sidecar("three")).expect("write");
    following.until("three").await;
}

#[tokio::test]
async fn a_directory_that_comes_later_is_found() {
    let dir = tempfile::tempdir().expect("directory");
    let config = dir.path().join("later");
    let mut following = Following::of(&config);
    fs::create_dir(&config).expect("directory");
    fs::write(config.join("a.yaml"), sidecar("one")).expect("write");
    following.until("one").await;
}

#[tokio::test]
async fn a_link_to_a_file_elsewhere_is_followed() {
    let dir = tempfile::tempdir().expect("directory");
    let (config, elsewhere) = (dir.path().join("config"), dir.path().join("elsewhere"));
    fs::create_dir(&config).expect("directory");
    fs::create_dir(&elsewhere).expect("directory");
    fs::write(elsewhere.join("x.yaml"), sidecar("one")).expect("write");
    symlink(elsewhere.join("x.yaml"), config.join("a.yaml")).expect("link");
    let mut following = Following::of(&config);
    fs::write(elsewhere.join("x.yaml"), sidecar("two")).expect("write");
    following.until("two").await;
}

#[tokio::test]
async fn a_link_may_lead_to_a_file_of_any_name() {
    let dir = tempfile::tempdir().expect("directory");
    let (config, blob) = (dir.path().join("config"), dir.path().join("blob"));
    fs::create_dir(&config).expect("directory");
    fs::write(&blob, sidecar("one")).expect("write");
    symlink(&blob, config.join("a.yaml")).expect("link");
    let mut following = Following::of(&config);
    fs::write(&blob, sidecar("two")).expect("write");
    following.until("two").await;
    fs::write(dir.path().join("new"), sidecar("three")).expect("write");
    fs::rename(dir.path().join("new"), &blob).expect("rename");
    following.until("three").await;
}

#[tokio::test]
async fn a_link_on_the_way_to_the_directory_is_followed() {
    let dir = tempfile::tempdir().expect("directory");
    for release in ["one", "two"] {
        fs::create_dir_all(dir.path().join(release).join("mesh")).expect("directory");
        fs::write(dir.path().join(release).join("mesh/a.yaml"), sidecar(release)).expect("write");
    }
    symlink("one", dir.path().join("current")).expect("link");
    let mut following = Following::of(&dir.path().join("current/mesh"));
    assert_eq!(following.name().as_deref(), Some("one"));
    symlink("two", dir.path().join("next")).expect("link");
    fs::rename(dir.path().join("next"), dir.path().join("current")).expect("rename");
    following.until("two").await;
}

#[tokio::test]
async fn a_file_that_is_emptied_before_it_is_written_leaves_no_gap() {
    let (_dir, config, mut following) = start();
    drop(fs::File::create(config.join("a.yaml")).expect("truncate"));
    fs::write(config.join("b.yaml"), "# nothing\n").expect("something else is complete");
    following.watcher.due().await;
    following.look();
    assert_eq!(following.name().as_deref(), Some("one"));
    fs::write(config.join("a.yaml"), sidecar("two")).expect("write");
    let seen = following.until("two").await;
    assert!(!seen.contains(&None), "{seen:?}");
}

#[tokio::test]
async fn a_single_file_is_followed_too() {
    let (_dir, config, _) = start();
    let file = config.join("a.yaml");
    let mut following = Following::of(&file);
    fs::write(config.join("new"), sidecar("two")).expect("write");
    fs::rename(config.join("new"), &file).expect("rename");
    following.until("two").await;
}

/// A subPath mount is a file of its own file system entry: it is replaced from outside, or written in place.
#[tokio::test]
async fn a_single_file_that_is_mounted_is_followed_when_it_is_written() {
    let dir = tempfile::tempdir().expect("directory");
    let (elsewhere, mounted) = (dir.path().join("elsewhere.yaml"), dir.path().join("mounted"));
    fs::create_dir(&mounted).expect("directory");
    fs::write(&elsewhere, sidecar("one")).expect("write");
    // As a bind mount does: the same inode under another name, and nobody is told there what happens to it here.
    fs::hard_link(&elsewhere, mounted.join("a.yaml")).expect("link");
    let mut following = Following::of(&mounted.join("a.yaml"));
    assert_eq!(following.name().as_deref(), Some("one"));
    fs::write(&elsewhere, sidecar("two")).expect("write");
    following.until_polled("two").await;
}

/// No event tells of a change to a file under another name; nor does a network file system. The poll finds it.
#[tokio::test]
async fn what_no_event_tells_of_is_found_by_the_poll() {
    let (dir, config, mut following) = start();
    let other_name = dir.path().join("other-name");
    fs::hard_link(config.join("a.yaml"), &other_name).expect("link");
    fs::write(&other_name, sidecar("two")).expect("write");
    following.until_polled("two").await;
}

#[tokio::test]
async fn an_overflow_of_the_queue_is_survived() {
    let (_dir, config, mut following) = start();
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .expect("readable")
        .trim()
        .parse()
        .expect("a number");
    // Each makes an event of its own, since two in a row are never the same; nobody reads them meanwhile.
    for at in 0..=most / 2 {
        fs::write(config.join(if at % 2 == 0 { "x.yaml" } else { "y.yaml" }), "# x\n").expect("write");
    }
    fs::write(config.join("a.yaml"), sidecar("two")).expect("write");
    following.until("two").await;
    fs::write(config.join("a.yaml"), sidecar("three")).expect("write");
    following.until("three").await;
}

#[tokio::test]
async fn a_save_is_looked_at_at_once_and_what_follows_within_20_ms_makes_one_more() {
    let (_dir, config, mut following) = start();
    let saved = Instant::now();
    fs::write(config.join("a.yaml"), sidecar("two")).expect("write");
    following.watcher.due().await;
    following.look();
    assert_eq!(following.name().as_deref(), Some("two"));
    for step in 0..5 {
        fs::write(config.join("a.yaml"), sidecar(&format!("three-{step}"))).expect("write");
    }
    following.watcher.due().await;
    assert!(saved.elapsed() >= GATHER, "{:?}", saved.elapsed());
    following.look();
    assert_eq!(following.name().as_deref(), Some("three-4"), "one look for all of them");
}

/// Found by a look that nothing but the poll brings about.
impl Following {
    async fn until_polled(&mut self, name: &str) {
        let deadline = Instant::now() + 3 * POLL;
        while self.name().as_deref() != Some(name) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(tokio::time::timeout(left, self.watcher.due()).await.is_ok(), "{name} was not found");
            self.look();
        }
    }
}
