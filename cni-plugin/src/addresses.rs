//! Where the addresses of an attachment come from, for every verb.
//!
//! | | `weft-ipam` | another IPAM plugin | behind another plugin |
//! |---|---|---|---|
//! | ADD | reserves a lease | executes its ADD | reads them in `prevResult` |
//! | CHECK | looks the lease up | reads them in `prevResult`; executes its CHECK | reads them in `prevResult` |
//! | DEL, GC | lease, else marks | `prevResult`, else marks; executes it when nothing answers to them any more | `prevResult`, else marks |
//! | STATUS | looks for a free one | executes its STATUS | – |
//!
//! The marks are those on Weft's own elements: whatever was forgotten, what stands in the kernel says whose it is.

use std::net::IpAddr;

use weft_cni_spec::{AddRequest, AddResult, CheckRequest, Conf, Dns, IpConfig, Route, Version};
use weft_datapath::Mac;
use weft_ipam::config::{Config as LeaseConfig, Mistakes};
use weft_ipam::lease::{Assigned, NetnsIdentity};
use weft_ipam::store::local::{AtWork, DEFAULT_DIR};
use weft_ipam::{Ipam, Request, Reservation};

use crate::config::{Addressing, Config, Mode, Named};
use crate::delegate::{self, Delegate, Delegated, PluginName};
use crate::detach::evict;
use crate::error::mistake;
use crate::identity::Identity;
use crate::{Error, asked};

/// Who gives a new attachment its addresses.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// Weft does.
    Leases(Ipam, &'a LeaseConfig),
    /// Another plugin does.
    Delegate(Delegate),
    /// It gets none.
    Nobody,
}

impl<'a> Source<'a> {
    /// The one that `config` names. Nothing is asked of it yet.
    pub(crate) fn open(request: &AddRequest, config: &'a Config) -> Result<Self, Error> {
        match &config.addressing {
            Addressing::Leases(leases) => Ok(Self::Leases(open(&request.conf, leases)?, leases)),
            Addressing::Delegate(name) => {
                Ok(Self::Delegate(Delegate::find(name, &request.path, &request.conf)?))
            }
            Addressing::Nobody => Ok(Self::Nobody),
            Addressing::Chained => Err(Error::Config(Mistakes(vec![mistake("ipam", "missing")]))),
        }
    }

    /// Whether it expects to find the interface.
    pub(crate) const fn is_asked_on_link(&self, mode: &Mode) -> bool {
        matches!((self, mode), (Self::Delegate(_), Mode::Bridge(_)))
    }

    /// Whoever compares leases with the kernel is to leave the attachment alone until the answer is dropped. Of what has no
    /// lease nobody knows before its ADD has ended.
    pub(crate) fn begin_work(&self, identity: &Identity) -> Option<AtWork> {
        match self {
            Self::Leases(ipam, _) => ipam.begin_work(&identity.attachment),
            Self::Delegate(_) | Self::Nobody => None,
        }
    }

    /// Takes addresses for the attachment. They are given back unless the answer is kept.
    pub(crate) fn take(
        &self,
        request: &AddRequest,
        config: &Config,
        identity: &Identity,
    ) -> Result<Taken<'_>, Error> {
        match self {
            Self::Leases(ipam, leases) => {
                let reservation = ipam.reserve(&leases.pool, wish(request, config, identity)?)?;
                Ok(Taken::leased(reservation, leases))
            }
            Self::Delegate(delegate) => Ok(Taken::delegated(delegate.add()?, request.conf.version)?),
            Self::Nobody => Ok(Taken::nothing()),
        }
    }
}

/// The addresses of a new attachment and what came with them. Dropping it gives them back.
#[derive(Debug)]
#[must_use = "dropping it gives the addresses back"]
pub(crate) struct Taken<'a> {
    pub(crate) addresses: Vec<Assigned>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Dns,
    held: Held<'a>,
}

#[derive(Debug)]
enum Held<'a> {
    Lease(Box<Reservation>),
    Delegated(Delegated<'a>),
    Nothing,
}

impl<'a> Taken<'a> {
    fn leased(reservation: Reservation, config: &LeaseConfig) -> Self {
        Self {
            addresses: reservation.lease().addresses.clone(),
            routes: config.routes.clone(),
            dns: Dns::default(),
            held: Held::Lease(Box::new(reservation)),
        }
    }

