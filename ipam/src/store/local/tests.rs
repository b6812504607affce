//! The store against its model in memory, with processes that die at every call and files that are damaged anywhere.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde_json::json;
use tempfile::TempDir;

use super::disk::death::{self, Torn};
use super::*;
use crate::alloc;
use crate::config::parse_ranges;
use crate::lease::{Assigned, Attachment, Holder, Record, Timestamp};
use crate::range::Pool;
use crate::state::REMEMBERED;
use crate::store::memory::MemoryStore;

fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn open(dir: &Path) -> LocalStore {
    LocalStore::new(dir, "net").unwrap()
}

/// The configurations that a node goes through: the same range grown, shrunk, with another gateway and with exclusions, a
/// second set, another range.
fn pool(number: usize) -> Pool {
    let ranges = [
        json!([[{"subnet": "10.0.0.0/27"}]]),
        json!([[{"subnet": "10.0.0.0/26"}]]),
        json!([[{"subnet": "10.0.0.0/27", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.20"}]]),
        json!([[{"subnet": "10.0.0.0/27", "gateway": "10.0.0.6"}]]),
        json!([[{"subnet": "10.0.0.0/27", "exclude": ["10.0.0.8/29", "10.0.0.3"]}], [{"subnet": "fd00::/64"}]]),
        json!([[{"subnet": "10.9.0.0/30"}, {"subnet": "10.0.0.0/27"}], [{"subnet": "fd00::/124"}]]),
    ];
    parse_ranges(&ranges[number % ranges.len()]).unwrap()
}

fn holder(container: usize) -> Holder {
    Holder::from(&Attachment::new("net", &format!("c{container}"), "eth0").unwrap())
}

fn record(container: usize, addresses: Vec<Assigned>, since: u64) -> Record {
    let detail = json!({"notes": {"text": "täglich\n".repeat(container % 5)}}).to_string();
    Record { holder: holder(container), addresses, since: Timestamp(since), detail }
}

/// Everything that can be seen: the leases, the order of reuse, the ranges.
type Everything = (Vec<Record>, Vec<(IpAddr, Timestamp)>, Option<String>);

fn everything(store: &dyn Store) -> Result<Everything, store::Error> {
    let mut found = Everything::default();
    store.read(&mut |view| {
        found = (view.records()?, view.freed()?, view.ranges()?);
        // What goes through the index and what goes around it agree.
        for record in &found.0 {
            assert_eq!(view.get(&record.holder)?.as_ref(), Some(record));
            for assigned in &record.addresses {
                assert!(view.is_held(assigned.address.ip())?);
                assert_eq!(view.holder_of(assigned.address.ip())?.as_ref(), Some(record));
            }
        }
        assert_eq!(view.is_empty()?, found.0.is_empty());
        Ok(())
    })?;
    found.0.sort_by(|a, b| a.holder.0.cmp(&b.holder.0));
    Ok(found)
}

/// How many addresses of a set are held, and who holds them the longest.
fn usage(store: &dyn Store) -> (u128, Vec<Record>) {
    let mut found = (0, Vec::new());
    let read = store.read(&mut |view| {
        let pool = pool(4);
        let held = pool.ranges().map(|range| view.held_in(range)).sum::<Result<_, _>>()?;
        found = (held, view.longest_held_in(&pool.sets()[0], 3)?);
        Ok(())
    });
    read.unwrap();
    found
}

/// One thing that a plugin does.
#[derive(Clone, Debug)]
enum Step {
    Add {
        container: usize,
        pool: usize,
        wish: Option<u8>,
    },
    Del {
        container: usize,
    },
    /// Ends all leases but those of some containers, in one transaction.
    Retain {
        divisor: usize,
    },
}

impl Step {
    /// What came of it, as far as it can be compared.
    fn run(&self, store: &dyn Store, now: u64) -> Result<Option<Vec<Assigned>>, store::Error> {
        let mut outcome = None;
        let at = Timestamp(now);
        store.update(&mut |view| {
            outcome = None;
            match self {
                Self::Add { container, pool: number, wish } => {
                    let wish: Vec<_> = wish.map(|last| IpAddr::from([10, 0, 0, last])).into_iter().collect();
                    if view.get(&holder(*container))?.is_some() {
                        return Ok(Vec::new());
                    }
                    match alloc::choose(view, &pool(*number), &wish) {
                        Err(crate::Error::Store(error)) => Err(error),
                        Err(_) => Ok(Vec::new()),
                        Ok(addresses) => {
                            outcome = Some(addresses.clone());
                            let json = pool(*number).to_json().to_string().into();
                            Ok(vec![
                                Change::Grant(record(*container, addresses, now)),
                                Change::Ranges { json, at },
                            ])
                        }
                    }
                }
                Self::Del { container } => Ok(vec![Change::Release { holder: holder(*container), at }]),
                Self::Retain { divisor } => {
                    let ends = |record: &Record| record.holder.0.len().is_multiple_of(*divisor);
                    let stale = view.records()?.into_iter().filter(ends);
                    Ok(stale.map(|record| Change::Release { holder: record.holder, at }).collect())
                }
            }
        })?;
        Ok(outcome)
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40_usize, 0..6_usize, prop::option::weighted(0.2, 0..40_u8))
            .prop_map(|(container, pool, wish)| Step::Add { container, pool, wish }),
        4 => (0..40_usize).prop_map(|container| Step::Del { container }),
        1 => (2..9_usize).prop_map(|divisor| Step::Retain { divisor }),
    ]
}

/// What happens to a store between two steps.
#[derive(Clone, Debug)]
enum Event {
    Nothing,
    /// The next process comes.
    Reopen,
    /// The step after it is done by a process that dies at this call.
    Die {
        call: u64,
        torn: Torn,
    },
    /// Somebody removes the index.
    RemoveIndex,
    /// A byte of the index becomes another one.
    DamageIndex {
        at: prop::sample::Index,
        by: u8,
    },
}

fn torn() -> impl Strategy<Value = Torn> {
    prop::sample::select(vec![Torn::Nothing, Torn::OneByte, Torn::Half, Torn::AllButOne])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Nothing),
        4 => Just(Event::Reopen),
        2 => (0..12_u64, torn()).prop_map(|(call, torn)| Event::Die { call, torn }),
        1 => Just(Event::RemoveIndex),
        1 => (any::<prop::sample::Index>(), 1..=255_u8).prop_map(|(at, by)| Event::DamageIndex { at, by }),
    ]
}

fn damage(path: &Path, at: prop::sample::Index, by: u8) {
    let mut bytes = fs::read(path).unwrap_or_default();
    if !bytes.is_empty() {
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        // In place: handles that are open see it.
        fs::write(path, bytes).unwrap();
    }
}

/// The step on both, where the process that does it may die. Then the store tells which of the two things happened.
fn compare(
    step: &Step,
    store: &LocalStore,
    dir: &Path,
    model: &MemoryStore,
    now: u64,
) -> Result<(), TestCaseError> {
    let before = everything(model).unwrap();
    let found = step.run(store, now);
    let died = death::resurrect();
    let after = if died { everything(&open(dir)) } else { everything(store) }.unwrap();
    if let Err(error) = &found {
        prop_assert!(died, "{}", crate::chain(error));
        if after == before {
            return Ok(());
        }
    }
    let expected = step.run(model, now).unwrap();
    if let Ok(found) = found {
        prop_assert_eq!(found, expected);
    }
    prop_assert_eq!(after, everything(model).unwrap());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn is_the_memory_store_whatever_happens_between_two_steps(
        steps in prop::collection::vec((step(), event()), 1..120)
    ) {
        let dir = directory();
        let index = dir.path().join("net/leases.index");
        let (mut stores, model) = ([open(dir.path()), open(dir.path())], MemoryStore::default());
        for (now, (step, event)) in steps.into_iter().enumerate() {
            match event {
                Event::Nothing => {}
                Event::Reopen => stores[1] = open(dir.path()),
                Event::Die { call, torn } => death::at(call, torn),
                Event::RemoveIndex => drop(fs::remove_file(&index)),
                Event::DamageIndex { at, by } => damage(&index, at, by),
            }
            compare(&step, &stores[now % 2], dir.path(), &model, now as u64)?;
        }
        death::resurrect();
        prop_assert_eq!(everything(&open(dir.path())).unwrap(), everything(&model).unwrap());
        prop_assert_eq!(usage(&open(dir.path())), usage(&model));
        fs::remove_file(&index).ok();
        prop_assert_eq!(everything(&open(dir.path())).unwrap(), everything(&model).unwrap(), "without an index");
    }

    /// What is answered is true, and what cannot be told is an error: a process may see damage at any time, with any
    /// part of the files in memory, and with an index or without.
    #[test]
    fn a_damaged_byte_of_the_log_is_an_error_or_makes_no_difference(
        before in prop::collection::vec(step(), 1..60),
        after in prop::collection::vec(step(), 1..30),
        at in any::<prop::sample::Index>(),
        by in 1..=255_u8,
        reopens in any::<bool>(),
        has_index in any::<bool>(),
    ) {
        let dir = directory();
        let (mut store, model) = (open(dir.path()), MemoryStore::default());
        for (now, step) in before.iter().enumerate() {
            compare(step, &store, dir.path(), &model, now as u64)?;
        }
        let whole = fs::read(dir.path().join("net/leases.log")).unwrap();
        damage(&dir.path().join("net/leases.log"), at, by);
        let hit = at.index(whole.len());
        // A byte of the last line that became NUL is what a disk that lost power leaves; only an index tells them apart.
        let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        prop_assume!(has_index || whole[hit] != by || hit < last_line);
        if reopens {
            store = open(dir.path());
        }
        if !has_index {
            drop(fs::remove_file(dir.path().join("net/leases.index")));
        }
        for (now, step) in after.iter().enumerate() {
            let now = (now + 1000) as u64;
            // Who still holds addresses, as far as that can be read, is given none.
            let may_stand = |found: &Option<_>| {
                !has_index && found.is_none() && matches!(step, Step::Add { .. })
            };
            if let Ok(found) = step.run(&store, now)
                && !may_stand(&found)
            {
                prop_assert_eq!(found, step.run(&model, now).unwrap(), "{:?}", step);
            }
            for container in [now, now * 7, now * 13].map(|number| number as usize % 40) {
                let get = |store: &dyn Store| {
                    let mut found = None;
                    let read = store.read(&mut |view| {
                        found = view.get(&holder(container))?;
                        Ok(())
                    });
                    read.map(|()| found)
                };
                // A lease whose release is damaged stands until a later line says otherwise, unless an index knows.
                if let Ok(found) = get(&store)
                    && (has_index || found.is_none())
                {
                    prop_assert_eq!(found, get(&model).unwrap());
                }
            }
        }
    }
}

/// What is in a directory, to begin from it again and again.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(dir.join("net")).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect()
}

