use serde_json::json;

use super::*;

fn parse(document: Value) -> Result<Config, Vec<String>> {
    let parsed = Config::parse(document.as_object().unwrap());
    parsed.map_err(|mistakes| mistakes.0.iter().map(Mistake::to_string).collect())
}

fn sets(document: Value) -> Vec<String> {
    parse(document).unwrap().pool.sets().iter().map(RangeSet::to_string).collect()
}

fn requested(document: Value, args: &str) -> Result<Vec<String>, String> {
    let args = Args::parse(args).unwrap();
    let addresses = requested_addresses(document.as_object().unwrap(), &args);
    addresses.map(|all| all.iter().map(IpAddr::to_string).collect()).map_err(|mistakes| mistakes.to_string())
}

#[test]
fn the_root_of_the_file_system_is_no_place_for_leases() {
    let section = json!({"ipam": {"ranges": [[{"subnet": "10.10.0.0/16"}]], "dataDir": "/"}});
    assert_eq!(
        parse(section).unwrap_err(),
        ["ipam.dataDir: the root of the file system is no place for leases"]
    );
}

#[test]
fn a_whole_section_of_host_local_is_understood() {
    let config = parse(json!({ "ipam": {
        "type": "host-local",
        "ranges": [
            [{"subnet": "10.10.0.0/16", "rangeStart": "10.10.1.20", "rangeEnd": "10.10.3.50", "gateway": "10.10.0.254"},
             {"subnet": "172.16.5.0/24"}],
            [{"subnet": "3ffe:ffff:0:01ff::/64", "rangeStart": "3ffe:ffff:0:01ff::0010"}]
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.10.5.1"}],
        "resolvConf": "/etc/resolv.conf",
        "dataDir": "/run/my-leases"
    }}))
    .unwrap();
    assert_eq!(config.pool.sets().len(), 2);
    assert_eq!(config.pool.ranges().next().unwrap().gateway(), "10.10.0.254".parse().ok());
    assert_eq!(config.routes.len(), 2);
    assert_eq!(config.resolv_conf, Some("/etc/resolv.conf".into()));
    assert_eq!(config.data_dir, PathBuf::from("/run/my-leases"));
}

#[test]
fn the_order_of_sets_is_capability_then_single_range_then_ranges() {
    let document = json!({
        "runtimeConfig": { "ipRanges": [[{"subnet": "10.3.0.0/24"}]] },
        "ipam": { "subnet": "10.2.0.0/24", "rangeEnd": "10.2.0.9", "ranges": [[{"subnet": "10.1.0.0/24"}]] }
    });
    assert_eq!(sets(document), ["10.3.0.0/24", "10.2.0.0/24 from 10.2.0.1 to 10.2.0.9", "10.1.0.0/24"]);
}

#[test]
fn what_a_pool_is_written_as_reads_back_as_the_same_pool() {
    let ranges = json!([
        [{"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "exclude": ["10.0.0.16/28", "10.0.0.77"]}],
        [{"subnet": "fd00::/126"}, {"subnet": "fd00:1::7/128"}]
    ]);
    let pool = parse_ranges(&ranges).unwrap();
    assert_eq!(parse_ranges(&pool.to_json()), Ok(pool));
}

#[test]
fn every_mistake_is_named_with_its_place() {
    let mistakes = parse(json!({ "ipam": {
        "range": [],
        "datadir": "/x",
        "frobnicate": 1,
        "resolvConf": "etc/resolv.conf",
        "gateway": "10.0.0.1",
        "routes": [{"dst": "everywhere"}, 7, {"dst": "::/0", "gw": "10.0.0.1"}],
        "ranges": [
            [{"subnet": "10.0.0.0", "rangestart": "10.0.0.2"}, {"rangeEnd": "ten"}],
            {"subnet": "10.1.0.0/24"},
            [{"subnet": "10.2.0.1/24", "rangeStart": "10.3.0.1"}],
            [7], []
        ]
    }}))
    .unwrap_err();
    assert_eq!(
        mistakes,
        [
            "ipam.datadir: unknown key; did you mean \"dataDir\"?",
            "ipam.frobnicate: unknown key",
            "ipam.range: unknown key; did you mean \"ranges\"?",
            "ipam.gateway: this key belongs to a range, but ipam.subnet is missing",
            "ipam.ranges[0][0].rangestart: unknown key; did you mean \"rangeStart\"?",
            "ipam.ranges[0][0].subnet: \"10.0.0.0\" is not a subnet with a prefix length, such as 10.244.0.0/24",
            "ipam.ranges[0][1].subnet: missing",
            "ipam.ranges[0][1].rangeEnd: \"ten\" is not an IP address",
            "ipam.ranges[1]: a range set is a list of ranges: put [ ] around it",
            "ipam.ranges[2][0]: 10.2.0.1/24 has bits set beyond its prefix; the subnet of that length is 10.2.0.0/24",
            "ipam.ranges[2][0]: rangeStart 10.3.0.1 is not in 10.2.0.1/24",
            "ipam.ranges[3][0]: expected an object, found 7",
            "ipam.ranges[4]: there is no range to take an address from",
            "ipam.routes[0].dst: expected a network in CIDR notation, found \"everywhere\"",
            "ipam.routes[1]: expected an object, found 7",
            "ipam.routes[2].gw: 10.0.0.1 is not of the family of ::/0",
            "ipam.resolvConf: etc/resolv.conf is not an absolute path",
        ]
    );
}

#[test]
fn a_section_without_ranges_is_refused() {
    assert_eq!(parse(json!({})).unwrap_err(), ["ipam: missing"]);
    for section in [json!({"type": "weft-ipam"}), json!({"ranges": []}), json!({"ranges": null})] {
        let mistakes = parse(json!({ "ipam": section })).unwrap_err();
        assert_eq!(mistakes, ["ipam.ranges: no range is given: there is nothing to take an address from"]);
    }
}

#[test]
fn the_directory_is_found_whatever_else_is_wrong() {
    let dir = |document: Value| Config::data_dir(document.as_object().unwrap());
    assert_eq!(dir(json!({"ipam": {"dataDir": "/x", "ranges": 7, "oops": 1}})), Ok("/x".into()));
    for document in [json!({}), json!({"ipam": 7}), json!({"ipam": {"dataDir": ""}})] {
        assert_eq!(dir(document), Ok(DEFAULT_DIR.into()));
    }
    assert!(dir(json!({"ipam": {"dataDir": "x"}})).is_err());
}

#[test]
fn requests_are_merged_from_capability_and_arguments() {
    let document = json!({ "runtimeConfig": {"ips": ["10.0.0.9/24", "fd00::9"]}, "args": {"cni": {"ips": ["10.1.0.9"]}} });
    assert_eq!(
        requested(document, "IP=10.2.0.9"),
        Ok(vec!["10.0.0.9".into(), "fd00::9".into(), "10.1.0.9".into()])
    );
    assert_eq!(requested(json!({}), "IP=10.2.0.9"), Ok(vec!["10.2.0.9".into()]));
    let twice = json!({ "runtimeConfig": {"ips": ["10.2.0.9/24"]} });
    assert_eq!(requested(twice, "IP=10.2.0.9"), Ok(vec!["10.2.0.9".into()]));
    assert_eq!(requested(json!({}), "K8S_POD_NAME=x;IgnoreUnknown=1"), Ok(vec![]));
}

#[test]
fn requests_that_are_no_addresses_are_all_named() {
    let document = json!({ "runtimeConfig": {"ips": ["ten", 7]} });
    assert_eq!(
        requested(document, "IP=x"),
        Err("runtimeConfig.ips[0]: \"ten\" is not an IP address; runtimeConfig.ips[1]: expected a text, found 7; \
             CNI_ARGS IP: \"x\" is not an IP address"
            .into())
    );
}

#[test]
fn a_family_with_two_sets_is_known() {
    let two = json!([[{"subnet": "10.0.0.0/24"}], [{"subnet": "fd00::/64"}], [{"subnet": "fd01::/64"}]]);
    assert_eq!(parse_ranges(&two).unwrap().crowded_family(), Some(Family::V6));
    let one = json!([[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.1.0/24"}], [{"subnet": "fd00::/64"}]]);
    assert_eq!(parse_ranges(&one).unwrap().crowded_family(), None);
}

#[test]
fn the_arguments_of_a_runtime_name_the_pod() {
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-1;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u";
    let pod = crate::lease::Pod::from_args(&Args::parse(args).unwrap()).unwrap();
    assert_eq!((pod.to_string().as_str(), pod.uid.as_str()), ("shop/cart-1", "u"));
    assert_eq!(crate::lease::Pod::from_args(&Args::default()), None);
}