    fn delegated(delegated: Delegated<'a>, version: Version) -> Result<Self, delegate::Error> {
        check_usable(&delegated.result, version).map_err(|why| delegated.unusable(why))?;
        let AddResult { ips, routes, dns, .. } = delegated.result.clone();
        let addresses = ips.iter().map(assigned).collect();
        Ok(Self { addresses, routes, dns, held: Held::Delegated(delegated) })
    }

    fn nothing() -> Self {
        Self { addresses: Vec::new(), routes: Vec::new(), dns: Dns::default(), held: Held::Nothing }
    }

    pub(crate) fn keep(self) {
        match self.held {
            Held::Nothing => {}
            Held::Lease(reservation) => drop(reservation.keep()),
            Held::Delegated(delegated) => delegated.keep(),
        }
    }
}

/// What CHECK compares with: the addresses and routes that ADD was given.
pub(crate) fn recall(
    request: &CheckRequest,
    config: &Config,
    identity: &Identity,
) -> Result<(Vec<Assigned>, Vec<Route>), Error> {
    match &config.addressing {
        Addressing::Leases(leases) => {
            let lease = open(&request.conf, leases)?.lookup(&identity.attachment)?;
            let attachment = identity.attachment.to_string();
            let lease = lease.ok_or(Error::NoLease { attachment })?;
            Ok((lease.addresses, leases.routes.clone()))
        }
        Addressing::Nobody => Ok((Vec::new(), Vec::new())),
        Addressing::Delegate(_) | Addressing::Chained => {
            let addresses = of_interface(&request.prev_result, request.id.ifname.as_str())?;
            Ok((addresses, request.prev_result.routes.clone()))
        }
    }
}

/// The addresses that `result` lists for `ifname` in the container. Where it does not say whose an address is, there is
/// but one interface that it can mean.
///
/// # Errors
/// Where it lists interfaces, but not this one.
pub(crate) fn of_interface(result: &AddResult, ifname: &str) -> Result<Vec<Assigned>, Error> {
    let is_meant = |ip: &&IpConfig| match ip.interface.map(|index| result.interfaces.get(index)) {
        None => true,
        Some(interface) => interface.is_some_and(|i| i.name == ifname && !i.sandbox.is_empty()),
    };
    let is_listed = result.interfaces.iter().any(|i| i.name == ifname && !i.sandbox.is_empty());
    if !result.interfaces.is_empty() && !is_listed {
        let what = format!("{ifname} in the container is not among them");
        return Err(Error::Config(Mistakes(vec![mistake("prevResult.interfaces", what)])));
    }
    Ok(result.ips.iter().filter(is_meant).map(assigned).collect())
}

/// The hardware address that `result` lists for `ifname` in the container.
pub(crate) fn mac_of_interface(result: &AddResult, ifname: &str) -> Option<Mac> {
    let mut listed = result.interfaces.iter().filter(|i| i.name == ifname && !i.sandbox.is_empty());
    listed.next()?.mac.parse().ok()
}

/// Who keeps the addresses, as DEL and GC see it: whatever else is wrong with the configuration by now.
#[derive(Debug)]
pub(crate) enum Keeper {
    /// Weft does.
    Weft(Ipam),
    /// Another plugin does. The leases are those of a time when the section named Weft.
    Delegate(Ipam, PluginName),
    /// A plugin before this one, or its IPAM. That may be `weft-ipam`, and then the lease is that plugin's to end.
    Earlier,
}

impl Keeper {
    pub(crate) fn of(conf: &Conf) -> Result<Self, Error> {
        let network = conf.name.as_str();
        match Named::by(&conf.document) {
            Named::Ours => Ok(Self::Weft(Ipam::open(network, &LeaseConfig::data_dir(&conf.document)?)?)),
            // `dataDir` is the other plugin's.
            Named::Foreign(name) => Ok(Self::Delegate(Ipam::open(network, DEFAULT_DIR.as_ref())?, name)),
            Named::Nothing => Ok(Self::Earlier),
        }
    }
}

/// The addresses in the result that a runtime brings along to DEL, if it has kept it.
pub(crate) fn listed(conf: &Conf) -> Vec<IpAddr> {
    let result = conf.prev_result().ok().flatten().unwrap_or_default();
    result.ips.iter().map(|ip| ip.address.ip()).collect()
}

