use serde_json::json;

use super::*;

fn read(extra: Value) -> Result<Config, Error> {
    read_with(extra, "")
}

fn read_with(extra: Value, args: &str) -> Result<Config, Error> {
    let mut document = json!({
        "cniVersion": "1.1.0", "name": "weft", "type": "weft-cni",
        "ipam": {"type": "weft-ipam", "ranges": [[{"subnet": "10.244.0.0/24"}]]},
    });
    let (Value::Object(fields), Value::Object(extra)) = (&mut document, extra) else { panic!("objects") };
    fields.extend(extra);
    let conf = Conf::parse(document.to_string().as_bytes()).unwrap();
    Config::read(&conf, &Args::parse(args).unwrap())
}

fn refusal(extra: Value) -> (u32, String) {
    let error = read(extra).unwrap_err().answer();
    (error.code.0, error.msg)
}

#[test]
fn the_least_configuration_is_a_range() {
    let config = read(json!({})).unwrap();
    assert_eq!((config.mtu, config.masquerade, config.mac), (None, false, None));
    assert_eq!(config.dns, Dns::default());
}

#[test]
fn leases_that_nodes_share_are_those_of_the_program_weft_ipam() {
    let ipam = |store: Value| {
        let ranges = json!([[{"subnet": "10.244.0.0/24"}]]);
        read(json!({"ipam": {"type": "weft-ipam", "ranges": ranges, "store": store}})).unwrap().addressing
    };
    let program = crate::delegate::PluginName::new("weft-ipam").unwrap();
    assert_eq!(
        ipam(json!({"type": "etcd", "endpoints": ["http://10.0.0.1:2379"]})),
        Addressing::Delegate(program)
    );
    for local in [json!(null), json!({}), json!({"type": "local"})] {
        assert!(matches!(ipam(local), Addressing::Leases(_)));
    }
}

#[test]
fn unknown_keys_within_routes_and_dns_are_refused_with_their_places_and_comments_are_not() {
    let ipam = json!({
        "type": "weft-ipam", "ranges": [[{"subnet": "10.244.0.0/24", "_why": "x"}]], "_why": "x",
        "routes": [{"dst": "0.0.0.0/0", "_why": "x"}, {"dst": "10.0.0.0/8", "gateway": "10.244.0.9", "metric": 5}],
    });
    let dns = json!({"nameserver": ["10.96.0.10"], "_why": "x"});
    let asked = json!({"dns": {"searche": ["local"]}});
    let (code, msg) = refusal(json!({"ipam": ipam, "dns": dns, "runtimeConfig": asked, "_comment": "x"}));
    assert_eq!(code, 7);
    let found: std::collections::BTreeSet<_> = msg
        .trim_start_matches("invalid network configuration: ")
        .split("; ")
        .filter(|part| part.contains(':'))
        .collect();
    let expected = [
        "dns.nameserver: unknown key",
        "ipam.routes[1].gateway: unknown key",
        "ipam.routes[1].metric: unknown key",
        "runtimeConfig.dns.searche: unknown key",
    ];
    assert_eq!(found, expected.into(), "{msg}");
    assert!(msg.contains("did you mean \"nameservers\"?"), "{msg}");
    read(json!({"_comment": "x", "dns": {"_why": "x"}})).unwrap();
}

#[test]
fn all_mistakes_are_named_at_once() {
    let (code, msg) =
        refusal(json!({"mtu": -1, "ipMasq": "yes", "mode": "tunnel", "ipmasq": true, "table": 7}));
    assert_eq!(code, 7);
    assert_eq!(
        msg,
        "invalid network configuration: ipmasq: unknown key; did you mean \"ipMasq\"?; \
         mode: \"tunnel\" is not a mode: say \"routed\" or \"bridge\"; \
         mtu: -1 is not 0 (detect it) or a number of bytes from 68 to 65535; \
         ipMasq: \"yes\" is neither true nor false; \
         table: 7 is not supported: keep the plugin that has this key behind weft-cni"
    );
}

