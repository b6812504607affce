use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Error;
use crate::config::parse_ranges;
use crate::lease::{Attachment, Holder, Lease, Pod, Timestamp};
use crate::state::{Change, REMEMBERED, State};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pool(ranges: serde_json::Value) -> Pool {
    parse_ranges(&ranges).unwrap()
}

/// A state with its clock, whose containers are numbers.
#[derive(Default)]
struct World {
    state: State,
    now: u64,
}

impl World {
    fn holder(container: usize) -> Attachment {
        Attachment::new("net", &format!("c{container}"), "eth0").unwrap()
    }

    fn tick(&mut self) -> Timestamp {
        self.now += 1;
        Timestamp(self.now)
    }

    fn add(&mut self, container: usize, pool: &Pool, requested: &[IpAddr]) -> Result<Vec<IpAddr>, Error> {
        let addresses = choose(&self.state, pool, requested)?;
        let lease = Lease {
            attachment: Self::holder(container),
            addresses,
            pod: Some(Pod { namespace: "ns".into(), name: format!("pod-{container}"), uid: "u".into() }),
            netns: None,
            boot_id: None,
            since: SystemTime::UNIX_EPOCH + Duration::from_nanos(self.tick().0),
            notes: serde_json::Map::new(),
        };
        self.state
            .apply(Change::Grant(Record::new(&lease).unwrap()))
            .expect("the allocator chose a free address");
        Ok(lease.addresses.iter().map(|assigned| assigned.address.ip()).collect())
    }

    fn del(&mut self, container: usize) {
        let at = self.tick();
        self.state.apply(Change::Release { holder: Holder::from(&Self::holder(container)), at }).unwrap();
    }
}

#[test]
fn never_used_addresses_come_first_then_the_longest_free() {
    let pool = pool(json!([[{"subnet": "10.0.0.0/29"}]]));
    let mut world = World::default();
    let first: Vec<_> = (0..3).map(|container| world.add(container, &pool, &[]).unwrap()[0]).collect();
    assert_eq!(first, ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map(ip));
    world.del(1);
    world.del(0);
    let next: Vec<_> = (10..14).map(|container| world.add(container, &pool, &[]).unwrap()[0]).collect();
    assert_eq!(next, ["10.0.0.5", "10.0.0.6", "10.0.0.3", "10.0.0.2"].map(ip));
}

#[test]
fn ranges_of_a_set_are_used_in_their_order() {
    let pool = pool(json!([[{"subnet": "10.0.0.0/30"}, {"subnet": "10.0.1.0/30", "gateway": "10.0.1.2"}]]));
    let mut world = World::default();
    assert_eq!(world.add(1, &pool, &[]).unwrap(), [ip("10.0.0.2")]);
    let second = choose(&world.state, &pool, &[]).unwrap();
    assert_eq!(second[0].address.to_string(), "10.0.1.1/30");
    assert_eq!(second[0].gateway, Some(ip("10.0.1.2")), "the gateway is that of its own range");
}

#[test]
fn exhaustion_says_how_many_are_held_and_by_whom() {
    let pool = pool(json!([[{"subnet": "10.0.0.0/29"}], [{"subnet": "fd00::/64"}]]));
    let mut world = World::default();
    (0..5).for_each(|container| drop(world.add(container, &pool, &[]).unwrap()));
    let error = world.add(9, &pool, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no address is free in 10.0.0.0/29: 5 of 5 are held, the longest by ns/pod-0 (eth0 of c0), \
         ns/pod-1 (eth0 of c1), ns/pod-2 (eth0 of c2); `weft-ipam list` shows them all, and a larger range has more"
    );
    assert!(!world.state.is_held(ip("fd00::7")), "the other family was not touched");
}

#[test]
fn a_requested_address_is_given_and_the_other_sets_choose() {
    let pool = pool(json!([[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}]]));
    let mut world = World::default();
    assert_eq!(world.add(1, &pool, &[ip("fd00::77")]).unwrap(), [ip("10.0.0.2"), ip("fd00::77")]);
    let both = [ip("fd00::78"), ip("10.0.0.78")];
    assert_eq!(world.add(2, &pool, &both).unwrap(), [ip("10.0.0.78"), ip("fd00::78")]);
    world.del(2);
    assert_eq!(
        world.add(3, &pool, &both).unwrap(),
        [ip("10.0.0.78"), ip("fd00::78")],
        "also when just freed"
    );
}