fn directory_with(files: &[(PathBuf, Vec<u8>)]) -> TempDir {
    let dir = directory();
    if !files.is_empty() {
        fs::create_dir(dir.path().join("net")).unwrap();
    }
    for (name, bytes) in files {
        fs::write(dir.path().join("net").join(name), bytes).unwrap();
    }
    dir
}

/// Does `step` on a directory with `files`, once for each call that it makes and each way that call can be torn, and each
/// time in a process that dies there. Returns how many calls there are.
fn die_at_every_call(files: &[(PathBuf, Vec<u8>)], step: &Step) -> u64 {
    let next = Step::Add { container: 99, pool: 1, wish: None };
    let intact = directory_with(files);
    let before = everything(&open(intact.path())).unwrap();
    step.run(&open(intact.path()), 5000).unwrap();
    let after = everything(&open(intact.path())).unwrap();
    let expected = next.run(&open(intact.path()), 6000).unwrap();
    let at_last = everything(&open(intact.path())).unwrap();
    for call in 0.. {
        for torn in [Torn::Nothing, Torn::OneByte, Torn::Half, Torn::AllButOne] {
            let dir = directory_with(files);
            death::at(call, torn);
            let answer = step.run(&open(dir.path()), 5000);
            if !death::resurrect() {
                assert!(answer.is_ok());
                return call;
            }
            let what = format!("{step:?}, call {call}, {torn:?}");
            let found = everything(&open(dir.path())).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(found == after || answer.is_err() && found == before, "{what}");
            // The next process finds nothing in its way, and ends where this one would have.
            if found == before {
                step.run(&open(dir.path()), 5000).unwrap();
            }
            assert_eq!(next.run(&open(dir.path()), 6000).unwrap(), expected, "{what}");
            assert_eq!(everything(&open(dir.path())).unwrap(), at_last, "{what}");
        }
    }
    unreachable!("a step ends")
}