#[test]
fn what_the_reference_knows_and_weft_does_not_honour_is_refused_by_name_and_value_with_what_to_do() {
    for (key, instead) in NOT_HONOURED {
        let (code, msg) = refusal(json!({ key: 7 }));
        assert_eq!((code, msg), (2, format!("unsupported field: {key}: 7 is not supported: {instead}")));
        for nothing in [json!(null), json!([]), json!(""), json!(false)] {
            assert!(read(json!({ key: nothing })).is_ok(), "{key}: {nothing} asks for nothing");
        }
    }
}

#[test]
fn portmaps_keys_are_honoured_taken_where_they_ask_for_what_is_done_anyway_and_else_refused() {
    let sources = |extra: Value| read(extra).unwrap().port_sources;
    for (extra, expected) in [
        (json!({}), PortSources::Own),
        (json!({"snat": null, "masqAll": false}), PortSources::Own),
        (
            json!({"snat": true, "markMasqBit": 13, "conditionsV4": [], "backend": "iptables"}),
            PortSources::Own,
        ),
        (json!({"externalSetMarkChain": "KUBE-MARK-MASQ", "ipMasqBackend": "nftables"}), PortSources::Own),
        (json!({"snat": true, "masqAll": true}), PortSources::All),
        (json!({"snat": false, "masqAll": true}), PortSources::Keep),
    ] {
        assert_eq!(sources(extra.clone()), expected, "{extra}");
    }
    for (extra, code, place) in [
        (json!({"snat": "yes"}), 7, "snat: \"yes\" is neither true nor false"),
        (json!({"markMasqBit": 32}), 7, "markMasqBit: 32 is no bit from 0 to 31"),
        (json!({"markMasqBit": 1, "externalSetMarkChain": "X"}), 7, "externalSetMarkChain: cannot be set"),
        (json!({"externalSetMarkChain": "X"}), 2, "externalSetMarkChain: \"X\" is not supported"),
        (
            json!({"conditionsV4": ["-d", "192.0.2.0/24"]}),
            2,
            "conditionsV4: [\"-d\",\"192.0.2.0/24\"] is not",
        ),
        (json!({"conditionsV6": ["ip6"]}), 2, "conditionsV6: [\"ip6\"] is not supported"),
        (json!({"backend": "firewalld"}), 2, "backend: \"firewalld\" is not supported"),
        (json!({"ipMasqBackend": 7}), 2, "ipMasqBackend: 7 is not supported"),
        (
            json!({"runtimeConfig": {"cgroupPath": "/a"}}),
            2,
            "runtimeConfig.cgroupPath: \"/a\" is not supported: remove \"cgroupPath\" from \"capabilities\"",
        ),
    ] {
        let (found, msg) = refusal(extra);
        assert_eq!(found, code, "{msg}");
        assert!(msg.contains(place), "{msg}");
    }
}

#[test]
fn a_bridge_may_give_no_addresses_but_nothing_else_may() {
    for extra in [json!({"bridge": "b", "ipam": {}}), json!({"mode": "bridge", "ipam": null})] {
        assert_eq!(read(extra).unwrap().addressing, Addressing::Nobody);
    }
    for (extra, expected) in [
        (json!({"ipam": {}}), "ipam.type: missing"),
        (
            json!({"ipam": {}, "bridge": "b", "isGateway": true}),
            "ipam.type: missing: a gateway has an address",
        ),
        (json!({"ipam": {}, "bridge": "b", "cniVersion": "0.2.0"}), "ipam: results of version 0.2.0"),
        (json!({"disableContainerInterface": true}), "disableContainerInterface: true goes with no ipam"),
    ] {
        let (code, msg) = refusal(extra);
        assert_eq!(code, 7, "{msg}");
        assert!(msg.contains(expected), "{msg}");
    }
}

#[test]
fn dhcp_has_nobody_to_ask_on_the_link_of_a_routed_pod() {
    let dhcp = json!({"type": "dhcp"});
    assert!(read(json!({"ipam": dhcp, "bridge": "b"})).is_ok());
    let (code, msg) = refusal(json!({ "ipam": dhcp }));
    assert_eq!((code, msg.contains("ipam.type: \"dhcp\" needs \"mode\": \"bridge\"")), (2, true), "{msg}");
}

