use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn whole(subnet: &str) -> Range {
    Range::new(net(subnet).into()).unwrap()
}

fn mistakes(draft: Draft) -> Vec<String> {
    Range::new(draft).unwrap_err().iter().map(Error::to_string).collect()
}

#[test]
fn defaults_are_those_of_host_local_and_small_subnets_have_their_own() {
    for (subnet, start, end, gateway, size) in [
        ("10.1.2.0/24", "10.1.2.1", "10.1.2.254", Some("10.1.2.1"), 253),
        ("10.1.2.0/30", "10.1.2.1", "10.1.2.2", Some("10.1.2.1"), 1),
        ("10.1.2.4/31", "10.1.2.4", "10.1.2.5", Some("10.1.2.4"), 1),
        ("10.1.2.7/32", "10.1.2.7", "10.1.2.7", None, 1),
        ("10.0.0.0/8", "10.0.0.1", "10.255.255.254", Some("10.0.0.1"), (1 << 24) - 3),
        ("128.0.0.0/2", "128.0.0.1", "191.255.255.254", Some("128.0.0.1"), (1 << 30) - 3),
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff", Some("fd00::1"), (1 << 64) - 2),
        ("fd00::4/127", "fd00::4", "fd00::5", Some("fd00::4"), 1),
        ("fd00::7/128", "fd00::7", "fd00::7", None, 1),
    ] {
        let range = whole(subnet);
        let found = (range.start(), range.end(), range.gateway(), range.size());
        assert_eq!(found, (ip(start), ip(end), gateway.map(ip), size), "{subnet}");
    }
}

#[test]
fn the_network_and_broadcast_addresses_are_not_handed_out_even_when_named() {
    let draft =
        Draft { start: Some(ip("10.1.2.0")), end: Some(ip("10.1.2.255")), ..net("10.1.2.0/24").into() };
    let range = Range::new(draft).unwrap();
    assert!(!range.hands_out(ip("10.1.2.0")) && !range.hands_out(ip("10.1.2.255")));
    assert_eq!(range.size(), 253);
}

#[test]
fn exclusions_are_not_handed_out_and_may_overlap() {
    let exclude = vec![net("10.1.2.4/30"), net("10.1.2.6"), net("10.1.2.7/32"), net("10.1.2.128/25")];
    let range = Range::new(Draft { exclude, ..net("10.1.2.0/24").into() }).unwrap();
    let free: Vec<_> = (0..=255).filter(|n| range.hands_out(ip(&format!("10.1.2.{n}")))).collect();
    assert_eq!(free, [2, 3].into_iter().chain(8..128).collect::<Vec<_>>());
    assert_eq!(range.size(), free.len() as u128);
}

#[test]
fn a_gateway_that_forwards_nothing_is_refused_with_the_reason() {
    for (subnet, gateway, whose) in [
        ("10.1.2.0/24", "127.0.0.1", "the loopback's"),
        ("10.1.2.0/24", "0.0.0.0", "nobody's"),
        ("10.1.2.0/24", "224.0.0.1", "for multicast"),
        ("10.1.2.0/24", "255.255.255.255", "for broadcast"),
        ("10.1.2.0/24", "10.1.2.255", "the subnet's broadcast address"),
        ("fd00::/64", "::1", "the loopback's"),
        ("fd00::/64", "ff02::1", "for multicast"),
    ] {
        let draft = Draft { gateway: Some(ip(gateway)), ..net(subnet).into() };
        let said = mistakes(draft).join("; ");
        assert!(said.contains(&format!("gateway {gateway} is {whose}")), "{said}");
    }
    for (subnet, gateway) in
        [("10.1.2.0/31", "10.1.2.1"), ("10.1.2.0/24", "169.254.1.1"), ("fd00::/64", "fe80::1")]
    {
        assert!(Range::new(Draft { gateway: Some(ip(gateway)), ..net(subnet).into() }).is_ok(), "{gateway}");
    }
}

#[test]
fn a_gateway_outside_the_subnet_takes_no_address_from_it() {
    let draft = Draft { gateway: Some(ip("fe80::1")), ..net("fd00::/126").into() };
    assert_eq!(Range::new(draft).unwrap().size(), 3);
}

#[test]
fn all_mistakes_of_a_range_are_found() {
    let draft = Draft {
        start: Some(ip("10.2.0.1")),
        end: Some(ip("fd00::1")),
        gateway: Some(ip("fd00::1")),
        exclude: vec![net("fd00::/64")],
        ..net("10.1.2.7/24").into()
    };
    assert_eq!(
        mistakes(draft),
        [
            "10.1.2.7/24 has bits set beyond its prefix; the subnet of that length is 10.1.2.0/24",
            "rangeStart 10.2.0.1 is not in 10.1.2.7/24",
            "rangeEnd fd00::1 is not in 10.1.2.7/24",
            "gateway fd00::1 is not in 10.1.2.7/24",
            "the excluded fd00::/64 is of another address family than 10.1.2.7/24",
        ]
    );
}