/// A store with `leases` leases and as many freed addresses.
fn filled(leases: usize) -> TempDir {
    let dir = directory();
    let store = open(dir.path());
    let add = |container| Step::Add { container, pool: 4, wish: None }.run(&store, container as u64).unwrap();
    for container in 0..leases {
        add(container);
        add(1000 + container);
    }
    for container in 0..leases {
        Step::Del { container: 1000 + container }.run(&store, 3000 + container as u64).unwrap();
    }
    dir
}

/// The files of such a store before a step that makes it rewrite its log.
fn filled_to_be_rewritten() -> Vec<(PathBuf, Vec<u8>)> {
    let dir = filled(5);
    let store = open(dir.path());
    let id = |files: &[(PathBuf, Vec<u8>)]| {
        let (_, log) = files.iter().find(|(name, _)| name == Path::new("leases.log")).unwrap();
        log[..36].to_vec()
    };
    let mut before = files(dir.path());
    for now in 4000.. {
        let cycle = [Step::Add { container: 77, pool: 4, wish: None }, Step::Del { container: 77 }];
        cycle[now % 2].run(&store, now as u64).unwrap();
        let after = files(dir.path());
        if id(&after) != id(&before) {
            return before;
        }
        before = after;
    }
    unreachable!("a log is rewritten some time")
}