#[test]
fn a_mistake_is_named_once_and_at_its_place() {
    for (extra, expected) in [
        (json!({"ipam": null}), "ipam: expected an object, found null"),
        (json!({"ipam": []}), "ipam: expected an object, found []"),
        (json!({"dns": {"search": 7}}), "dns.search: expected a list, found 7"),
        (json!({"dns": []}), "dns: expected an object, found []"),
        (json!({"runtimeConfig": 7}), "runtimeConfig: expected an object, found 7"),
        (json!({"args": "x"}), "args: expected an object, found \"x\""),
    ] {
        assert_eq!(refusal(extra), (7, format!("invalid network configuration: {expected}")));
    }
}

#[test]
fn more_addresses_of_a_family_than_the_runtime_could_be_told_of_are_refused() {
    let ipam =
        json!({"type": "weft-ipam", "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]});
    assert!(read(json!({ "ipam": ipam.clone() })).is_ok());
    let (code, msg) = refusal(json!({ "ipam": ipam, "cniVersion": "0.2.0" }));
    assert_eq!(code, 7);
    assert!(msg.contains("several sets of V4, but results of version 0.2.0"), "{msg}");
}

#[test]
fn a_capability_that_asks_for_nothing_is_no_obstacle() {
    let nothing =
        json!({"portMappings": [], "bandwidth": {"ingressRate": 0}, "aliases": null, "cgroupPath": ""});
    assert!(read(json!({ "runtimeConfig": nothing })).is_ok());
    let annotations = json!({"io.kubernetes.cri.pod-annotations": {"a": "b"}});
    assert!(read(json!({ "runtimeConfig": annotations })).is_ok());
    let aliases = json!({"aliases": ["web"]});
    assert_eq!(refusal(json!({ "runtimeConfig": aliases })).0, 2);
}

#[test]
fn ports_are_read_with_their_families_and_their_mistakes_stand_beside_all_others() {
    let ports = |list: Value| json!({"runtimeConfig": {"portMappings": list}, "mtu": -1});
    let list = json!([{"hostPort": 80, "containerPort": 80, "hostIP": "fd00::1"}]);
    let (code, msg) = refusal(ports(list));
    assert_eq!(code, 7);
    assert_eq!(
        msg,
        "invalid network configuration: mtu: -1 is not 0 (detect it) or a number of bytes from 68 to 65535; \
         runtimeConfig.portMappings[0].hostIP: fd00::1 is IPv6, but no range gives a pod an IPv6 address"
    );
    let list = json!([{"hostPort": 8080, "containerPort": 80}, {"hostPort": 0, "containerPort": 81}]);
    let config = read(json!({"runtimeConfig": {"portMappings": list}})).unwrap();
    assert_eq!(config.ports.iter().map(|port| port.host_port).collect::<Vec<_>>(), [8080]);
}

#[test]
fn the_reference_plugins_bandwidth_and_tuning_are_read_at_the_top_level() {
    let config = read(json!({
        "ingressRate": 8_000_000, "ingressBurst": 800_000,
        "sysctl": {"net.core.somaxconn": "500"}, "promisc": true, "allmulti": true, "txQLen": 500,
    }))
    .unwrap();
    assert_eq!(config.bandwidth.ingress, Some(Limit { rate: 1_000_000, burst: 100_000 }));
    assert_eq!(config.tuning.sysctls.len(), 1);
    let (promisc, allmulti) = (config.tuning.promisc, config.tuning.allmulti);
    assert_eq!((promisc, allmulti, config.tuning.tx_queue_len), (true, Some(true), Some(500)));
}

#[test]
fn subnets_that_are_not_to_be_shaped_are_refused() {
    let subnets = |of: Value| json!({"runtimeConfig": {"bandwidth": {"unshapedSubnets": of}}});
    assert_eq!(
        refusal(subnets(json!(["10.0.0.0/8"]))),
        (
            2,
            r#"unsupported field: runtimeConfig.bandwidth.unshapedSubnets: ["10.0.0.0/8"] is not supported"#
                .to_owned()
        )
    );
    assert!(read(subnets(json!([]))).is_ok());
}

#[test]
fn a_mac_is_taken_from_the_capability_then_from_args_then_from_the_environment_then_from_its_key() {
    let mac = |extra: Value, args: &str| read_with(extra, args).unwrap().mac.map(|mac| mac.to_string());
    let capability =
        json!({"runtimeConfig": {"mac": "02:00:00:00:00:01"}, "args": {"cni": {"mac": "02:00:00:00:00:02"}}});
    assert_eq!(mac(capability, "MAC=02:00:00:00:00:03").as_deref(), Some("02:00:00:00:00:01"));
    let args = json!({"args": {"cni": {"mac": "02:00:00:00:00:02"}}});
    assert_eq!(mac(args, "MAC=02:00:00:00:00:03").as_deref(), Some("02:00:00:00:00:02"));
    let key = json!({"mac": "02:00:00:00:00:04"});
    assert_eq!(mac(key.clone(), "MAC=02:00:00:00:00:03").as_deref(), Some("02:00:00:00:00:03"));
    assert_eq!(mac(key, "").as_deref(), Some("02:00:00:00:00:04"));
    assert_eq!(mac(json!({"mac": ""}), ""), None);
    assert_eq!(
        refusal(json!({"mac": 7})).1,
        "invalid network configuration: mac: 7 is not a hardware address"
    );
    assert_eq!(refusal(json!({"runtimeConfig": {"mac": "01:00:00:00:00:01"}})).0, 7);
}

#[test]
fn a_runtimes_name_service_replaces_the_configurations() {
    let dns = json!({"dns": {"nameservers": ["10.0.0.1"]}, "runtimeConfig": {"dns": {"servers": ["10.0.0.2"], "searches": ["a.b"]}}});
    let config = read(dns).unwrap();
    assert_eq!(
        (config.dns.nameservers, config.dns.search),
        (vec!["10.0.0.2".to_owned()], vec!["a.b".to_owned()])
    );
}

#[test]
fn a_route_without_an_address_of_its_family_is_a_mistake() {
    let ipam =
        json!({"type": "weft-ipam", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "::/0"}]});
    let (code, msg) = refusal(json!({ "ipam": ipam }));
    assert_eq!(code, 7);
    assert!(msg.ends_with("ipam.routes[0]: ::/0 is IPv6, but no range gives a pod an IPv6 address"), "{msg}");
}