#[test]
fn a_request_that_cannot_be_granted_says_why() {
    let pool = pool(json!([[{"subnet": "10.0.0.0/24", "exclude": ["10.0.0.9"]}], [{"subnet": "fd00::/64"}]]));
    let mut world = World::default();
    world.add(1, &pool, &[]).unwrap();
    let bounded = json!([[{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.0", "rangeEnd": "10.0.0.255"}]]);
    let bounded = parse_ranges(&bounded).unwrap();
    for (pool, wishes, why) in [
        (&pool, vec!["10.0.0.2"], "the requested address 10.0.0.2 is held by ns/pod-1 (eth0 of c1)"),
        (
            &pool,
            vec!["10.0.0.1"],
            "the requested address 10.0.0.1 is never handed out from 10.0.0.0/24: it is the gateway",
        ),
        (
            &pool,
            vec!["10.0.0.9"],
            "the requested address 10.0.0.9 is never handed out from 10.0.0.0/24: it is excluded",
        ),
        (
            &pool,
            vec!["10.1.0.1"],
            "the requested address 10.1.0.1 is in none of the ranges 10.0.0.0/24; fd00::/64",
        ),
        (
            &pool,
            vec!["10.0.0.5", "10.0.0.6"],
            "10.0.0.5 and 10.0.0.6 are both requested from 10.0.0.0/24, which gives one address",
        ),
        (
            &bounded,
            vec!["10.0.0.255"],
            "the requested address 10.0.0.255 is never handed out from 10.0.0.0/24 from 10.0.0.0 to 10.0.0.255: it is the broadcast address",
        ),
        (
            &bounded,
            vec!["10.0.0.0"],
            "the requested address 10.0.0.0 is never handed out from 10.0.0.0/24 from 10.0.0.0 to 10.0.0.255: it is the network's own address",
        ),
    ] {
        let wishes: Vec<_> = wishes.into_iter().map(ip).collect();
        assert_eq!(choose(&world.state, pool, &wishes).unwrap_err().to_string(), why);
    }
}

#[test]
fn a_changed_configuration_changes_what_is_handed_out_and_not_what_is_held() {
    let old = pool(json!([[{"subnet": "10.0.0.0/24"}]]));
    let new = pool(json!([[{"subnet": "10.9.0.0/24"}]]));
    let mut world = World::default();
    world.add(1, &old, &[]).unwrap();
    assert_eq!(world.add(2, &new, &[]).unwrap(), [ip("10.9.0.2")]);
    assert!(world.state.is_held(ip("10.0.0.2")));
    world.del(1);
    assert_eq!(
        world.add(3, &new, &[]).unwrap(),
        [ip("10.9.0.3")],
        "what was freed outside is not handed out"
    );
}

#[test]
fn a_network_of_any_size_remembers_a_bounded_number_of_freed_addresses() {
    let pool = pool(json!([[{"subnet": "fd00::/64"}]]));
    let (mut world, mut given) = (World::default(), Vec::new());
    for _ in 0..2 * REMEMBERED {
        given.extend(world.add(1, &pool, &[]).unwrap());
        world.del(1);
        assert!(world.state.remembered() <= REMEMBERED);
    }
    let mut last_use = BTreeMap::new();
    for (use_number, address) in given.into_iter().enumerate() {
        if let Some(before) = last_use.insert(address, use_number) {
            assert!(use_number - before >= REMEMBERED, "{address} came back after {}", use_number - before);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    AddWith(usize, u8),
    Del(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0usize..24).prop_map(Step::Add),
        1 => (0usize..24, 0u8..16).prop_map(|(container, last)| Step::AddWith(container, last)),
        3 => (0usize..24).prop_map(Step::Del),
    ]
}

/// What the allocator promises, in the plainest terms: who holds what, and when each address was freed last.
#[derive(Default)]
struct Model {
    held: BTreeMap<usize, Vec<IpAddr>>,
    freed: BTreeMap<IpAddr, u64>,
    frees: u64,
}

impl Model {
    fn holds(&self, address: IpAddr) -> bool {
        self.held.values().flatten().any(|held| *held == address)
    }

    /// Never used before used, low before high; used ones by the time of their last free.
    fn expected(&self, set: &RangeSet) -> Option<IpAddr> {
        let candidates = (0..=255u8).map(|last| match set.family() {
            crate::address::Family::V4 => ip(&format!("10.0.0.{last}")),
            crate::address::Family::V6 => ip(&format!("fd00::{last:x}")),
        });
        let hands_out =
            |address: &IpAddr| set.range_of(*address).is_some_and(|range| range.hands_out(*address));
        let free = candidates.filter(|address| hands_out(address) && !self.holds(*address));
        free.min_by_key(|address| (self.freed.get(address).copied(), *address))
    }

    fn release(&mut self, container: usize) {
        for address in self.held.remove(&container).unwrap_or_default() {
            self.frees += 1;
            self.freed.insert(address, self.frees);
        }
    }
}

proptest! {
    #[test]
    fn addresses_are_unique_reused_last_and_given_all_or_nothing(steps in prop::collection::vec(step(), 1..160)) {
        let pool = pool(json!([[{"subnet": "10.0.0.0/28", "exclude": ["10.0.0.4"]}], [{"subnet": "fd00::/124"}]]));
        let (mut world, mut model) = (World::default(), Model::default());
        for step in steps {
            match step {
                Step::Del(container) => {
                    world.del(container);
                    model.release(container);
                    let before = world.state.freed().collect::<Vec<_>>();
                    world.del(container);
                    prop_assert_eq!(world.state.freed().collect::<Vec<_>>(), before, "a second release frees nothing");
                }
                Step::Add(container) | Step::AddWith(container, _) if model.held.contains_key(&container) => {}
                Step::Add(container) => {
                    let expected: Option<Vec<_>> = pool.sets().iter().map(|set| model.expected(set)).collect();
                    let found = world.add(container, &pool, &[]).ok();
                    prop_assert_eq!(&found, &expected);
                    model.held.extend(found.map(|addresses| (container, addresses)));
                }
                Step::AddWith(container, last) => {
                    let wish = ip(&format!("10.0.0.{last}"));
                    if let Ok(addresses) = world.add(container, &pool, &[wish]) {
                        prop_assert_eq!(addresses[0], wish);
                        prop_assert!(addresses.iter().all(|address| !model.holds(*address)));
                        model.held.insert(container, addresses);
                    }
                }
            }
            prop_assert_eq!(world.state.len(), model.held.len());
            for (container, addresses) in &model.held {
                let record = world.state.get(&Holder::from(&World::holder(*container))).unwrap();
                prop_assert_eq!(&record.addresses.iter().map(|a| a.address.ip()).collect::<Vec<_>>(), addresses);
            }
        }
    }
}