const ADD: Step = Step::Add { container: 77, pool: 4, wish: None };

#[test]
fn a_process_may_die_at_every_call_of_an_allocation() {
    assert!(die_at_every_call(&[], &ADD) >= 6, "a log is made");
    assert!(
        die_at_every_call(&files(filled(5).path()), &ADD) >= 4,
        "a line, the index's beginning, pages, its end"
    );
}

#[test]
fn a_process_may_die_at_every_call_of_a_release() {
    let files = files(filled(5).path());
    die_at_every_call(&files, &Step::Del { container: 3 });
    die_at_every_call(&files, &Step::Retain { divisor: 1 });
}

#[test]
fn a_process_may_die_at_every_call_of_rewriting_the_log() {
    let files = filled_to_be_rewritten();
    let calls = die_at_every_call(&files, &ADD).max(die_at_every_call(&files, &Step::Del { container: 77 }));
    assert!(calls >= 8, "a line, a new log, its place, the index: {calls}");
}

#[test]
fn a_process_may_die_at_every_call_of_mending_what_another_one_left() {
    let whole = files(filled(5).path());
    let with = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut files = whole.clone();
        let (_, bytes) = files.iter_mut().find(|(path, _)| path == Path::new(name)).unwrap();
        change(bytes);
        files
    };
    let unfinished = with("leases.log", &|bytes| bytes.extend(b"01234567 + 17"));
    die_at_every_call(&unfinished, &ADD);
    let damaged = with("leases.index", &|bytes| bytes[5000] ^= 1);
    die_at_every_call(&damaged, &ADD);
    let dirty = with("leases.index", &|bytes| bytes[20] = 1);
    die_at_every_call(&dirty, &ADD);
    let none = with("leases.index", &Vec::clear);
    die_at_every_call(&none, &ADD);
}

/// What the release before this one wrote.
const FORMAT_1: &str = r#"weft-ipam leases 1
57c52dbd + 1795373055232594613 10.7.0.2/29@10.7.0.1,fd07::2/64@fd07::1 c1 eth0 {"pod":{"namespace":"shop","name":"web-1","uid":"u1"},"netns":{"path":"/proc/self/ns/uts","inode":4026531838},"boot":"33231711-407d-49c5-8ccc-b38d73b4c3af"}	= 1795373055232594613 [[{"gateway":"10.7.0.1","rangeEnd":"10.7.0.6","rangeStart":"10.7.0.1","subnet":"10.7.0.0/29"}],[{"gateway":"fd07::1","rangeEnd":"fd07::ffff:ffff:ffff:ffff","rangeStart":"fd07::1","subnet":"fd07::/64"}]]
c504a33c + 1795373055238050665 10.7.0.3/29@10.7.0.1,fd07::3/64@fd07::1 c2 eth0 {"pod":{"namespace":"shop","name":"web-2","uid":"u2"},"netns":{"path":"/proc/self/ns/uts","inode":4026531838},"boot":"33231711-407d-49c5-8ccc-b38d73b4c3af"}
cbeffebe + 1795373055248009246 10.7.0.4/29@10.7.0.1,fd07::4/64@fd07::1 c3 eth0 {"pod":{"namespace":"shop","name":"web-3","uid":"u3"},"netns":{"path":"/proc/self/ns/uts","inode":4026531838},"boot":"33231711-407d-49c5-8ccc-b38d73b4c3af"}
6b1c8be1 - 1795373055250486393 c2 eth0
"#;