#[test]
fn an_mtu_must_carry_every_family() {
    assert_eq!(read(json!({"mtu": 1200})).unwrap().mtu, Some(1200));
    assert_eq!(read(json!({"mtu": 0})).unwrap().mtu, None);
    assert_eq!(read(json!({"mtu": 1200, "args": {"cni": {"mtu": 1300}}})).unwrap().mtu, Some(1300));
    assert!(refusal(json!({"args": {"cni": {"mtu": "big"}}})).1.contains("args.cni.mtu: \"big\" is not"));
    let ipam = json!({"type": "weft-ipam", "ranges": [[{"subnet": "fd00::/64"}]]});
    assert_eq!(refusal(json!({"mtu": 1200, "ipam": ipam})).0, 7);
}

#[test]
fn unknown_arguments_are_refused_unless_the_runtime_wants_them_ignored() {
    assert!(read_with(json!({}), "K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop").is_ok());
    assert_eq!(read_with(json!({}), "FOO=1").unwrap_err().answer().code.0, 4);
    assert!(read_with(json!({}), "IgnoreUnknown=1;FOO=1").is_ok());
}

#[test]
fn any_other_ipam_plugin_is_named_and_its_section_is_its_own() {
    let ipam = json!({"type": "static", "addresses": [{"address": "10.0.0.2/24"}], "odd": 7});
    let config = read_with(json!({ "ipam": ipam }), "GATEWAY=10.0.0.1;FOO=1").unwrap();
    assert_eq!(config.addressing.leases(), None, "{:?}", config.addressing);
    for (bad, expected) in [
        ("../static", "it must not hold a /"),
        ("..", "is not the name of a plugin"),
        ("weft-cni", "is no IPAM plugin"),
    ] {
        let (code, msg) = refusal(json!({"ipam": {"type": bad}}));
        assert_eq!(code, 7);
        assert!(msg.contains("ipam.type: ") && msg.contains(expected), "{msg}");
    }
}

