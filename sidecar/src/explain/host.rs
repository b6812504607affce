//! Which virtual host a name leads to: `RouteMatcher::findVirtualHost` of Envoy's router.

use std::cmp::Reverse;

use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};

/// The virtual host for `authority`, and its domain that led to it: the one that is equal, else the longest `*.name`,
/// else the longest `name.*`, else `*`.
pub(super) fn find<'r>(routes: &'r RouteConfiguration, authority: &str) -> Option<(&'r VirtualHost, String)> {
    let authority = if routes.ignore_port_in_host_matching { without_port(authority) } else { authority };
    let all =
        routes.virtual_hosts.iter().flat_map(|host| host.domains.iter().map(move |domain| (host, domain)));
    let ranked =
        all.filter_map(|(host, domain)| Some((rank(&domain.to_ascii_lowercase(), authority)?, host, domain)));
    let best = ranked.min_by_key(|(rank, _, _)| *rank)?;
    Some((best.1, best.2.clone()))
}

/// How well a domain fits a name: the smallest fits best.
fn rank(domain: &str, authority: &str) -> Option<(u8, Reverse<usize>)> {
    let length = Reverse(domain.len());
    if domain == authority {
        return Some((0, length));
    }
    if domain == "*" {
        return Some((3, length));
    }
    // The asterisk stands for at least one character.
    if let Some(suffix) = domain.strip_prefix('*') {
        return (authority.len() > suffix.len() && authority.ends_with(suffix)).then_some((1, length));
    }
    let prefix = domain.strip_suffix('*')?;
    (authority.len() > prefix.len() && authority.starts_with(prefix)).then_some((2, length))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(domains: &[&str], authority: &str) -> Option<String> {
        let hosts = domains
            .iter()
            .map(|domain| VirtualHost { domains: vec![(*domain).to_owned()], ..VirtualHost::default() });
        let routes = RouteConfiguration { virtual_hosts: hosts.collect(), ..RouteConfiguration::default() };
        find(&routes, authority).map(|(_, domain)| domain)
    }

    #[test]
    fn the_most_exact_domain_wins() {
        let domains = ["*", "web.*", "web.shop.*", "*.shop", "*.eu.shop", "web.shop"];
        for (authority, domain) in [
            ("web.shop", "web.shop"),
            ("api.shop", "*.shop"),
            ("api.eu.shop", "*.eu.shop"),
            ("web.shop.eu", "web.shop.*"),
            ("web.x", "web.*"),
            (".shop", "*"),
        ] {
            assert_eq!(found(&domains, authority).as_deref(), Some(domain), "{authority}");
        }
        assert_eq!(found(&["web"], "web:80"), None);
    }
}