fn old_files(text: &str) -> Vec<(PathBuf, Vec<u8>)> {
    vec![("leases.log".into(), text.into()), ("leases.lock".into(), Vec::new())]
}

#[test]
fn a_log_of_format_1_is_read_as_it_is_and_upgraded_by_the_first_transaction() {
    let dir = directory_with(&old_files(FORMAT_1));
    let log = || fs::read_to_string(dir.path().join("net/leases.log")).unwrap();
    let read = everything(&open(dir.path())).unwrap();
    assert_eq!(
        read.0.iter().map(|record| record.holder.0.as_str()).collect::<Vec<_>>(),
        ["c1 eth0", "c3 eth0"]
    );
    assert_eq!(read.0[0].lease("net").unwrap().pod.unwrap().name, "web-1");
    assert_eq!(
        read.1.iter().map(|(address, _)| address.to_string()).collect::<Vec<_>>(),
        ["10.7.0.3", "fd07::3"]
    );
    assert!(read.2.as_ref().unwrap().contains("10.7.0.0/29"));
    assert_eq!(log(), FORMAT_1, "a reader changes nothing");
    open(dir.path()).update(&mut |_| Ok(Vec::new())).unwrap();
    assert!(log().starts_with("weft-ipam leases 2 "));
    assert_eq!(everything(&open(dir.path())).unwrap(), read);
    die_at_every_call(&old_files(FORMAT_1), &ADD);
}

#[test]
fn what_is_damaged_or_unfinished_in_a_log_of_format_1_is_treated_as_ever() {
    for length in [FORMAT_1.len() - 1, FORMAT_1.len() - 2, FORMAT_1.len() - 30] {
        let unfinished = directory_with(&old_files(&FORMAT_1[..length]));
        open(unfinished.path()).update(&mut |_| Ok(Vec::new())).unwrap();
        assert_eq!(everything(&open(unfinished.path())).unwrap().0.len(), 3, "the release was not answered");
    }
    let no_line_break = directory_with(&old_files(&format!("{}x", FORMAT_1.trim_end())));
    let error = open(no_line_break.path()).update(&mut |_| Ok(Vec::new())).unwrap_err();
    assert!(matches!(error, store::Error::Local(Error::Damaged { .. })), "{error:?}");
    let text = FORMAT_1.replace("web-2", "web-7");
    let damaged = directory_with(&old_files(&text));
    let error = open(damaged.path()).update(&mut |_| Ok(Vec::new())).unwrap_err();
    assert!(matches!(error, store::Error::Local(Error::Damaged { offset: 480, .. })), "{error:?}");
    assert_eq!(fs::read_to_string(damaged.path().join("net/leases.log")).unwrap(), text);
}

#[test]
fn a_log_that_lost_its_end_is_not_taken_for_one_that_never_had_it() {
    let dir = filled(5);
    let path = dir.path().join("net/leases.log");
    let whole = fs::read(&path).unwrap();
    let shorter = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for length in [shorter, whole.len() - 1, 20, 0] {
        let warm = open(dir.path());
        everything(&warm).unwrap();
        fs::write(&path, &whole[..length]).unwrap();
        for store in [&warm, &open(dir.path())] {
            let error = ADD.run(store, 1).unwrap_err();
            let is_told = match length {
                0..36 => matches!(error, store::Error::Local(Error::Foreign { .. } | Error::Short { .. })),
                _ => matches!(error, store::Error::Local(Error::Short { .. })),
            };
            assert!(is_told, "{length}: {error:?}");
        }
        assert_eq!(fs::read(&path).unwrap(), whole[..length], "nothing is cut");
        fs::write(&path, &whole).unwrap();
        assert!(everything(&open(dir.path())).is_ok());
    }
}

