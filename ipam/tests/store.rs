//! The node-local store against crashes, damage, a full disk, and other processes' eyes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;
use weft_ipam::lease::{Attachment, Directory, Lease, NetnsIdentity, Pod};
use weft_ipam::range::Pool;
use weft_ipam::store::local::{self, LocalStore};
use weft_ipam::store::{self, Store};
use weft_ipam::{Error, Ipam, Request, chain};

/// In memory where there is such a place: most of these tests are about bytes, and syncing them to a disk says nothing.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn pool() -> Pool {
    let ranges = serde_json::json!([[{"subnet": "10.0.0.0/27"}], [{"subnet": "fd00::/64"}]]);
    weft_ipam::config::parse_ranges(&ranges).unwrap()
}

fn attachment(container: usize) -> Attachment {
    Attachment::new("net", &format!("c{container}"), "eth0").unwrap()
}

fn request(container: usize) -> Request {
    Request {
        pod: Some(Pod {
            namespace: "ns".into(),
            name: format!("täglich\t\"{container}\"\n"),
            uid: "u".into(),
        }),
        netns: Some(NetnsIdentity::new("/nowhere/with space", 4_026_531_840)),
        notes: [("a note".to_owned(), serde_json::json!(["täglich\n", container]))].into_iter().collect(),
        ..Request::new(attachment(container))
    }
}

fn open(dir: &Path) -> Ipam {
    Ipam::open("net", dir).unwrap()
}

fn log(dir: &Path) -> PathBuf {
    dir.join("net/leases.log")
}

type Everything = (Vec<Lease>, Vec<IpAddr>);

/// Everything a state is for those who look at it: the leases, and what would be handed out next, to the last address.
fn everything(dir: &Path) -> Result<Everything, Error> {
    let leases = open(dir).leases()?;
    let store = LocalStore::new(dir, "net").unwrap();
    let mut freed = Vec::new();
    store.read(&mut |view| {
        freed = view.freed()?.into_iter().map(|(address, _)| address).collect();
        Ok(())
    })?;
    Ok((leases, freed))
}

/// A log with some history, and what was answered after each transaction: (length of the log, state).
fn history(dir: &Path) -> Vec<(u64, Everything)> {
    let ipam = open(dir);
    let mut answered = Vec::new();
    for step in 0..24_usize {
        match step % 4 {
            3 => drop(ipam.release(&attachment(step - 2)).unwrap()),
            2 => drop(ipam.reserve(&pool(), request(step)).unwrap()),
            _ => drop(ipam.reserve(&pool(), request(step)).unwrap().keep()),
        }
        answered.push((fs::metadata(log(dir)).unwrap().len(), everything(dir).unwrap()));
    }
    answered
}

fn local_error(error: Error) -> local::Error {
    match error {
        Error::Store(store::Error::Local(error)) => error,
        other => panic!("not an error of the store: {other}"),
    }
}

#[test]
fn a_lease_survives_with_all_that_is_known_of_it() {
    let dir = directory();
    let lease = open(dir.path()).reserve(&pool(), request(1)).unwrap().keep();
    assert_eq!(lease.pod, request(1).pod);
    assert!(lease.boot_id.is_some());
    assert_eq!(open(dir.path()).lookup(&attachment(1)).unwrap(), Some(lease));
}

#[test]
fn a_reservation_that_is_not_kept_is_released() {
    let dir = directory();
    let ipam = open(dir.path());
    let lease = ipam.reserve(&pool(), request(1)).unwrap().lease().clone();
    assert_eq!(ipam.leases().unwrap(), []);
    assert_ne!(
        ipam.reserve(&pool(), request(2)).unwrap().keep().addresses,
        lease.addresses,
        "it waits for its reuse"
    );
}

#[test]
fn a_reservation_does_not_release_a_lease_that_came_after_it() {
    let dir = directory();
    let ipam = open(dir.path());
    let reservation = ipam.reserve(&pool(), request(1)).unwrap();
    ipam.release(&attachment(1)).unwrap();
    let successor = ipam.reserve(&pool(), request(1)).unwrap().keep();
    drop(reservation);
    assert_eq!(ipam.lookup(&attachment(1)).unwrap(), Some(successor));
}