#[test]
fn a_pod_without_addresses_is_a_mistake() {
    let missing = r#"missing: say "weft-ipam", or the name of another IPAM plugin"#;
    for ipam in [json!({}), json!({"type": ""}), json!({"type": null}), json!({"type": 7})] {
        let (code, msg) = refusal(json!({ "ipam": ipam }));
        assert_eq!((code, msg), (7, format!("invalid network configuration: ipam.type: {missing}")));
    }
}

#[test]
fn behind_another_plugin_there_is_no_interface_to_shape_and_no_address_to_give() {
    let chained = json!({"prevResult": {"cniVersion": "1.0.0"}, "ipam": null, "ipMasq": true});
    let config = read(chained.clone()).unwrap();
    assert_eq!((config.addressing, config.masquerade), (Addressing::Chained, true));
    let with = |key: &str, value: Value| {
        let mut document = chained.clone();
        document[key] = value;
        refusal(document)
    };
    let (code, msg) = with("ipam", json!({"type": "weft-ipam"}));
    assert_eq!(code, 7);
    assert!(msg.contains("ipam: the plugins before this one have given the addresses"), "{msg}");
    for (key, value) in [("mode", json!("routed")), ("isGateway", json!(true))] {
        let (code, msg) = with(key, value);
        assert_eq!(code, 2, "{key}");
        assert!(msg.contains("there is one already"), "{msg}");
    }
    let mac = "02:00:00:00:00:01".parse().unwrap();
    let mut tuned = chained.clone();
    tuned["mtu"] = json!(1400);
    tuned["dataDir"] = json!("/run/x");
    tuned["runtimeConfig"] = json!({"mac": "02:00:00:00:00:01"});
    let config = read(tuned).unwrap();
    assert_eq!((config.mtu, config.mac), (Some(1400), Some(mac)));
}

#[test]
fn a_position_is_told_by_the_result_on_add_and_else_by_what_shapes_an_interface() {
    let conf = |extra: Value| {
        let mut document = json!({"cniVersion": "1.1.0", "name": "weft"});
        let (Value::Object(fields), Value::Object(extra)) = (&mut document, extra) else { panic!("objects") };
        fields.extend(extra);
        Conf::parse(document.to_string().as_bytes()).unwrap()
    };
    let result = json!({"ips": []});
    for (extra, add, others) in [
        (json!({}), Position::First, Position::Chained),
        (json!({"prevResult": null, "ipam": null}), Position::First, Position::Chained),
        (json!({"prevResult": result}), Position::Chained, Position::Chained),
        (json!({"ipam": {}, "prevResult": result}), Position::Chained, Position::First),
        (json!({"mode": "routed"}), Position::First, Position::First),
        (json!({"bridge": "b"}), Position::First, Position::First),
    ] {
        let conf = conf(extra.clone());
        assert_eq!((Position::of_add(&conf), Position::of_section(&conf)), (add, others), "{extra}");
    }
}

