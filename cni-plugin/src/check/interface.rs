//! An interface beside what the plan says of it.

use std::fmt::Write;
use std::net::IpAddr;

use weft_datapath::{Interface, Link, Neighbour, Observed, Route, Shaped};

use super::bridge;
use crate::finding::{Finding, Findings, State};

/// What `planned` should hold, and what of it `seen` has.
pub(super) fn compare(side: &str, planned: &Interface, seen: &Observed) -> Vec<Finding> {
    let mut findings = Findings::at(format!("{side} {}", planned.name));
    let link = seen.link(&planned.name);
    if planned.up {
        findings.note("link", "up", link.map(|link| up(link.up).to_owned()));
    } else {
        // Whoever uses it may have brought it up.
        findings.note_presence("link", planned.name.as_str(), link.is_some());
    }
    if let Some(alias) = &planned.alias {
        findings.note("alias", alias, link.and_then(|link| link.alias.clone()));
    }
    attributes(&mut findings, planned, link, seen);
    if let Some(port) = &planned.port {
        bridge::port(&mut findings, port, link, seen);
    }
    let index = link.map(|link| link.index);
    let addresses: Vec<_> = of(index, &seen.addresses);
    for address in &planned.addresses {
        findings.note_presence("address", address.to_string(), addresses.contains(&address));
    }
    let neighbours = of(index, &seen.neighbours);
    for neighbour in &planned.neighbours {
        let found = neighbours.iter().find(|found| found.ip == neighbour.ip);
        findings.note("neighbour", neighbour_text(neighbour), found.map(|found| neighbour_text(found)));
    }
    let routes = of(index, &seen.routes);
    for route in &planned.routes {
        findings.note("route", route_text(route), route_found(route, &routes));
    }
    beside(&mut findings, planned, &addresses, &routes);
    findings.into_list()
}

/// What of `planned` is to be added for it to stand. The MTU stays as it is, and nothing that stands is replaced.
pub(crate) fn missing(planned: &Interface, seen: &Observed) -> Interface {
    let index = seen.link(&planned.name).map(|link| link.index);
    let (addresses, routes) = (of(index, &seen.addresses), of(index, &seen.routes));
    let mut missing = Interface { mtu: None, mac: None, ..planned.clone() };
    missing.shaping = planned.shaping.filter(|_| of(index, &seen.shaped).is_empty());
    let neighbours = of(index, &seen.neighbours);
    missing.neighbours.retain(|neighbour| !neighbours.iter().any(|found| found.ip == neighbour.ip));
    missing.addresses.retain(|address| !addresses.contains(&address));
    missing.routes.retain(|route| !routes.iter().any(|found| is_rival(route, found)));
    missing
}

/// What `link` should be like. What the plan leaves open may be as it likes.
pub(super) fn attributes(findings: &mut Findings, planned: &Interface, link: Option<&Link>, seen: &Observed) {
    if let Some(mac) = planned.mac {
        findings.note("mac", mac.to_string(), link.and_then(|link| link.mac).map(|mac| mac.to_string()));
    }
    let flags = [
        ("promisc", planned.promisc, link.map(|link| link.promisc)),
        ("allmulti", planned.allmulti, link.map(|link| link.allmulti)),
    ];
    for (flag, asked, found) in flags {
        if let Some(asked) = asked {
            findings.note(flag, switch(asked), found.map(|on| switch(on).to_owned()));
        }
    }
    if let Some(length) = planned.tx_queue_len {
        findings.note("txqlen", length.to_string(), link.map(|link| link.tx_queue_len.to_string()));
    }
    let shaped = of(link.map(|link| link.index), &seen.shaped);
    let shaped = shaped.first().map(|shaped| shaped_text(**shaped));
    match planned.shaping {
        Some(shaping) => {
            findings.note("shaping", shaped_text(shaping.shaped(link.map_or(0, |link| link.mtu))), shaped);
        }
        None => shaped.into_iter().for_each(|found| findings.add("shaping", found, State::Beside)),
    }
}

/// What stands on the interface besides. What the kernel puts there by itself is not worth a word.
fn beside(
    findings: &mut Findings,
    planned: &Interface,
    addresses: &[&ipnetwork::IpNetwork],
    routes: &[&Route],
) {
    for address in addresses.iter().filter(|found| !planned.addresses.contains(found)) {
        if !is_link_local(address.ip()) {
            findings.add("address", address.to_string(), State::Beside);
        }
    }
    for route in routes {
        let is_kernels = route.table == Some(LOCAL_TABLE)
            || is_link_local(route.dst.network())
            || route.dst.network().is_multicast();
        if !is_kernels && !planned.routes.iter().any(|planned| is_rival(planned, route)) {
            findings.add("route", route_text(route), State::Beside);
        }
    }
}

/// Those things of the link `index`.
fn of<T>(index: Option<u32>, all: &[(u32, T)]) -> Vec<&T> {
    all.iter().filter(|(of, _)| Some(*of) == index).map(|(_, thing)| thing).collect()
}

/// `planned` where it stands, or what stands in its place.
fn route_found(planned: &Route, routes: &[&Route]) -> Option<String> {
    if routes.iter().any(|found| is_same(planned, found)) {
        return Some(route_text(planned));
    }
    routes.iter().find(|found| is_rival(planned, found)).map(|found| route_text(found))
}

/// Whether `seen` is for the same packets as `planned`.
fn is_rival(planned: &Route, seen: &Route) -> bool {
    planned.dst == seen.dst && planned.table.unwrap_or(MAIN_TABLE) == seen.table.unwrap_or(MAIN_TABLE)
}