#[test]
fn a_second_lease_for_an_attachment_is_refused() {
    let dir = directory();
    let ipam = open(dir.path());
    let lease = ipam.reserve(&pool(), request(1)).unwrap().keep();
    let error = ipam.reserve(&pool(), request(1)).unwrap_err();
    assert_eq!(error.to_string(), "eth0 of c1 in net already holds 10.0.0.2, fd00::2");
    assert_eq!(ipam.leases().unwrap(), [lease]);
}

#[test]
fn reading_makes_no_files_and_an_unknown_network_is_empty() {
    let dir = directory();
    assert_eq!(open(dir.path()).leases().unwrap(), []);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(open(dir.path()).release(&attachment(1)).unwrap(), None);
}

#[test]
fn files_are_for_their_owner_alone() {
    let dir = directory();
    open(dir.path()).reserve(&pool(), request(1)).unwrap().keep();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(dir.path().join("net")), 0o700);
    assert_eq!(mode(log(dir.path())), 0o600);
    assert_eq!(mode(dir.path().join("net/leases.lock")), 0o600);
}

#[test]
fn names_that_could_be_paths_are_refused() {
    for name in ["", ".", "..", "../x", "a/b", "/etc", "a\nb", "-x", "a\0"] {
        assert!(Ipam::open(name, Path::new("/nonexistent")).is_err(), "{name:?}");
        assert!(Attachment::new(name, "c", "eth0").is_err(), "{name:?}");
        assert!(Attachment::new("net", name, "eth0").is_err(), "{name:?}");
    }
    for ifname in ["", ".", "a b", "a\tb", "a/b", "1234567890123456"] {
        assert!(Attachment::new("net", "c", ifname).is_err(), "{ifname:?}");
    }
    let other = Attachment::new("other", "c", "eth0").unwrap();
    let dir = directory();
    assert!(matches!(open(dir.path()).release(&other), Err(Error::OtherNetwork { .. })));
}

#[test]
fn a_log_cut_at_any_byte_opens_to_a_state_that_was_answered() {
    let (dir, copy) = (directory(), directory());
    let answered = history(dir.path());
    let whole = fs::read(log(dir.path())).unwrap();
    fs::create_dir(copy.path().join("net")).unwrap();
    fs::write(copy.path().join("net/leases.lock"), "").unwrap();
    let header = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for length in header..=whole.len() {
        fs::write(log(copy.path()), &whole[..length]).unwrap();
        let last = answered.iter().rev().find(|(end, _)| *end <= length as u64);
        let expected = last.map_or_else(Default::default, |(_, state)| state.clone());
        let found = everything(copy.path()).unwrap_or_else(|error| panic!("{length}: {}", chain(&error)));
        // A reservation that is dropped makes two transactions of one step; what is between them was answered too.
        if found != expected {
            let newly: Vec<_> = found.0.iter().filter(|lease| !expected.0.contains(lease)).collect();
            assert!(
                newly.len() == 1
                    && newly[0].attachment.container().trim_start_matches('c').parse::<usize>().unwrap() % 4
                        == 2,
                "{length}"
            );
        }
    }
}

#[test]
fn an_unfinished_transaction_is_cut_off_by_the_next_and_reported() {
    let dir = directory();
    history(dir.path());
    let before = everything(dir.path()).unwrap();
    for tail in ["0", "01234567 + 17", "\0\0\0\0", "0123\0\0\0\n"] {
        let whole = fs::read(log(dir.path())).unwrap();
        fs::write(log(dir.path()), [&whole, tail.as_bytes()].concat()).unwrap();
        assert_eq!(everything(dir.path()).unwrap(), before, "a reader passes over {tail:?}");
        let store = LocalStore::new(dir.path(), "net").unwrap();
        store.update(&mut |_| Ok(Vec::new())).unwrap();
        let notices = store.take_notices();
        let expected = format!("cut {} bytes from byte {} of", tail.len(), whole.len());
        assert!(notices.len() == 1 && notices[0].starts_with(&expected), "{notices:?}");
        assert_eq!(fs::read(log(dir.path())).unwrap(), whole);
        assert!(store.take_notices().is_empty());
    }
}