/// The leases, with what must go before one is reclaimed.
pub(crate) fn open(conf: &Conf, config: &LeaseConfig) -> Result<Ipam, Error> {
    Ok(Ipam::open(conf.name.as_str(), &config.data_dir)?.evicting_with(evict))
}

fn wish(request: &AddRequest, config: &Config, identity: &Identity) -> Result<Request, Error> {
    let unidentified = |source| Error::Netns { path: request.netns.clone(), source };
    Ok(Request {
        requested: config.requested.clone(),
        pod: config.pod.clone(),
        netns: Some(NetnsIdentity::of(&request.netns).map_err(unidentified)?),
        notes: asked::note(&request.conf.document, config),
        ..Request::new(identity.attachment.clone())
    })
}

const fn assigned(ip: &IpConfig) -> Assigned {
    Assigned { address: ip.address, gateway: ip.gateway }
}

/// Whether a pod can be made of `result`, and the runtime be told of it.
fn check_usable(result: &AddResult, version: Version) -> Result<(), String> {
    let of_family = |is_v4: bool| result.ips.iter().filter(move |ip| ip.address.is_ipv4() == is_v4).count();
    if result.ips.is_empty() {
        return Err("it has no address".to_owned());
    }
    if version < Version::V0_3_0 && (of_family(true) > 1 || of_family(false) > 1) {
        return Err(format!(
            "it has several addresses of a family, but results of version {version} have one"
        ));
    }
    match result.routes.iter().find(|route| of_family(route.dst.is_ipv4()) == 0) {
        Some(route) => Err(format!("it has a route to {}, but no address of that family", route.dst)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn result(document: Value) -> AddResult {
        AddResult::from_json(&document, Version::LATEST).unwrap()
    }

    fn addresses(document: Value) -> Vec<String> {
        let found = of_interface(&result(document), "eth0").unwrap();
        found.iter().map(|assigned| assigned.address.to_string()).collect()
    }

    #[test]
    fn only_the_addresses_of_the_interface_in_the_container_are_taken() {
        let interfaces = json!([
            {"name": "eth0"}, {"name": "eth0", "sandbox": "/n"}, {"name": "net1", "sandbox": "/n"}
        ]);
        let ips = json!([
            {"address": "10.0.0.1/24", "interface": 0}, {"address": "10.0.0.2/24", "interface": 1},
            {"address": "10.0.0.3/24", "interface": 2}, {"address": "10.0.0.4/24"},
            {"address": "10.0.0.5/24", "interface": 9}
        ]);
        assert_eq!(addresses(json!({"interfaces": interfaces, "ips": ips})), ["10.0.0.2/24", "10.0.0.4/24"]);
        assert_eq!(
            addresses(json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24"}})),
            ["10.0.0.2/24"],
            "results before 0.3.0 list no interfaces"
        );
    }

    #[test]
    fn a_result_that_lists_interfaces_must_list_the_one_in_question() {
        let other = result(json!({"interfaces": [{"name": "net1", "sandbox": "/n"}]}));
        let error = of_interface(&other, "eth0").unwrap_err().answer();
        assert_eq!(error.code.0, 7);
        assert!(error.msg.contains("prevResult.interfaces: eth0"), "{error}");
    }

    #[test]
    fn what_no_pod_can_be_made_of_is_refused() {
        let v4 = json!({"address": "10.0.0.2/24"});
        let two = json!({"ips": [v4, {"address": "10.0.1.2/24"}]});
        for (document, version, expected) in [
            (json!({}), Version::LATEST, Some("it has no address")),
            (two.clone(), Version::LATEST, None),
            (two, Version::V0_2_0, Some("it has several addresses of a family")),
            (
                json!({"ips": [v4], "routes": [{"dst": "::/0"}]}),
                Version::LATEST,
                Some("it has a route to ::/0"),
            ),
            (json!({"ips": [v4], "routes": [{"dst": "0.0.0.0/0"}]}), Version::LATEST, None),
        ] {
            let refusal = check_usable(&result(document.clone()), version).err();
            let agrees = match (&refusal, expected) {
                (Some(why), Some(start)) => why.starts_with(start),
                (None, None) => true,
                _ => false,
            };
            assert!(agrees, "{document}: {refusal:?}");
        }
    }
}