/// Whether `seen` is what came of `planned`: what the plan leaves open the kernel has filled in.
fn is_same(planned: &Route, seen: &Route) -> bool {
    let agrees = |planned: Option<u32>, seen: Option<u32>| planned.is_none() || planned == seen;
    is_rival(planned, seen)
        && planned.gateway == seen.gateway
        && agrees(planned.priority, seen.priority)
        && agrees(planned.mtu, seen.mtu)
        && agrees(planned.advmss, seen.advmss)
}

/// `RT_TABLE_MAIN` and `RT_TABLE_LOCAL`.
const MAIN_TABLE: u32 = 254;
const LOCAL_TABLE: u32 = 255;

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// As `ip route` writes it.
fn route_text(route: &Route) -> String {
    let mut text = route.dst.to_string();
    if let Some(gateway) = route.gateway {
        text.push_str(" via ");
        text.push_str(&gateway.to_string());
    }
    let table = route.table.filter(|table| *table != MAIN_TABLE);
    // The kernel says 1024 of IPv6 where nobody says anything.
    let metric = route.priority.filter(|metric| *metric != 1024 || route.dst.is_ipv4());
    for (key, value) in [("metric", metric), ("mtu", route.mtu), ("advmss", route.advmss), ("table", table)] {
        if let Some(value) = value {
            write!(text, " {key} {value}").expect("writing to a String cannot fail");
        }
    }
    text
}

fn neighbour_text(neighbour: &Neighbour) -> String {
    format!("{} at {}", neighbour.ip, neighbour.mac)
}

/// In bits, as configurations have it.
fn shaped_text(shaped: Shaped) -> String {
    let bits = u128::from(shaped.rate) * 8;
    let (number, unit) = match bits {
        _ if bits.is_multiple_of(1_000_000) => (bits / 1_000_000, "Mbit/s"),
        _ if bits.is_multiple_of(1_000) => (bits / 1_000, "kbit/s"),
        _ => (bits, "bit/s"),
    };
    format!("{number} {unit}, queue {} B", shaped.queue)
}

pub(super) const fn up(is_up: bool) -> &'static str {
    if is_up { "up" } else { "down" }
}

pub(super) const fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::differences;

    fn planned() -> Interface {
        let via = |dst: &str, gateway: &str| Route::via(dst.parse().unwrap(), gateway.parse().unwrap());
        Interface {
            addresses: vec!["10.1.0.2/24".parse().unwrap()],
            neighbours: vec![neighbour(1)],
            routes: vec![via("0.0.0.0/0", "10.1.0.1")],
            ..Interface::named("eth0")
        }
    }

    fn neighbour(mac: u64) -> Neighbour {
        Neighbour { ip: "10.1.0.1".parse().unwrap(), mac: weft_datapath::Mac::local(mac) }
    }

    fn seen() -> Observed {
        let link = Link { index: 2, name: "eth0".to_owned(), up: true, ..Link::default() };
        let planned = planned();
        let stands = Route { table: Some(MAIN_TABLE), scope: Some(0), ..planned.routes[0].clone() };
        Observed {
            links: vec![link],
            addresses: vec![(2, planned.addresses[0])],
            neighbours: vec![(2, neighbour(1))],
            routes: vec![(2, stands)],
            ..Observed::default()
        }
    }

    fn states(seen: &Observed) -> Vec<(&'static str, State)> {
        compare("pod", &planned(), seen).into_iter().map(|finding| (finding.what, finding.state)).collect()
    }

    fn lines(seen: &Observed) -> Vec<String> {
        differences(&compare("pod", &planned(), seen))
    }

    #[test]
    fn everything_planned_is_a_line() {
        let planned = ["link", "address", "neighbour", "route"].map(|what| (what, State::AsPlanned));
        assert_eq!(states(&seen()), planned);
    }

    #[test]
    fn what_stands_in_the_place_of_something_is_told() {
        let mut other = seen();
        other.neighbours = vec![(2, neighbour(2))];
        other.routes[0].1.gateway = Some("10.1.0.9".parse().unwrap());
        other.links[0].up = false;
        assert_eq!(
            lines(&other),
            [
                "pod eth0: link is down instead of up",
                &format!(
                    "pod eth0: neighbour is {} instead of {}",
                    neighbour_text(&neighbour(2)),
                    neighbour_text(&neighbour(1))
                ),
                "pod eth0: route is 0.0.0.0/0 via 10.1.0.9 instead of 0.0.0.0/0 via 10.1.0.1",
            ]
        );
    }

    #[test]
    fn what_is_on_another_link_does_not_count() {
        let mut moved = seen();
        moved.addresses[0].0 = 3;
        moved.routes[0].0 = 3;
        assert_eq!(
            lines(&moved),
            ["pod eth0: address 10.1.0.2/24 is missing", "pod eth0: route 0.0.0.0/0 via 10.1.0.1 is missing"]
        );
    }

    #[test]
    fn what_others_have_added_is_shown_but_no_difference() {
        let mut more = seen();
        more.addresses.push((2, "10.9.0.2/24".parse().unwrap()));
        more.addresses.push((2, "fe80::1/64".parse().unwrap()));
        more.routes.push((2, Route::on_link("10.9.0.0/24".parse().unwrap())));
        more.routes.push((2, Route::on_link("fe80::/64".parse().unwrap())));
        assert_eq!(states(&more)[4..], [("address", State::Beside), ("route", State::Beside)]);
        assert_eq!(lines(&more), [""; 0]);
    }

    #[test]
    fn rates_are_in_bits_as_they_were_asked_for() {
        for (rate, text) in [
            (1_250_000, "10 Mbit/s"),
            (125, "1 kbit/s"),
            (1, "8 bit/s"),
            (u64::MAX, "147573952589676412920 bit/s"),
        ] {
            assert_eq!(shaped_text(Shaped { rate, queue: 7 }), format!("{text}, queue 7 B"));
        }
    }
}