#[test]
fn damage_anywhere_is_an_error_that_names_the_place_and_loses_nothing() {
    let dir = directory();
    history(dir.path());
    fs::remove_file(dir.path().join("net/leases.index")).unwrap();
    let whole = fs::read(log(dir.path())).unwrap();
    let header = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for offset in (header..whole.len()).step_by(3).chain([whole.len() - 1]) {
        let mut damaged = whole.clone();
        damaged[offset] ^= 1;
        fs::write(log(dir.path()), &damaged).unwrap();
        let error = local_error(open(dir.path()).reserve(&pool(), request(99)).unwrap_err());
        let local::Error::Damaged { offset: found, ref path, .. } = error else {
            panic!("{offset}: {error}")
        };
        let line = whole[..offset].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        // A line break that became something else joins two lines, and one that appeared splits one.
        assert_eq!(found, line as u64, "byte {offset}");
        assert_eq!(path, &log(dir.path()));
        assert_eq!(fs::read(log(dir.path())).unwrap(), damaged, "the file is as it was");
    }
}

#[test]
fn a_lease_that_cannot_be_read_can_be_ended_and_takes_the_damage_with_it() {
    // A line that is not what was written, and one that is, but by somebody else.
    let payload = "+ 7 10.0.0.2/29@10.0.0.1,fd00::2/64@fd00::1 c1 eth0 [1]";
    let foreign = format!("{:08x} {payload}", crc32fast::hash(payload.as_bytes()));
    for (name, line) in [("damaged", None), ("foreign", Some(foreign))] {
        let dir = directory();
        let ipam = open(dir.path());
        let lease = ipam.reserve(&pool(), request(1)).unwrap().keep();
        let other = ipam.reserve(&pool(), request(2)).unwrap().keep();
        let text = fs::read_to_string(log(dir.path())).unwrap();
        let first = text.lines().nth(1).unwrap();
        let changed = line.unwrap_or_else(|| first.replace(" c1 eth0 ", " c9 eth0 "));
        fs::write(log(dir.path()), text.replace(first, &changed)).unwrap();
        if name == "foreign" {
            fs::remove_file(dir.path().join("net/leases.index")).unwrap();
        }
        let ipam = open(dir.path());
        assert!(ipam.lookup(&attachment(1)).is_err(), "{name}");
        assert!(ipam.reserve(&pool(), request(1)).is_err(), "{name}");
        let ended = ipam.release(&attachment(1)).unwrap().unwrap();
        assert_eq!(addresses(&ended), addresses(&lease), "{name}");
        assert_eq!(ipam.release(&attachment(1)).unwrap(), None, "{name}");
        if name == "damaged" {
            fs::remove_file(dir.path().join("net/leases.index")).unwrap();
        }
        let freed: Vec<_> = ipam.freed().unwrap().into_iter().map(|(address, _)| address).collect();
        assert_eq!((ipam.leases().unwrap(), freed), (vec![other], addresses(&lease)), "{name}");
    }
}

fn addresses(lease: &Lease) -> Vec<IpAddr> {
    lease.addresses.iter().map(|assigned| assigned.address.ip()).collect()
}

#[test]
fn other_files_and_newer_formats_are_refused_and_left_alone() {
    let dir = directory();
    fs::create_dir(dir.path().join("net")).unwrap();
    fs::write(dir.path().join("net/leases.lock"), "").unwrap();
    for (text, expected) in [
        ("weft-ipam leases 3 0123456789abcdef x\n", "is of format 3; this release reads formats up to 2"),
        ("weft-ipam leases 99\n", "install the release that wrote it"),
        ("weft-ipam leases 2 0123456789abcde\n", "is damaged: \"weft-ipam leases 2 0123456789abcde\""),
        ("weft-ipam leases 2\n", "is damaged"),
        ("weft-ipam leases 1x\n", "is damaged"),
        ("weft-ipam leases 0 0123456789abcdef\n", "is damaged"),
        ("weft-ipam leases 99999999999 0123456789abcdef\n", "is damaged"),
        ("something else\n", "is not a log of leases"),
        ("something else, without a line break", "is not a log of leases"),
    ] {
        fs::write(log(dir.path()), text).unwrap();
        let error = open(dir.path()).reserve(&pool(), request(1)).unwrap_err();
        assert!(error.to_string().contains(expected), "{text:?}: {error}");
        assert_eq!(fs::read_to_string(log(dir.path())).unwrap(), text);
    }
}