#[test]
fn leases_are_seen_where_the_log_alone_was_restored() {
    let dir = filled(5);
    let before = everything(&open(dir.path())).unwrap();
    for lost in ["leases.lock", "leases.index"] {
        fs::remove_file(dir.path().join("net").join(lost)).unwrap();
    }
    assert_eq!(everything(&open(dir.path())).unwrap(), before);
}

#[test]
fn a_log_does_not_grow_forever_whatever_is_freed_with_a_lease() {
    // Both sets are used up, so every ADD takes back what the DEL before it has freed: two addresses.
    let ranges = json!([[{"subnet": "10.0.0.0/30"}], [{"subnet": "fd00::/126", "rangeEnd": "fd00::2"}]]);
    let pool = parse_ranges(&ranges).unwrap();
    for more in 0..4 {
        let dir = directory();
        let store = open(dir.path());
        for extra in 0..more {
            let at = Timestamp(extra);
            let address = IpAddr::from([10, 9, 9, extra as u8]);
            store.update(&mut |_| Ok(vec![Change::Retire { address, at }])).unwrap();
        }
        let log = dir.path().join("net/leases.log");
        for now in 0..2000 {
            let add = |view: &dyn store::View| {
                let addresses = alloc::choose(view, &pool, &[]).unwrap();
                Ok(vec![Change::Grant(record(0, addresses, now))])
            };
            store.update(&mut { add }).unwrap();
            let end = Change::Release { holder: holder(0), at: Timestamp(now) };
            store.update(&mut |_| Ok(vec![end.clone()])).unwrap();
            let lines = fs::read_to_string(&log).unwrap().lines().count();
            assert!(lines < 500, "{lines} lines after {now} pods, {more} more addresses");
        }
    }
}

#[test]
fn as_many_freed_addresses_are_remembered_as_in_the_memory_store() {
    let dir = directory();
    let (store, model) = (open(dir.path()), MemoryStore::default());
    let wide = parse_ranges(&json!([[{"subnet": "fd00::/64"}]])).unwrap();
    let cycle = |store: &dyn Store, now: usize| {
        let at = Timestamp(now as u64);
        let mut given = Vec::new();
        store
            .update(&mut |view| {
                given = alloc::choose(view, &wide, &[]).unwrap();
                Ok(vec![Change::Grant(record(now % 7, given.clone(), at.0))])
            })
            .unwrap();
        store.update(&mut |_| Ok(vec![Change::Release { holder: holder(now % 7), at }])).unwrap();
        given
    };
    for now in 0..REMEMBERED + 300 {
        assert_eq!(cycle(&store, now), cycle(&model, now));
    }
    assert_eq!(everything(&open(dir.path())).unwrap(), everything(&model).unwrap());
}

#[test]
fn a_lease_whose_line_is_damaged_stands_alone() {
    let dir = filled(5);
    let path = dir.path().join("net/leases.log");
    let text = fs::read_to_string(&path).unwrap();
    let damaged = text.replacen(" c3 eth0 ", " c8 eth0 ", 1);
    fs::write(&path, &damaged).unwrap();
    let store = open(dir.path());
    let get = |container| {
        let mut found = None;
        let read = store.read(&mut |view| {
            found = view.get(&holder(container))?;
            Ok(())
        });
        read.map(|()| found)
    };
    let offset = text[..text.find(" c3 eth0 ").unwrap()].rfind('\n').unwrap() as u64 + 1;
    let Err(store::Error::Local(Error::Damaged { offset: found, .. })) = get(3) else { panic!("not told") };
    assert_eq!(found, offset);
    assert!(get(2).unwrap().is_some());
    assert_eq!(get(8).unwrap(), None);
    let given = ADD.run(&store, 1).unwrap().unwrap();
    Step::Del { container: 2 }.run(&store, 2).unwrap();
    store
        .read(&mut |view| {
            let held: IpAddr = "10.0.0.5".parse().unwrap();
            assert!(view.is_held(held)?, "its address stays held");
            assert_ne!(given[0].address.ip(), held);
            Ok(())
        })
        .unwrap();
    Step::Del { container: 3 }.run(&store, 3).unwrap();
    assert_eq!(get(3).unwrap(), None, "and it can be ended");
    fs::remove_file(dir.path().join("net/leases.index")).unwrap();
    assert_eq!(get(3).unwrap(), None, "with it the damage is gone from the log");
}