#[test]
fn conventional_arguments_that_nobody_knows_are_ignored() {
    let convention =
        json!({"labels": [{"key": "a", "value": "b"}], "sysctl": {}, "odd": 7, "ips": ["10.244.0.9"]});
    let config =
        read_with(json!({"args": {"cni": convention, "other": 1}}), "IP=10.244.0.10;MAC=02:00:00:00:00:03");
    let config = config.unwrap();
    assert_eq!(config.requested, ["10.244.0.9".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(
        config.mac.map(|mac| mac.to_string()).as_deref(),
        Some("02:00:00:00:00:03"),
        "args say nothing of it"
    );
    assert_eq!(
        refusal(json!({"args": {"cni": 7}})).1,
        "invalid network configuration: args.cni: expected an object, found 7"
    );
}

fn bridge(extra: Value) -> Bridge {
    match read(extra).unwrap().mode {
        Mode::Bridge(bridge) => bridge,
        Mode::Routed => panic!("routed"),
    }
}

#[test]
fn the_mode_follows_from_the_keys_of_the_reference_bridge() {
    assert_eq!(read(json!({})).unwrap().mode, Mode::Routed);
    for key in ["isGateway", "hairpinMode", "macspoofchk", "enabledad", "preserveDefaultVlan"] {
        let value = key == "preserveDefaultVlan";
        assert_eq!(bridge(json!({ key: value })), bridge(json!({"mode": "bridge"})), "{key}");
    }
    assert_eq!(bridge(json!({"bridge": "br7"})).name, "br7");
    assert_eq!(
        refusal(json!({"mode": "routed", "isGateway": true, "bridge": "cni0"})),
        (
            7,
            "invalid network configuration: bridge: only \"mode\": \"bridge\" has this key; \
             isGateway: only \"mode\": \"bridge\" has this key"
                .to_owned()
        )
    );
}

#[test]
fn a_default_gateway_is_a_gateway() {
    let bridge = bridge(json!({"isDefaultGateway": true, "portIsolation": true, "forceAddress": true}));
    assert!(bridge.is_gateway && bridge.is_default_gateway && bridge.isolated && bridge.force_address);
    assert!(!bridge.hairpin && !bridge.promiscuous && !bridge.pin_source && bridge.default_vlan);
    assert_eq!(bridge.name, "cni0");
}

#[test]
fn a_trunk_is_made_of_ids_and_ranges() {
    let trunk = json!([{"id": 7}, {"minID": 10, "maxID": 20, "id": 30}]);
    let bridge = bridge(json!({"vlan": 100, "vlanTrunk": trunk, "preserveDefaultVlan": false}));
    assert_eq!(
        (bridge.vlan, bridge.trunk, bridge.default_vlan),
        (Some(100), vec![7..=7, 30..=30, 10..=20], false)
    );
}

#[test]
fn what_contradicts_itself_on_a_bridge_is_named() {
    for (extra, code, place) in [
        (json!({"hairpinMode": true, "promiscMode": true}), 7, "hairpinMode: "),
        (json!({"preserveDefaultVlan": false}), 7, "preserveDefaultVlan: "),
        (json!({"vlan": 4095}), 7, "vlan: 4095 is not a VLAN"),
        (json!({"vlanTrunk": [{"minID": 5}]}), 7, "vlanTrunk[0]: "),
        (json!({"vlanTrunk": [{"minID": 9, "maxID": 5}]}), 7, "vlanTrunk[0]: "),
        (json!({"vlanTrunk": 7}), 7, "vlanTrunk: expected a list"),
        (json!({"bridge": "a/b"}), 7, "bridge: "),
        (json!({"vlan": 5, "isGateway": true}), 2, "vlan: is not supported together with isGateway"),
        (json!({"enabledad": true}), 2, "enabledad: true is not supported"),
    ] {
        let (found, msg) = refusal(extra);
        assert_eq!(found, code, "{msg}");
        assert!(msg.contains(place), "{msg}");
    }
}

#[test]
fn the_guide_names_every_key_of_the_reference() {
    let guide = include_str!("../../../docs/migration.md");
    let refused = NOT_HONOURED.map(|(key, _)| key);
    let keys =
        bandwidth::KEYS.into_iter().chain(bridge::KEYS).chain(nat::KEYS).chain(tuning::KEYS).chain(refused);
    for key in keys.filter(|key| !["mesh", "runtimeArgs"].contains(key)) {
        assert!(guide.contains(&format!("`{key}`")), "{key}");
    }
}