#[test]
fn a_log_that_contradicts_itself_is_an_error() {
    let dir = directory();
    open(dir.path()).reserve(&pool(), request(1)).unwrap().keep();
    let text = fs::read_to_string(log(dir.path())).unwrap();
    let grant = text.lines().nth(1).unwrap();
    fs::write(log(dir.path()), format!("{text}{grant}\n")).unwrap();
    let error = local_error(open(dir.path()).leases().unwrap_err());
    assert!(matches!(error, local::Error::Contradiction { .. }), "{error}");
}

#[test]
fn the_log_stays_short_and_rewriting_it_keeps_the_order_of_reuse() {
    let dir = directory();
    let ipam = open(dir.path());
    let kept = ipam.reserve(&pool(), request(1000)).unwrap().keep();
    let mut given = Vec::new();
    for round in 0..400 {
        // Every other process is new, so the order is also read back from the log.
        let ipam = if round % 2 == 0 { open(dir.path()) } else { ipam.clone() };
        given.push(ipam.reserve(&pool(), request(round)).unwrap().keep().addresses[0].address);
        ipam.release(&attachment(round)).unwrap();
    }
    let mut first_round = given[..28].to_vec();
    first_round.sort();
    first_round.dedup();
    assert_eq!(first_round.len(), 28, "all free addresses of the /27 are used before one is used again");
    assert!(given.windows(29).all(|window| window[0] == window[28]), "and again in the same order");
    let log = fs::read_to_string(log(dir.path())).unwrap();
    assert!(log.lines().count() < 1100, "{} lines", log.lines().count());
    assert!(log.lines().count() < 800, "800 changes were rewritten at least once");
    assert_eq!(open(dir.path()).leases().unwrap(), [kept]);
}

#[test]
fn a_handle_sees_what_other_processes_did_also_when_the_log_was_replaced() {
    let dir = directory();
    let (watching, late) = (open(dir.path()), open(dir.path()));
    let first = open(dir.path()).reserve(&pool(), request(1000)).unwrap().keep();
    assert_eq!(late.leases().unwrap(), [first]);
    open(dir.path()).release(&attachment(1000)).unwrap();
    for round in 0..600 {
        open(dir.path()).reserve(&pool(), request(round)).unwrap().keep();
        assert!(watching.lookup(&attachment(round)).unwrap().is_some());
        open(dir.path()).release(&attachment(round)).unwrap();
        assert_eq!(watching.leases().unwrap(), []);
    }
    assert_eq!(late.leases().unwrap(), [], "the log it knew was short, and the one in its place is long");
    fs::remove_dir_all(dir.path().join("net")).unwrap();
    assert_eq!(watching.leases().unwrap(), []);
    watching.reserve(&pool(), request(1)).unwrap().keep();
    assert_eq!(open(dir.path()).leases().unwrap().len(), 1);
}

#[test]
fn only_valid_attachments_are_retained() {
    let dir = directory();
    let ipam = open(dir.path());
    (0..5).for_each(|container| drop(ipam.reserve(&pool(), request(container)).unwrap().keep()));
    let ended = ipam.retain(&[attachment(1), attachment(3), attachment(77)]).unwrap();
    let ended: Vec<_> = ended.iter().map(|lease| lease.attachment.container()).collect();
    assert_eq!(ended, ["c0", "c2", "c4"]);
    assert_eq!(open(dir.path()).leases().unwrap().len(), 2);
}

/// Whether an exhausted pool gives its only address away when its holder's namespace is `netns`.
fn is_reclaimed_from(netns: Option<NetnsIdentity>) -> bool {
    let dir = directory();
    let only = weft_ipam::config::parse_ranges(&serde_json::json!([[{"subnet": "10.0.0.1/32"}]])).unwrap();
    let ipam = open(dir.path());
    let lease = ipam.reserve(&only, Request { netns, ..Request::new(attachment(1)) }).unwrap().keep();
    match ipam.reserve(&only, Request::new(attachment(2))) {
        Ok(reservation) => {
            assert_eq!(reservation.keep().addresses, lease.addresses);
            assert_eq!(ipam.lookup(&attachment(1)).unwrap(), None);
            true
        }
        Err(error) => {
            assert!(matches!(error, Error::Alloc(weft_ipam::alloc::Error::Exhausted { .. })), "{error}");
            assert_eq!(ipam.lookup(&attachment(1)).unwrap(), Some(lease));
            false
        }
    }
}