fn found(store: &LocalStore, container: usize) -> Option<Record> {
    let mut found = None;
    let look = &mut |view: &dyn store::View| {
        found = view.get_remains(&holder(container))?;
        Ok(())
    };
    store.read(look).unwrap();
    found
}

#[test]
fn without_an_index_leases_beside_a_damaged_line_are_found_and_end_and_none_is_made() {
    let dir = filled(5);
    let (log, index) = (dir.path().join("net/leases.log"), dir.path().join("net/leases.index"));
    let text = fs::read_to_string(&log).unwrap().replacen(" c3 eth0 ", " c8 eth0 ", 1);
    let damaged_at = text[..text.find(" c8 eth0 ").unwrap()].rfind('\n').unwrap() as u64 + 1;
    fs::write(&log, &text).unwrap();
    fs::remove_file(&index).unwrap();
    let is_told = |error: store::Error| matches!(error, store::Error::Local(Error::Damaged { offset, .. }) if offset == damaged_at);
    let store = open(dir.path());
    for round in 0..2 {
        assert!(is_told(ADD.run(&store, 5).unwrap_err()), "whose the line's addresses are nobody knows");
        assert!(is_told(everything(&store).unwrap_err()), "not all leases can be told");
        assert_eq!(found(&store, 3), None);
        assert_eq!(found(&store, 8), None);
        assert!(found(&store, 4).is_some());
        Step::Del { container: round }.run(&store, 6).unwrap();
        let anew = open(dir.path());
        assert_eq!(found(&anew, round), None);
        assert!(is_told(ADD.run(&anew, 7).unwrap_err()), "nobody forgets it");
        let seen = anew.read(&mut |view| {
            let readable = view.readable_records()?;
            assert_eq!((readable.leases.len(), readable.damaged.len()), (3 - round, 1));
            assert!(!view.is_empty()?);
            Ok(())
        });
        seen.unwrap();
    }
    assert!(fs::read_to_string(&log).unwrap().starts_with(&text), "nothing of the log is lost");
    assert!(!index.exists());
}

#[test]
fn a_later_line_tells_of_a_release_that_cannot_be_read() {
    let address =
        |last: u8| Assigned { address: format!("10.0.0.{last}/27").parse().unwrap(), gateway: None };
    let grant = |container, last, at| Change::Grant(record(container, vec![address(last)], at));
    let release = |container, at| Change::Release { holder: holder(container), at: Timestamp(at) };
    let dir = directory();
    let store = open(dir.path());
    let lines =
        [grant(1, 2, 1), grant(2, 3, 2), release(1, 3), release(2, 4), grant(3, 2, 5), grant(2, 4, 6)];
    for change in lines {
        store.update(&mut |_| Ok(vec![change.clone()])).unwrap();
    }
    let path = dir.path().join("net/leases.log");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen(" - 3 c1 eth0", " - 3 cX eth0", 1).replacen(" - 4 c2 ", " - 4 cX ", 1))
        .unwrap();
    fs::remove_file(dir.path().join("net/leases.index")).unwrap();
    let store = open(dir.path());
    assert_eq!(found(&store, 1), None, "another one has its address");
    assert_eq!(found(&store, 3).unwrap().addresses, [address(2)]);
    assert_eq!(found(&store, 2).unwrap().addresses, [address(4)]);
}

#[test]
fn that_earlier_boots_were_looked_for_is_known_until_the_index_is_made_anew() {
    // On tmpfs there are none.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let (log, index) = (dir.path().join("net/leases.log"), dir.path().join("net/leases.index"));
    let looked = || {
        let store = open(dir.path());
        Step::Del { container: 99 }.run(&store, 9).unwrap();
        store.is_swept()
    };
    for container in 0..3 {
        Step::Add { container, pool: 0, wish: None }.run(&open(dir.path()), container as u64).unwrap();
    }
    assert!(looked(), "where nothing was, nothing is to be looked for");
    fs::remove_file(&index).unwrap();
    assert!(!looked());
    open(dir.path()).mark_swept().unwrap();
    assert!(looked());

    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replacen(" c1 eth0 ", " c8 eth0 ", 1)).unwrap();
    Step::Del { container: 1 }.run(&open(dir.path()), 9).unwrap();
    let header = |text: &str| text.lines().next().map(str::to_owned);
    assert_ne!(header(&fs::read_to_string(&log).unwrap()), header(&text), "the log is another one");
    assert!(looked());
}