#[test]
fn a_range_runs_forwards_and_has_something_to_give() {
    let draft = Draft { start: Some(ip("10.1.2.9")), end: Some(ip("10.1.2.8")), ..net("10.1.2.0/24").into() };
    assert_eq!(mistakes(draft), ["rangeStart 10.1.2.9 is after rangeEnd 10.1.2.8"]);
    let draft = Draft { start: Some(ip("10.1.2.1")), end: Some(ip("10.1.2.1")), ..net("10.1.2.0/24").into() };
    let what = "10.1.2.0/24 has no address left to hand out beside its gateway and what is excluded";
    assert_eq!(mistakes(draft), [what]);
    let draft = Draft { exclude: vec![net("::/0")], ..net("::/0").into() };
    assert!(Range::new(draft).is_err());
}

#[test]
fn overlaps_show_both_spellings_within_a_set_and_across_sets() {
    let set = |subnets: &[&str]| RangeSet::new(subnets.iter().map(|subnet| whole(subnet)).collect());
    let errors = set(&["10.0.0.0/16", "10.0.7.0/24"]).unwrap_err();
    assert_eq!(errors[0].to_string(), "10.0.0.0/16 overlaps 10.0.7.0/24");
    let sets = ["10.0.0.0/16", "fd00::/64", "10.0.7.0/24"].map(|subnet| set(&[subnet]).unwrap());
    let errors = Pool::new(sets.into()).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].to_string(), "10.0.0.0/16 overlaps 10.0.7.0/24");
}

#[test]
fn parts_of_one_subnet_do_not_overlap() {
    let part = |start, end| {
        Range::new(Draft { start: Some(ip(start)), end: Some(ip(end)), ..net("10.0.0.0/24").into() }).unwrap()
    };
    let ranges = vec![part("10.0.0.10", "10.0.0.19"), part("10.0.0.20", "10.0.0.29")];
    let set = RangeSet::new(ranges).unwrap();
    assert_eq!(
        set.to_string(),
        "10.0.0.0/24 from 10.0.0.10 to 10.0.0.19, 10.0.0.0/24 from 10.0.0.20 to 10.0.0.29"
    );
    assert!(RangeSet::new(vec![part("10.0.0.10", "10.0.0.20"), part("10.0.0.20", "10.0.0.29")]).is_err());
}

#[test]
fn sets_keep_to_one_family_and_are_not_empty() {
    let errors = RangeSet::new(vec![whole("10.0.0.0/24"), whole("fd00::/64")]).unwrap_err();
    assert!(matches!(errors[..], [Error::MixedFamilies { .. }]));
    assert_eq!(RangeSet::new(Vec::new()), Err(vec![Error::Empty]));
    assert_eq!(Pool::new(Vec::new()), Err(vec![Error::Empty]));
}

proptest! {
    #[test]
    fn the_first_free_address_is_what_a_walk_would_find(
        prefix in 24u8..=32,
        excluded in prop::collection::vec((0u8..=255, 28u8..=32), 0..4),
        used in prop::collection::btree_set(0u8..=255, 0..64),
    ) {
        let block = |(last, prefix): &(u8, u8)| IpNetwork::new(ip(&format!("10.0.0.{last}")), *prefix).unwrap();
        let exclude: Vec<_> = excluded.iter().map(block).collect();
        let Ok(range) = Range::new(Draft { exclude, ..net(&format!("10.0.0.0/{prefix}")).into() }) else {
            return Ok(());
        };
        let used: BTreeSet<IpAddr> = used.iter().map(|last| ip(&format!("10.0.0.{last}"))).collect();
        let mut spans = Spans::default();
        used.iter().for_each(|address| { spans.insert(number(*address)); });
        let mut addresses = (0..=255).map(|last| ip(&format!("10.0.0.{last}")));
        let expected = addresses.find(|address| range.hands_out(*address) && !used.contains(address));
        prop_assert_eq!(range.first_outside(|from| Ok::<_, ()>(spans.first_gap(from))).unwrap(), expected);
        let all = (0..=255).filter(|last| range.hands_out(ip(&format!("10.0.0.{last}")))).count();
        prop_assert_eq!(range.size(), all as u128);
    }
}

#[test]
fn addresses_that_no_pod_can_have_are_refused_with_whose_they_are() {
    for (subnet, whose) in [
        ("127.0.0.0/8", "127.0.0.0/8 is the loopback's"),
        ("127.1.2.0/24", "127.0.0.0/8 is the loopback's"),
        ("0.0.0.0/0", "0.0.0.0/8 is nobody's"),
        ("0.1.0.0/16", "0.0.0.0/8 is nobody's"),
        ("239.1.0.0/16", "224.0.0.0/4 is for multicast"),
        ("192.0.0.0/2", "224.0.0.0/4 is for multicast"),
        ("255.255.255.255/32", "255.255.255.255/32 is for broadcast"),
        ("ff02::/64", "ff00::/8 is for multicast"),
        ("::/64", "::/127 is the loopback's"),
    ] {
        assert_eq!(mistakes(net(subnet).into()), [format!("{subnet} cannot be given to pods: {whose}")]);
    }
    for subnet in [
        "1.0.0.0/24",
        "126.255.255.0/24",
        "128.0.0.0/24",
        "223.255.255.0/24",
        "240.0.0.0/24",
        "255.255.255.0/24",
        "fd00::/8",
    ] {
        assert_eq!(whole(subnet).subnet(), net(subnet));
    }
}