#[test]
fn exhaustion_reclaims_from_namespaces_that_are_gone_and_from_no_other() {
    let dir = directory();
    let file = dir.path().join("netns");
    fs::write(&file, "").unwrap();
    let alive = NetnsIdentity::of(Path::new("/proc/self/ns/net")).unwrap();
    assert!(!is_reclaimed_from(Some(alive.clone())), "it is there");
    let hidden = NetnsIdentity::new(&file, alive.inode);
    assert!(!is_reclaimed_from(Some(hidden.clone())), "it may be mounted there for others");
    assert!(!is_reclaimed_from(None), "nothing is known");
    let unseen = NetnsIdentity::new("/nowhere/netns", 1);
    assert!(!is_reclaimed_from(Some(unseen)), "it may be elsewhere");
    assert!(
        is_reclaimed_from(Some(NetnsIdentity::new(&alive.path, alive.inode + 1))),
        "another took its path"
    );
    fs::remove_file(&file).unwrap();
    assert!(is_reclaimed_from(Some(hidden.clone())), "it was removed");
    let recorded_before = NetnsIdentity::new("/nowhere/netns", 1).directory;
    assert!(!is_reclaimed_from(Some(with_directory(hidden, recorded_before))), "nobody noted where it was");
    assert!(is_reclaimed_from(Some(NetnsIdentity::new("/proc/4194305/ns/net", 1))), "its process ended");
}

fn with_directory(mut netns: NetnsIdentity, directory: Option<Directory>) -> NetnsIdentity {
    netns.directory = directory;
    netns
}

#[test]
fn what_is_missing_in_another_directory_of_the_same_name_is_not_gone() {
    let dir = directory();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("netns")).unwrap();
    let netns = NetnsIdentity::new(at("netns/pod"), 1);
    fs::rename(at("netns"), at("hidden")).unwrap();
    assert!(!is_reclaimed_from(Some(netns.clone())), "its directory is not there");
    fs::create_dir(at("netns")).unwrap();
    assert!(!is_reclaimed_from(Some(netns.clone())), "another one is");
    fs::remove_dir(at("netns")).unwrap();
    symlink(at("hidden"), at("netns")).unwrap();
    symlink("/nowhere/netns", at("hidden/pod")).unwrap();
    assert!(!is_reclaimed_from(Some(netns.clone())), "it is a link, and leads elsewhere");
    fs::remove_file(at("hidden/pod")).unwrap();
    assert!(is_reclaimed_from(Some(netns)), "a directory may have several names");
}

/// A lease whose namespace's process has ended.
fn abandoned(container: usize) -> Request {
    let netns = Some(NetnsIdentity::new("/proc/4194305/ns/net", 1));
    Request { netns, ..Request::new(attachment(container)) }
}

#[test]
fn a_lease_is_reclaimed_only_when_nothing_answers_to_its_addresses_any_more() {
    let dir = directory();
    let only = weft_ipam::config::parse_ranges(&serde_json::json!([[{"subnet": "10.0.0.1/32"}]])).unwrap();
    open(dir.path()).reserve(&only, abandoned(1)).unwrap().keep();
    let stubborn = open(dir.path()).evicting_with(|_| Err("it does not let go".to_owned()));
    assert!(stubborn.reserve(&only, abandoned(2)).is_err());
    assert!(stubborn.check_room(&only).is_err());
    assert!(stubborn.lookup(&attachment(1)).unwrap().is_some(), "it stays");
    let yielding = open(dir.path()).evicting_with(|lease| match lease.attachment.container() {
        "c1" => Ok(()),
        other => Err(format!("{other} is not abandoned")),
    });
    yielding.reserve(&only, request(2)).unwrap().keep();
    assert!(open(dir.path()).lookup(&attachment(1)).unwrap().is_none());
}

