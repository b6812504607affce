//! ADD behind another plugin: there is an interface with addresses, and Weft adds what its own keys ask for.

use weft_cni_spec::{AddRequest, AddResult, Dns};
use weft_datapath::Nft;

use crate::allow_list::allow;
use crate::config::Config;
use crate::identity::Identity;
use crate::plan::{Extras, Inputs, Tuned};
use crate::{Error, addresses, extras, log, ports, tuned};

/// Does what the keys ask for to `CNI_IFNAME` of `result`, and passes `result` on with nothing changed but that. Where a
/// step fails, those before it are taken back, and nothing else: the plugins before this one are told by the runtime.
pub(crate) fn attach(request: &AddRequest, result: AddResult) -> Result<AddResult, Error> {
    let config = Config::try_from(request)?;
    allow(&config.tuning.sysctls)?;
    let identity = Identity::of(request.network(), &request.id)?;
    let ifname = request.id.ifname.as_str();
    let addresses = addresses::of_interface(&result, ifname)?;
    let inputs = Inputs::new(&config, &identity, ifname, &addresses);
    let inputs = Inputs { mtu: config.mtu.unwrap_or_default(), ..inputs };
    let tuning = Tuned::of(&inputs);
    let mut wanted = without_standing(Extras::of(&inputs))?;
    let firewall = extras::open(&wanted)?;
    ports::claim(&config, firewall.as_ref(), &mut wanted)?;
    log::phase("plan");
    let applied = extras::apply(firewall.as_ref(), &identity, &wanted, None)?;
    log::phase("nft");
    tuned::apply(request, &identity, &tuning, &addresses)?;
    log::phase("pod");
    applied.keep();
    Ok(changed(result, &tuning, config.dns))
}

/// What an entry of Weft's before this one has masqueraded already is not this one's to take back.
fn without_standing(mut extras: Extras) -> Result<Extras, Error> {
    if extras.masquerade.is_empty() {
        return Ok(extras);
    }
    let nft = Nft::open()?;
    let mut missing = Vec::new();
    for element in extras.masquerade {
        if !nft.find(element.address.ip())?.is_some_and(|found| found.is_of(&element.owner)) {
            missing.push(element);
        }
    }
    extras.masquerade = missing;
    Ok(extras)
}

/// What of Weft's shows in a result: attributes of the interface, and name service where the configuration spells it out.
fn changed(mut result: AddResult, tuned: &Tuned, dns: Dns) -> AddResult {
    let is_meant = |i: &&mut weft_cni_spec::Interface| i.name == tuned.pod.name && !i.sandbox.is_empty();
    for interface in result.interfaces.iter_mut().filter(is_meant) {
        if let Some(mac) = tuned.pod.mac {
            interface.mac = mac.to_string();
        }
        interface.mtu = tuned.pod.mtu.or(interface.mtu);
    }
    if dns == Dns::default() { result } else { AddResult { dns, ..result } }
}