#[test]
fn who_is_overtaken_by_another_that_reclaims_gets_an_address_too() {
    let dir = directory();
    let only = weft_ipam::config::parse_ranges(&serde_json::json!([[{"subnet": "10.0.0.1/32"}]])).unwrap();
    let notes = [("dir".to_owned(), serde_json::json!(dir.path()))].into_iter().collect();
    let gone = Request { notes, ..abandoned(1) };
    let overtaken = open(dir.path()).evicting_with(|lease| {
        let dir = lease.notes.get("dir").and_then(|dir| dir.as_str()).expect("it was noted");
        open(Path::new(dir)).end(lease).map_err(|error| chain(&error))
    });
    overtaken.reserve(&only, gone.clone()).unwrap().keep();
    overtaken.check_room(&only).unwrap();
    overtaken.reserve(&only, gone).unwrap().keep();
    overtaken.reserve(&only, Request::new(attachment(2))).unwrap().keep();
    assert!(overtaken.reserve(&only, Request::new(attachment(3))).is_err(), "that one lives");
}

#[test]
fn only_the_very_lease_that_was_seen_is_ended() {
    let dir = directory();
    let ipam = open(dir.path());
    let seen = ipam.reserve(&pool(), request(1)).unwrap().keep();
    ipam.release(&attachment(1)).unwrap();
    let successor = ipam.reserve(&pool(), request(1)).unwrap().keep();
    ipam.end(&seen).unwrap();
    assert_eq!(ipam.lookup(&attachment(1)).unwrap(), Some(successor.clone()));
    ipam.end(&successor).unwrap();
    assert!(ipam.is_empty().unwrap());
}

#[test]
fn releasing_what_nobody_holds_writes_nothing() {
    let dir = directory();
    assert_eq!(open(dir.path()).release(&attachment(1)).unwrap(), None);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn leases_on_a_file_system_that_became_read_only_can_be_listed() {
    let dir = directory();
    let path = dir.path().to_owned();
    // The mount ends with the thread that has it.
    thread::spawn(move || freeze(&path)).join().unwrap();
}

fn freeze(dir: &Path) {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs to be root");
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    open(dir).reserve(&pool(), request(1)).unwrap().keep();
    mount(none, dir, none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
    assert_eq!(open(dir).leases().unwrap().len(), 1);
    assert_eq!(open(dir).release(&attachment(2)).unwrap(), None, "nothing to do is no failure");
    assert!(open(dir).release(&attachment(1)).is_err());
    let frozen = chain(&open(dir).check_room(&pool()).unwrap_err());
    assert!(frozen.contains("Read-only file system"), "{frozen}");
}

#[test]
fn an_abandoned_lease_stands_in_the_way_of_neither_its_attachment_nor_a_requested_address() {
    let dir = directory();
    let ipam = open(dir.path());
    let netns = Some(NetnsIdentity::new("/proc/4194305/ns/net", 1));
    let requested = vec!["10.0.0.9".parse().unwrap()];
    let abandoned = Request { netns, requested: requested.clone(), ..Request::new(attachment(1)) };
    ipam.reserve(&pool(), abandoned.clone()).unwrap().keep();
    ipam.reserve(&pool(), abandoned).unwrap().keep();
    ipam.reserve(&pool(), Request { requested, ..Request::new(attachment(2)) }).unwrap().keep();
    assert_eq!(ipam.leases().unwrap().len(), 1);
}

#[test]
fn abandoned_leases_are_reclaimed_until_none_is_in_the_way() {
    let dir = directory();
    let ipam = open(dir.path());
    let addresses = ["10.0.0.9", "fd00::9"].map(|address| address.parse().unwrap());
    let with =
        |container, requested: &[IpAddr]| Request { requested: requested.to_vec(), ..abandoned(container) };
    ipam.reserve(&pool(), with(1, &addresses[..1])).unwrap().keep();
    ipam.reserve(&pool(), with(2, &addresses[1..])).unwrap().keep();
    ipam.reserve(&pool(), abandoned(3)).unwrap().keep();
    ipam.reserve(&pool(), abandoned(4)).unwrap().keep();
    ipam.reserve(&pool(), with(3, &addresses)).unwrap().keep();
    let held: Vec<_> = ipam.leases().unwrap().into_iter().map(|lease| lease.attachment).collect();
    assert_eq!(held, [attachment(4), attachment(3)], "what was in nobody's way was not looked at");
}

#[test]
fn a_lease_of_another_boot_is_abandoned() {
    let dir = directory();
    let lease = open(dir.path()).reserve(&pool(), Request::new(attachment(1))).unwrap().keep();
    let this_boot = lease.boot_id.clone();
    assert!(!lease.is_abandoned(this_boot.as_deref()));
    assert!(!lease.is_abandoned(None));
    assert!(lease.is_abandoned(Some("another")));
}

#[test]
fn a_full_disk_is_an_error_and_changes_nothing() {
    let dir = directory();
    let path = dir.path().to_owned();
    // The mount ends with the thread that has it.
    thread::spawn(move || fill(&path)).join().unwrap();
}

fn fill(dir: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs to be root");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=128k")).unwrap();
    let ranges = serde_json::json!([[{"subnet": "fd00::/64"}]]);
    let pool = weft_ipam::config::parse_ranges(&ranges).unwrap();
    let mut container = 0;
    let error = loop {
        match open(dir).reserve(&pool, request(container)) {
            Ok(reservation) => drop(reservation.keep()),
            Err(error) => break error,
        }
        container += 1;
    };
    assert!(chain(&error).contains("leases.log: No space left on device"), "{}", chain(&error));
    assert!(container > 10, "{container} leases fit");
    assert_eq!(open(dir).leases().unwrap().len(), container, "all that were answered, and no other");
    let text = fs::read_to_string(log(dir)).unwrap();
    assert!(text.ends_with('\n'), "nothing of the failed write is left");
    fs::write(dir.join("net/filler"), vec![0; 1 << 20]).unwrap_err();

    let full = chain(&open(dir).check_room(&pool).unwrap_err());
    assert!(full.contains("No space left on device"), "{full}");
    for ended in 0..container / 2 {
        open(dir).release(&attachment(ended)).unwrap().unwrap();
    }
    assert!(!is_there(&dir.join("net/leases.reserve")), "it was needed");
    open(dir).retain(&[]).unwrap();
    assert_eq!(open(dir).leases().unwrap(), []);
    fs::remove_file(dir.join("net/filler")).unwrap();
    open(dir).check_room(&pool).unwrap();
    drop(open(dir).reserve(&pool, request(0)).unwrap().keep());
    assert!(is_there(&dir.join("net/leases.reserve")), "for the next time");
}

#[test]
fn a_disk_that_leases_alone_have_filled_has_room_again_when_they_end() {
    let dir = directory();
    let path = dir.path().to_owned();
    // The mount ends with the thread that has it.
    thread::spawn(move || fill_with_leases(&path)).join().unwrap();
}

fn fill_with_leases(dir: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).expect("this test needs to be root");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some("size=256k")).unwrap();
    let ranges = serde_json::json!([[{"subnet": "10.0.0.0/16"}]]);
    let pool = weft_ipam::config::parse_ranges(&ranges).unwrap();
    let grant = |container| Some(open(dir).reserve(&pool, Request::new(attachment(container))).ok()?.keep());
    let held = (0..).take_while(|container| grant(*container).is_some()).count();
    assert!(held > 100, "{held} leases fit");
    for container in 0..held {
        open(dir).release(&attachment(container)).unwrap().unwrap();
    }
    assert!(grant(0).is_some(), "{}", chain(&open(dir).check_room(&pool).unwrap_err()));
}

fn is_there(reserve: &Path) -> bool {
    fs::metadata(reserve).unwrap().len() == local::reserve::SIZE as u64
}

#[test]
fn a_log_that_is_gone_while_its_index_is_there_is_damage_and_a_directory_that_is_gone_is_a_beginning() {
    let dir = directory();
    open(dir.path()).reserve(&pool(), request(1)).unwrap().keep();
    fs::remove_file(log(dir.path())).unwrap();
    for _ in 0..2 {
        let lost = open(dir.path()).reserve(&pool(), request(2)).unwrap_err();
        assert!(matches!(local_error(lost), local::Error::Lost { .. }));
        assert!(matches!(local_error(open(dir.path()).leases().unwrap_err()), local::Error::Lost { .. }));
    }
    fs::remove_dir_all(dir.path().join("net")).unwrap();
    open(dir.path()).reserve(&pool(), request(2)).unwrap().keep();
}

#[test]
fn an_index_that_is_a_link_is_not_followed() {
    let dir = directory();
    open(dir.path()).reserve(&pool(), request(1)).unwrap().keep();
    let (index, victim) = (dir.path().join("net/leases.index"), dir.path().join("victim"));
    fs::write(&victim, "somebody's").unwrap();
    fs::remove_file(&index).unwrap();
    symlink(&victim, &index).unwrap();
    open(dir.path()).reserve(&pool(), request(2)).unwrap().keep();
    assert_eq!(open(dir.path()).leases().unwrap().len(), 2);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "somebody's");
}

#[test]
fn what_lasts_is_said_once() {
    let dir = directory();
    open(dir.path()).reserve(&pool(), request(1)).unwrap().keep();
    let index = dir.path().join("net/leases.index");
    fs::remove_file(&index).unwrap();
    symlink(dir.path(), &index).unwrap();
    let store = LocalStore::new(dir.path(), "net").unwrap();
    let said = [(); 2].map(|()| {
        store.update(&mut |_| Ok(Vec::new())).unwrap();
        store.take_notices()
    });
    assert!(said[0].len() == 1 && said[0][0].starts_with("the leases have no index: "), "{said:?}");
    assert!(said[1].is_empty(), "{said:?}");
}

#[test]
fn a_lock_that_is_no_file_is_refused_by_all_and_a_link_of_it_not_followed() {
    let dir = directory();
    open(dir.path()).reserve(&pool(), request(1)).unwrap().keep();
    let (lock, victim) = (dir.path().join("net/leases.lock"), dir.path().join("victim"));
    let is_refused = |why: &str| {
        let errors = [
            open(dir.path()).check_room(&pool()).unwrap_err(),
            open(dir.path()).leases().unwrap_err(),
            open(dir.path()).reserve(&pool(), request(2)).err().unwrap(),
        ];
        errors.iter().for_each(|error| assert!(chain(error).contains(why), "{}", chain(error)));
    };
    fs::remove_file(&lock).unwrap();
    symlink(&victim, &lock).unwrap();
    is_refused("symbolic link");
    assert!(!victim.exists());
    fs::remove_file(&lock).unwrap();
    assert!(Command::new("mkfifo").arg(&lock).status().unwrap().success());
    is_refused("regular file");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    for error in [
        open(dir.path()).check_room(&pool()).unwrap_err(),
        open(dir.path()).reserve(&pool(), request(2)).err().unwrap(),
    ] {
        assert!(chain(&error).contains("leases.lock"), "{}", chain(&error));
    }
    fs::remove_dir(&lock).unwrap();
    open(dir.path()).reserve(&pool(), request(2)).unwrap().keep();
}

#[test]
fn a_directory_that_others_can_change_is_refused() {
    let dir = directory();
    let net = dir.path().join("net");
    let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let is_refused = |of: &Path| {
        let refused = open(dir.path()).reserve(&pool(), request(1)).map(drop);
        let refused = refused.map_err(|error| chain(&error)).unwrap_err();
        assert!(refused.starts_with(&format!("{} is of user ", of.display())), "{refused}");
    };
    let status = || open(dir.path()).check_room(&pool());
    set_mode(dir.path(), 0o777);
    is_refused(dir.path());
    set_mode(dir.path(), 0o1777);
    fs::create_dir(&net).unwrap();
    for mode in [0o777, 0o1777] {
        set_mode(&net, mode);
        is_refused(&net);
        status().unwrap_err();
    }
    set_mode(&net, 0o755);
    chown(&net, Some(12_345), None).unwrap();
    is_refused(&net);
    status().unwrap_err();
    chown(&net, Some(0), None).unwrap();
    status().unwrap();
    open(dir.path()).reserve(&pool(), request(1)).unwrap().keep();
}

#[test]
fn who_removes_the_lock_again_and_again_doubles_no_address() {
    let dir = directory();
    open(dir.path()).reserve(&pool(), request(0)).unwrap().keep();
    let wide = weft_ipam::config::parse_ranges(&serde_json::json!([[{"subnet": "10.0.0.0/16"}]])).unwrap();
    let (dir, wide) = (dir.path(), &wide);
    let write = |writer: usize| {
        for number in 1..40 {
            open(dir).reserve(wide, request(writer * 100 + number)).unwrap().keep();
        }
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..4).map(|writer| scope.spawn(move || write(writer))).collect();
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            fs::remove_file(dir.join("net/leases.lock")).unwrap_or_default();
        }
    });
    assert_eq!(open(dir).leases().unwrap().len(), 1 + 4 * 39);
}
